//! Looking around in a server's address space.

use super::vendor::{
    AttributeId, Browse, BrowseDescription, BrowseDirection, BrowseNext, BrowseResult,
    BrowseResultMask, NodeClass, ReferenceTypeId,
};
use super::{REQUEST_TIMEOUT, Session, Value, decode, parse, request};
use crate::opcua::error::Error;

/// References asked for at once; a server may answer with fewer and a continuation.
const REFERENCES_MAX: u32 = 1_000;

/// What stands below a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) class: Class,
    /// Describes its node (unit, range) rather than the plant.
    pub(crate) property: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Object,
    Variable,
    Other,
}

impl Session {
    /// What stands below each of `nodes`, in their order; a node that cannot be browsed has
    /// nothing below it. Stops asking for more of one node after `limit` references, so that a
    /// server with endless continuations ends somewhere.
    pub(crate) async fn children(
        &self,
        nodes: &[String],
        limit: usize,
    ) -> Result<Vec<Vec<Reference>>, Error> {
        let to_browse = nodes
            .iter()
            .map(|node| BrowseDescription {
                node_id: parse(node),
                browse_direction: BrowseDirection::Forward,
                reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
                include_subtypes: true,
                node_class_mask: NodeClass::Object as u32 | NodeClass::Variable as u32,
                result_mask: BrowseResultMask::All as u32,
            })
            .collect();
        let request = request!(self, Browse)
            .max_references_per_node(REFERENCES_MAX)
            .nodes_to_browse(to_browse);
        let response = self.call("browsing", request).await?;
        let mut all = Vec::new();
        for result in response.results.unwrap_or_default() {
            all.push(self.collect(result, limit).await?);
        }
        Ok(all)
    }

    async fn collect(
        &self,
        mut result: BrowseResult,
        limit: usize,
    ) -> Result<Vec<Reference>, Error> {
        let mut found = Vec::new();
        loop {
            found.extend(
                result
                    .references
                    .into_iter()
                    .flatten()
                    .filter_map(|reference| {
                        let elsewhere = reference.node_id.server_index != 0
                            || !reference.node_id.namespace_uri.is_null();
                        (!elsewhere).then(|| Reference {
                            node: decode::node_id(&reference.node_id.node_id),
                            property: reference.reference_type_id == ReferenceTypeId::HasProperty,
                            name: reference.browse_name.name.as_ref().to_owned(),
                            class: match reference.node_class {
                                NodeClass::Object => Class::Object,
                                NodeClass::Variable => Class::Variable,
                                _ => Class::Other,
                            },
                        })
                    }),
            );
            if result.continuation_point.is_null_or_empty() {
                return Ok(found);
            }
            let full = found.len() >= limit;
            let request = request!(self, BrowseNext)
                .release_continuation_points(full)
                .continuation_point(result.continuation_point);
            let next = self.call("browsing on", request).await?;
            match next.results.and_then(|mut results| results.pop()) {
                Some(next) if !full => result = next,
                _ => return Ok(found),
            }
        }
    }

    /// The node ids of the variables' data types, in their order.
    pub(crate) async fn data_types(&self, nodes: &[String]) -> Result<Vec<String>, Error> {
        let read = self.read_attribute(nodes, AttributeId::DataType).await?;
        Ok(self.texts(read.into_iter().map(|sample| sample.value)))
    }

    /// The browse names of nodes, in their order, without the namespace.
    pub(crate) async fn names(&self, nodes: &[String]) -> Result<Vec<String>, Error> {
        let read = self.read_attribute(nodes, AttributeId::BrowseName).await?;
        let names = self.texts(read.into_iter().map(|sample| sample.value));
        Ok(names
            .into_iter()
            .map(|name| {
                name.split_once(':')
                    .map_or(name.clone(), |(_, name)| name.to_owned())
            })
            .collect())
    }

    fn texts(&self, values: impl Iterator<Item = Value>) -> Vec<String> {
        values
            .map(|value| match value {
                Value::Typed(_, inner) => match *inner {
                    Value::Text(text) => text,
                    _ => String::new(),
                },
                _ => String::new(),
            })
            .collect()
    }
}
