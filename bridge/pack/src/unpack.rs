//! A block in, rows out.

use crate::block::{self, Parts, Summary, VALUES_MAX};
use crate::codec;
use crate::coding::{BitReader, Cursor};
use crate::columns::Rows;
use crate::error::{Error, Section};
use crate::number;
use crate::order::Orders;
use crate::packer::Row;
use crate::reader::{Column, Reader, Shape, Span};
use crate::shape::Header;
use crate::stamps;

/// The rows of a block.
#[derive(Debug)]
pub struct Block {
    summary: Summary,
    /// The column section, and behind it what was put together from it.
    bytes: Vec<u8>,
    /// What is put together may not become longer.
    bytes_max: usize,
    rows: Vec<Spans>,
    headers: Vec<(Span, Option<Span>)>,
}

/// Where a row's parts are.
#[derive(Debug)]
struct Spans {
    offset: u64,
    timestamp_ms: i64,
    key: Span,
    value: Span,
    /// Where its headers begin.
    headers: usize,
}

/// Unpacks a block.
///
/// It takes no more memory than a small multiple of the limits of the crate, whatever the bytes
/// are.
///
/// # Errors
/// When these bytes are no block, one of another version, a damaged or a malformed one, or one
/// that is over a limit.
pub fn unpack(block: &[u8]) -> Result<Block, Error> {
    let Parts {
        head,
        columns,
        bits,
    } = block::open(block)?;
    let section = if head.compressed {
        codec::decompress(columns, head.column_bytes).ok_or(Error::Malformed {
            what: "compressed column section",
            section: Section::Columns,
            at: 0,
        })?
    } else {
        columns.to_vec()
    };
    let mut reader = Reader {
        columns: Cursor::new(&section, Section::Columns),
        bits: BitReader::new(bits),
    };
    let columns = Columns::read(&mut reader, &head.summary)?;
    let Reader {
        columns: rest,
        bits,
    } = reader;
    if rest.at != section.len() {
        return Err(rest.malformed("end"));
    }
    bits.end()?;
    let at = section.len();
    let mut block = Block {
        summary: head.summary,
        bytes_max: at + head.summary.unpacked_bytes,
        bytes: section,
        rows: Vec::with_capacity(head.summary.rows),
        headers: Vec::new(),
    };
    block
        .put_together(columns)
        .map_err(|what| Error::Malformed {
            what,
            section: Section::Columns,
            at,
        })?;
    Ok(block)
}

/// All that a block says, before it is put together.
struct Columns {
    keys: Column,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    headers: Shapes,
    payloads: Shapes,
}

struct Shapes {
    all: Vec<Shape>,
    /// Of every row, its shape.
    ids: Vec<i64>,
}

const TIMESTAMPS: &str = "source of timestamps";

impl Columns {
    fn read(reader: &mut Reader<'_>, summary: &Summary) -> Result<Self, Error> {
        let mut orders = Orders::default();
        let keys = reader.texts(summary.rows, Rows::UNKNOWN)?;
        let Column::Text { ids, texts } = &keys else {
            unreachable!("texts are read as texts");
        };
        orders.sort(ids, texts.len());
        let by_key = orders.all().to_vec();
        let rows = Rows {
            by_key: &by_key,
            ..Rows::UNKNOWN
        };
        let mut headers = Shapes::read(reader, summary.rows, rows)?;
        let mut payloads = Shapes::read(reader, summary.rows, rows)?;
        let values = headers.values() + payloads.values();
        if values > VALUES_MAX {
            return Err(Error::TooLarge {
                what: "number of values",
                found: values as u64,
                max: VALUES_MAX as u64,
            });
        }
        let offsets = reader.integers(summary.rows, rows)?;
        headers.read_columns(reader, &mut orders, &[])?;
        let timestamps = match reader.columns.byte(TIMESTAMPS)? {
            stamps::OWN => reader.integers(summary.rows, rows)?,
            stamps::FROM_HEADERS => headers.timestamps(reader)?,
            _ => return Err(reader.columns.malformed(TIMESTAMPS)),
        };
        payloads.read_columns(reader, &mut orders, &timestamps)?;
        Ok(Self {
            keys,
            offsets,
            timestamps,
            headers,
            payloads,
        })
    }
}

