//! Who may connect, and what each may do.
//!
//! ```text
//! accept ──► Guard::admit ──► CONNECT ──► Guard::log_in ──► Guard::grant ──► Access
//!            limits           (TLS)       users, verify,     acl             asked by the
//!                                         throttle                           connection
//!                      refusals ──► audit          file changes ──► Guard::reload ──► each Access
//! ```

mod acl;
mod audit;
mod file;
mod guard;
mod limits;
mod overlap;
mod password;
#[cfg(test)]
mod tests;
mod throttle;
mod users;
mod verify;

pub use acl::Acl;
pub use file::FileError;
pub(crate) use guard::{Admission, Guard};
pub use limits::Limits;
pub(crate) use limits::Pace;
pub use users::{Users, UsersFile};

use crate::ingest::OWN_PREFIX;
use crate::retained::SYS_PREFIX;
use crate::topic::TopicFilter;
use acl::Rights;
use audit::{Event, What, excerpt};
use password::HashedPassword;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// Who may connect and what they may do, as configured.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// Users with passwords. Without it, a user name proves nothing and counts as none.
    pub users_file: Option<PathBuf>,
    /// Without it, everybody who may connect may publish and receive everything.
    pub acl_file: Option<PathBuf>,
    pub anonymous: Anonymous,
    pub identity: CertificateIdentity,
}

impl AccessConfig {
    pub(crate) const DEFAULT: Self = Self {
        users_file: None,
        acl_file: None,
        anonymous: Anonymous::Loopback,
        identity: CertificateIdentity::None,
    };
}

/// Where clients may connect from without a user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    Always,
    /// Loopback addresses and Unix sockets.
    Loopback,
    Never,
}

/// What of a client certificate is its owner's user name. Such a user needs no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateIdentity {
    /// A certificate opens TLS, and whoever has one still logs in.
    None,
    CommonName,
    /// The first of the subject's alternative names.
    AlternativeName,
}

/// Who a client proved to be.
#[derive(Debug)]
pub(crate) struct Identity {
    /// `None` for an anonymous client.
    user: Option<Box<str>>,
    /// What its password was checked against; `None` without a password.
    login: Option<Arc<HashedPassword>>,
}

/// The rights of one connection. Cheap to clone; a change of the rules reaches every clone.
#[derive(Clone)]
pub(crate) struct Access(Arc<Granted>);

struct Granted {
    guard: Arc<Guard>,
    number: u64,
    client_id: Box<str>,
    identity: Identity,
    address: Option<IpAddr>,
    rights: RwLock<Rights>,
    revoked: CancellationToken,
}

/// Clients do not publish under these: they are the node's own, or mean something to brokers.
/// Nobody can subscribe to a topic that starts with `$share/`.
const RESERVED: [&str; 4] = [OWN_PREFIX, SYS_PREFIX, "$share/", "$CONTROL/"];

pub(crate) fn is_reserved(topic: &str) -> bool {
    RESERVED.iter().any(|prefix| topic.starts_with(prefix))
}

impl Access {
    /// As whom it logged in; `None` for an anonymous client.
    pub(crate) fn user(&self) -> Option<&str> {
        self.0.identity.user.as_deref()
    }

    /// A refusal is audited.
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        let reason = if is_reserved(topic) {
            "reserved"
        } else if self.rights().may_publish(topic) {
            return true;
        } else {
            "acl"
        };
        self.0.guard.note(Event {
            topic: Some(excerpt(topic)),
            ..self.event(What::PublishRefused, reason)
        });
        false
    }

    /// Whether a client may have anything that `filter` covers; [`Access::may_receive`] decides on
    /// each message. A refusal is audited.
    pub(crate) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        let may = self.rights().may_subscribe(filter);
        if !may {
            self.0.guard.status.subscribes_refused.up();
            self.0.guard.note(Event {
                filter: Some(excerpt(filter.as_str())),
                ..self.event(What::SubscribeRefused, "acl")
            });
        }
        may
    }

    /// Asked for each delivery: a filter may cover more than its subscriber may see.
    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        self.rights().may_receive(topic)
    }

    /// Resolves once this client may not be connected any more.
    pub(crate) async fn revoked(&self) {
        self.0.revoked.cancelled().await;
    }

    /// The client publishes faster than it may.
    pub(crate) fn slowed(&self) {
        self.0.guard.status.publishes_slowed.up();
        let event = self.event(What::PublishSlowed, "publish_rate");
        self.0.guard.note(event);
    }

    fn rights(&self) -> std::sync::RwLockReadGuard<'_, Rights> {
        self.0.rights.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, event: What, reason: &'static str) -> Event {
        self.0.event(event, reason)
    }
}

impl Granted {
    fn event(&self, event: What, reason: &'static str) -> Event {
        Event {
            client: Some(excerpt(&self.client_id)),
            user: self.identity.user.as_deref().map(excerpt),
            ..Event::new(event, reason, self.address)
        }
    }

    /// New rules hold from now on; `None` ends the connection.
    fn change(&self, rights: Option<Rights>) {
        let revoked = rights.is_none();
        *self.rights.write().unwrap_or_else(PoisonError::into_inner) =
            rights.unwrap_or(Rights::Nothing);
        if revoked {
            self.guard.note(self.event(What::Revoked, "user_changed"));
            self.revoked.cancel();
        }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.guard.left(self.number);
    }
}
