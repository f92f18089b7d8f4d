//! What can go wrong between this node and the cluster, sorted by what to do about it. None of
//! it ends the uplink: every fault is a state, and the log keeps the records meanwhile.

/// Why a session with the cluster ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody answers, or no longer. The connection is made anew.
    #[error("{0}")]
    Unreachable(String),
    #[error(
        "the cluster has no topic `{0}`: create it \
         (kafka-topics.sh --create --topic {0} --bootstrap-server …), or let this node do so with \
         `create_topics = true` in [kafka]"
    )]
    TopicMissing(String),
    /// Credentials, certificates or access rights. An operator is needed, and noticed when done.
    #[error("{0}")]
    Denied(String),
    /// Somebody else began to use this node's transactional id.
    #[error(
        "another node named `{node}` delivers the same stream: two nodes run from copies of one \
         data directory or with one name ({detail})"
    )]
    Fenced { node: String, detail: String },
    /// The cluster will not take something in the slice. `index` where the cluster said which.
    #[error("{reason}")]
    Refused {
        index: Option<usize>,
        reason: String,
    },
    /// Anything else the cluster said. A new session is the answer to all of it.
    #[error("{0}")]
    Failed(String),
}

impl Fault {
    /// Whether the connection itself is to blame, so that another is needed.
    pub(crate) fn breaks_link(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Denied(_))
    }

    /// Whether waiting will not help until a person acts.
    pub(crate) fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::TopicMissing(_) | Self::Denied(_) | Self::Fenced { .. }
        )
    }
}
