//! The plant's OPC-UA server: variables on 127.0.0.1 whose values are set from outside.
//!
//! Without security and login, and named so in its endpoint, unless [`Access`] says otherwise. A variable `pump1/vibration` stands
//! below Objects in the folder `pump1`, with the node id `ns=…;s=pump1/vibration` in namespace
//! [`NAMESPACE`]. Clients may write to what [`OpcuaServer::add_setpoint`] adds, and call what
//! [`OpcuaServer::add_method`] adds.

mod access;
mod commands;
mod endless;
pub mod historian;
pub mod machine;

pub use access::Access;
pub use endless::{ENDLESS_NAMESPACE, endless_nodes};

use endless::Endless;
use opcua_server::address_space::{
    AddressSpace, DataTypeBuilder, Event, MethodBuilder, ObjectBuilder, ReferenceDirection,
    VariableBuilder,
};
use opcua_server::diagnostics::NamespaceMetadata;
use opcua_server::node_manager::memory::{SimpleNodeManager, simple_node_manager};
use opcua_server::{
    EventField, ReverseConnectTargetConfig, Server, ServerBuilder, ServerHandle, SubscriptionCache,
};
use opcua_types::type_loader::ByteStringBody;
use opcua_types::{
    Argument, AttributeId, ByteString, DataEncoding, DataTypeDefinition, DataTypeId, DataValue,
    DateTime, EUInformation, EnumDefinition, EnumField, ExtensionObject, LocalizedText, NodeId,
    NumericRange, ObjectId, ObjectTypeId, QualifiedName, Range, ReferenceTypeId, StatusCode,
    StructureDefinition, StructureField, StructureType, TimestampsToReturn, Variant, VariantTypeId,
};
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// URI of the namespace that holds the variables.
pub const NAMESPACE: &str = "urn:skerry:demo";
/// URI of the server itself, which must differ: its namespace is the server's own.
pub const APPLICATION: &str = "urn:skerry:demo:server";
/// Ticks of 100 ns between OPC-UA's epoch, 1601-01-01, and Unix's.
const TICKS_TO_UNIX: i64 = 116_444_736_000_000_000;
/// What the server keeps for a client that is away; the crate's default is ten values.
const QUEUE_VALUES_MAX: usize = 10_000;
const VARIABLES_MAX: usize = 20_000;
/// How long [`OpcuaServer::call`] leaves a client alone that did not answer.
const CALL_AGAIN_MS: u64 = 500;
/// How long [`OpcuaServer::stop`] waits for clients to be told before it closes on them.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A value a variable can have; its kind is fixed by the first one.
#[derive(Debug, Clone, PartialEq)]
pub enum TagValue {
    Number(f64),
    Count(i64),
    Flag(bool),
    Text(String),
    Numbers(Vec<f64>),
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the OPC-UA server cannot listen on 127.0.0.1:{port}: {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("the OPC-UA server cannot start: {0}")]
    Start(String),
    #[error("the OPC-UA server has no variable {0}")]
    UnknownTag(String),
}

/// What may be particular about a server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quirks {
    /// A request may have no more operations, and clients are told so.
    pub operations_max: Option<usize>,
    /// It has [`endless_nodes`].
    pub endless: bool,
}

/// A running server; stops when dropped.
pub struct OpcuaServer {
    port: u16,
    namespace: u16,
    handle: ServerHandle,
    nodes: Arc<SimpleNodeManager>,
    subscriptions: Arc<SubscriptionCache>,
    task: JoinHandle<()>,
}

impl OpcuaServer {
    /// Listens on `port`, or on a free one for 0, with the variables `tags`. Whatever the server
    /// writes (it wants a folder for certificates) goes below `directory`.
    ///
    /// # Errors
    /// When the port is taken or the server cannot be built.
    pub async fn start(
        port: u16,
        directory: &Path,
        tags: Vec<(String, TagValue)>,
    ) -> Result<Self, ServerError> {
        Self::start_with(port, directory, tags, &Access::default()).await
    }

    /// The same, for those whom `access` lets in.
    ///
    /// # Errors
    /// When the port is taken or the server cannot be built.
    pub async fn start_with(
        port: u16,
        directory: &Path,
        tags: Vec<(String, TagValue)>,
        access: &Access,
    ) -> Result<Self, ServerError> {
        Self::serving(port, directory, tags, access, Quirks::default()).await
    }

