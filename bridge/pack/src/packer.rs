//! Rows in, a block out.

use crate::block::{self, Head, ROWS_MAX, Summary, UNPACKED_BYTES_MAX, VALUES_MAX};
use crate::codec::Compressor;
use crate::coding::NUMBER_BYTES_MAX;
use crate::columns::{Rows, Writer};
use crate::error::Error;
use crate::order::Orders;
use crate::scan::{FIELDS_MAX, Kind};
use crate::shape::{Column, Header, Shape, Shapes};
use crate::stamps;
use crate::text::TextColumn;
use bytes::Bytes;

/// More than a head and a checksum take.
const AROUND_BYTES: usize = 64;

/// One record, as Kafka has it, and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a, H> {
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// [`Header`]s in their order.
    pub headers: H,
}

/// How hard blocks are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// zstd's, 1 to 22.
    pub level: i32,
}

impl Default for Options {
    /// Higher ones gain next to nothing on columns and take longer.
    fn default() -> Self {
        Self { level: 6 }
    }
}

/// Collects rows and makes a block of them. One is good for any number of blocks, and quicker
/// with each that is like the ones before; what a block looks like depends on its rows alone.
#[derive(Debug)]
pub struct Packer {
    first_offset: u64,
    last_offset: u64,
    unpacked_bytes: usize,
    values: usize,
    /// From the first.
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    /// Those of the rows of one shape.
    shape_timestamps: Vec<i64>,
    keys: TextColumn,
    /// Of every key, the shape that its last payload had.
    hints: Vec<usize>,
    payloads: Shapes,
    headers: Shapes,
    compressor: Compressor,
    writer: Writer,
    orders: Orders,
    compressed: Vec<u8>,
    stored: Vec<u8>,
}

impl Packer {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            first_offset: 0,
            last_offset: 0,
            unpacked_bytes: 0,
            values: 0,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            shape_timestamps: Vec::new(),
            keys: TextColumn::default(),
            hints: Vec::new(),
            payloads: Shapes::default(),
            headers: Shapes::default(),
            compressor: Compressor::new(options.level),
            writer: Writer::default(),
            orders: Orders::default(),
            compressed: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// Takes one row more.
    ///
    /// # Errors
    /// [`Error::Full`] when the row has no room in this block: [`finish`](Self::finish) it and push
    /// the row again. [`Error::NotAhead`] when its offset is not after the last row's, and
    /// [`Error::TooLarge`] when it has no room in any block. Nothing is taken of it then.
    pub fn push<'a, H>(&mut self, row: Row<'a, H>) -> Result<(), Error>
    where
        H: Iterator<Item = Header<'a>> + Clone,
    {
        let (headers, bytes) = row.headers.clone().fold((0, 0), |(count, bytes), header| {
            let value = header.value.map_or(0, <[u8]>::len);
            (count + 1, bytes + header.name.len() + value)
        });
        let bytes = bytes + row.key.len() + row.value.len();
        self.check(&row, headers + FIELDS_MAX, bytes)?;
        let first = if self.rows() == 0 {
            row.offset
        } else {
            self.first_offset
        };
        self.first_offset = first;
        self.last_offset = row.offset;
        self.offsets.push((row.offset - first).cast_signed());
        self.timestamps.push(row.timestamp_ms);
        let key = self.keys.push(row.key);
        let hint = self.hints.get(key).copied();
        let shape = self.payloads.push_payload(row.value, hint);
        match self.hints.get_mut(key) {
            Some(hint) => *hint = shape,
            None => self.hints.push(shape),
        }
        self.headers.push_headers(&row.headers);
        self.unpacked_bytes += bytes;
        self.values += headers + self.payloads.pieces(shape);
        Ok(())
    }

    fn check<H>(&self, row: &Row<'_, H>, values: usize, bytes: usize) -> Result<(), Error> {
        for (what, found, max) in [
            ("number of bytes of a record", bytes, UNPACKED_BYTES_MAX),
            ("number of headers of a record", values, VALUES_MAX),
        ] {
            if found > max {
                let (found, max) = (found as u64, max as u64);
                return Err(Error::TooLarge { what, found, max });
            }
        }
        if self.rows() == 0 {
            return Ok(());
        }
        if row.offset <= self.last_offset {
            let (offset, last) = (row.offset, self.last_offset);
            return Err(Error::NotAhead { offset, last });
        }
        let full = self.rows() == ROWS_MAX
            || self.unpacked_bytes + bytes > UNPACKED_BYTES_MAX
            || self.values + values > VALUES_MAX;
        if full { Err(Error::Full) } else { Ok(()) }
    }

    /// How many rows the block has so far.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of all keys, values, header names and header values so far.
    #[must_use]
    pub const fn unpacked_bytes(&self) -> usize {
        self.unpacked_bytes
    }

    /// The block of the rows so far is smaller than this. Mostly it is very much smaller: how much
    /// is only known when it is made.
    #[must_use]
    pub fn packed_bytes_max(&self) -> usize {
        let ids = |count: usize| {
            if count > 1 {
                self.rows() * NUMBER_BYTES_MAX
            } else {
                0
            }
        };
        let shapes = |shapes: &Shapes| {
            let each = shapes.used().map(|shape| {
                let columns = shape.columns.iter().map(Column::bytes_max);
                let literals = shape.kinds().len() * NUMBER_BYTES_MAX + shape.all_literals().len();
                literals + NUMBER_BYTES_MAX + columns.sum::<usize>()
            });
            each.sum::<usize>() + ids(shapes.used().len())
        };
        let own = self.keys.bytes_max() + ids(2) + ids(2);
        AROUND_BYTES + own + shapes(&self.headers) + shapes(&self.payloads)
    }

    /// Makes a block of the rows and begins a new one. `None` without rows.
    #[must_use]
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.rows() == 0 {
            return None;
        }
        self.write();
        self.stored.clear();
        let columns = &self.writer.columns;
        let compressed = self
            .compressor
            .compress(columns, &mut self.compressed, &mut self.stored);
        let column_bytes = columns.len();
        let bits = self.writer.bits.finish();
        let head = Head {
            summary: Summary {
                first_offset: self.first_offset,
                last_offset: self.last_offset,
                rows: self.offsets.len(),
                unpacked_bytes: self.unpacked_bytes,
            },
            compressed,
            column_bytes,
            stored_column_bytes: self.stored.len(),
            bit_bytes: bits.len(),
        };
        let mut block = Vec::with_capacity(AROUND_BYTES + self.stored.len() + bits.len());
        head.put(&mut block);
        block.extend_from_slice(&self.stored);
        block.extend_from_slice(bits);
        block::seal(&mut block);
        self.clear();
        Some(Bytes::from(block))
    }

    /// Both sections, in the order of `FORMAT.md`.
    fn write(&mut self) {
        let (writer, orders) = (&mut self.writer, &mut self.orders);
        writer.clear();
        orders.sort(&self.keys.ids, self.keys.count());
        let rows = Rows {
            by_key: orders.all(),
            ..Rows::UNKNOWN
        };
        writer.texts(&self.keys, Rows::UNKNOWN);
        write_shapes(writer, &self.headers, rows);
        write_shapes(writer, &self.payloads, rows);
        writer.integers(&self.offsets, rows);
        orders.split(&self.headers.ids, self.headers.used().len());
        for (shape, by_key) in self.headers.used().zip(orders.parts()) {
            let timestamps = &[];
            write_columns(writer, shape, Rows { by_key, timestamps });
        }
        match stamps::sources(&self.timestamps, &self.headers) {
            Some(sources) => {
                writer.columns.push(stamps::FROM_HEADERS);
                sources.iter().for_each(|source| writer.varint(*source));
            }
            None => {
                writer.columns.push(stamps::OWN);
                let by_key = orders.all();
                writer.integers(
                    &self.timestamps,
                    Rows {
                        by_key,
                        ..Rows::UNKNOWN
                    },
                );
            }
        }
        orders.split(&self.payloads.ids, self.payloads.used().len());
        for (shape, by_key) in self.payloads.used().zip(orders.parts()) {
            let timestamps = &mut self.shape_timestamps;
            timestamps.clear();
            timestamps.extend(shape.rows.iter().map(|row| self.timestamps[*row as usize]));
            write_columns(writer, shape, Rows { by_key, timestamps });
        }
    }

    fn clear(&mut self) {
        self.unpacked_bytes = 0;
        self.values = 0;
        self.offsets.clear();
        self.timestamps.clear();
        self.keys.clear();
        self.hints.clear();
        self.payloads.clear();
        self.headers.clear();
    }
}

