//! The protocol below everything else here: types in and out are ours, so that the crates in
//! `vendor.rs` can be replaced without a change outside this folder.

mod browse;
mod certificate;
mod chain;
mod changes;
mod clock;
mod command;
mod connect;
mod decode;
mod dial;
mod discover;
mod driver;
mod encode;
mod events;
mod granted;
mod handshake;
mod history;
mod keys;
mod limits;
mod reverse;
mod token;
mod types;
mod vendor;

pub(crate) use browse::{Class, Reference};
pub(crate) use certificate::generate;
pub(crate) use clock::clock_item;
pub(crate) use command::Argument;
pub(crate) use connect::{SESSION_TIMEOUT, Target};
pub use discover::Offer;
pub use encode::Misfit;
pub(crate) use encode::{Encoded, Shape};
pub(crate) use events::{Event, EventItem, field_names};
pub(crate) use granted::{Granted, Pace};
pub(crate) use history::{Chapter, Page};
pub(crate) use keys::KeyPair;
pub(crate) use limits::Portion;
pub(crate) use reverse::Calls;
pub use reverse::ReverseConnect;
pub(crate) use token::Login;

use super::config::Deadband;
use super::error::{Error, status};
use super::value::{Sample, Value};
use connect::REQUEST_TIMEOUT;
use driver::Driver;
use futures_util::future::BoxFuture;
use limits::Limits;
use skerry_store::WallNanos;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;
use tokio::sync::{OnceCell, watch};
use types::Types;
use vendor::{
    AsyncSecureChannel, AtomicHandle, AttributeId, CloseSession, CreateMonitoredItems,
    DataChangeFilter, DataChangeTrigger, DataValue, DeadbandType, DeleteMonitoredItems,
    ExtensionObject, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeId,
    Publish, Read, ReadValueId, Republish, StatusCode, TimestampsToReturn, UARequest, VendorError,
};

/// A server that is slow to say good-bye must not hold up the node's stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The crate takes a client handle of 0 for none given and puts its own in its place; on the wire
/// ours therefore start at 1.
const FIRST_HANDLE: u32 = 1;
/// Every item brings its own handle; the crate's counter is not used.
static UNUSED_HANDLES: LazyLock<AtomicHandle> = LazyLock::new(|| AtomicHandle::new(1));
/// `Server_NamespaceArray`, `Server_ServerStatus_State` and `…_StartTime` (Part 6, annex A).
const NAMESPACE_ARRAY: u32 = 2255;
const SERVER_STATE: u32 = 2259;
const SERVER_START_TIME: u32 = 2257;

/// An activated session on its own connection. Dropping it ends the connection, not the
/// subscriptions.
pub(crate) struct Session {
    channel: AsyncSecureChannel,
    driver: Driver,
    token: NodeId,
    address: String,
    types: Mutex<Types>,
    /// Whether there are types or variables that [`Self::learning`] has not asked about yet.
    wants: watch::Sender<bool>,
    /// Once asked for.
    limits: OnceCell<Limits>,
    /// Whether this is an earlier session taken up again.
    pub(crate) revived: bool,
}

/// A node to monitor; `handle` comes back with its values.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) handle: u32,
    pub(crate) node: String,
    pub(crate) sampling: Duration,
    pub(crate) queue_values: u32,
    pub(crate) deadband: Option<Deadband>,
}

/// Monitored by the server from now on, or its reason not to.
pub(crate) type Monitored = Result<Kept, u32>;

/// What the server grants for a node, which may be less than was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Kept {
    /// The server's id of what it monitors.
    pub(crate) item: u32,
    pub(crate) sampling: Duration,
    pub(crate) queue_values: u32,
}

/// One answer to a publish request.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) subscription: u32,
    pub(crate) message: Message,
    /// Numbers the server keeps until they are acknowledged.
    pub(crate) available: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) sequence: u32,
    /// Carries no news: `sequence` is that of the next message.
    pub(crate) keep_alive: bool,
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: Vec<Event>,
    /// The server's clock, where it was sampled.
    pub(crate) clock: Option<WallNanos>,
    /// The subscription is over, for this reason.
    pub(crate) ended: Option<u32>,
}

