//! A look at a server by hand, before there is a configuration: what it offers, what nodes hold
//! now, and what they hold as it changes.

use super::address::{EndpointUrl, NodeAddress};
use super::config::Security;
use super::error::{Error, status};
use super::find::locate;
use super::pki::Identity;
use super::user::{User, login};
use super::value::{Sample, Value};
use super::wire::{Item, Login, Pace, Session, Target, status_name};
use crate::Boxed;
use serde::Serialize;
use skerry_store::WallNanos;
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// In publishing intervals; a visitor has time.
const KEEP_ALIVE_COUNT: u32 = 10;
const LIFETIME_COUNT: u32 = 3 * KEEP_ALIVE_COUNT;
/// On top of what is granted.
const LATENCY: Duration = Duration::from_secs(2);
/// Values that the server keeps of a node between two of its publishes.
const QUEUE_VALUES: u32 = 100;

pub use super::wire::Offer;

/// Whom to visit, and as whom.
#[derive(Debug, Clone)]
pub struct Visit {
    pub endpoint: EndpointUrl,
    pub security: Security,
    /// Anonymous where absent.
    pub user: Option<User>,
    /// Needed with security only, for our certificate.
    pub pki_directory: PathBuf,
}

/// What a node holds.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    /// As it was asked for.
    pub node: String,
    pub value: serde_json::Value,
    /// Where the JSON alone would mislead.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub data_type: Option<String>,
    /// What the value's enumeration calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<serde_json::Value>,
    /// What the server measures it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// `EURange`: the low and the high end of what it reads in normal operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// The StatusCode, by name and as a number.
    pub status: String,
    pub status_code: u32,
    #[serde(rename = "source_time_ns", skip_serializing_if = "Option::is_none")]
    pub source_time: Option<WallNanos>,
    #[serde(rename = "server_time_ns", skip_serializing_if = "Option::is_none")]
    pub server_time: Option<WallNanos>,
}

impl Visit {
    /// Without security and login.
    #[must_use]
    pub fn new(endpoint: EndpointUrl) -> Self {
        Self {
            endpoint,
            security: Security::None,
            user: None,
            pki_directory: PathBuf::new(),
        }
    }

    pub(super) async fn session(&self) -> Result<Session, Error> {
        let identity = match self.security {
            Security::None => Identity::passing(&self.pki_directory),
            security => {
                let directory = self.pki_directory.clone();
                let opening =
                    tokio::task::spawn_blocking(move || Identity::open(&directory, security));
                opening.await.expect("reading files does not panic")?
            }
        };
        let login = login(self.user.as_ref())?;
        let name = self.name();
        let target = self.target(&name, &identity, login);
        target.connect(&mut None).await
    }

    /// A pinned certificate is this server's: another one is visited under another name.
    fn name(&self) -> String {
        format!("{}-{}", self.endpoint.host(), self.endpoint.port())
    }

    fn target<'a>(&'a self, name: &'a str, identity: &'a Identity, login: Login) -> Target<'a> {
        Target {
            name,
            url: &self.endpoint,
            security: self.security,
            login,
            identity,
            calls: None,
        }
    }
}

/// What the server offers to clients, also those that it would not let in.
///
/// # Errors
/// When the server cannot be reached, or does not tell.
pub fn discover(visit: &Visit) -> Boxed<'_, Result<Vec<Offer>, Error>> {
    Box::pin(async {
        let identity = Identity::passing(&visit.pki_directory);
        let name = visit.name();
        let target = visit.target(&name, &identity, Login::Anonymous);
        target.offers().await
    })
}

/// What `nodes` hold now, in their order. One that the server does not have is a reading too,
/// with its status.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub fn read<'a>(
    visit: &'a Visit,
    nodes: &'a [NodeAddress],
) -> Boxed<'a, Result<Vec<Reading>, Error>> {
    Box::pin(async {
        let session = visit.session().await?;
        let read = read_all(&session, nodes).await;
        session.leave(false).await;
        read
    })
}

async fn read_all(session: &Session, nodes: &[NodeAddress]) -> Result<Vec<Reading>, Error> {
    let addresses: Vec<&NodeAddress> = nodes.iter().collect();
    let located = locate(session, &addresses).await?;
    let known: Vec<String> = located.iter().flatten().cloned().collect();
    let mut samples = match known.is_empty() {
        true => Vec::new(),
        false => read_known(session, &known).await?,
    }
    .into_iter();
    Ok(nodes
        .iter()
        .zip(located)
        .map(|(node, located)| match located.map(|_| samples.next()) {
            Ok(Some(sample)) => {
                let about = session.about(sample.handle);
                let range = about.and_then(|about| about.range);
                let reading = Reading::new(node, sample);
                Reading { range, ..reading }
            }
            Ok(None) => Reading::without_value(node, status::BAD_NODE_ID_UNKNOWN),
            Err(code) => Reading::without_value(node, code),
        })
        .collect())
}

