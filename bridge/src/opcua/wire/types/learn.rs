//! Asking the server what its variables and types are, beside the flow of values.
//!
//! Nothing here fails anything: what a server refuses to tell stays unknown until the next
//! connection, and values keep the form that needs no knowledge.

use super::super::vendor::{
    AttributeId, Browse, BrowseDescription, BrowseDirection, BrowseNext, BrowseResultMask,
    DataTypeDefinition, DataValue, EUInformation, EnumDefinition, EnumValueType, ExtensionObject,
    LocalizedText, NodeId, Range, Read, ReadValueId, ReferenceDescription, ReferenceTypeId,
    StructureDefinition, TimestampsToReturn, Variant,
};
use super::super::{Item, REQUEST_TIMEOUT, Session, parse, request};
use super::definition::{Definition, Enumeration};
use super::{About, Layout, Types, UNIT_BYTES_MAX, Wanted};
use crate::opcua::error::{Error, status};
use futures_util::future::BoxFuture;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long values wait at the server for their types to be known: most servers need a tenth.
const HEAD_START: Duration = Duration::from_secs(5);
/// Variables or types learned at once: within the limits of small PLCs.
const AT_ONCE: usize = 100;
/// References of one node that are looked at; nodes have a handful of properties.
const REFERENCES_MAX: u32 = 100;

