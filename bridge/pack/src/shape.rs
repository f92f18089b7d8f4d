//! Shapes: what payloads of one kind have in common, with a column for each piece that varies.
//!
//! The headers of a record have a shape too: their names, with the values as pieces.

use crate::coding::{NUMBER_BYTES_MAX, put_varint};
use crate::scan::{self, Extent, Field, Kind};
use crate::text::{self, TextColumn};

/// A block may have this many shapes and one more for every [`ROWS_A_SHAPE`] rows. What is no
/// telemetry finds its payloads to be of one shape: a text.
const SHAPES_FREE: usize = 8;
const ROWS_A_SHAPE: usize = 4;
const SHAPES_MAX: usize = 256;
/// Shapes that are kept for later blocks, used or not.
const SHAPES_KEPT: usize = 2 * SHAPES_MAX;

#[derive(Debug)]
pub(crate) enum Column {
    Text(TextColumn),
    Decimal { values: Vec<i64>, decimals: Vec<u8> },
    Time(Vec<i64>),
    Absent,
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text | Kind::List => Self::Text(TextColumn::default()),
            Kind::Decimal => Self::Decimal {
                values: Vec::new(),
                decimals: Vec::new(),
            },
            Kind::Time(_) => Self::Time(Vec::new()),
            Kind::Absent => Self::Absent,
        }
    }

    /// More than it takes in a block.
    pub(crate) fn bytes_max(&self) -> usize {
        let numbers = |count: usize| (count + 1) * NUMBER_BYTES_MAX;
        match self {
            Self::Text(texts) => texts.bytes_max(),
            Self::Decimal { values, decimals } => {
                let differ = decimals.windows(2).any(|pair| pair[0] != pair[1]);
                numbers(values.len()) * if differ { 2 } else { 1 }
            }
            Self::Time(values) => numbers(values.len()),
            Self::Absent => 0,
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Text(texts) => texts.clear(),
            Self::Decimal { values, decimals } => {
                values.clear();
                decimals.clear();
            }
            Self::Time(values) => values.clear(),
            Self::Absent => {}
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shape {
    /// What stands before, between and after the pieces, one after the other.
    literals: Vec<u8>,
    /// Where each of them ends; one more than there are pieces.
    ends: Vec<u32>,
    pieces: Vec<(Kind, Extent)>,
    pub(crate) columns: Vec<Column>,
    /// Rows of this block that are of this shape.
    pub(crate) rows: Vec<u32>,
    /// Its number in this block, if it has rows.
    id: usize,
}

impl Shape {
    pub(crate) fn kinds(&self) -> impl ExactSizeIterator<Item = Kind> {
        self.pieces.iter().map(|(kind, _)| *kind)
    }

    pub(crate) fn literals(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|number| self.literal(number))
    }

    pub(crate) fn all_literals(&self) -> &[u8] {
        &self.literals
    }

    fn literal(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |n| self.ends[n]);
        &self.literals[start as usize..self.ends[number] as usize]
    }

    /// Whether a payload is of this shape, and its pieces if so.
    fn fits(&self, payload: &[u8], fields: &mut Vec<Field>) -> bool {
        fields.clear();
        let mut at = 0;
        for (number, like) in self.pieces.iter().enumerate() {
            let literal = self.literal(number);
            if !payload[at..].starts_with(literal) {
                return false;
            }
            match scan::again(payload, at + literal.len(), *like) {
                Some(field) => {
                    at = field.end as usize;
                    fields.push(field);
                }
                None => return false,
            }
        }
        payload[at..] == *self.literal(self.pieces.len())
    }

    fn is_of<'a>(&self, literals: &mut impl Iterator<Item = &'a [u8]>, fields: &[Field]) -> bool {
        let pieces = fields.iter().map(|field| (field.kind, field.extent));
        self.pieces.iter().copied().eq(pieces) && self.literals().eq(literals)
    }
}