fn write_shapes(writer: &mut Writer, shapes: &Shapes, rows: Rows<'_>) {
    writer.varint(shapes.used().len());
    for shape in shapes.used() {
        writer.varint(shape.kinds().len());
        writer.columns.extend(shape.kinds().map(Kind::code));
        shape
            .literals()
            .for_each(|literal| writer.varint(literal.len()));
        writer.columns.extend_from_slice(shape.all_literals());
    }
    if shapes.used().len() > 1 {
        writer.integers(&shapes.ids, rows);
    }
}

fn write_columns(writer: &mut Writer, shape: &Shape, rows: Rows<'_>) {
    for column in &shape.columns {
        match column {
            Column::Text(texts) => writer.texts(texts, rows),
            Column::Decimal { values, decimals } => writer.decimals(values, decimals, rows),
            Column::Time(values) => writer.integers(values, rows),
            Column::Absent => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack;

    fn row(offset: u64) -> Row<'static, std::iter::Empty<Header<'static>>> {
        Row {
            offset,
            timestamp_ms: 0,
            key: b"k",
            value: b"1",
            headers: std::iter::empty(),
        }
    }

    /// `skerry-offsets` says what the head says, and a consumer counts gaps by it.
    #[test]
    fn a_head_whose_first_offset_no_row_has_is_refused() {
        let mut packer = Packer::new(Options::default());
        for claimed in [7, 6] {
            packer.push(row(8)).expect("far from full");
            packer.push(row(10)).expect("far from full");
            packer.first_offset = claimed;
            packer.offsets = vec![8 - claimed.cast_signed(), 10 - claimed.cast_signed()];
            let block = packer.finish().expect("two rows");
            let refused = unpack(&block).expect_err("no row is there");
            assert!(refused.to_string().contains("offset of a row"), "{refused}");
        }
    }
}
