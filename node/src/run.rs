//! `skerry run`: builds the parts, starts them, and stops them in order.
//!
//! This one function is the topology. Every part knows the log and nothing of the others.

use crate::clock;
use crate::config::Config;
use crate::exit::Exit;
use crate::http;
use crate::model;
use crate::opcua;
use crate::reload;
use crate::supervise::part;
use crate::view::View;
use sd_notify::NotifyState;
use serde_json::json;
use skerry_bridge::uplink;
use skerry_broker::Broker;
use skerry_store::{Append, Kind, Log, Record, Recovery, StreamName};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the parts may take to finish what they have begun.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Threads for the async parts. They wait, mostly; a small board has other work for its cores.
const WORKERS_MAX: usize = 4;

/// How a run ended.
enum Ended {
    For(Exit),
    /// All is on disk, as after a stop, and the config has changed.
    ToBeginAnew,
}

/// Runs the node until it is asked to stop, with what `path` had in it.
pub fn run(config: Config, path: &Path, until_stdin_closes: bool) -> Exit {
    let (log, recovery) = match Log::open(config.store.clone()) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!("the log cannot be opened: {error}");
            return Exit::Unavailable;
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKERS_MAX))
        .thread_name("skerry-worker")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start worker threads: {error}");
            return Exit::Failed;
        }
    };
    let ended = runtime.block_on(serve(config, path, log, recovery, until_stdin_closes));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ended::For(exit) => exit,
        Ended::ToBeginAnew => reload::begin_anew(),
    }
}

async fn serve(
    config: Config,
    path: &Path,
    log: Log,
    recovery: Recovery,
    until_stdin_closes: bool,
) -> Ended {
    // The signals are taken over before anything starts, so that an early one is not fatal.
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        tracing::error!("cannot listen for signals");
        return Ended::For(Exit::Failed);
    };
    let stop = CancellationToken::new();
    let (view, mut tasks) = match start(config, &log, recovery, &stop).await {
        Ok(started) => started,
        Err(why) => {
            tracing::error!("{why}");
            return Ended::For(Exit::Failed);
        }
    };
    notify(&[NotifyState::Ready]);
    tasks.push((
        "watchdog",
        tokio::spawn(watchdog(Arc::clone(&view), stop.clone())),
    ));

    let reconfigured = async { while hang_up.recv().await.is_some() && !reload::is_sound(path) {} };
    let mut begin_anew = false;
    let poisoned = tokio::select! {
        _ = terminate.recv() => { tracing::info!("SIGTERM: stopping"); None }
        _ = interrupt.recv() => { tracing::info!("SIGINT: stopping"); None }
        () = reconfigured => { tracing::info!("SIGHUP: stopping, to begin anew"); begin_anew = true; None }
        () = stdin_closed(), if until_stdin_closes => { tracing::info!("stdin closed: stopping"); None }
        error = log.poisoned() => Some(error),
    };
    if let Some(error) = poisoned {
        // What the disk holds is unknown now; only a fresh recovery can tell. Nothing to drain.
        tracing::error!("{error}");
        return Ended::For(Exit::SyncFailed);
    }
    notify(&match begin_anew {
        true => [NotifyState::Reloading],
        false => [NotifyState::Stopping],
    });
    view.set_serving(false);
    stop.cancel();
    drain(tasks).await;
    let ended = event(&log, "stop", json!({})).await;
    drop(view);
    match (ended, log.close().await) {
        (Ok(()), Ok(())) => {
            tracing::info!("stopped; everything accepted is on disk");
            match begin_anew {
                true => Ended::ToBeginAnew,
                false => Ended::For(Exit::Clean),
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!("the last commit failed: {error}");
            Ended::For(Exit::Failed)
        }
    }
}