/// A header as the record has it: its name, and a value or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub name: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// All shapes of a block's payloads, or of its headers.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    all: Vec<Shape>,
    /// Of `all`, side by side, to be looked through quickly.
    hashes: Vec<u32>,
    /// Those with rows in this block, in the order of their first.
    used: Vec<usize>,
    /// Of every row of the block, the number of its shape.
    pub(crate) ids: Vec<i64>,
    /// Which of `all` the row before had.
    last: usize,
    fields: Vec<Field>,
    list: Vec<u8>,
}

impl Shapes {
    /// Begins a new block. Shapes stay: the next block's rows are likely to have the same.
    pub(crate) fn clear(&mut self) {
        for index in self.used.drain(..) {
            let shape = &mut self.all[index];
            shape.rows.clear();
            shape.columns.iter_mut().for_each(Column::clear);
        }
        if self.all.len() > SHAPES_KEPT {
            self.all.clear();
            self.hashes.clear();
        }
        self.ids.clear();
    }

    pub(crate) fn used(&self) -> impl ExactSizeIterator<Item = &Shape> {
        self.used.iter().map(|index| &self.all[*index])
    }

    /// Of the payloads of a shape.
    pub(crate) fn pieces(&self, index: usize) -> usize {
        self.all[index].pieces.len()
    }

    /// Adds a payload as the next row. `hint` and the result say which shape a row has, to be
    /// tried first for a row that is likely to have the same.
    pub(crate) fn push_payload(&mut self, payload: &[u8], hint: Option<usize>) -> usize {
        let mut fields = std::mem::take(&mut self.fields);
        let hint = hint.unwrap_or(self.last);
        let mut fits = |index: usize| {
            let shape = self.all.get(index).filter(|shape| self.may_use(shape));
            shape.is_some_and(|shape| shape.fits(payload, &mut fields))
        };
        let index = if fits(hint) {
            hint
        } else if self.last != hint && fits(self.last) {
            self.last
        } else {
            fields.clear();
            scan::scan(payload, &mut fields);
            self.find(|| gaps(payload, &fields), &fields)
                .unwrap_or_else(|| {
                    fields.clear();
                    fields.push(Field::text(0, payload.len(), Extent::Rest));
                    self.always(&fields)
                })
        };
        self.add(index, &fields, |number| {
            let field = &fields[number];
            &payload[field.start as usize..field.end as usize]
        });
        self.fields = fields;
        index
    }

    /// Adds the headers of a record as the next row.
    pub(crate) fn push_headers<'a, H>(&mut self, headers: &H)
    where
        H: Iterator<Item = Header<'a>> + Clone,
    {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        fields.extend(headers.clone().map(|header| match header.value {
            Some(value) => scan::whole(value),
            None => Field::of(Kind::Absent),
        }));
        let names = || headers.clone().map(|header| header.name).chain([&[][..]]);
        let again = self.all.get(self.last).filter(|shape| self.may_use(shape));
        let index = match again.filter(|shape| shape.is_of(&mut names(), &fields)) {
            Some(_) => Some(self.last),
            None => self.find(names, &fields),
        };
        match index {
            Some(index) => {
                let mut values = headers.clone().map(|header| header.value);
                self.add(index, &fields, |_| {
                    values.next().flatten().unwrap_or_default()
                });
            }
            None => {
                let mut list = std::mem::take(&mut self.list);
                put_list(&mut list, headers.clone());
                fields.clear();
                fields.push(Field::of(Kind::List));
                let index = self.always(&fields);
                self.add(index, &fields, |_| &list);
                self.list = list;
            }
        }
        self.fields = fields;
    }

    /// The shape that has these literals and pieces, unless the block has too many shapes.
    fn find<'a, L>(&mut self, literals: impl Fn() -> L, fields: &[Field]) -> Option<usize>
    where
        L: Iterator<Item = &'a [u8]>,
    {
        let hash = hash(literals(), fields);
        let alike = self
            .hashes
            .iter()
            .zip(&self.all)
            .position(|(other, shape)| *other == hash && shape.is_of(&mut literals(), fields));
        match alike {
            Some(index) => self.may_use(&self.all[index]).then_some(index),
            None => self
                .may_have_more()
                .then(|| self.make(literals(), fields, hash)),
        }
    }