impl Shapes {
    fn read(reader: &mut Reader<'_>, rows: usize, known: Rows<'_>) -> Result<Self, Error> {
        let mut all = reader.shapes(rows)?;
        let ids = match all.len() {
            1 => vec![0; rows],
            _ => reader.integers(rows, known)?,
        };
        for id in &ids {
            let shape = usize::try_from(*id).ok().and_then(|id| all.get_mut(id));
            let shape = shape.ok_or_else(|| reader.columns.malformed("number of a shape"))?;
            shape.rows += 1;
        }
        if all.iter().any(|shape| shape.rows == 0) {
            return Err(reader.columns.malformed("shape without rows"));
        }
        Ok(Self { all, ids })
    }

    fn values(&self) -> usize {
        let each = self.all.iter().map(|shape| shape.rows * shape.kinds.len());
        each.fold(0, usize::saturating_add)
    }

    /// `timestamps` are those of all rows, if they are known.
    fn read_columns(
        &mut self,
        reader: &mut Reader<'_>,
        orders: &mut Orders,
        timestamps: &[i64],
    ) -> Result<(), Error> {
        let mut of_shapes = vec![Vec::new(); self.all.len()];
        for (id, timestamp) in self.ids.iter().zip(timestamps) {
            of_shapes[*id as usize].push(*timestamp);
        }
        orders.split(&self.ids, self.all.len());
        let known = orders.parts().zip(&of_shapes);
        for (shape, (by_key, timestamps)) in self.all.iter_mut().zip(known) {
            reader.columns_of(shape, Rows { by_key, timestamps })?;
        }
        Ok(())
    }

    /// Those that follow from these headers.
    fn timestamps(&self, reader: &mut Reader<'_>) -> Result<Vec<i64>, Error> {
        let mut sources = Vec::with_capacity(self.all.len());
        for shape in &self.all {
            let source = reader.columns.at_most(VALUES_MAX, TIMESTAMPS)?;
            let nanos = shape.columns.get(source).and_then(Column::whole_numbers);
            sources.push(
                nanos
                    .ok_or_else(|| reader.columns.malformed(TIMESTAMPS))?
                    .iter(),
            );
        }
        let each = self.ids.iter().map(|id| {
            let nanos = sources[*id as usize].next();
            stamps::of_nanos(*nanos.expect("a column has all rows of its shape"))
        });
        Ok(each.collect())
    }
}