impl Session {
    /// Does something with what is known, and lets [`Self::learning`] see what it wants then.
    pub(in super::super) fn with_types<R>(&self, act: impl FnOnce(&mut Types) -> R) -> R {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut types);
        let wants = !types.wanted.is_empty();
        drop(types);
        if wants {
            self.wants
                .send_if_modified(|known| !std::mem::replace(known, true));
        }
        done
    }

    /// Wants to know what these are, unless it was told of variables before.
    pub(crate) fn want(&self, items: &[Item]) {
        self.with_types(|types| {
            for item in items {
                types.variable(item.handle, parse(&item.node));
            }
        });
    }

    /// Whether variables are known, or on the way to be.
    pub(crate) fn knows_variables(&self) -> bool {
        self.with_types(|types| types.knows_variables())
    }

    /// Whether nothing came that was not known.
    pub(crate) fn knows_all(&self) -> bool {
        self.with_types(|types| types.wanted.is_empty())
    }

    pub(crate) fn about(&self, handle: u32) -> Option<About> {
        self.with_types(|types| types.about(handle).cloned())
    }

    /// Learns whatever is wanted, for ever.
    pub(crate) fn learning(&self) -> BoxFuture<'_, Infallible> {
        Box::pin(async {
            let mut wants = self.wants.subscribe();
            loop {
                if wants.wait_for(|wants| *wants).await.is_err() {
                    std::future::pending::<()>().await;
                }
                let some = self.with_types(|types| types.next(AT_ONCE));
                if some.is_empty() {
                    self.wants.send_replace(false);
                } else if let Err(error) = self.learn(some).await {
                    tracing::info!(
                        server = self.address(), %error,
                        "the server does not tell all of its types and units; asking again at \
                         the next connection"
                    );
                }
            }
        })
    }

    /// Lets `learning` learn what is wanted now, or as much of it as a head start has time for:
    /// what is known before the first value comes is known for all of them.
    pub(crate) async fn learn_first(&self, learning: &mut BoxFuture<'_, Infallible>) {
        let mut wants = self.wants.subscribe();
        tokio::select! {
            never = learning => match never {},
            _ = wants.wait_for(|wants| !*wants) => {}
            () = tokio::time::sleep(HEAD_START) => {
                tracing::info!(
                    server = self.address(),
                    "the server takes its time to tell its types and units; values come meanwhile"
                );
            }
        }
    }

    async fn learn(&self, some: Vec<Wanted>) -> Result<(), Error> {
        let (mut variables, mut types, mut encodings) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in some {
            match wanted {
                Wanted::Variable(handle, node) => variables.push((handle, node)),
                Wanted::Type(id) => types.push(id),
                Wanted::Encoding(id) => encodings.push(id),
            }
        }
        if !encodings.is_empty() {
            self.learn_encodings(encodings).await?;
        }
        if !types.is_empty() {
            self.learn_types(types).await?;
        }
        if !variables.is_empty() {
            self.learn_variables(variables).await?;
        }
        self.with_types(Types::name_variables);
        Ok(())
    }

    async fn learn_variables(&self, variables: Vec<(u32, NodeId)>) -> Result<(), Error> {
        let nodes: Vec<NodeId> = variables.iter().map(|(_, node)| node.clone()).collect();
        let types = nodes
            .iter()
            .map(|node| attribute(node, AttributeId::DataType));
        let types = self.values(types.collect()).await?;
        let properties = self.properties(&nodes).await?;
        self.with_types(|types_known| {
            for (((handle, _), data_type), properties) in
                variables.iter().zip(types).zip(properties)
            {
                let data_type = match data_type.value {
                    Some(Variant::NodeId(id)) => *id,
                    _ => NodeId::null(),
                };
                types_known.learned(*handle, data_type, about(properties));
            }
        });
        Ok(())
    }

    async fn learn_types(&self, ids: Vec<NodeId>) -> Result<(), Error> {
        let attributes = ids.iter().flat_map(|id| {
            [
                attribute(id, AttributeId::BrowseName),
                attribute(id, AttributeId::IsAbstract),
                attribute(id, AttributeId::DataTypeDefinition),
            ]
        });
        let attributes = self.values(attributes.collect()).await?;
        let references = ids.iter().flat_map(|id| {
            [
                references(id, ReferenceTypeId::HasSubtype, BrowseDirection::Inverse),
                references(id, ReferenceTypeId::HasEncoding, BrowseDirection::Forward),
            ]
        });
        let references = self.references(references.collect()).await?;
        let mut nameless = Vec::new();
        for ((id, attributes), references) in ids
            .into_iter()
            .zip(attributes.chunks(3))
            .zip(references.chunks(2))
        {
            let [name, is_abstract, definition] = attributes else {
                continue;
            };
            let [supertypes, encodings] = references else {
                continue;
            };
            let supertype = supertypes.first().map(|it| it.node_id.node_id.clone());
            let binary = encodings
                .iter()
                .find(|it| it.browse_name.name.as_ref() == "Default Binary")
                .map(|it| it.node_id.node_id.clone());
            let name = match &name.value {
                Some(Variant::QualifiedName(name)) => name.name.as_ref(),
                _ => "",
            };
            let is_abstract = matches!(is_abstract.value, Some(Variant::Boolean(true)));
            match type_definition(definition) {
                Some(definition) => {
                    let stated = match &definition {
                        DataTypeDefinition::Structure(it) => Some(it.default_encoding_id.clone()),
                        DataTypeDefinition::Enum(_) => None,
                    };
                    let read = Definition::read(name, is_abstract, supertype, definition);
                    self.with_types(|types| {
                        let encodings = [binary, stated.filter(|id| !id.is_null())];
                        for encoding in encodings.into_iter().flatten() {
                            types.encoding(encoding, id.clone());
                        }
                        types.define(id, read.unwrap_or(Definition::Unknown));
                    });
                }
                None => {
                    if let Some(encoding) = binary {
                        self.with_types(|types| types.encoding(encoding, id.clone()));
                    }
                    nameless.push((id, name.to_owned(), supertype));
                }
            }
        }
        self.learn_undefined(nameless).await
    }

    /// Types without definition: enumerations by their properties, as servers had them before
    /// there were definitions; simple types by what they derive from.
    async fn learn_undefined(
        &self,
        undefined: Vec<(NodeId, String, Option<NodeId>)>,
    ) -> Result<(), Error> {
        if undefined.is_empty() {
            return Ok(());
        }
        let ids: Vec<NodeId> = undefined.iter().map(|(id, ..)| id.clone()).collect();
        let properties = self.properties(&ids).await?;
        self.with_types(|types| {
            for ((id, name, supertype), properties) in undefined.into_iter().zip(properties) {
                let names = about(properties).names;
                let definition = match (names, supertype) {
                    (Some(names), Some(supertype)) => Definition::Enumeration(names, supertype),
                    (None, Some(supertype)) if !types.is_structure(&supertype) => {
                        Definition::Derived(supertype)
                    }
                    _ => {
                        tracing::info!(
                            server = self.address(), data_type = %id, name,
                            "the server does not define this type (it may be older than OPC-UA \
                             1.04): its values are kept as bytes"
                        );
                        Definition::Unknown
                    }
                };
                types.define(id, definition);
            }
        });
        Ok(())
    }

    async fn learn_encodings(&self, ids: Vec<NodeId>) -> Result<(), Error> {
        let owners = ids
            .iter()
            .map(|id| references(id, ReferenceTypeId::HasEncoding, BrowseDirection::Inverse));
        let owners = self.references(owners.collect()).await?;
        self.with_types(|types| {
            for (id, owners) in ids.into_iter().zip(owners) {
                match owners.first() {
                    Some(owner) => {
                        let data_type = owner.node_id.node_id.clone();
                        types.encoding(id, data_type.clone());
                        types.want_type(&data_type);
                    }
                    // It is no encoding, so it may be the type itself.
                    None => {
                        types.encoding(id.clone(), id.clone());
                        types.wanted.push_back(Wanted::Type(id));
                    }
                }
            }
        });
        Ok(())
    }

    /// The properties that tell of each node, by their names.
    async fn properties(&self, nodes: &[NodeId]) -> Result<Vec<Vec<(String, Variant)>>, Error> {
        let found = nodes
            .iter()
            .map(|node| references(node, ReferenceTypeId::HasProperty, BrowseDirection::Forward));
        let found = self.references(found.collect()).await?;
        let mut named: Vec<(usize, String)> = Vec::new();
        let mut to_read = Vec::new();
        for (index, references) in found.into_iter().enumerate() {
            for reference in references {
                let name = reference.browse_name.name.as_ref();
                if PROPERTIES.contains(&name) {
                    named.push((index, name.to_owned()));
                    to_read.push(attribute(&reference.node_id.node_id, AttributeId::Value));
                }
            }
        }
        let values = self.values(to_read).await?;
        let mut properties = vec![Vec::new(); nodes.len()];
        for ((index, name), data) in named.into_iter().zip(values) {
            if let (Some(of), Some(value)) = (properties.get_mut(index), data.value) {
                of.push((name, value));
            }
        }
        Ok(properties)
    }

    /// Reads in pieces that the server takes. One that it cannot read is without value.
    async fn values(&self, to_read: Vec<ReadValueId>) -> Result<Vec<DataValue>, Error> {
        let mut values = Vec::with_capacity(to_read.len());
        let mut at_once = self.limits().await?.reads.min(AT_ONCE);
        while values.len() < to_read.len() {
            let end = to_read.len().min(values.len() + at_once);
            let some = to_read[values.len()..end].to_vec();
            let request = request!(self, Read)
                .timestamps_to_return(TimestampsToReturn::Neither)
                .nodes_to_read(some);
            match self.call("reading types and units", request).await {
                Ok(response) => {
                    values.extend(response.results.unwrap_or_default());
                    values.resize_with(end, DataValue::default);
                }
                Err(error) if at_once > 1 && too_many(&error) => at_once /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(values)
    }

    /// Browses in pieces that the server takes; the first references of each.
    async fn references(
        &self,
        to_browse: Vec<BrowseDescription>,
    ) -> Result<Vec<Vec<ReferenceDescription>>, Error> {
        let mut found = Vec::with_capacity(to_browse.len());
        let mut at_once = self.limits().await?.browses.min(AT_ONCE);
        while found.len() < to_browse.len() {
            let end = to_browse.len().min(found.len() + at_once);
            let some = to_browse[found.len()..end].to_vec();
            let request = request!(self, Browse)
                .max_references_per_node(REFERENCES_MAX)
                .nodes_to_browse(some);
            let response = match self.call("browsing types and units", request).await {
                Ok(response) => response,
                Err(error) if at_once > 1 && too_many(&error) => {
                    at_once /= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut release = request!(self, BrowseNext).release_continuation_points(true);
            let mut more = false;
            for result in response.results.unwrap_or_default() {
                if !result.continuation_point.is_null_or_empty() {
                    more = true;
                    release = release.continuation_point(result.continuation_point);
                }
                let mut references = result.references.unwrap_or_default();
                references.retain(|reference| {
                    reference.node_id.server_index == 0 && reference.node_id.namespace_uri.is_null()
                });
                references.truncate(REFERENCES_MAX as usize);
                found.push(references);
            }
            found.resize_with(end, Vec::new);
            if more {
                self.call("ending a browse", release).await?;
            }
        }
        Ok(found)
    }
}

impl Types {
    fn encoding(&mut self, encoding: NodeId, data_type: NodeId) {
        if self.encodings.len() < 2 * super::TYPES_MAX {
            self.encodings.insert(encoding, data_type);
        }
    }

    fn is_structure(&self, id: &NodeId) -> bool {
        let undefined = matches!(self.definition(id), Some(Definition::Unknown));
        undefined || matches!(self.layout(id), Some(Layout::Object | Layout::Structure(_)))
    }
}

const UNIT: &str = "EngineeringUnits";
const RANGE: &str = "EURange";
const ENUM_STRINGS: &str = "EnumStrings";
const ENUM_VALUES: &str = "EnumValues";
const TRUE_STATE: &str = "TrueState";
const FALSE_STATE: &str = "FalseState";
/// Properties that tell of a variable or of an enumeration (Part 8, 5.3; Part 3, 5.8.3).
const PROPERTIES: [&str; 6] = [
    UNIT,
    RANGE,
    ENUM_STRINGS,
    ENUM_VALUES,
    TRUE_STATE,
    FALSE_STATE,
];

fn about(properties: Vec<(String, Variant)>) -> About {
    let mut about = About::default();
    let mut states: Vec<(i64, LocalizedText)> = Vec::new();
    for (name, value) in properties {
        match (name.as_str(), value) {
            (UNIT, Variant::ExtensionObject(object)) => about.unit = unit(&object),
            (RANGE, Variant::ExtensionObject(object)) => about.range = range(&object),
            (ENUM_STRINGS, Variant::Array(array)) => {
                let texts = array.values.into_iter().map(|text| match text {
                    Variant::LocalizedText(text) => *text,
                    _ => LocalizedText::null(),
                });
                about.names = Enumeration::from_texts((0..).zip(texts)).map(Arc::new);
            }
            (ENUM_VALUES, Variant::Array(array)) => {
                let texts = array.values.into_iter().filter_map(|value| {
                    let Variant::ExtensionObject(object) = value else {
                        return None;
                    };
                    let value = object.into_inner_as::<EnumValueType>()?;
                    Some((value.value, value.display_name))
                });
                about.names = Enumeration::from_texts(texts).map(Arc::new);
            }
            (TRUE_STATE, Variant::LocalizedText(text)) => states.push((1, *text)),
            (FALSE_STATE, Variant::LocalizedText(text)) => states.push((0, *text)),
            _ => {}
        }
    }
    if !states.is_empty() {
        about.names = Enumeration::from_texts(states.into_iter()).map(Arc::new);
    }
    about
}

/// As people write it: `°C`. Its number (UNECE code) says less to most.
fn unit(object: &ExtensionObject) -> Option<bytes::Bytes> {
    let unit = object.inner_as::<EUInformation>()?;
    let text = unit.display_name.text.as_ref().trim();
    let sound = !text.is_empty() && text.len() <= UNIT_BYTES_MAX;
    sound.then(|| bytes::Bytes::copy_from_slice(text.as_bytes()))
}

fn range(object: &ExtensionObject) -> Option<(f64, f64)> {
    let range = object.inner_as::<Range>()?;
    let sound = range.low.is_finite() && range.high.is_finite();
    sound.then_some((range.low, range.high))
}

fn type_definition(data: &DataValue) -> Option<DataTypeDefinition> {
    let Some(Variant::ExtensionObject(object)) = &data.value else {
        return None;
    };
    if let Some(structure) = object.inner_as::<StructureDefinition>() {
        return Some(DataTypeDefinition::Structure(structure.clone()));
    }
    let names = object.inner_as::<EnumDefinition>()?;
    Some(DataTypeDefinition::Enum(names.clone()))
}

fn attribute(node: &NodeId, attribute: AttributeId) -> ReadValueId {
    ReadValueId {
        node_id: node.clone(),
        attribute_id: attribute as u32,
        ..ReadValueId::default()
    }
}

fn references(
    node: &NodeId,
    kind: ReferenceTypeId,
    browse_direction: BrowseDirection,
) -> BrowseDescription {
    BrowseDescription {
        node_id: node.clone(),
        browse_direction,
        reference_type_id: kind.into(),
        include_subtypes: true,
        node_class_mask: 0,
        result_mask: BrowseResultMask::All as u32,
    }
}

/// Whether the server would answer to less.
fn too_many(error: &Error) -> bool {
    matches!(
        error.status(),
        Some(
            status::BAD_TOO_MANY_OPERATIONS
                | status::BAD_ENCODING_LIMITS_EXCEEDED
                | status::BAD_REQUEST_TOO_LARGE
                | status::BAD_RESPONSE_TOO_LARGE
        )
    )
}
