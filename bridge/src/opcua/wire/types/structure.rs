//! A structure's bytes into its fields (Part 6, 5.2.6 to 5.2.8).
//!
//! Neither the bytes nor the definition are to be trusted: types may hold themselves, claim
//! arrays of any length, or be empty and so fit a thousand times into no byte at all.

use super::super::decode;
use super::super::vendor::{BinaryDecodable, Context, StructureType, Variant, context};
use super::Types;
use super::definition::{Field, Layout, Structure};
use crate::opcua::value::Value;
use std::io::{Cursor, Read};
use std::sync::Arc;

/// Structures within structures.
const NESTING_MAX: usize = 16;
/// Values that one structure may hold, nested ones and their fields included.
const VALUES_MAX: usize = 1_000_000;
/// … and how many it may hold for its bytes: nesting adds a few, emptiness any number.
const VALUES_PER_BYTE: usize = 8;
const VALUES_FREE: usize = 256;
const DIMENSIONS_MAX: usize = 8;
/// Set in a Variant's first byte where an array follows (Part 6, 5.2.2.16).
const ARRAY: u8 = 0x80;
const VARIANT: u8 = 24;
const OBJECT: u8 = 22;

/// Why a structure was not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    #[error("the value ends within a field, or a field holds something else")]
    Bytes,
    #[error("the value goes on behind its last field")]
    Rest,
    #[error("the type of a field is not known")]
    Field,
    #[error("structures nest deeper than {NESTING_MAX}")]
    Nesting,
    #[error("it holds more values than its bytes account for")]
    Values,
    #[error("an array's dimensions make no sense")]
    Dimensions,
    #[error("a union names a field it does not have")]
    Selector,
}