type Tasks = Vec<(&'static str, JoinHandle<()>)>;

/// Binds what must be bound, then starts every part.
async fn start(
    config: Config,
    log: &Log,
    recovery: Recovery,
    stop: &CancellationToken,
) -> Result<(Arc<View>, Tasks), String> {
    let http_listener = TcpListener::bind(config.http_listen).await.map_err(|error| {
        format!(
            "cannot listen on {} for HTTP: {error}; is another node running? [http] listen changes it",
            config.http_listen
        )
    })?;
    let broker = match config.mqtt {
        Some(mqtt) => {
            let bound = Broker::bind(mqtt.clone())
                .await
                .map_err(|error| error.to_string())?;
            Some((mqtt, bound))
        }
        None => None,
    };
    let started = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "clean_stop": recovery.clean_stop,
        "torn_bytes": recovery.torn_bytes,
        "quarantined_frames": recovery.quarantined_frames,
        "catalog_rebuilt": recovery.catalog_rebuilt,
    });
    if let Err(error) = event(log, "start", started).await {
        // A full disk is a state to run in, not a reason to leave the site without its data.
        tracing::error!("the start could not be recorded: {error}");
    }

    let mqtt_status = broker
        .as_ref()
        .map(|_| Arc::new(skerry_broker::Status::default()));
    let opcua = opcua::Clients::new(config.opcua);
    let models = model::Runner::new(config.models);
    let uplink_status = config
        .uplink
        .as_ref()
        .map(|_| Arc::new(uplink::Status::default()));
    let links = config.uplink.as_ref();
    let links = links.map(|uplink| Arc::clone(&uplink.links));
    let view = Arc::new(View::new(
        config.node_name,
        log.clone(),
        recovery,
        mqtt_status.clone(),
        opcua.clone(),
        models.clone(),
        uplink_status.clone().zip(links),
    ));

    let mut tasks = Tasks::new();
    let mut add = |name: &'static str, (part, task)| {
        view.watch(part);
        tasks.push((name, task));
    };
    if let Some(((mqtt, bound), status)) = broker.zip(mqtt_status) {
        let mut bound = Some(bound);
        add(
            "mqtt",
            part("mqtt", log, stop, move |log, stop| {
                let (bound, mqtt, status) = (bound.take(), mqtt.clone(), Arc::clone(&status));
                async move {
                    // Bound before the node was ready; again only after a failure.
                    let broker = match bound {
                        Some(bound) => bound,
                        None => Broker::bind(mqtt).await?,
                    };
                    broker.run(log, status, stop).await
                }
            }),
        );
    }
    for client in opcua.start(log, stop) {
        add("opcua", client);
    }
    if let Some(runner) = models.start(log, stop) {
        add("inference", runner);
    }
    if let Some((uplink, status)) = config.uplink.zip(uplink_status) {
        add(
            "uplink",
            part("uplink", log, stop, move |log, stop| {
                uplink::run(uplink.clone(), log, Arc::clone(&status), stop)
            }),
        );
    }
    tasks.push(("clock", tokio::spawn(clock::watch(stop.clone()))));
    if let Some((_, observer)) = &view.uplink {
        let observing = Arc::clone(observer).run(stop.clone());
        tasks.push(("observer", tokio::spawn(observing)));
    }
    let serving = tokio::spawn(serve_http(http_listener, Arc::clone(&view), stop.clone()));
    tasks.push(("http", serving));
    view.set_serving(true);
    Ok((view, tasks))
}

async fn serve_http(listener: TcpListener, view: Arc<View>, stop: CancellationToken) {
    if let Err(error) = http::serve(listener, view, stop).await {
        tracing::error!("HTTP ended: {error}");
    }
}

/// Waits for every part to end, names the ones that do not.
async fn drain(tasks: Tasks) {
    let deadline = tokio::time::Instant::now() + DRAIN_WITHIN;
    for (name, task) in tasks {
        let abort = task.abort_handle();
        if tokio::time::timeout_at(deadline, task).await.is_err() {
            tracing::warn!("{name} has not stopped after {DRAIN_WITHIN:?} and is left behind");
            abort.abort();
        }
    }
}

/// Pings systemd's watchdog for as long as the node makes progress.
async fn watchdog(view: Arc<View>, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = tokio::time::interval(limit / 3);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match view.health() {
            Ok(()) => notify(&[NotifyState::Watchdog]),
            Err(why) => tracing::error!("no progress, so systemd is not reassured: {why}"),
        }
    }
}

/// Records what happened to the node itself, so that the centre knows too.
async fn event(
    log: &Log,
    what: &str,
    details: serde_json::Value,
) -> Result<(), skerry_store::Error> {
    let stream = StreamName::new(crate::config::NODE_EVENTS).expect("a valid stream name");
    let payload = json!({ "event": what, "details": details }).to_string();
    log.append(Append {
        stream,
        records: vec![Record::new(Kind::Node, "node", payload)],
        changes: Vec::new(),
    })
    .await
    .map(|_| ())
}

/// Tells systemd, where it listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd could not be notified: {error}");
    }
}

/// Resolves when whoever started the node has gone.
async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
}