    /// The shape that is one piece and no more, which may always be.
    fn always(&mut self, fields: &[Field]) -> usize {
        let literals = || [&[][..]; 2].into_iter();
        let hash = hash(literals(), fields);
        let same = |shape: &Shape| shape.is_of(&mut literals(), fields);
        let found = self.all.iter().position(same);
        found.unwrap_or_else(|| self.make(literals(), fields, hash))
    }

    fn make<'a>(
        &mut self,
        literals: impl Iterator<Item = &'a [u8]>,
        fields: &[Field],
        hash: u32,
    ) -> usize {
        let mut shape = Shape {
            literals: Vec::new(),
            ends: Vec::with_capacity(fields.len() + 1),
            pieces: fields.iter().map(|f| (f.kind, f.extent)).collect(),
            columns: fields.iter().map(|f| Column::new(f.kind)).collect(),
            rows: Vec::new(),
            id: 0,
        };
        for literal in literals {
            shape.literals.extend_from_slice(literal);
            shape.ends.push(shape.literals.len() as u32);
        }
        self.all.push(shape);
        self.hashes.push(hash);
        self.all.len() - 1
    }

    /// Whether a shape may get a row.
    fn may_use(&self, shape: &Shape) -> bool {
        !shape.rows.is_empty() || self.may_have_more()
    }

    fn may_have_more(&self) -> bool {
        let most = SHAPES_FREE + self.ids.len() / ROWS_A_SHAPE;
        // One is left for the shape that may always be.
        self.used.len() < most.min(SHAPES_MAX - 1)
    }

    /// `text` is asked for each piece in turn.
    fn add<'a>(&mut self, index: usize, fields: &[Field], mut text: impl FnMut(usize) -> &'a [u8]) {
        let shape = &mut self.all[index];
        if shape.rows.is_empty() {
            shape.id = self.used.len();
            self.used.push(index);
        }
        shape.rows.push(self.ids.len() as u32);
        self.ids.push(shape.id as i64);
        self.last = index;
        for (number, (column, field)) in shape.columns.iter_mut().zip(fields).enumerate() {
            let text = text(number);
            match column {
                Column::Text(texts) => {
                    texts.push(text);
                }
                Column::Decimal { values, decimals } => {
                    values.push(field.value);
                    decimals.push(field.decimals);
                }
                Column::Time(values) => values.push(field.value),
                Column::Absent => {}
            }
        }
    }
}

/// What stands before, between and after the pieces.
fn gaps<'a>(payload: &'a [u8], fields: &[Field]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(fields.iter().map(|f| f.end as usize));
    let ends = fields.iter().map(|f| f.start as usize);
    let ends = ends.chain(std::iter::once(payload.len()));
    starts.zip(ends).map(|(start, end)| &payload[start..end])
}

fn hash<'a>(literals: impl Iterator<Item = &'a [u8]>, fields: &[Field]) -> u32 {
    let kinds = fields.iter().fold(fields.len() as u32, |state, field| {
        state.wrapping_mul(31) ^ u32::from(field.kind.code())
    });
    literals.fold(kinds, |state, literal| {
        state.rotate_left(5).wrapping_mul(0x9E37_79B1) ^ text::hash(literal)
    })
}

/// Headers in one text: the length of each name and the name, then 0 where there is no value,
/// else its length plus one, and the value.
fn put_list<'a>(out: &mut Vec<u8>, headers: impl Iterator<Item = Header<'a>>) {
    out.clear();
    for header in headers {
        put_varint(out, header.name.len() as u64);
        out.extend_from_slice(header.name);
        match header.value {
            Some(value) => {
                put_varint(out, value.len() as u64 + 1);
                out.extend_from_slice(value);
            }
            None => out.push(0),
        }
    }
}
