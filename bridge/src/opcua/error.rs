//! What can go wrong with an endpoint. Everything but the log's end is retried for ever.

use super::config::Security;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach {address}: {source}; is the server running, and the port right?")]
    Unreachable {
        address: String,
        source: std::io::Error,
    },
    #[error(
        "cannot listen on {address} for the server to connect: {source}; is the port free, and the \
         address one of this machine?"
    )]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(
        "no server connected to {listen} within {} s: is reverse connect set up there, to this \
         machine and port, and let through on the way?{stranger}", after.as_secs()
    )]
    NotCalled {
        listen: SocketAddr,
        after: Duration,
        /// Who connected instead, and why that was not it; or nothing.
        stranger: String,
    },
    #[error("{address} stays silent: {step} took more than {} s", after.as_secs())]
    Silent {
        address: String,
        step: &'static str,
        after: Duration,
    },
    #[error("{address} does not speak OPC-UA: {detail}; check host and port of the endpoint")]
    NotOpcua { address: String, detail: String },
    #[error("{address} refused {step}: {detail}")]
    Refused {
        address: String,
        step: &'static str,
        status: u32,
        detail: String,
    },
    #[error(
        "{address} does not offer security {wanted}; it offers {offered}. Nothing weaker is used \
         by itself: set security_policy and security_mode to one of these"
    )]
    NotOffered {
        address: String,
        wanted: Security,
        offered: String,
    },
    #[error(
        "{address} accepts no {wanted} login here; it accepts {offered}: {remedy}",
        remedy = "set or remove `user` and `password_file`, or `user_certificate` and `user_key`"
    )]
    LoginNotOffered {
        address: String,
        wanted: &'static str,
        offered: String,
    },
    #[error(
        "{address} offers this login only in a way that is weaker than {security}: {offered}. \
         Nothing weaker is used by itself; {remedy}",
        remedy = "security_mode = \"SignAndEncrypt\", or a user of another kind, may do"
    )]
    LoginTooWeak {
        address: String,
        security: Security,
        offered: String,
    },
    #[error(
        "{address} does not trust our certificate: {reason}; it is in {}: move it to the \
         certificates that the server trusts, or accept it there", certificate.display()
    )]
    Untrusted {
        address: String,
        reason: String,
        certificate: PathBuf,
    },
    #[error("{address} contradicts itself: {detail}. Somebody may be in between")]
    Forged {
        address: String,
        detail: &'static str,
    },
    #[error(
        "{address} shows another certificate than before (sha256 {found}, trusted {pinned}): \
         if the server was replaced or renewed its certificate, compare it with the server's own \
         display and accept it with `skerry opcua trust {name}`; if not, somebody may be in between"
    )]
    CertificateChanged {
        name: String,
        address: String,
        found: String,
        pinned: String,
    },
    #[error("cannot {action} {}: {detail}", path.display())]
    Pki {
        action: &'static str,
        path: PathBuf,
        detail: String,
    },
    #[error("{step} failed: {detail}")]
    Service {
        step: &'static str,
        status: u32,
        detail: String,
    },
    #[error("{about}: {detail}")]
    Command {
        about: String,
        status: u32,
        detail: String,
    },
    /// Sent, and it may have been done or not.
    #[error("nobody knows whether it was done: {about}: {source}; look with `skerry opcua read`")]
    Unanswered { about: String, source: Box<Self> },
    /// Not sent: it is no value of the node's type.
    #[error("nothing was sent: {0}")]
    Unsendable(String),
    #[error("no sign of life from the server for {} ms: connecting anew", after.as_millis())]
    NoData { after: Duration },
    #[error(
        "the server answers, but its clock has stopped and no value comes any more: it hangs; \
         connecting anew"
    )]
    Hung,
    /// The log refuses for good: the process is about to end.
    #[error("the log takes nothing any more: {0}")]
    Log(#[from] skerry_store::Error),
}

