//! The Kafka client, behind our own words. Only this file and its folder name `krafka`.
//!
//! What it asks of the cluster, and why that is enough, is told in [`super`].

mod positions;
mod producer;
mod topics;

pub(crate) use positions::POSITIONS_PARTITION;
pub(crate) use producer::Producer;

use super::advice;
use super::config::{Config, Mechanism};
use super::fault::Fault;
use krafka::Kafka;
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::Consumer;
use krafka::error::{ErrorCode, KrafkaError, ProtocolErrorKind};
use std::sync::Arc;

/// A connection to the cluster, shared by all lanes.
pub(crate) struct Wire {
    kafka: Kafka,
    cluster: String,
    config: Arc<Config>,
}

impl Wire {
    pub(crate) async fn connect(config: &Arc<Config>) -> Result<Self, Fault> {
        let doing = format!("connecting to {}", config.brokers.join(", "));
        let limits = &config.limits;
        let mut builder = Kafka::builder(config.brokers.join(","))
            .client_id(format!("skerry-{}", config.node.as_str()))
            .request_timeout(limits.request_timeout)
            .connect_timeout(limits.connect_timeout.min(limits.request_timeout))
            .tcp_nodelay(true)
            .allow_auto_create_topics(config.auto_create);
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
    let file = &sasl.password_file;
    let password = tokio::fs::read_to_string(file)
        .await
        .map_err(|error| Fault::Denied(format!("cannot read {}: {error}", file.display())))?;
    let password = password.trim_end_matches(['\r', '\n']);
    let login = match sasl.mechanism {
        Mechanism::Plain => AuthConfig::sasl_plain(&sasl.user, password),
        Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(&sasl.user, password),
        Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(&sasl.user, password),
    };
    Ok(Some(match tls {
        Some(tls) => login.with_tls(tls),
        None => login,
    }))
}

/// What an answer that forgot the topic means.
fn none(topic: &str) -> KrafkaError {
    KrafkaError::broker(ErrorCode::UnknownTopicOrPartition, topic)
}

fn is_unknown(error: &KrafkaError) -> bool {
    let code = ErrorCode::UnknownTopicOrPartition;
    matches!(error, KrafkaError::UnknownTopic { .. })
        || matches!(error, KrafkaError::Broker { code: found, .. } if *found == code)
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
