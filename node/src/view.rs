//! What the node knows of itself, gathered from its parts each time somebody asks.

use crate::model::Runner;
use crate::observer::Observer;
use crate::opcua::Clients;
use crate::supervise::{Part, Progress};
use serde_json::{Value, json};
use skerry_bridge::uplink;
use skerry_store::{Log, Recovery, Storage, StreamName};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The running node, as `/status`, `/metrics` and the health checks see it.
pub struct View {
    pub node_name: String,
    pub started: Instant,
    pub log: Log,
    pub recovery: Recovery,
    pub mqtt: Option<Arc<skerry_broker::Status>>,
    pub opcua: Clients,
    pub models: Runner,
    pub uplink: Option<(Arc<uplink::Status>, Arc<Observer>)>,
    /// The link classes of the uplink, for whoever chooses among them.
    pub links: Option<Arc<uplink::gate::Links>>,
    /// Held while the log is read for damage: once at a time is enough for any disk.
    pub scrubbing: tokio::sync::Mutex<()>,
    parts: Mutex<Vec<Arc<Part>>>,
    progress: Mutex<Progress>,
    serving: AtomicBool,
}

impl View {
    pub fn new(
        node_name: String,
        log: Log,
        recovery: Recovery,
        mqtt: Option<Arc<skerry_broker::Status>>,
        opcua: Clients,
        models: Runner,
        uplink: Option<(Arc<uplink::Status>, Arc<uplink::gate::Links>)>,
    ) -> Self {
        let now = Instant::now();
        let (uplink, links) = uplink.unzip();
        let uplink = uplink.map(|status| {
            let observer = Observer::new(log.clone(), Arc::clone(&status));
            (status, Arc::new(observer))
        });
        Self {
            node_name,
            started: now,
            log,
            recovery,
            mqtt,
            opcua,
            models,
            uplink,
            links,
            scrubbing: tokio::sync::Mutex::default(),
            parts: Mutex::default(),
            progress: Mutex::new(Progress::new(now)),
            serving: AtomicBool::new(false),
        }
    }

    pub fn watch(&self, part: Arc<Part>) {
        lock(&self.parts).push(part);
    }

    /// Devices can connect from now on, or no longer.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// Whether delivery of `stream` waits for an operator.
    pub fn is_held(&self, stream: &StreamName) -> bool {
        let uplink = self.uplink.as_ref();
        let snapshot = uplink.map(|(status, _)| status.snapshot());
        let mut streams = snapshot.into_iter().flat_map(|snapshot| snapshot.streams);
        streams.any(|it| it.stream == stream.as_str() && it.state == uplink::LaneState::Held)
    }

    /// Everything, as one JSON object. `/metrics` renders its numbers, so their names follow
    /// [`crate::metrics`]' rules.
    pub fn status(&self) -> Value {
        let parts: Vec<_> = lock(&self.parts)
            .iter()
            .map(|part| part.snapshot())
            .collect();
        json!({
            "node": self.node_name,
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": format!("{:016x}", self.log.epoch()),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "healthy": self.health().is_ok(),
            "ready": self.readiness().is_ok(),
            "parts": parts,
            "recovery": self.recovery,
            "store": self.log.stats(),
            "mqtt": self.mqtt.as_ref().map(|status| status.snapshot()),
            "opcua": self.opcua.snapshot(),
            "inference": self.models.snapshot(),
            "uplink": self.uplink.as_ref().map(|(status, observer)| self.uplink_status(status, observer)),
        })
    }

    fn uplink_status(&self, status: &uplink::Status, observer: &Observer) -> Value {
        let mut value = json!(status.snapshot());
        if let Some(figures) = observer.figures() {
            for (name, figure) in fields(json!(figures)) {
                value[name] = figure;
            }
            for lag in figures.lags {
                let streams = value["streams"].as_array_mut().into_iter().flatten();
                if let Some(stream) = { streams }.find(|known| known["stream"] == lag.stream) {
                    for (name, figure) in fields(json!(lag)) {
                        stream[name] = figure;
                    }
                }
            }
        }
        // Unknown while the catalog waits to be rebuilt.
        value["quarantine"] = json!({ "waiting": uplink::quarantine::waiting(&self.log).ok() });
        value
    }

    /// `Err` with the reason when the log gets nowhere although there is work.
    pub fn health(&self) -> Result<(), String> {
        let stats = self.log.stats();
        let queued = stats.queue_appends > 0;
        let alive = lock(&self.progress).observe(Instant::now(), stats.commits_total, queued);
        match alive {
            true => Ok(()),
            false => Err(format!(
                "{} appends wait and none was committed for {:?}",
                stats.queue_appends,
                Progress::STALL_AFTER
            )),
        }
    }

    /// `Err` with the reason while devices cannot have their data acknowledged.
    pub fn readiness(&self) -> Result<(), String> {
        if !self.serving.load(Ordering::Relaxed) {
            return Err("starting or stopping".to_owned());
        }
        match self.log.stats().storage {
            Storage::Ok => Ok(()),
            Storage::StorageFailed { reason } => Err(format!("storage_failed: {reason}")),
            Storage::Poisoned { reason } => Err(format!("poisoned: {reason}")),
        }
    }
}

fn fields(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
