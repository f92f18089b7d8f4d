//! The Kafka client, behind our own words. Only this file and its folder name `krafka`.
//!
//! What it asks of the cluster, and why that is enough, is told in [`super`].

mod handover;
mod identity;
mod inspect;
mod login;
mod positions;
mod producer;
mod reading;
mod topics;

pub(crate) use handover::Handover;
pub(crate) use inspect::ClockOffset;
pub(crate) use positions::POSITIONS_PARTITION;
pub(crate) use producer::{BATCH_BYTES, Producer, partition_of};
pub(crate) use reading::{Incoming, Positions, Reading};

use super::advice;
use super::config::Config;
use super::fault::Fault;
use super::gate::Ticket;
use identity::Identity;
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::Consumer;
use krafka::error::{ErrorCode, KrafkaError, ProtocolErrorKind};
use krafka::{Kafka, ProxyConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The client reads its TLS files again so often.
const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// A connection to the cluster, shared by all lanes.
pub(crate) struct Wire {
    kafka: Kafka,
    cluster: String,
    config: Arc<Config>,
    identity: Arc<Identity>,
    /// Asked once per connection.
    clock: OnceCell<Option<ClockOffset>>,
}

impl Wire {
    /// Through the gate, with a `ticket` for it; without, as the system would.
    pub(crate) async fn connect(
        config: &Arc<Config>,
        ticket: Option<&Ticket>,
    ) -> Result<Self, Fault> {
        let doing = format!("connecting to {}", config.brokers.join(", "));
        let limits = &config.limits;
        let mut builder = Kafka::builder(config.brokers.join(","))
            .client_id(format!("skerry-{}", config.node.as_str()))
            .request_timeout(limits.request_timeout)
            .connect_timeout(limits.connect_timeout.min(limits.request_timeout))
            .tcp_nodelay(true)
            // A topic is created on purpose or not at all; see `create_topics`.
            .allow_auto_create_topics(false)
            // For what is dialled anew after a pause: busy connections are made anew at once.
            .tls_reload_interval(config.tls.is_some().then_some(TLS_RELOAD_INTERVAL));
        let identity = Arc::new(Identity::of(config.tls.as_ref()));
        if let Some(ticket) = ticket {
            let address = ticket.address.to_string();
            let login = ProxyConfig::with_credentials(address, &ticket.user, &ticket.password);
            builder = builder.proxy(login);
        }
        if let Some(security) = security(config).await? {
            builder = builder.security(security);
        }
        let failed = |error| at_the_door(config, error).before(&doing);
        let kafka = builder.connect().await.map_err(failed)?;
        let described = kafka.admin().describe_cluster(Default::default()).await;
        let cluster = described.map_err(failed)?.cluster_id;
        Ok(Self {
            kafka,
            cluster,
            config: Arc::clone(config),
            identity,
            clock: OnceCell::new(),
        })
    }

    /// The cluster's own id: a hint about another cluster is no hint.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }
}

async fn security(config: &Config) -> Result<Option<AuthConfig>, Fault> {
    let tls = config.tls.as_ref().map(|tls| {
        let mut config = TlsConfig::new();
        if let Some(file) = &tls.ca_file {
            config = config.with_ca_cert(file.to_string_lossy());
        }
        if let Some(identity) = &tls.identity {
            let (cert, key) = (&identity.cert_file, &identity.key_file);
            config = config.with_client_cert(cert.to_string_lossy(), key.to_string_lossy());
        }
        config
    });
    let Some(sasl) = &config.sasl else {
        return Ok(tls.map(AuthConfig::ssl));
    };
    let login = login::login(config, sasl).await?;
    Ok(Some(match tls {
        Some(tls) => login.with_tls(tls),
        None => login,
    }))
}

/// What an answer that forgot the topic means.
fn none(topic: &str) -> KrafkaError {
    KrafkaError::broker(ErrorCode::UnknownTopicOrPartition, topic)
}

fn is_denied(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::SaslAuthenticationFailed
    )
}

/// What krafka says where the length of an answer cannot be one.
const NO_LENGTH: ProtocolErrorKind = ProtocolErrorKind::InvalidLength;

/// A fault before the cluster has said anything: more likely than later, the config is wrong.
fn at_the_door(config: &Config, error: KrafkaError) -> Fault {
    let text = error.to_string();
    let no_length = |error: &KrafkaError| error.protocol_error_kind() == Some(NO_LENGTH);
    if advice::chain(&error).any(|error| error.downcast_ref().is_some_and(no_length)) {
        return Fault::Denied(format!("{text}; {}", advice::NOT_KAFKA));
    }
    if matches!(error, KrafkaError::Config { .. }) {
        return Fault::Denied(format!("{text}; {}", advice::files(config)));
    }
    let hung_up = advice::hung_up(config, &error);
    match (fault(config, "", error), hung_up) {
        (Fault::Unreachable(text), Some(advice)) => Fault::Unreachable(format!("{text}; {advice}")),
        (fault, _) => fault,
    }
}

fn fault(config: &Config, topic: &str, error: KrafkaError) -> Fault {
    let text = error.to_string();
    if let Some(advice) = advice::tls(config, &error) {
        return Fault::Denied(format!("{text}; {advice}"));
    }
    let login = advice::login(config, &error);
    match error {
        KrafkaError::Network(_) | KrafkaError::Timeout { .. } => Fault::Unreachable(text),
        KrafkaError::DeliveryTimeout { .. } => Fault::Unreachable(text),
        KrafkaError::Auth { .. } => {
            Fault::Denied(login.map_or_else(|| text.clone(), |advice| format!("{text}; {advice}")))
        }
        KrafkaError::Fenced { .. } => Fault::Fenced {
            node: config.node.as_str().to_owned(),
            detail: text,
        },
        KrafkaError::UnknownTopic { topic } => Fault::TopicMissing(topic),
        KrafkaError::Broker {
            code: ErrorCode::UnknownTopicOrPartition,
            ..
        } if !topic.is_empty() => Fault::TopicMissing(topic.to_owned()),
        KrafkaError::Broker { code, .. } if is_denied(code) => Fault::Denied(text),
        KrafkaError::Broker { code, .. } if code.is_retriable() => Fault::Unreachable(text),
        _ => Fault::Failed(text),
    }
}

impl Fault {
    /// The same fault, saying what was being done.
    fn before(self, doing: &str) -> Self {
        match self {
            Self::Unreachable(text) => Self::Unreachable(format!("{doing}: {text}")),
            Self::Denied(text) => Self::Denied(format!("{doing}: {text}")),
            Self::Failed(text) => Self::Failed(format!("{doing}: {text}")),
            other => other,
        }
    }
}

async fn close(consumer: &Consumer) {
    if let Err(error) = consumer.close().await {
        tracing::debug!(%error, "closing a consumer");
    }
}