impl Block {
    /// What the head says.
    #[must_use]
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// The rows, in the order of their offsets.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_, Headers<'_>>> {
        self.rows.iter().enumerate().map(|(number, row)| {
            let end = self.rows.get(number + 1).map(|next| next.headers);
            let end = end.unwrap_or(self.headers.len());
            Row {
                offset: row.offset,
                timestamp_ms: row.timestamp_ms,
                key: &self.bytes[row.key.range()],
                value: &self.bytes[row.value.range()],
                headers: Headers {
                    bytes: &self.bytes,
                    spans: self.headers[row.headers..end].iter(),
                },
            }
        })
    }

    fn put_together(&mut self, columns: Columns) -> Result<(), &'static str> {
        let Columns {
            keys,
            offsets,
            timestamps,
            mut headers,
            mut payloads,
        } = columns;
        let mut unpacked_bytes = 0;
        let mut next_offset = self.summary.first_offset;
        for number in 0..self.summary.rows {
            let offset = self
                .summary
                .first_offset
                .wrapping_add(offsets[number].cast_unsigned());
            let in_place = number > 0 || offset == self.summary.first_offset;
            // What is before the first has wrapped around.
            if !in_place || offset < next_offset || offset > self.summary.last_offset {
                return Err("offset of a row");
            }
            next_offset = offset.saturating_add(1);
            let first_header = self.headers.len();
            self.put_headers(&mut headers.all[headers.ids[number] as usize])?;
            let payload = &mut payloads.all[payloads.ids[number] as usize];
            let value = self.put_payload(payload)?;
            let key = keys.text(number);
            unpacked_bytes += key.bytes() + value.bytes();
            for (name, value) in &self.headers[first_header..] {
                unpacked_bytes += name.bytes() + value.map_or(0, Span::bytes);
            }
            if unpacked_bytes > self.summary.unpacked_bytes {
                return Err("number of unpacked bytes");
            }
            self.rows.push(Spans {
                offset,
                timestamp_ms: timestamps[number],
                key,
                value,
                headers: first_header,
            });
        }
        if next_offset != self.summary.last_offset.saturating_add(1) {
            return Err("last offset");
        }
        if unpacked_bytes != self.summary.unpacked_bytes {
            return Err("number of unpacked bytes");
        }
        Ok(())
    }

    fn put_headers(&mut self, shape: &mut Shape) -> Result<(), &'static str> {
        let row = shape.next;
        shape.next += 1;
        for (name, column) in shape.literals.iter().zip(&shape.columns) {
            let value = match column {
                Column::Absent => None,
                Column::List { texts, ids } => {
                    self.put_list(texts[ids[row] as usize])?;
                    continue;
                }
                Column::Text { texts, ids } => Some(texts[ids[row] as usize]),
                _ => {
                    let start = self.bytes.len();
                    self.put(column, row)?;
                    Some(Span::new(start, self.bytes.len()))
                }
            };
            self.headers.push((*name, value));
        }
        Ok(())
    }

    /// Headers that are one text.
    fn put_list(&mut self, list: Span) -> Result<(), &'static str> {
        const WHAT: &str = "list of headers";
        let start = list.range().start;
        let mut cursor = Cursor::new(&self.bytes[list.range()], Section::Columns);
        let text = |length: usize, cursor: &mut Cursor<'_>| {
            let at = start + cursor.skip(length, WHAT)?;
            Ok::<_, Error>(Span::new(at, at + length))
        };
        let header = |cursor: &mut Cursor<'_>| {
            let longest = cursor.bytes.len();
            let length = cursor.at_most(longest, WHAT)?;
            let name = text(length, cursor)?;
            let length = cursor.at_most(longest, WHAT)?.checked_sub(1);
            let value = length.map(|length| text(length, cursor)).transpose()?;
            Ok::<_, Error>((name, value))
        };
        while cursor.at < cursor.bytes.len() {
            if self.headers.len() == VALUES_MAX {
                return Err("number of headers");
            }
            self.headers.push(header(&mut cursor).map_err(|_| WHAT)?);
        }
        Ok(())
    }

    fn put_payload(&mut self, shape: &mut Shape) -> Result<Span, &'static str> {
        let row = shape.next;
        shape.next += 1;
        // A payload that is one text is there already.
        if let ([before, after], [column @ Column::Text { .. }]) =
            (&*shape.literals, &*shape.columns)
            && before.bytes() + after.bytes() == 0
        {
            return Ok(column.text(row));
        }
        let start = self.bytes.len();
        for (literal, column) in shape.literals.iter().zip(&shape.columns) {
            self.copy(literal)?;
            self.put(column, row)?;
        }
        let last = shape.literals.last().expect("one more than pieces");
        self.copy(last)?;
        Ok(Span::new(start, self.bytes.len()))
    }

    fn put(&mut self, column: &Column, row: usize) -> Result<(), &'static str> {
        match column {
            Column::Text { texts, ids } | Column::List { texts, ids } => {
                self.copy(&texts[ids[row] as usize])?;
            }
            Column::Decimal { values, decimals } => {
                let (value, decimals) = decimals.of(values[row], row);
                number::put_decimal(&mut self.bytes, value, decimals);
            }
            Column::Time { values, digits } => {
                if !number::put_time(&mut self.bytes, values[row], *digits) {
                    return Err("time");
                }
            }
            Column::Absent => {}
        }
        Ok(())
    }

    /// A few bytes may say that something long is repeated without end.
    fn copy(&mut self, span: &Span) -> Result<(), &'static str> {
        if self.bytes.len() + span.bytes() > self.bytes_max {
            return Err("number of unpacked bytes");
        }
        self.bytes.extend_from_within(span.range());
        Ok(())
    }
}

/// The headers of a row.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    spans: std::slice::Iter<'a, (Span, Option<Span>)>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let (name, value) = self.spans.next()?;
        Some(Header {
            name: &self.bytes[name.range()],
            value: value.map(|value| &self.bytes[value.range()]),
        })
    }
}
