//! What the server says of its types and variables: how a structure is laid out, what an
//! enumeration calls its numbers, in which unit a variable is measured.
//!
//! ```text
//!  a value ─► decode.rs ─► known here? ─► fields, names, unit
//!                              └─ no: as it came, and wanted ─► learn.rs asks the server
//! ```
//!
//! All of it is the server's word and bounded: so many types, fields and names of so many bytes,
//! whatever it answers. It is of one session, because a restarted server may number anew.

mod definition;
mod learn;
mod standard;
mod structure;
#[cfg(test)]
mod tests;

use super::vendor::{ExtensionObject, NodeId};
use super::{decode, vendor};
use crate::opcua::value::Value;
use bytes::Bytes;
use definition::{Definition, Enumeration, Layout};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Types of one server that are looked up; the largest companion specifications have some hundred.
const TYPES_MAX: usize = 1_000;
/// Fields and names of all of them.
const MEMBERS_MAX: usize = 20_000;
/// Bytes of a name; with the number of them this bounds what a server makes us keep.
const NAME_BYTES_MAX: usize = 200;
/// A unit is a few letters.
const UNIT_BYTES_MAX: usize = 64;
/// Fields of all the structures in one message: what is beyond stays bytes.
const VALUES_MAX: usize = 4_000_000;
/// Supertypes followed from a type to the built-in one it is encoded as.
const ANCESTORS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Types {
    definitions: HashMap<NodeId, Definition>,
    /// Data types by the ids of their binary encodings, which is what a value names.
    encodings: HashMap<NodeId, NodeId>,
    variables: HashMap<u32, Variable>,
    /// Whether there is anything to tell of any of them: each look-up waits for memory, which of
    /// ten thousand plain numbers is an eighth of what they cost.
    telling: bool,
    members: usize,
    /// What the present message may still be taken apart into.
    values_left: usize,
    wanted: VecDeque<Wanted>,
    /// Types and encodings that were ever wanted: each is asked for once in a session.
    asked: HashSet<NodeId>,
    /// Types whose values could not be taken apart, to say so once.
    undecodable: HashSet<NodeId>,
}

/// A variable that is subscribed to.
#[derive(Debug)]
struct Variable {
    node: NodeId,
    data_type: NodeId,
    /// None where there is nothing to tell.
    about: Option<Box<About>>,
    /// Whether it is among the wanted.
    wanted: bool,
}

/// What the server says of a variable beside its value (Part 8, 5.3).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct About {
    pub(crate) unit: Option<Bytes>,
    /// `EURange`: the low and the high end of what it reads in normal operation.
    pub(crate) range: Option<(f64, f64)>,
    names: Option<Arc<Enumeration>>,
}

impl About {
    const fn tells(&self) -> bool {
        self.unit.is_some() || self.range.is_some() || self.names.is_some()
    }
}

/// To be asked of the server.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Variable(u32, NodeId),
    Type(NodeId),
    Encoding(NodeId),
}

impl Default for Types {
    fn default() -> Self {
        Self {
            definitions: HashMap::new(),
            encodings: HashMap::new(),
            variables: HashMap::new(),
            telling: false,
            members: 0,
            values_left: VALUES_MAX,
            wanted: VecDeque::new(),
            asked: HashSet::new(),
            undecodable: HashSet::new(),
        }
    }
}

impl Types {
    /// A message, or an answer, whose values are to be decoded.
    pub(super) const fn begin(&mut self) {
        self.values_left = VALUES_MAX;
    }

    /// Wants to know what the variable is that is subscribed to under this handle.
    pub(super) fn variable(&mut self, handle: u32, node: NodeId) {
        let variable = Variable {
            node,
            data_type: NodeId::null(),
            about: None,
            wanted: false,
        };
        self.variables.insert(handle, variable);
        self.changed(handle);
    }

    pub(super) fn knows_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// The variable's unit, range or names have changed: rather none than the old ones, until
    /// they were read again.
    pub(super) fn changed(&mut self, handle: u32) {
        if let Some(variable) = self.variables.get_mut(&handle) {
            variable.about = None;
            variable.data_type = NodeId::null();
            if !std::mem::replace(&mut variable.wanted, true) {
                let node = variable.node.clone();
                self.wanted.push_back(Wanted::Variable(handle, node));
            }
        }
    }

    /// What the server said of a variable. Names that are its type's come with the type.
    fn learned(&mut self, handle: u32, data_type: NodeId, about: About) {
        self.want_type(&data_type);
        if let Some(variable) = self.variables.get_mut(&handle)
            && !variable.wanted
        {
            variable.data_type = data_type;
            self.telling |= about.tells();
            variable.about = about.tells().then(|| Box::new(about));
        }
    }

    /// Gives variables the names of their types, as far as these are known by now.
    fn name_variables(&mut self) {
        let mut variables = std::mem::take(&mut self.variables);
        for variable in variables.values_mut() {
            let named = variable.about.as_ref().is_some_and(|it| it.names.is_some());
            if !named && let Some(names) = self.names(&variable.data_type) {
                variable.about.get_or_insert_default().names = Some(names);
                self.telling = true;
            }
        }
        self.variables = variables;
    }

    /// Some of what is wanted, to be asked for at once.
    fn next(&mut self, count: usize) -> Vec<Wanted> {
        let some: Vec<Wanted> = self.wanted.drain(..count.min(self.wanted.len())).collect();
        for wanted in &some {
            if let Wanted::Variable(handle, _) = wanted
                && let Some(variable) = self.variables.get_mut(handle)
            {
                variable.wanted = false;
            }
        }
        if self.wanted.is_empty() {
            // Of ten thousand variables at the start; later there is one now and then.
            self.wanted.shrink_to_fit();
        }
        some
    }