/// Values of nodes, of which it is learned first what they are.
pub(super) async fn read_known(session: &Session, nodes: &[String]) -> Result<Vec<Sample>, Error> {
    let items: Vec<Item> = (0..)
        .zip(nodes)
        .map(|(handle, node)| Item {
            handle,
            node: node.clone(),
            sampling: Duration::ZERO,
            queue_values: 0,
            deadband: None,
        })
        .collect();
    session.want(&items);
    let mut learning = session.learning();
    session.learn_first(&mut learning).await;
    let samples = session.read_known(nodes).await?;
    if session.knows_all() {
        return Ok(samples);
    }
    // Of a type that its variable did not announce.
    session.learn_first(&mut learning).await;
    session.read_known(nodes).await
}

/// Hands over what `nodes` hold, now and whenever it changes, until `stop` or until `each` has
/// enough. Leaves nothing behind at the server.
///
/// # Errors
/// When the server cannot be reached, refuses, or goes away.
pub fn watch<'a>(
    visit: &'a Visit,
    nodes: &'a [NodeAddress],
    interval: Duration,
    stop: CancellationToken,
    each: &'a mut (dyn FnMut(Reading) -> ControlFlow<()> + Send),
) -> Boxed<'a, Result<(), Error>> {
    Box::pin(async move {
        let session = visit.session().await?;
        let watched = tokio::select! {
            watched = follow(&session, nodes, interval, each) => watched,
            () = stop.cancelled() => Ok(()),
        };
        // Its subscription goes with the session's connection and, should that fail, by itself.
        session.leave_nothing().await;
        watched
    })
}

async fn follow(
    session: &Session,
    nodes: &[NodeAddress],
    interval: Duration,
    each: &mut (dyn FnMut(Reading) -> ControlFlow<()> + Send),
) -> Result<(), Error> {
    let addresses: Vec<&NodeAddress> = nodes.iter().collect();
    let located = locate(session, &addresses).await?;
    let limits = session.limits().await?;
    let pace = Pace {
        publishing_interval: interval,
        keep_alive_count: KEEP_ALIVE_COUNT,
        lifetime_count: LIFETIME_COUNT,
        priority: 0,
    };
    let granted = session.subscribe(pace).await?;
    let (mut items, mut unknown) = (Vec::new(), Vec::new());
    for ((handle, node), located) in (0..).zip(nodes).zip(located) {
        match located {
            Ok(id) => items.push(Item {
                handle,
                node: id,
                sampling: interval.max(limits.sampling_min),
                queue_values: QUEUE_VALUES,
                deadband: None,
            }),
            Err(code) => unknown.push((node, code)),
        }
    }
    for items in items.chunks(limits.items) {
        let monitored = session.monitor(granted.id, items).await?;
        unknown.extend(items.iter().zip(monitored).filter_map(|(item, outcome)| {
            let node = nodes.get(item.handle as usize)?;
            Some((node, outcome.err()?))
        }));
    }
    let nothing_left = unknown.len() == nodes.len();
    for (node, code) in unknown {
        if each(Reading::without_value(node, code)).is_break() {
            return Ok(());
        }
    }
    if nothing_left {
        return Ok(());
    }
    let silence_max = granted
        .publishing_interval
        .saturating_mul(granted.keep_alive_count.saturating_add(1))
        + LATENCY;
    let mut acknowledged = Vec::new();
    let mut learning = session.learning();
    session.learn_first(&mut learning).await;
    loop {
        let publish = session.publish(&acknowledged, silence_max);
        let published = tokio::select! {
            published = tokio::time::timeout(silence_max, publish) => published,
            never = &mut learning => match never {},
        };
        let published = published.map_err(|_| Error::NoData { after: silence_max })??;
        acknowledged.clear();
        if published.subscription != granted.id {
            continue;
        }
        let message = published.message;
        if !message.keep_alive {
            acknowledged.push((granted.id, message.sequence));
        }
        for sample in message.samples {
            if let Some(node) = nodes.get(sample.handle as usize)
                && each(Reading::new(node, sample)).is_break()
            {
                return Ok(());
            }
        }
        if let Some(code) = message.ended {
            return Err(Error::Service {
                step: "watching",
                status: code,
                detail: status_name(code),
            });
        }
    }
}

impl Reading {
    fn new(node: &NodeAddress, sample: Sample) -> Self {
        let (value, beside) = sample.value.split();
        let beside = beside.and_then(|(key, it)| Some((key, serde_json::to_value(it).ok()?)));
        let (data_type, name) = match beside {
            Some(("type", data_type)) => (data_type.as_str().map(str::to_owned), None),
            Some((_, name)) => (None, Some(name)),
            None => (None, None),
        };
        let unit = sample.unit.as_deref().map(String::from_utf8_lossy);
        Self {
            node: node.to_string(),
            value: serde_json::to_value(value).unwrap_or_default(),
            data_type,
            name,
            unit: unit.map(Cow::into_owned),
            range: None,
            status: status_name(sample.status),
            status_code: sample.status,
            source_time: sample.source_time,
            server_time: sample.server_time,
        }
    }

    fn without_value(node: &NodeAddress, code: u32) -> Self {
        Self::new(
            node,
            Sample {
                handle: 0,
                value: Value::Null,
                status: code,
                source_time: None,
                server_time: None,
                unit: None,
            },
        )
    }
}
