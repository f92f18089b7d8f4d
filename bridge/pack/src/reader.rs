//! Columns as they are read: the other side of `columns.rs`.

use crate::block::VALUES_MAX;
use crate::coding::{BitReader, Cursor, unzigzag};
use crate::columns::{
    BY_KEY, DIFFERENCES_MASK, DIFFERENCES_MAX, DIFFERENCES_SHIFT, Rows, SINCE_TIMESTAMP, code,
    point,
};
use crate::error::Error;
use crate::number::DECIMALS_MAX;
use crate::scan::Kind;

/// A part of the column section, or of what was put together behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Both are within the limits of a block, which are far below 4 GiB.
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    pub(crate) const fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) const fn bytes(self) -> usize {
        (self.end - self.start) as usize
    }
}

pub(crate) struct Shape {
    /// One more than kinds.
    pub(crate) literals: Vec<Span>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: usize,
    /// The row that is put together next.
    pub(crate) next: usize,
}

pub(crate) enum Column {
    Text {
        texts: Vec<Span>,
        ids: Vec<i64>,
    },
    List {
        texts: Vec<Span>,
        ids: Vec<i64>,
    },
    Decimal {
        values: Vec<i64>,
        decimals: Decimals,
    },
    Time {
        values: Vec<i64>,
        digits: u8,
    },
    Absent,
}

impl Column {
    /// Of a column of texts.
    pub(crate) fn text(&self, row: usize) -> Span {
        match self {
            Self::Text { texts, ids } => texts[ids[row] as usize],
            _ => unreachable!("asked of texts only"),
        }
    }

    /// Of a column that has numbers without a point.
    pub(crate) fn whole_numbers(&self) -> Option<&[i64]> {
        match self {
            Self::Decimal {
                values,
                decimals: Decimals::Fixed(0),
            } => Some(values),
            _ => None,
        }
    }
}

/// How many digits after the point a number has.
pub(crate) enum Decimals {
    Fixed(u8),
    Trimmed { most: u8, least: u8 },
    Each(Vec<i64>),
}

impl Decimals {
    /// The number as it is written, and with how many decimals.
    pub(crate) fn of(&self, mut value: i64, row: usize) -> (i64, u8) {
        match self {
            Self::Fixed(decimals) => (value, *decimals),
            Self::Trimmed { most, least } => {
                let mut decimals = *most;
                while decimals > *least && value % 10 == 0 {
                    value /= 10;
                    decimals -= 1;
                }
                (value, decimals)
            }
            Self::Each(decimals) => (value, decimals[row] as u8),
        }
    }
}

/// Both sections of a block.
pub(crate) struct Reader<'a> {
    pub(crate) columns: Cursor<'a>,
    pub(crate) bits: BitReader<'a>,
}