    /// The same, for everybody, but not as well behaved.
    ///
    /// # Errors
    /// When the port is taken or the server cannot be built.
    pub async fn start_odd(
        port: u16,
        directory: &Path,
        tags: Vec<(String, TagValue)>,
        quirks: Quirks,
    ) -> Result<Self, ServerError> {
        Self::serving(port, directory, tags, &Access::default(), quirks).await
    }

    async fn serving(
        port: u16,
        directory: &Path,
        tags: Vec<(String, TagValue)>,
        access: &Access,
        quirks: Quirks,
    ) -> Result<Self, ServerError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(|source| ServerError::Listen { port, source })?;
        let port = listener
            .local_addr()
            .map_err(|source| ServerError::Listen { port, source })?
            .port();
        let mut builder = access.apply(builder(port, directory));
        if quirks.endless {
            builder = builder.with_node_manager(Endless::new);
        }
        if let Some(most) = quirks.operations_max {
            let limits = &mut builder.limits_mut().operational;
            limits.max_nodes_per_read = most;
            limits.max_nodes_per_browse = most;
            limits.max_monitored_items_per_call = most;
        }
        let (server, handle) = builder.build().map_err(ServerError::Start)?;
        let missing = || ServerError::Start("its address space is not there".to_owned());
        let nodes = handle
            .node_managers()
            .get_of_type::<SimpleNodeManager>()
            .ok_or_else(missing)?;
        let namespace = handle.get_namespace_index(NAMESPACE).ok_or_else(missing)?;
        let subscriptions = Arc::clone(handle.subscriptions());
        {
            let mut space = nodes.address_space().write();
            let mut folders = HashSet::new();
            for (name, value) in tags {
                add(&mut space, &mut folders, namespace, &name, value);
            }
        }
        Ok(Self {
            port,
            namespace,
            handle,
            nodes,
            subscriptions,
            task: serve(server, listener),
        })
    }

    /// `opc.tcp://127.0.0.1:PORT/`
    #[must_use]
    pub fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/", self.port)
    }

    /// Has the server connect to its client at `client`, again and again (Part 6, 7.1.3).
    pub fn call(&self, client: SocketAddr) {
        let target = ReverseConnectTargetConfig {
            address: client,
            endpoint_url: self.url(),
            id: client.to_string(),
        };
        self.handle.add_reverse_connect_target(target);
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The node id of a variable, as a configuration wants it.
    #[must_use]
    pub fn node_id(name: &str) -> String {
        format!("nsu={NAMESPACE};s={name}")
    }

    /// Gives a variable a new value that arose at `source_time`; subscribers hear of it.
    ///
    /// # Errors
    /// When there is no such variable.
    pub fn set(
        &self,
        name: &str,
        value: TagValue,
        source_time: SystemTime,
    ) -> Result<(), ServerError> {
        let data = DataValue {
            value: Some(value.into()),
            status: Some(StatusCode::Good),
            source_timestamp: Some(date_time(source_time)),
            server_timestamp: Some(DateTime::now()),
            ..DataValue::default()
        };
        let id = NodeId::new(self.namespace, name);
        self.nodes
            .set_value(&self.subscriptions, &id, None, data)
            .map_err(|_| ServerError::UnknownTag(name.to_owned()))
    }

    /// Adds a variable to the running server.
    pub fn add(&self, name: &str, value: TagValue) {
        let mut space = self.nodes.address_space().write();
        add(&mut space, &mut HashSet::new(), self.namespace, name, value);
    }

    /// Adds another variable with the browse name and the place of `name`.
    pub fn add_twin(&self, name: &str, value: TagValue) {
        let mut space = self.nodes.address_space().write();
        let (parent, name) = name.rsplit_once('/').unwrap_or(("", name));
        let parent = match parent {
            "" => ObjectId::ObjectsFolder.into(),
            folder => NodeId::new(self.namespace, folder),
        };
        let id = NodeId::new(self.namespace, format!("{name} twin"));
        VariableBuilder::new(&id, name, name)
            .data_type(DataTypeId::Int64)
            .value(value)
            .organized_by(parent)
            .insert(&mut *space);
    }

    /// Has `name` stand below `folder`, too; what stands below itself makes a circle.
    pub fn link(&self, folder: &str, name: &str) {
        let mut space = self.nodes.address_space().write();
        let (above, below) = (
            NodeId::new(self.namespace, folder),
            NodeId::new(self.namespace, name),
        );
        space.insert_reference(&above, &below, ReferenceTypeId::Organizes);
    }

    /// Removes a variable from the running server, as a new program in a PLC does: subscribers
    /// are told nothing.
    pub fn remove(&self, name: &str) {
        let mut space = self.nodes.address_space().write();
        space.delete(&NodeId::new(self.namespace, name), true);
    }

    /// How well it can serve, by its own word.
    pub fn set_service_level(&self, level: u8) {
        self.handle.set_service_level(level);
    }

    /// Tells the clients, closes their connections and the port.
    pub async fn stop(mut self) {
        self.handle.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

impl Drop for OpcuaServer {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}

/// A function of its own, so that the server is compiled here and not in every crate that awaits
/// [`OpcuaServer::start`].
fn serve(server: Server, listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = server.run_with(listener).await {
            tracing::warn!(%error, "the plant's OPC-UA server ended");
        }
    })
}

