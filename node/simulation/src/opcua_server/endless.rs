//! Nodes whose lists of children never end, for clients that must.

use opcua_server::address_space::DefaultTypeTree;
use opcua_server::diagnostics::NamespaceMetadata;
use opcua_server::node_manager::{
    BrowseNode, NodeManager, NodeMetadata, RequestContext, ServerContext,
};
use opcua_types::{
    LocalizedText, NodeClass, NodeId, ObjectTypeId, QualifiedName, ReferenceTypeId, StatusCode,
};
use std::future::{Future, ready};
use std::pin::Pin;

/// URI of their namespace; it is the one after the plant's.
pub const ENDLESS_NAMESPACE: &str = "urn:skerry:endless";
/// Below it, every page brings new nodes, and below each of those as many.
const NEW: &str = "new";
/// Below it, every page is empty, and says that there is another.
const EMPTY: &str = "empty";

pub(super) struct Endless {
    namespace: u16,
}

impl Endless {
    pub(super) fn new(context: ServerContext) -> Self {
        let mut types = context.type_tree.write();
        let namespace = types.namespaces_mut().add_namespace(ENDLESS_NAMESPACE);
        Self { namespace }
    }

    /// A page: as many nodes as are asked for, with numbers from `first` on, or none.
    fn page(&self, node: &mut BrowseNode) {
        let parent = node.node_id().clone();
        let first = node
            .take_continuation_point::<u32>()
            .map_or(0, |first| *first);
        let mut number = first;
        if parent != NodeId::new(self.namespace, EMPTY) {
            while node.remaining() > 0 {
                let name = number.to_string();
                let reference = NodeMetadata {
                    node_id: NodeId::new(self.namespace, format!("{parent}/{name}")).into(),
                    type_definition: ObjectTypeId::FolderType.into(),
                    browse_name: QualifiedName::new(self.namespace, name.clone()),
                    display_name: LocalizedText::from(name),
                    node_class: NodeClass::Object,
                };
                node.add_unchecked(reference.into_ref_desc(true, ReferenceTypeId::Organizes));
                number += 1;
            }
        }
        node.set_next_continuation_point(Box::new(number));
    }
}

/// What `async_trait` makes of an asynchronous function.
type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl NodeManager for Endless {
    fn owns_node(&self, id: &NodeId) -> bool {
        id.namespace == self.namespace
    }

    fn name(&self) -> &str {
        "endless"
    }

    fn namespaces_for_user(&self, _: &RequestContext) -> Vec<NamespaceMetadata> {
        vec![NamespaceMetadata {
            namespace_uri: ENDLESS_NAMESPACE.to_owned(),
            namespace_index: self.namespace,
            ..NamespaceMetadata::default()
        }]
    }

    fn init<'s, 't, 'a>(&'s self, _: &'t mut DefaultTypeTree, _: ServerContext) -> Answer<'a, ()>
    where
        's: 'a,
        't: 'a,
        Self: 'a,
    {
        Box::pin(ready(()))
    }

    fn browse<'s, 'c, 'n, 'a>(
        &'s self,
        _: &'c RequestContext,
        nodes: &'n mut [BrowseNode],
    ) -> Answer<'a, Result<(), StatusCode>>
    where
        's: 'a,
        'c: 'a,
        'n: 'a,
        Self: 'a,
    {
        for node in nodes
            .iter_mut()
            .filter(|node| self.owns_node(node.node_id()))
        {
            self.page(node);
            node.set_status(StatusCode::Good);
        }
        Box::pin(ready(Ok(())))
    }
}

/// The node ids as a configuration wants them: a list of new nodes, and one of nothing.
#[must_use]
pub fn endless_nodes() -> [String; 2] {
    [NEW, EMPTY].map(|name| format!("nsu={ENDLESS_NAMESPACE};s={name}"))
}