impl Message {
    /// The server's clock, and whether there is anything else.
    pub(crate) fn brings(&self) -> (Option<WallNanos>, bool) {
        let data = !self.samples.is_empty() || !self.events.is_empty();
        (self.clock, data)
    }

    pub(crate) fn is_only_clock(&self) -> bool {
        let (clock, data) = self.brings();
        clock.is_some() && !data && self.ended.is_none()
    }
}

/// A request with this session's header.
macro_rules! request {
    ($session:expr, $service:ident $(, $before:expr)*) => {
        $service::new_manual(
            $($before,)*
            0,
            REQUEST_TIMEOUT,
            $session.token.clone(),
            $session.channel.request_handle(),
        )
    };
}
use request;

impl Session {
    fn new(channel: AsyncSecureChannel, driver: Driver, address: String) -> Self {
        Self {
            channel,
            driver,
            token: NodeId::null(),
            address,
            types: Mutex::default(),
            wants: watch::Sender::new(false),
            limits: OnceCell::new(),
            revived: false,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The connection is gone: nothing sent will be answered.
    pub(crate) fn ended(&self) -> bool {
        self.driver.ended()
    }

    /// By which this session may be taken up again; to be kept as secret as the data is.
    pub(crate) fn token(&self) -> String {
        self.token.to_string()
    }

    async fn call<R: UARequest>(&self, step: &'static str, request: R) -> Result<R::Out, Error> {
        let error = match send(request, &self.channel).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let status = error.status();
        let complaint = match status {
            StatusCode::BadConnectionClosed => self.driver.complaint().await,
            _ => None,
        };
        Err(Error::Service {
            step,
            status: status.bits(),
            detail: match complaint {
                Some(code) => format!("the server sent what cannot be read ({code})"),
                None => explain(&error),
            },
        })
    }

    /// The server's namespaces in the order of their indexes.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>, Error> {
        let node = NodeId::new(0, NAMESPACE_ARRAY).to_string();
        let mut read = self.read(&[node]).await?;
        match read.pop().map(|sample| sample.value) {
            Some(Value::Array(names)) => Ok(names
                .into_iter()
                .map(|name| match name {
                    Value::Text(name) => name,
                    _ => String::new(),
                })
                .collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// A sign of life, and one to the server that we are alive.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        self.read(&[NodeId::new(0, SERVER_STATE).to_string()])
            .await
            .map(|_| ())
    }

    /// When the server started, if it says; changes with every restart.
    pub(crate) async fn server_start(&self) -> Result<Option<String>, Error> {
        let node = NodeId::new(0, SERVER_START_TIME).to_string();
        let mut read = self.read(&[node]).await?;
        Ok(match read.pop().map(|sample| sample.value) {
            Some(Value::Typed(_, value)) => match *value {
                Value::Text(time) => Some(time),
                _ => None,
            },
            _ => None,
        })
    }

    /// Current values, in the order of `nodes`.
    pub(crate) async fn read(&self, nodes: &[String]) -> Result<Vec<Sample>, Error> {
        self.read_attribute(nodes, AttributeId::Value).await
    }

    /// Current values of variables that it knows, or is learning, under the handles 0, 1, ….
    pub(crate) async fn read_known(&self, nodes: &[String]) -> Result<Vec<Sample>, Error> {
        let results = self.read_data(nodes, AttributeId::Value).await?;
        Ok(self.with_types(|types| {
            types.begin();
            let sample = |(handle, data): (u32, DataValue)| decode::sample(types, handle, data);
            (0..).zip(results).map(sample).collect()
        }))
    }

    /// One request, however many nodes there are.
    async fn read_once(&self, nodes: &[String]) -> Result<Vec<Sample>, Error> {
        let results = self.read_portion(nodes, AttributeId::Value).await?;
        Ok(plain(results))
    }

    async fn read_attribute(
        &self,
        nodes: &[String],
        attribute: AttributeId,
    ) -> Result<Vec<Sample>, Error> {
        let results = self.read_data(nodes, attribute).await?;
        Ok(plain(results))
    }

    async fn read_data(
        &self,
        nodes: &[String],
        attribute: AttributeId,
    ) -> Result<Vec<DataValue>, Error> {
        if nodes.len() <= 1 {
            return self.read_portion(nodes, attribute).await;
        }
        let mut portion = Portion::new(self.limits().await?.reads);
        let mut read = Vec::with_capacity(nodes.len());
        let mut rest = nodes;
        while !rest.is_empty() {
            let (now, later) = portion.split(rest);
            match self.read_portion(now, attribute).await {
                Ok(results) if results.len() == now.len() => {
                    read.extend(results);
                    rest = later;
                }
                Ok(results) => return Err(miscounted("reading values", now.len(), results.len())),
                Err(error) if portion.halved(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    async fn read_portion(
        &self,
        nodes: &[String],
        attribute: AttributeId,
    ) -> Result<Vec<DataValue>, Error> {
        let to_read = nodes
            .iter()
            .map(|node| ReadValueId {
                node_id: parse(node),
                attribute_id: attribute as u32,
                ..ReadValueId::default()
            })
            .collect();
        let request = request!(self, Read)
            .timestamps_to_return(TimestampsToReturn::Both)
            .nodes_to_read(to_read);
        let response = self.call("reading values", request).await?;
        Ok(response.results.unwrap_or_default())
    }

    /// Monitors `items`, in the server's own time and queue where it grants less.
    pub(crate) async fn monitor(
        &self,
        subscription: u32,
        items: &[Item],
    ) -> Result<Vec<Monitored>, Error> {
        let to_create = items
            .iter()
            .map(|item| MonitoredItemCreateRequest {
                item_to_monitor: ReadValueId {
                    node_id: parse(&item.node),
                    attribute_id: AttributeId::Value as u32,
                    ..ReadValueId::default()
                },
                monitoring_mode: MonitoringMode::Reporting,
                requested_parameters: MonitoringParameters {
                    client_handle: item.handle + FIRST_HANDLE,
                    sampling_interval: item.sampling.as_secs_f64() * 1000.0,
                    queue_size: item.queue_values,
                    discard_oldest: true,
                    filter: item.deadband.map_or_else(ExtensionObject::null, filter),
                },
            })
            .collect();
        let request = request!(self, CreateMonitoredItems, subscription, &UNUSED_HANDLES)
            .timestamps_to_return(TimestampsToReturn::Both)
            .items_to_create(to_create);
        let response = self.call("monitoring the nodes", request).await?;
        self.want(items);
        Ok(response
            .results
            .into_iter()
            .map(|created| {
                let code = created.result.status_code;
                if code.is_bad() {
                    return Err(code.bits());
                }
                let sampling = created.result.revised_sampling_interval / 1000.0;
                Ok(Kept {
                    item: created.result.monitored_item_id,
                    // As the server reports it, which may be by exception: 0, or less by mistake.
                    sampling: Duration::try_from_secs_f64(sampling).unwrap_or_default(),
                    queue_values: created.result.revised_queue_size,
                })
            })
            .collect())
    }

    /// Ends the monitoring of `items`, by the server's ids; of what it has forgotten, too.
    pub(crate) async fn unmonitor(&self, subscription: u32, items: &[u32]) -> Result<(), Error> {
        let mut portion = Portion::new(self.limits().await?.items);
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = portion.split(rest);
            let request = request!(self, DeleteMonitoredItems, subscription);
            let request = request.items_to_delete(now.to_vec());
            match self.call("releasing nodes", request).await {
                Ok(_) => rest = later,
                Err(error) if portion.halved(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks for the next notification and acknowledges earlier ones. Answers come in the order
    /// in which they arrived. The request waits at the server for as long as `patience`.
    pub(crate) async fn publish(
        &self,
        acknowledged: &[(u32, u32)],
        patience: Duration,
    ) -> Result<Publication, Error> {
        let mut request = request!(self, Publish).timeout(patience);
        for (subscription, sequence) in acknowledged {
            request = request.ack(*subscription, *sequence);
        }
        let response = self.call("waiting for data", request).await?;
        Ok(Publication {
            subscription: response.subscription_id,
            message: self.with_types(|types| decode::message(types, response.notification_message)),
            available: response.available_sequence_numbers.unwrap_or_default(),
        })
    }

    /// The message once more, or `None` where the server no longer has it.
    pub(crate) async fn republish(
        &self,
        subscription: u32,
        sequence: u32,
    ) -> Result<Option<Message>, Error> {
        let request = request!(self, Republish, subscription, sequence);
        match self.call("fetching a lost message", request).await {
            Ok(response) => {
                let message =
                    self.with_types(|types| decode::message(types, response.notification_message));
                // asyncua answers an unknown number with an empty message and "Good".
                Ok((message.sequence == sequence && !message.keep_alive).then_some(message))
            }
            Err(error) if error.status() == Some(status::BAD_MESSAGE_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes, and leaves the subscription at the server, to be carried on by the next session; the
    /// server forgets it after its lifetime. With `keep` the session stays as well, until its
    /// time-out, to be taken up again.
    pub(crate) async fn leave(&self, keep: bool) {
        if !keep {
            self.close(false).await;
        }
        self.channel.close_channel().await;
    }

    /// Goes for good, and takes its subscriptions along.
    pub(crate) async fn leave_nothing(self) {
        self.close(true).await;
        self.channel.close_channel().await;
    }

    async fn close(&self, delete_subscriptions: bool) {
        let request = request!(self, CloseSession).delete_subscriptions(delete_subscriptions);
        let closing = self.call("closing the session", request);
        if let Ok(Err(error)) = tokio::time::timeout(LEAVE_TIMEOUT, closing).await {
            tracing::debug!(%error, "the server did not confirm the end of the session");
        }
    }
}

/// Sends a request and waits for the answer. Boxed, because inside another future the compiler
/// loses the lifetimes it needs to see that this one may change threads (rust-lang/rust#100013).
fn send<'a, R>(
    request: R,
    channel: &'a AsyncSecureChannel,
) -> BoxFuture<'a, Result<R::Out, VendorError>>
where
    R: UARequest + 'a,
{
    Box::pin(request.send(channel))
}

/// Changes of the value or its status, of the value only beyond the deadband (Part 4, 7.22.2).
fn filter(deadband: Deadband) -> ExtensionObject {
    let (kind, value) = match deadband {
        Deadband::Absolute(value) => (DeadbandType::Absolute, value),
        Deadband::Percent(value) => (DeadbandType::Percent, value),
    };
    ExtensionObject::from_message(DataChangeFilter {
        trigger: DataChangeTrigger::StatusValue,
        deadband_type: kind as u32,
        deadband_value: value,
    })
}

/// Values of other nodes than those that are subscribed to: their handles say nothing of types.
fn plain(results: Vec<DataValue>) -> Vec<Sample> {
    let mut types = Types::default();
    (0..)
        .zip(results)
        .map(|(index, data)| decode::sample(&mut types, index, data))
        .collect()
}

/// An answer that cannot be matched with its question.
fn miscounted(step: &'static str, asked: usize, answered: usize) -> Error {
    Error::Service {
        step,
        status: StatusCode::BadUnknownResponse.bits(),
        detail: format!("the server answers {asked} questions with {answered} answers"),
    }
}

/// The node id in the crate's form. A malformed one becomes the null id, which the server
/// refuses as it refuses any other unknown node: visible, and without a second way to fail.
fn parse(node: &str) -> NodeId {
    node.parse().unwrap_or_default()
}

/// The name of a StatusCode, for messages.
pub(crate) fn status_name(code: u32) -> String {
    StatusCode::from(code).to_string()
}

/// The crate's error in words that say what to do, where the code tells.
fn explain(error: &VendorError) -> String {
    let code = error.status();
    let hint = match code {
        StatusCode::BadTooManySessions => "the server has no session left; close other clients",
        StatusCode::BadTooManySubscriptions => "the server has no subscription left",
        StatusCode::BadConnectionClosed | StatusCode::BadCommunicationError => {
            "the connection broke off"
        }
        StatusCode::BadTimeout => "no answer in time",
        _ => "",
    };
    if hint.is_empty() {
        error.to_string()
    } else {
        format!("{hint} ({code})")
    }
}