    /// What there is to tell of a variable.
    pub(super) fn about(&self, handle: u32) -> Option<&About> {
        if !self.telling {
            return None;
        }
        self.variables.get(&handle)?.about.as_deref()
    }

    /// The value with the names that its variable's enumeration has for it.
    pub(super) fn with_names(&self, handle: u32, value: Value) -> Value {
        let names = self.about(handle).and_then(|about| about.names.as_ref());
        match names {
            Some(names) => names.named(value),
            None => value,
        }
    }

    fn want_type(&mut self, id: &NodeId) {
        let known = standard::is_built_in(id) || self.definition(id).is_some();
        if !known && self.asked.len() < TYPES_MAX && self.asked.insert(id.clone()) {
            self.wanted.push_back(Wanted::Type(id.clone()));
        }
    }

    fn want_encoding(&mut self, id: &NodeId) {
        if self.asked.len() < TYPES_MAX && self.asked.insert(id.clone()) {
            self.wanted.push_back(Wanted::Encoding(id.clone()));
        }
    }

    fn definition(&self, id: &NodeId) -> Option<&Definition> {
        self.definitions
            .get(id)
            .or_else(|| standard::definition(id))
    }

    /// Keeps a type, unless there are too many of them; wants those it is made of.
    fn define(&mut self, id: NodeId, definition: Definition) {
        self.members = self.members.saturating_add(definition.members());
        if self.definitions.len() >= TYPES_MAX || self.members > MEMBERS_MAX {
            tracing::warn!(%id, "the server defines more types than are kept; this one is not");
            self.definitions.insert(id, Definition::Unknown);
            return;
        }
        for part in definition.parts() {
            self.want_type(&part);
        }
        self.definitions.insert(id, definition);
    }

    /// How values of a type are encoded within a structure.
    fn layout(&self, id: &NodeId) -> Option<Layout<'_>> {
        let mut id = id;
        let mut names = None;
        for _ in 0..ANCESTORS_MAX {
            if let Some(layout) = standard::layout(id) {
                return Some(layout.with(names));
            }
            match self.definition(id)? {
                Definition::Structure(structure) if structure.is_abstract => {
                    return Some(Layout::Object);
                }
                Definition::Structure(structure) => return Some(Layout::Structure(structure)),
                Definition::Enumeration(enumeration, supertype) => {
                    names.get_or_insert(enumeration);
                    id = supertype;
                }
                Definition::Derived(supertype) => id = supertype,
                Definition::Unknown => return None,
            }
        }
        None
    }

    /// The names of an enumeration, as the type of a variable.
    fn names(&self, data_type: &NodeId) -> Option<Arc<Enumeration>> {
        match self.layout(data_type)? {
            Layout::BuiltIn(_, names) => names.cloned(),
            Layout::Structure(_) | Layout::Object => None,
        }
    }

    /// A structure by its fields where its type is known, and otherwise as it came: the id of
    /// its encoding and its bytes.
    pub(super) fn structure(&mut self, object: &ExtensionObject, depth: usize) -> Value {
        let Some(body) = &object.body else {
            return Value::Null;
        };
        if let Some(xml) = object.inner_as::<vendor::XmlBody>() {
            let text = String::from_utf8_lossy(xml.raw_body()).into_owned();
            let encoding = decode::node_id(xml.encoding_id());
            return as_it_came(
                encoding,
                Some(Value::typed("XmlElement", Value::Text(text))),
            );
        }
        let encoding = decode::expanded(&object.binary_type_id());
        if let Some(raw) = object.inner_as::<vendor::ByteStringBody>() {
            let id = raw.encoding_id();
            // Some servers name the type itself where its encoding is due.
            let data_type = self.encodings.get(id).unwrap_or(id).clone();
            let bytes = raw.raw_body();
            let decoded = self.fields(&data_type, bytes.as_ref(), depth);
            if decoded.is_none() && !self.encodings.contains_key(id) {
                self.want_encoding(id);
            }
            return decoded
                .unwrap_or_else(|| as_it_came(encoding, Some(Value::Text(bytes.as_base64()))));
        }
        // One of the standard's own, which the crate took apart without saying how.
        let data_type = body.data_type_id().node_id;
        let mut bytes = Vec::new();
        let context = vendor::context(usize::MAX);
        let encoded = body.encode_binary(&mut bytes, &context);
        let decoded = encoded
            .ok()
            .and_then(|()| self.fields(&data_type, &bytes, depth));
        if decoded.is_none() {
            self.want_type(&data_type);
        }
        decoded.unwrap_or_else(|| {
            let body = vendor::ByteString::from(bytes).as_base64();
            as_it_came(encoding, Some(Value::Text(body)))
        })
    }

    fn fields(&mut self, data_type: &NodeId, bytes: &[u8], depth: usize) -> Option<Value> {
        let Some(Definition::Structure(structure)) = self.definition(data_type) else {
            return None;
        };
        let structure = Arc::clone(structure);
        match structure::decode(self, &structure, bytes, depth) {
            Ok(value) => Some(value),
            Err(why) => {
                if self.undecodable.len() < TYPES_MAX && self.undecodable.insert(data_type.clone())
                {
                    tracing::warn!(
                        data_type = %data_type, name = %structure.name, %why,
                        "a value does not fit its type's definition; such values are kept as bytes"
                    );
                }
                None
            }
        }
    }
}

fn as_it_came(encoding: String, body: Option<Value>) -> Value {
    let mut fields = vec![("encoding", Value::Text(encoding))];
    fields.extend(body.map(|body| ("body", body)));
    Value::typed("ExtensionObject", Value::Object(fields))
}
