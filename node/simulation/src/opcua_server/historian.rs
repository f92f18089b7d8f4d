//! An OPC-UA server with history, for tests of what happens to it: counters on 127.0.0.1 whose
//! every value is kept in an [`Archive`], which outlives the server as a historian's disk does.

use super::{Access, ServerError, builder, date_time};
use async_trait::async_trait;
use opcua_server::address_space::{AddressSpace, VariableBuilder};
use opcua_server::diagnostics::NamespaceMetadata;
use opcua_server::node_manager::memory::{
    InMemoryNodeManager, InMemoryNodeManagerBuilder, InMemoryNodeManagerImpl,
};
use opcua_server::node_manager::{HistoryNode, RequestContext, ServerContext};
use opcua_server::{ContinuationPoint, ServerHandle, SubscriptionCache};
use opcua_types::{
    DataTypeId, DataValue, DateTime, HistoryData, NodeId, ObjectId, ReadRawModifiedDetails,
    StatusCode, TimestampsToReturn, VariableId, VariableTypeId, Variant,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// URI of the namespace that holds the counters.
pub const NAMESPACE: &str = "urn:skerry:historian";
/// Values of a node in one answer, at most, so that every hole takes several.
const PAGE_VALUES_MAX: usize = 7;
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What was recorded of each counter, oldest first.
#[derive(Clone, Default)]
pub struct Archive(Arc<Shelves>);

#[derive(Default)]
struct Shelves {
    series: Mutex<BTreeMap<String, Vec<(DateTime, i64)>>>,
    reads: AtomicU32,
    delay_ms: AtomicU64,
}

impl Archive {
    /// Records a value without telling anybody.
    pub fn record(&self, name: &str, count: i64, time: SystemTime) {
        let mut series = self.series();
        let values = series.entry(name.to_owned()).or_default();
        values.push((date_time(time), count));
    }

    /// Forgets everything, as a server does that keeps its history in memory.
    pub fn clear(&self) {
        self.series().clear();
    }

    /// How often it was read from.
    #[must_use]
    pub fn reads(&self) -> u32 {
        self.0.reads.load(Ordering::Relaxed)
    }

    /// Every answer takes this long.
    pub fn slow_down(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<String, Vec<(DateTime, i64)>>> {
        let series = &self.0.series;
        series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of `name` within the times, from the `skip`th on; and whether there are more.
    fn page(
        &self,
        name: &str,
        details: &ReadRawModifiedDetails,
        skip: usize,
    ) -> (Vec<DataValue>, bool) {
        let most = match details.num_values_per_node as usize {
            0 => PAGE_VALUES_MAX,
            asked => asked.min(PAGE_VALUES_MAX),
        };
        let series = self.series();
        let inside = series.get(name).into_iter().flatten();
        let inside = inside
            .filter(|(time, _)| *time >= details.start_time && *time < details.end_time)
            .skip(skip);
        let mut values: Vec<DataValue> = inside.take(most + 1).map(data_value).collect();
        let more = values.len() > most;
        values.truncate(most);
        (values, more)
    }
}

/// A running server; stops when dropped.
pub struct Historian {
    port: u16,
    namespace: u16,
    archive: Archive,
    handle: ServerHandle,
    nodes: Arc<InMemoryNodeManager<Recorder>>,
    subscriptions: Arc<SubscriptionCache>,
    task: JoinHandle<()>,
}

impl Historian {
    /// Listens on `port`, or on a free one for 0. Counters start at their last value in the
    /// archive, or at 0; the names in `recorded` have history, those in `plain` have not.
    ///
    /// # Errors
    /// When the port is taken or the server cannot be built.
    pub async fn start(
        port: u16,
        directory: &Path,
        recorded: &[&str],
        plain: &[&str],
        archive: &Archive,
    ) -> Result<Self, ServerError> {
        let listen = |source| ServerError::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let recorder = archive.clone();
        let manager = move |context: ServerContext, space: &mut AddressSpace| {
            Recorder::new(recorder, &context, space)
        };
        let (server, handle) = Access::default()
            .apply(builder(port, directory))
            .diagnostics_enabled(true)
            .with_node_manager(InMemoryNodeManagerBuilder::new(manager))
            .build()
            .map_err(ServerError::Start)?;
        let missing = || ServerError::Start("its address space is not there".to_owned());
        let nodes = handle.node_managers();
        let nodes = nodes.get_of_type::<InMemoryNodeManager<Recorder>>();
        let nodes = nodes.ok_or_else(missing)?;
        let namespace = handle.get_namespace_index(NAMESPACE).ok_or_else(missing)?;
        let subscriptions = Arc::clone(handle.subscriptions());
        {
            let mut space = nodes.address_space().write();
            for name in recorded {
                add(&mut space, namespace, name, archive, true);
            }
            for name in plain {
                add(&mut space, namespace, name, archive, false);
            }
        }
        let task = tokio::spawn(async move {
            if let Err(error) = server.run_with(listener).await {
                tracing::warn!(%error, "the historian ended");
            }
        });
        Ok(Self {
            port,
            namespace,
            archive: archive.clone(),
            handle,
            nodes,
            subscriptions,
            task,
        })
    }

    /// `opc.tcp://127.0.0.1:PORT/`
    #[must_use]
    pub fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/", self.port)
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The node id of a counter, as a configuration wants it.
    #[must_use]
    pub fn node_id(name: &str) -> String {
        format!("nsu={NAMESPACE};s={name}")
    }

    /// Subscriptions that it keeps at the moment, as it counts them itself.
    #[must_use]
    pub fn subscriptions(&self) -> u32 {
        let count =
            VariableId::Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSubscriptionCount;
        let shown = self.handle.info().diagnostics.get(count);
        match shown.and_then(|data| data.value) {
            Some(Variant::UInt32(count)) => count,
            _ => 0,
        }
    }

    /// Sets and records a counter; subscribers hear of it.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn set(&self, name: &str, count: i64, time: SystemTime) -> Result<(), ServerError> {
        self.archive.record(name, count, time);
        let id = NodeId::new(self.namespace, name);
        let data = data_value(&(date_time(time), count));
        self.nodes
            .set_value(&self.subscriptions, &id, None, data)
            .map_err(|_| ServerError::UnknownTag(name.to_owned()))
    }

    /// Tells the clients, closes their connections and the port.
    pub async fn stop(mut self) {
        self.handle.cancel();
        let ended = tokio::time::timeout(STOP_TIMEOUT, &mut self.task).await;
        if ended.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Historian {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}

fn add(space: &mut AddressSpace, namespace: u16, name: &str, archive: &Archive, recorded: bool) {
    let id = NodeId::new(namespace, name);
    let variable = VariableBuilder::new(&id, name, name)
        .data_type(DataTypeId::Int64)
        .value(0_i64)
        .organized_by(ObjectId::ObjectsFolder)
        .has_type_definition(VariableTypeId::BaseDataVariableType);
    let variable = match recorded {
        true => variable.historizing(true).history_readable(),
        false => variable,
    };
    variable.insert(space);
    let last = archive.series().get(name).and_then(|it| it.last().copied());
    if let (Some(last), Some(node)) = (last, space.find_mut(&id)) {
        let data = data_value(&last);
        let value = data.value.unwrap_or_default();
        let time = last.0;
        if let opcua_server::address_space::NodeType::Variable(variable) = node {
            let _ = variable.set_value_direct(value, StatusCode::Good, &time, &time);
        }
    }
}

fn data_value((time, count): &(DateTime, i64)) -> DataValue {
    DataValue {
        value: Some((*count).into()),
        status: Some(StatusCode::Good),
        source_timestamp: Some(*time),
        server_timestamp: Some(DateTime::now()),
        ..DataValue::default()
    }
}

/// Serves the archive.
struct Recorder {
    archive: Archive,
    namespace: NamespaceMetadata,
}

impl Recorder {
    fn new(archive: Archive, context: &ServerContext, space: &mut AddressSpace) -> Self {
        let mut types = context.type_tree.write();
        let index = types.namespaces_mut().add_namespace(NAMESPACE);
        space.add_namespace(NAMESPACE, index);
        let namespace = NamespaceMetadata {
            namespace_uri: NAMESPACE.to_owned(),
            namespace_index: index,
            ..NamespaceMetadata::default()
        };
        Self { archive, namespace }
    }
}

#[async_trait]
impl InMemoryNodeManagerImpl for Recorder {
    async fn init(&self, _space: &mut AddressSpace, _context: ServerContext) {}

    fn name(&self) -> &str {
        "historian"
    }

    fn namespaces(&self) -> Vec<NamespaceMetadata> {
        vec![self.namespace.clone()]
    }

    async fn history_read_raw_modified(
        &self,
        _context: &RequestContext,
        details: &ReadRawModifiedDetails,
        nodes: &mut [&mut &mut HistoryNode],
        _timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        let shelves = &self.archive.0;
        shelves.reads.fetch_add(1, Ordering::Relaxed);
        let delay = Duration::from_millis(shelves.delay_ms.load(Ordering::Relaxed));
        tokio::time::sleep(delay).await;
        for node in nodes {
            let point = node.continuation_point();
            let skip = point.and_then(|it| it.get::<usize>().copied());
            let skip = skip.unwrap_or_default();
            let name = node.node_id().identifier.to_string();
            let name = name.strip_prefix("s=").unwrap_or(&name);
            let (values, more) = self.archive.page(name, details, skip);
            let next = skip + values.len();
            node.set_result(HistoryData {
                data_values: Some(values),
            });
            let next = more.then(|| ContinuationPoint::new(Box::new(next)));
            node.set_next_continuation_point(next);
            node.set_status(StatusCode::Good);
        }
        Ok(())
    }
}
