//! Looking around in a server's address space.

use super::limits::Portion;
use super::vendor::{
    AttributeId, Browse, BrowseDescription, BrowseDirection, BrowseNext, BrowseResult,
    BrowseResultMask, NodeClass, ReferenceTypeId,
};
use super::{REQUEST_TIMEOUT, Session, Value, decode, miscounted, parse, request};
use crate::opcua::error::{Error, status};
use std::collections::VecDeque;

/// References asked for at once; a server may answer with fewer and a continuation.
const REFERENCES_MAX: u32 = 1_000;
/// Continuations of one node's list, and how many of them in a row may bring nothing: beyond
/// these a server is not slow but endless.
const PAGES_MAX: usize = 2_000;
const EMPTY_PAGES_MAX: usize = 20;

/// What there is to be read, called or looked into.
const CLASSES: u32 =
    NodeClass::Object as u32 | NodeClass::Variable as u32 | NodeClass::Method as u32;

/// What stands below a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) node: String,
    /// Namespace index and text of its browse name.
    pub(crate) namespace: u16,
    pub(crate) name: String,
    pub(crate) class: Class,
    /// Describes its node (unit, range) rather than the plant.
    pub(crate) property: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Object,
    Variable,
    Method,
    Other,
}

/// What stands below one node, or the server's reason not to tell.
pub(crate) type Below = Result<Children, u32>;

#[derive(Debug, Default)]
pub(crate) struct Children {
    pub(crate) references: Vec<Reference>,
    /// Whether there is more than was listened to.
    pub(crate) cut: bool,
}

impl Session {
    /// Which of `nodes` the server has; one that it does not speak of is there.
    pub(crate) async fn are_there(&self, nodes: &[String]) -> Result<Vec<bool>, Error> {
        let classes = self.read_attribute(nodes, AttributeId::NodeClass).await?;
        let unknown = [status::BAD_NODE_ID_UNKNOWN, status::BAD_NODE_ID_INVALID];
        let there = classes.into_iter().map(|it| !unknown.contains(&it.status));
        Ok(there.collect())
    }

    /// What stands below each of `nodes`, in their order. Listens to no more than `limit`
    /// references of one node, and to no list without end.
    pub(crate) async fn children(
        &self,
        nodes: &[String],
        limit: usize,
    ) -> Result<Vec<Below>, Error> {
        let mut portion = Portion::new(self.limits().await?.browses);
        let mut all = Vec::with_capacity(nodes.len());
        let mut rest = nodes;
        while !rest.is_empty() {
            let (now, later) = portion.split(rest);
            match self.browse(now).await {
                Ok(results) => {
                    all.extend(self.collect_all(now, results, limit).await?);
                    rest = later;
                }
                Err(error) if portion.halved(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn browse(&self, nodes: &[String]) -> Result<Vec<BrowseResult>, Error> {
        let to_browse = nodes
            .iter()
            .map(|node| BrowseDescription {
                node_id: parse(node),
                browse_direction: BrowseDirection::Forward,
                reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
                include_subtypes: true,
                node_class_mask: CLASSES,
                result_mask: BrowseResultMask::All as u32,
            })
            .collect();
        let request = request!(self, Browse)
            .max_references_per_node(REFERENCES_MAX)
            .nodes_to_browse(to_browse);
        let response = self.call("browsing", request).await?;
        let results = response.results.unwrap_or_default();
        match results.len() == nodes.len() {
            true => Ok(results),
            false => Err(miscounted("browsing", nodes.len(), results.len())),
        }
    }

    /// Follows the continuations of one answer. A server keeps few of them at a time: a node
    /// that came away empty-handed is browsed again, alone, once the others have been followed.
    async fn collect_all(
        &self,
        nodes: &[String],
        results: Vec<BrowseResult>,
        limit: usize,
    ) -> Result<Vec<Below>, Error> {
        let mut all: Vec<Below> = Vec::with_capacity(nodes.len());
        let mut again = VecDeque::new();
        for (index, result) in results.into_iter().enumerate() {
            let out_of_points = result.status_code.bits() == status::BAD_NO_CONTINUATION_POINTS;
            if out_of_points && nodes.len() > 1 {
                again.push_back(index);
            }
            all.push(self.collect(result, limit).await?);
        }
        while let Some(index) = again.pop_front() {
            let node = std::slice::from_ref(&nodes[index]);
            if let Some(result) = self.browse(node).await?.pop() {
                all[index] = self.collect(result, limit).await?;
            }
        }
        Ok(all)
    }

    async fn collect(&self, mut result: BrowseResult, limit: usize) -> Result<Below, Error> {
        if result.status_code.is_bad() {
            return Ok(Err(result.status_code.bits()));
        }
        let mut found = Children::default();
        let (mut pages, mut empty_pages) = (0, 0);
        loop {
            let page = result.references.unwrap_or_default();
            empty_pages = if page.is_empty() { empty_pages + 1 } else { 0 };
            pages += 1;
            found
                .references
                .extend(page.into_iter().filter_map(|reference| {
                    let elsewhere = reference.node_id.server_index != 0
                        || !reference.node_id.namespace_uri.is_null();
                    (!elsewhere).then(|| Reference {
                        node: decode::node_id(&reference.node_id.node_id),
                        property: reference.reference_type_id == ReferenceTypeId::HasProperty,
                        namespace: reference.browse_name.namespace_index,
                        name: reference.browse_name.name.as_ref().to_owned(),
                        class: match reference.node_class {
                            NodeClass::Object => Class::Object,
                            NodeClass::Variable => Class::Variable,
                            NodeClass::Method => Class::Method,
                            _ => Class::Other,
                        },
                    })
                }));
            if result.continuation_point.is_null_or_empty() {
                return Ok(Ok(found));
            }
            found.cut = found.references.len() >= limit
                || pages >= PAGES_MAX
                || empty_pages >= EMPTY_PAGES_MAX;
            let request = request!(self, BrowseNext)
                .release_continuation_points(found.cut)
                .continuation_point(result.continuation_point);
            let next = self.call("browsing on", request).await;
            if found.cut {
                // Released, or forgotten by itself: there is nothing to be had either way.
                return match next {
                    Err(error) if error.is_broken_connection() => Err(error),
                    _ => Ok(Ok(found)),
                };
            }
            match next?.results.and_then(|mut results| results.pop()) {
                Some(next) if next.status_code.is_good() => result = next,
                Some(refused) => return Ok(Err(refused.status_code.bits())),
                None => return Err(miscounted("browsing on", 1, 0)),
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