impl Error {
    /// Whether this ends [`super::run`] instead of being retried.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Log(_))
    }

    /// Whether the connection is to blame, rather than an answer of the server.
    #[must_use]
    pub(crate) const fn is_broken_connection(&self) -> bool {
        match self.status() {
            Some(code) => status::is_broken_connection(code),
            None => false,
        }
    }

    /// Whether the server may have done what it was asked for all the same.
    #[must_use]
    pub(crate) const fn leaves_open(&self) -> bool {
        match self.status() {
            Some(status) => self.is_broken_connection() || status::is_ambiguous(status),
            None => true,
        }
    }

    /// The server's StatusCode, where it gave one.
    #[must_use]
    pub(crate) const fn status(&self) -> Option<u32> {
        match self {
            Self::Service { status, .. } | Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The StatusCodes this client acts on (Part 6, annex A).
pub(crate) mod status {
    pub(crate) const BAD_COMMUNICATION_ERROR: u32 = 0x8005_0000;
    pub(crate) const BAD_TIMEOUT: u32 = 0x800A_0000;
    pub(crate) const BAD_SERVER_HALTED: u32 = 0x800E_0000;
    pub(crate) const BAD_SECURE_CHANNEL_CLOSED: u32 = 0x8086_0000;
    pub(crate) const BAD_NOT_CONNECTED: u32 = 0x808A_0000;
    pub(crate) const BAD_CONNECTION_CLOSED: u32 = 0x80AE_0000;
    pub(crate) const BAD_ENCODING_LIMITS_EXCEEDED: u32 = 0x8008_0000;
    pub(crate) const BAD_TOO_MANY_OPERATIONS: u32 = 0x8010_0000;
    pub(crate) const BAD_SUBSCRIPTION_ID_INVALID: u32 = 0x8028_0000;
    pub(crate) const BAD_NO_COMMUNICATION: u32 = 0x8031_0000;
    pub(crate) const BAD_NODE_ID_INVALID: u32 = 0x8033_0000;
    pub(crate) const BAD_NODE_ID_UNKNOWN: u32 = 0x8034_0000;
    pub(crate) const BAD_NO_CONTINUATION_POINTS: u32 = 0x804B_0000;
    pub(crate) const BAD_TOO_MANY_MATCHES: u32 = 0x806D_0000;
    pub(crate) const BAD_NO_MATCH: u32 = 0x806F_0000;
    pub(crate) const BAD_TOO_MANY_PUBLISH_REQUESTS: u32 = 0x8078_0000;
    pub(crate) const BAD_NO_SUBSCRIPTION: u32 = 0x8079_0000;
    pub(crate) const BAD_MESSAGE_NOT_AVAILABLE: u32 = 0x807B_0000;
    pub(crate) const BAD_REQUEST_TOO_LARGE: u32 = 0x80B8_0000;
    pub(crate) const BAD_RESPONSE_TOO_LARGE: u32 = 0x80B9_0000;

    pub(crate) const fn is_broken_connection(status: u32) -> bool {
        matches!(
            status,
            BAD_COMMUNICATION_ERROR
                | BAD_TIMEOUT
                | BAD_SERVER_HALTED
                | BAD_SECURE_CHANNEL_CLOSED
                | BAD_NOT_CONNECTED
                | BAD_CONNECTION_CLOSED
        )
    }

    /// The two highest bits (Part 4, 7.39.1); uncertain is not bad.
    pub(crate) const fn is_bad(status: u32) -> bool {
        status & 0x8000_0000 != 0
    }

    /// Of a whole service: the codes of our own side for an answer that it cannot read or did not
    /// expect, and the server's for not knowing itself. All of them leave open what was done.
    pub(crate) const fn is_ambiguous(status: u32) -> bool {
        const BAD_UNEXPECTED_ERROR: u32 = 0x8001_0000;
        const BAD_UNKNOWN_RESPONSE: u32 = 0x8009_0000;
        const BAD_REQUEST_TIMEOUT: u32 = 0x8085_0000;
        // Internal error, out of memory, resources, communication, encoding, decoding, limits.
        matches!(
            status,
            BAD_UNEXPECTED_ERROR..=BAD_UNKNOWN_RESPONSE | BAD_REQUEST_TIMEOUT
        )
    }

    /// "The server's queue was full and values were given up before this one": info type
    /// DataValue with the overflow bit (Part 4, 7.39.1).
    pub(crate) const fn overflowed(status: u32) -> bool {
        status & 0x0C80 == 0x0480
    }

    /// "What the server says of this variable, such as its unit, has changed" (Part 4, 7.39.1).
    pub(crate) const fn semantics_changed(status: u32) -> bool {
        status & 0x4000 != 0
    }
}
