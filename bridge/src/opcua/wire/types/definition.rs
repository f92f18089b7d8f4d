//! Types as the server defines them (Part 3, 8.48 to 8.52).

use super::super::vendor::{
    DataTypeDefinition, EnumDefinition, LocalizedText, NodeId, StructureDefinition, StructureType,
};
use super::NAME_BYTES_MAX;
use crate::opcua::value::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of a data type.
#[derive(Debug)]
pub(super) enum Definition {
    Structure(Arc<Structure>),
    /// With the type it derives from, which says how its numbers are encoded.
    Enumeration(Arc<Enumeration>, NodeId),
    /// A simple type, encoded as the one it derives from.
    Derived(NodeId),
    /// The server does not say what it is.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Structure {
    pub(super) name: Arc<str>,
    pub(super) kind: StructureType,
    /// Values are of a subtype, and say which.
    pub(super) is_abstract: bool,
    pub(super) fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) data_type: NodeId,
    /// -1 is a scalar, 1 an array, more a matrix (Part 3, 5.6.2).
    pub(super) rank: i32,
    /// May be absent or, where [`StructureType`] says so, of a subtype.
    pub(super) optional: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Enumeration {
    names: HashMap<i64, Arc<str>>,
    /// The names are those of bits, numbered from 0: an option set.
    bits: bool,
}

/// How a value lies in a structure's bytes.
#[derive(Debug)]
pub(super) enum Layout<'a> {
    /// As the built-in type of this number (Part 6, table 1), with names for it.
    BuiltIn(u8, Option<&'a Arc<Enumeration>>),
    Structure(&'a Arc<Structure>),
    /// As an ExtensionObject, which names its type itself.
    Object,
}

impl<'a> Layout<'a> {
    pub(super) fn with(self, names: Option<&'a Arc<Enumeration>>) -> Self {
        match self {
            Self::BuiltIn(number, _) => Self::BuiltIn(number, names),
            other => other,
        }
    }
}

impl Definition {
    /// From the DataTypeDefinition attribute. `None` where its names are not ones to keep.
    pub(super) fn read(
        name: &str,
        is_abstract: bool,
        supertype: Option<NodeId>,
        definition: DataTypeDefinition,
    ) -> Option<Self> {
        match definition {
            DataTypeDefinition::Structure(definition) => {
                let structure = Structure::read(name, is_abstract, definition)?;
                Some(Self::Structure(Arc::new(structure)))
            }
            DataTypeDefinition::Enum(definition) => {
                let supertype = supertype.unwrap_or_else(|| NodeId::new(0, ENUMERATION));
                let bits = supertype != NodeId::new(0, ENUMERATION);
                let names = Enumeration::read(definition, bits)?;
                Some(Self::Enumeration(Arc::new(names), supertype))
            }
        }
    }

    pub(super) fn members(&self) -> usize {
        match self {
            Self::Structure(structure) => structure.fields.len(),
            Self::Enumeration(enumeration, _) => enumeration.names.len(),
            Self::Derived(_) | Self::Unknown => 0,
        }
    }

    /// The types that must be known to decode this one.
    pub(super) fn parts(&self) -> Vec<NodeId> {
        match self {
            Self::Structure(structure) => {
                let fields = structure.fields.iter();
                fields.map(|field| field.data_type.clone()).collect()
            }
            Self::Enumeration(_, supertype) | Self::Derived(supertype) => vec![supertype.clone()],
            Self::Unknown => Vec::new(),
        }
    }
}

/// `Enumeration` itself (Part 5, 12.2.7); what does not derive from it but has names is an
/// option set.
pub(super) const ENUMERATION: u32 = 29;

impl Structure {
    fn read(name: &str, is_abstract: bool, definition: StructureDefinition) -> Option<Self> {
        let fields = definition.fields.unwrap_or_default();
        let fields = fields.into_iter().map(|field| {
            Some(Field {
                name: kept(field.name.as_ref())?,
                data_type: field.data_type,
                rank: field.value_rank,
                optional: field.is_optional,
            })
        });
        Some(Self {
            name: kept(name)?,
            kind: definition.structure_type,
            is_abstract,
            fields: fields.collect::<Option<_>>()?,
        })
    }

    /// One of the standard, all fields scalar and there.
    pub(super) fn of_scalars(name: &str, fields: &[(&str, u32)]) -> Self {
        let fields = fields.iter().map(|(name, data_type)| Field {
            name: (*name).into(),
            data_type: NodeId::new(0, *data_type),
            rank: -1,
            optional: false,
        });
        Self {
            name: name.into(),
            kind: StructureType::Structure,
            is_abstract: false,
            fields: fields.collect(),
        }
    }

    pub(super) const fn is_union(&self) -> bool {
        matches!(
            self.kind,
            StructureType::Union | StructureType::UnionWithSubtypedValues
        )
    }

    pub(super) const fn has_subtyped_values(&self) -> bool {
        matches!(
            self.kind,
            StructureType::StructureWithSubtypedValues | StructureType::UnionWithSubtypedValues
        )
    }
}

impl Enumeration {
    fn read(definition: EnumDefinition, bits: bool) -> Option<Self> {
        let fields = definition.fields.unwrap_or_default();
        let names = fields.into_iter().map(|field| {
            let name = match field.name.as_ref() {
                "" => kept(field.display_name.text.as_ref()),
                name => kept(name),
            };
            Some((field.value, name?))
        });
        let names = names.collect::<Option<_>>()?;
        Some(Self { names, bits })
    }

    /// One of the standard.
    pub(super) fn from_names(names: &[&str]) -> Self {
        let names = (0..)
            .zip(names)
            .map(|(value, name)| (value, (*name).into()));
        Self {
            names: names.collect(),
            bits: false,
        }
    }

    /// From `EnumStrings` or `EnumValues`, or the two states of a Boolean.
    pub(super) fn from_texts(texts: impl Iterator<Item = (i64, LocalizedText)>) -> Option<Self> {
        let names = texts.filter_map(|(value, text)| Some((value, kept(text.text.as_ref())?)));
        let names: HashMap<_, _> = names.take(super::MEMBERS_MAX).collect();
        (!names.is_empty()).then_some(Self { names, bits: false })
    }

    /// The number, or the array of them, with its names. One without a name stays alone.
    pub(super) fn named(&self, value: Value) -> Value {
        match self.name(&value) {
            Value::Null => value,
            name => Value::named(value, name),
        }
    }

    fn name(&self, value: &Value) -> Value {
        match value {
            Value::Bool(flag) => self.of(i64::from(*flag)),
            Value::Int(number) => self.of(*number),
            Value::UInt(number) if self.bits => self.set(*number),
            Value::UInt(number) => i64::try_from(*number).map_or(Value::Null, |it| self.of(it)),
            Value::Array(values) if !values.is_empty() => {
                let names: Vec<Value> = values.iter().map(|value| self.name(value)).collect();
                match names.iter().all(|name| *name == Value::Null) {
                    true => Value::Null,
                    false => Value::Array(names),
                }
            }
            _ => Value::Null,
        }
    }

    fn of(&self, number: i64) -> Value {
        let name = self.names.get(&number);
        name.map_or(Value::Null, |name| Value::Label(Arc::clone(name)))
    }

    /// The names of the bits that are set.
    fn set(&self, bits: u64) -> Value {
        let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
        let names: Vec<Value> = set.map(|bit| self.of(bit)).collect();
        Value::Array(names)
    }
}

/// A name that may become a key or a text in every value of its type.
fn kept(name: &str) -> Option<Arc<str>> {
    let sound = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    sound.then(|| name.into())
}