impl Reader<'_> {
    /// A column of numbers.
    pub(crate) fn integers(&mut self, rows: usize, known: Rows<'_>) -> Result<Vec<i64>, Error> {
        let head = self.columns.byte("coding of a column")?;
        let differences = head >> DIFFERENCES_SHIFT & DIFFERENCES_MASK;
        let flags = BY_KEY | SINCE_TIMESTAMP;
        let all = code::MASK | DIFFERENCES_MASK << DIFFERENCES_SHIFT | flags;
        if head & !all != 0 || differences > DIFFERENCES_MAX || usize::from(differences) > rows {
            return Err(self.columns.malformed("coding of a column"));
        }
        let mut first = [0; DIFFERENCES_MAX as usize];
        for value in &mut first[..usize::from(differences)] {
            *value = unzigzag(self.columns.varint("first number of a column")?);
        }
        let mut values = Vec::with_capacity(rows);
        let coded = rows - usize::from(differences);
        // What there is nothing before is put in its place afterwards.
        values.resize(usize::from(differences), 0);
        match head & code::MASK {
            code::SAME => {
                let value = unzigzag(self.columns.varint("number that all are")?);
                values.resize(rows, value);
            }
            code::VARINT => {
                for _ in 0..coded {
                    values.push(unzigzag(self.columns.varint("number")?));
                }
            }
            code::RICE => {
                let parameter = u32::from(self.columns.byte("parameter of a column")?);
                if parameter >= u64::BITS {
                    return Err(self.columns.malformed("parameter of a column"));
                }
                for _ in 0..coded {
                    values.push(unzigzag(self.bits.rice(parameter)?));
                }
            }
            _ => return Err(self.columns.malformed("coding of a column")),
        }
        sum_up(&mut values, &first[..usize::from(differences)]);
        if head & BY_KEY != 0 {
            if known.by_key.len() != rows {
                return Err(self.columns.malformed("order of a column"));
            }
            let mut in_rows = vec![0; rows];
            for (row, value) in known.by_key.iter().zip(values) {
                in_rows[*row as usize] = value;
            }
            values = in_rows;
        }
        if head & SINCE_TIMESTAMP != 0 {
            if known.timestamps.len() != rows {
                return Err(self.columns.malformed("relation of a column to timestamps"));
            }
            for (value, timestamp) in values.iter_mut().zip(known.timestamps) {
                *value = value.wrapping_add(*timestamp);
            }
        }
        Ok(values)
    }

    pub(crate) fn texts(&mut self, rows: usize, known: Rows<'_>) -> Result<Column, Error> {
        let count = self.columns.at_most(rows, "number of texts")?;
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            lengths.push(
                self.columns
                    .at_most(self.columns.bytes.len(), "length of a text")?,
            );
        }
        let mut texts = Vec::with_capacity(count);
        for length in lengths {
            let start = self.columns.skip(length, "text")?;
            texts.push(Span::new(start, start + length));
        }
        let ids = match count {
            0 => return Err(self.columns.malformed("number of texts")),
            1 => vec![0; rows],
            _ => self.integers(rows, known)?,
        };
        let numbers = 0..count as i64;
        if !ids.iter().all(|id| numbers.contains(id)) {
            return Err(self.columns.malformed("number of a text"));
        }
        Ok(Column::Text { texts, ids })
    }

    /// The shapes of a block that has so many rows.
    pub(crate) fn shapes(&mut self, rows: usize) -> Result<Vec<Shape>, Error> {
        let count = self.columns.at_most(rows, "number of shapes")?;
        if count == 0 {
            return Err(self.columns.malformed("number of shapes"));
        }
        // Each is going to have a row at least, and no more values than a block may have.
        let mut pieces_max = VALUES_MAX;
        let mut shapes = Vec::with_capacity(count);
        for _ in 0..count {
            let shape = self.shape(pieces_max)?;
            pieces_max -= shape.kinds.len();
            shapes.push(shape);
        }
        Ok(shapes)
    }

    fn shape(&mut self, pieces_max: usize) -> Result<Shape, Error> {
        let pieces = self.columns.at_most(pieces_max, "number of pieces")?;
        let codes = self.columns.skip(pieces, "kinds of pieces")?;
        let codes = &self.columns.bytes[codes..codes + pieces];
        let kinds: Option<Vec<_>> = codes.iter().map(|code| Kind::from_code(*code)).collect();
        let kinds = kinds.ok_or_else(|| self.columns.malformed("kind of a piece"))?;
        let mut lengths = Vec::with_capacity(pieces + 1);
        for _ in 0..=pieces {
            lengths.push(
                self.columns
                    .at_most(self.columns.bytes.len(), "length of a literal")?,
            );
        }
        let mut literals = Vec::with_capacity(pieces + 1);
        for length in lengths {
            let start = self.columns.skip(length, "literal")?;
            literals.push(Span::new(start, start + length));
        }
        Ok(Shape {
            literals,
            kinds,
            columns: Vec::new(),
            rows: 0,
            next: 0,
        })
    }

    pub(crate) fn columns_of(&mut self, shape: &mut Shape, known: Rows<'_>) -> Result<(), Error> {
        shape.columns.reserve(shape.kinds.len());
        for kind in &shape.kinds {
            let column = match kind {
                Kind::Text => self.texts(shape.rows, known)?,
                Kind::List => match self.texts(shape.rows, known)? {
                    Column::Text { texts, ids } => Column::List { texts, ids },
                    other => other,
                },
                Kind::Decimal => self.decimals(shape.rows, known)?,
                Kind::Time(digits) => Column::Time {
                    values: self.integers(shape.rows, known)?,
                    digits: *digits,
                },
                Kind::Absent => Column::Absent,
            };
            shape.columns.push(column);
        }
        Ok(())
    }

    fn decimals(&mut self, rows: usize, known: Rows<'_>) -> Result<Column, Error> {
        const WHAT: &str = "decimals of a column";
        let head = self.columns.byte(WHAT)?;
        let most = head >> point::DECIMALS_SHIFT;
        let decimals = match head & point::MASK {
            _ if most > DECIMALS_MAX => return Err(self.columns.malformed(WHAT)),
            point::FIXED => Decimals::Fixed(most),
            point::TRIMMED => Decimals::Trimmed {
                most,
                least: self.columns.byte(WHAT)?,
            },
            point::EACH => {
                let each = self.integers(rows, known)?;
                let allowed = 0..=i64::from(most);
                if !each.iter().all(|decimals| allowed.contains(decimals)) {
                    return Err(self.columns.malformed(WHAT));
                }
                Decimals::Each(each)
            }
            _ => return Err(self.columns.malformed(WHAT)),
        };
        let values = self.integers(rows, known)?;
        Ok(Column::Decimal { values, decimals })
    }
}

/// Makes numbers of differences; `first` are those that there is nothing before.
fn sum_up(values: &mut [i64], first: &[i64]) {
    match *first {
        [mut value] => {
            values[0] = value;
            for number in &mut values[1..] {
                value = value.wrapping_add(*number);
                *number = value;
            }
        }
        [first, mut step] => {
            let mut value = first.wrapping_add(step);
            values[0] = first;
            values[1] = value;
            for number in &mut values[2..] {
                step = step.wrapping_add(*number);
                value = value.wrapping_add(step);
                *number = value;
            }
        }
        _ => {}
    }
}