pub(crate) fn builder(port: u16, directory: &Path) -> ServerBuilder {
    let namespace = NamespaceMetadata {
        namespace_uri: NAMESPACE.to_owned(),
        ..NamespaceMetadata::default()
    };
    let mut builder = ServerBuilder::new()
        .application_name("skerry demo plant")
        .application_uri(APPLICATION)
        .product_uri(APPLICATION)
        .pki_dir(directory.join("plant-pki"))
        .host("127.0.0.1")
        .port(port)
        .discovery_urls(vec!["/".to_owned()])
        .with_node_manager(simple_node_manager(namespace, "plant"));
    builder.config_mut().reverse_connect_failure_delay_ms = CALL_AGAIN_MS;
    let limits = &mut builder.limits_mut().subscriptions;
    limits.max_monitored_item_queue_size = QUEUE_VALUES_MAX;
    limits.max_monitored_items_per_sub = VARIABLES_MAX;
    builder
}

/// Adds the variable and the folders on its path.
fn add(
    space: &mut AddressSpace,
    folders: &mut HashSet<NodeId>,
    namespace: u16,
    name: &str,
    value: TagValue,
) {
    let mut parent: NodeId = ObjectId::ObjectsFolder.into();
    let mut rest = name;
    while let Some((folder, below)) = rest.split_once('/') {
        let path = &name[..name.len() - below.len() - 1];
        let id = NodeId::new(namespace, path);
        if folders.insert(id.clone()) && space.find(&id).is_none() {
            space.add_folder(&id, folder, folder, &parent);
        }
        parent = id;
        rest = below;
    }
    let data_type = match value {
        TagValue::Number(_) | TagValue::Numbers(_) => DataTypeId::Double,
        TagValue::Count(_) => DataTypeId::Int64,
        TagValue::Flag(_) => DataTypeId::Boolean,
        TagValue::Text(_) => DataTypeId::String,
    };
    // The value's rank: -1 is a scalar, 1 an array of one dimension (Part 3, 5.6.2).
    let rank = if matches!(value, TagValue::Numbers(_)) {
        1
    } else {
        -1
    };
    VariableBuilder::new(&NodeId::new(namespace, name), rest, rest)
        .data_type(data_type)
        .value_rank(rank)
        .value(value)
        .organized_by(parent)
        .insert(space);
}

impl From<TagValue> for Variant {
    fn from(value: TagValue) -> Self {
        match value {
            TagValue::Number(number) => number.into(),
            TagValue::Count(count) => count.into(),
            TagValue::Flag(flag) => flag.into(),
            TagValue::Text(text) => text.into(),
            TagValue::Numbers(numbers) => numbers.into(),
        }
    }
}

pub(crate) fn date_time(time: SystemTime) -> DateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ticks = i64::try_from(since.as_nanos() / 100).unwrap_or(i64::MAX - TICKS_TO_UNIX);
    DateTime::from(ticks + TICKS_TO_UNIX)
}