/// All of `bytes` as a value of the type, or why it is none.
pub(super) fn decode(
    types: &mut Types,
    structure: &Arc<Structure>,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, Misfit> {
    let free = bytes.len().saturating_mul(VALUES_PER_BYTE);
    let mut reader = Reader {
        types,
        bytes: Cursor::new(bytes),
        context: context(bytes.len()),
        values_left: free.saturating_add(VALUES_FREE).min(VALUES_MAX),
        nesting: depth,
    };
    let value = reader.structure(structure)?;
    match reader.left() {
        0 => Ok(value),
        _ => Err(Misfit::Rest),
    }
}

struct Reader<'a> {
    types: &'a mut Types,
    bytes: Cursor<&'a [u8]>,
    context: Context<'static>,
    values_left: usize,
    nesting: usize,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        let length = self.bytes.get_ref().len() as u64;
        usize::try_from(length.saturating_sub(self.bytes.position())).unwrap_or(usize::MAX)
    }

    fn spend(&mut self, values: usize) -> Result<(), Misfit> {
        let take = |left: usize| left.checked_sub(values).ok_or(Misfit::Values);
        self.values_left = take(self.values_left)?;
        self.types.values_left = take(self.types.values_left)?;
        Ok(())
    }

    fn structure(&mut self, structure: &Arc<Structure>) -> Result<Value, Misfit> {
        if self.nesting >= NESTING_MAX {
            return Err(Misfit::Nesting);
        }
        self.nesting += 1;
        self.spend(1)?;
        let fields = match structure.is_union() {
            true => self.chosen(structure)?,
            false => self.present(structure)?,
        };
        self.nesting -= 1;
        Ok(Value::Structure(Arc::clone(&structure.name), fields))
    }

    /// The one field that a union holds, or none.
    fn chosen(&mut self, structure: &Structure) -> Result<Vec<(Arc<str>, Value)>, Misfit> {
        let selector = self.number()?;
        if selector == 0 {
            return Ok(Vec::new());
        }
        let index = selector as usize - 1;
        let field = structure.fields.get(index).ok_or(Misfit::Selector)?;
        let value = self.field(field, structure.has_subtyped_values())?;
        Ok(vec![(Arc::clone(&field.name), value)])
    }

    /// The fields that are there, in their order.
    fn present(&mut self, structure: &Structure) -> Result<Vec<(Arc<str>, Value)>, Misfit> {
        let may_lack = structure.kind == StructureType::StructureWithOptionalFields;
        let mut mask = match may_lack {
            true => self.number()?,
            false => 0,
        };
        let mut fields = Vec::with_capacity(structure.fields.len().min(self.left() + 1));
        for field in &structure.fields {
            if may_lack && field.optional {
                let there = mask & 1 == 1;
                mask >>= 1;
                if !there {
                    continue;
                }
            }
            let value = self.field(field, structure.has_subtyped_values())?;
            fields.push((Arc::clone(&field.name), value));
        }
        Ok(fields)
    }

    fn field(&mut self, field: &Field, subtyped: bool) -> Result<Value, Misfit> {
        let how = self.types.layout(&field.data_type).ok_or(Misfit::Field)?;
        let subtyped = subtyped && field.optional;
        let (built_in, names, nested) = match how {
            Layout::Structure(_) | Layout::Object if subtyped => (None, None, None),
            Layout::BuiltIn(..) if subtyped => (Some(VARIANT), None, None),
            Layout::BuiltIn(number, names) => (Some(number), names.cloned(), None),
            Layout::Structure(structure) => (None, None, Some(Arc::clone(structure))),
            Layout::Object => (None, None, None),
        };
        let mut one = |reader: &mut Self| match (built_in, &nested) {
            (Some(VARIANT), _) => reader.built_in(VARIANT).map(Value::told),
            (Some(number), _) => reader.built_in(number),
            (None, Some(structure)) => reader.structure(structure),
            (None, None) => reader.built_in(OBJECT).map(Value::told),
        };
        let value = match field.rank {
            1 => self.array(built_in, &mut one)?,
            2.. => self.matrix(&mut one)?,
            _ => one(self)?,
        };
        let value = match value {
            // Within a structure a field's type is the type's to tell.
            Value::Typed(_, value) => *value,
            value => value,
        };
        Ok(match names {
            Some(names) => names.named(value),
            None => value,
        })
    }

    fn array(
        &mut self,
        built_in: Option<u8>,
        one: &mut impl FnMut(&mut Self) -> Result<Value, Misfit>,
    ) -> Result<Value, Misfit> {
        let start = self.bytes.position();
        let Ok(length) = usize::try_from(self.signed()?) else {
            return Ok(Value::Null);
        };
        // Even what is empty takes a byte in this reckoning, so that the length means something.
        if length > self.left() {
            return Err(Misfit::Bytes);
        }
        if length > self.values_left {
            return Err(Misfit::Values);
        }
        match built_in.filter(|number| *number != VARIANT) {
            // As in a Variant, for which the crate has the loop.
            Some(number) if length > 0 => {
                self.spend(length - 1)?;
                self.bytes.set_position(start);
                self.built_in(number | ARRAY)
            }
            _ => self.elements(length, one).map(Value::Array),
        }
    }

    fn elements(
        &mut self,
        length: usize,
        one: &mut impl FnMut(&mut Self) -> Result<Value, Misfit>,
    ) -> Result<Vec<Value>, Misfit> {
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(match one(self)? {
                Value::Typed(_, value) => *value,
                value => value,
            });
        }
        Ok(elements)
    }

    /// Its dimensions, then its elements, the last dimension running fastest.
    fn matrix(
        &mut self,
        one: &mut impl FnMut(&mut Self) -> Result<Value, Misfit>,
    ) -> Result<Value, Misfit> {
        let Ok(count) = usize::try_from(self.signed()?) else {
            return Ok(Value::Null);
        };
        if count > DIMENSIONS_MAX {
            return Err(Misfit::Dimensions);
        }
        let mut dimensions = Vec::with_capacity(count);
        for _ in 0..count {
            let length = u32::try_from(self.signed()?).map_err(|_| Misfit::Dimensions)?;
            dimensions.push(length);
        }
        let product = dimensions.iter().try_fold(1_usize, |product, length| {
            product.checked_mul(*length as usize)
        });
        let most = self.left().min(self.values_left);
        let length = product.filter(|length| *length <= most);
        let elements = self.elements(length.ok_or(Misfit::Dimensions)?, one)?;
        Ok(Value::Array(decode::folded(elements, &dimensions)))
    }

    /// A value of a built-in type, or an array of them, which is a Variant without the byte in
    /// front that says so.
    fn built_in(&mut self, kind: u8) -> Result<Value, Misfit> {
        self.spend(1)?;
        let variant = match kind {
            VARIANT => Variant::decode(&mut self.bytes, &self.context),
            kind => Variant::decode(&mut [kind].chain(&mut self.bytes), &self.context),
        };
        let variant = variant.map_err(|_| Misfit::Bytes)?;
        Ok(decode::nested(self.types, variant, self.nesting))
    }

    fn number(&mut self) -> Result<u32, Misfit> {
        u32::decode(&mut self.bytes, &self.context).map_err(|_| Misfit::Bytes)
    }

    fn signed(&mut self) -> Result<i32, Misfit> {
        i32::decode(&mut self.bytes, &self.context).map_err(|_| Misfit::Bytes)
    }
}
