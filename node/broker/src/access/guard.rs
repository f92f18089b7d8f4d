//! The one who knows the rules: lets connections in, logs clients in, and passes new rules on.

use super::audit::{Audit, Event, What, excerpt};
use super::file::Stamp;
use super::limits::{AddressGroup, Crowded, Doors};
use super::throttle::Throttle;
use super::verify::{Verdict, Verifier};
use super::{
    Access, AccessConfig, Acl, Anonymous, CertificateIdentity, FileError, Granted, Identity,
    Limits, Rights, Users,
};
use crate::codec::Credentials;
use crate::config::Config;
use crate::handshake::Refused;
use crate::peer::Peer;
use crate::status::Status;
use skerry_store::Log;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at. A change counts once it was seen twice: an editor may still be
/// writing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Connections that are over a limit and still get to hear so, at one time. Further ones are closed
/// without a word.
const TURNED_AWAY_MAX: usize = 64;

pub(crate) struct Guard {
    config: AccessConfig,
    /// The files that `policy` was first read from.
    first: [Stamp; 2],
    limits: Limits,
    pub(crate) status: Arc<Status>,
    policy: RwLock<Arc<Policy>>,
    granted: Mutex<HashMap<u64, Weak<Granted>>>,
    numbers: AtomicU64,
    doors: Mutex<Doors>,
    turned_away: Arc<Semaphore>,
    throttle: Mutex<Throttle>,
    verifier: Verifier,
    audit: Audit,
}

/// The two files, at one time.
#[derive(Debug)]
struct Policy {
    users: Option<Users>,
    acl: Option<Acl>,
}

impl Policy {
    fn load(config: &AccessConfig) -> Result<Self, FileError> {
        Ok(Self {
            users: config.users_file.as_deref().map(Users::load).transpose()?,
            acl: config.acl_file.as_deref().map(Acl::load).transpose()?,
        })
    }

    /// `None` if whoever logged in so could not do so again.
    fn rights(&self, identity: &Identity, client_id: &str) -> Option<Rights> {
        let user = identity.user.as_deref();
        if let Some(login) = &identity.login {
            let now = self.users.as_ref()?.get(user?)?;
            if now != login {
                return None;
            }
        }
        let acl = self.acl.as_ref();
        Some(acl.map_or(Rights::All, |acl| acl.rights(client_id, user)))
    }
}

/// One connection's place; given back when it is dropped.
pub(crate) struct Admission {
    guard: Arc<Guard>,
    counted: Option<AddressGroup>,
    refused: Option<(Refused, OwnedSemaphorePermit)>,
}

impl Admission {
    /// Why this connection is only let in to be told that it is not.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused.as_ref().map(|(refused, _)| *refused)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(from) = self.counted {
            lock(&self.guard.doors).left(from);
        }
    }
}

impl Guard {
    /// # Errors
    /// If a file cannot be read or has problems: without its rules, nobody is let in.
    pub(crate) fn new(config: &Config, status: Arc<Status>) -> Result<Arc<Self>, FileError> {
        // Looked at before they are read: a change in between is then seen later.
        let first = stamps(&config.access);
        let policy = Policy::load(&config.access)?;
        let guard = Self {
            config: config.access.clone(),
            first,
            limits: config.limits,
            status,
            policy: RwLock::new(Arc::new(policy)),
            granted: Mutex::default(),
            numbers: AtomicU64::new(0),
            doors: Mutex::default(),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            throttle: Mutex::default(),
            verifier: Verifier::new(),
            audit: Audit::new(config.audit.clone()),
        };
        guard.tell_counts();
        Ok(Arc::new(guard))
    }

    pub(crate) fn note(&self, event: Event) {
        self.audit.note(event);
    }

    /// Records refusals and follows the files until `stop`.
    pub(crate) async fn run(self: Arc<Self>, log: Log, stop: CancellationToken) {
        tokio::join!(
            self.audit.run(&log, &self.status, &stop),
            self.follow_files(&stop),
        );
    }

    /// Records what is left. Called when all connections have ended.
    pub(crate) async fn finish(&self, log: &Log) {
        self.audit.finish(log, &self.status).await;
    }

    /// A place for a connection from `address`, before anything of it is read. `None` closes it.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<SocketAddr>) -> Option<Admission> {
        let admission = |counted, refused| Admission {
            guard: Arc::clone(self),
            counted,
            refused,
        };
        let Some(address) = address.map(|address| address.ip()) else {
            return Some(admission(None, None));
        };
        let from = AddressGroup::of(address);
        let entered = lock(&self.doors).enter(from, &self.limits, Instant::now());
        let (refused, reason) = match entered {
            Ok(()) => return Some(admission(Some(from), None)),
            Err(Crowded::TooMany) => (Refused::TooMany, "connections_per_address"),
            Err(Crowded::TooFast) => (Refused::TooFast, "connects_per_second"),
        };
        self.refused_connection(address, reason);
        match Arc::clone(&self.turned_away).try_acquire_owned() {
            Ok(permit) => Some(admission(None, Some((refused, permit)))),
            Err(_) => {
                self.status.connections_refused.up(refused.word());
                None
            }
        }
    }

    /// Audits a connection that is closed before it says anything.
    pub(crate) fn refused_connection(&self, address: IpAddr, reason: &'static str) {
        let address = Some(address.to_canonical());
        self.note(Event::new(What::ConnectionRefused, reason, address));
    }

    /// Who the client is. Waits for its turn at most for `patience`.
    pub(crate) async fn log_in(
        &self,
        peer: &Peer,
        client_id: &str,
        credentials: Credentials,
        patience: Duration,
    ) -> Result<Identity, Refused> {
        let user = credentials.user.clone();
        let identifying = self.identify(peer, credentials);
        let identified = match tokio::time::timeout(patience, identifying).await {
            Ok(identified) => identified,
            Err(_) => Err((Refused::Unavailable, "busy")),
        };
        identified.map_err(|(refused, reason)| {
            let event = match refused {
                Refused::Throttled => What::LoginThrottled,
                _ => What::LoginRefused,
            };
            self.note(Event {
                client: Some(excerpt(client_id)),
                user: user.as_deref().map(excerpt),
                ..Event::new(event, reason, ip(peer))
            });
            refused
        })
    }

    async fn identify(
        &self,
        peer: &Peer,
        credentials: Credentials,
    ) -> Result<Identity, (Refused, &'static str)> {
        if let Some(identity) = self.certified(peer)? {
            return Ok(identity);
        }
        let policy = self.policy();
        if let (Some(user), Some(users)) = (credentials.user, &policy.users) {
            return self
                .check_password(peer, user, credentials.password, users)
                .await;
        }
        let local = ip(peer).is_none_or(|address| address.is_loopback());
        let welcome = match self.config.anonymous {
            Anonymous::Always => true,
            Anonymous::Loopback => local,
            Anonymous::Never => false,
        };
        match welcome {
            true => Ok(Identity {
                user: None,
                login: None,
            }),
            false => Err((Refused::NotAuthorized, "anonymous")),
        }
    }

    /// The user that the client's certificate names, where that counts.
    fn certified(&self, peer: &Peer) -> Result<Option<Identity>, (Refused, &'static str)> {
        let Some(names) = &peer.certificate else {
            return Ok(None);
        };
        let name = match self.config.identity {
            CertificateIdentity::None => return Ok(None),
            CertificateIdentity::CommonName => names.common.as_deref(),
            CertificateIdentity::AlternativeName => names.alternative.first().map(String::as_str),
        };
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Ok(Some(Identity {
                user: Some(name.into()),
                login: None,
            })),
            None => Err((Refused::NotAuthorized, "certificate_without_name")),
        }
    }

    async fn check_password(
        &self,
        peer: &Peer,
        user: String,
        password: bytes::Bytes,
        users: &Users,
    ) -> Result<Identity, (Refused, &'static str)> {
        let from = ip(peer).map(AddressGroup::of);
        let may_try = || {
            let wait = lock(&self.throttle).wait(from, &user, Instant::now());
            self.limits.login_failures.is_none() || wait.is_none()
        };
        let hash = users.get(&user);
        let verdict = self.verifier.verify(&user, hash, password, may_try).await;
        let mut throttle = lock(&self.throttle);
        match (verdict, hash) {
            (Verdict::TooEarly, _) => Err((Refused::Throttled, "too_many_failures")),
            (Verdict::Wrong, _) | (_, None) => {
                if let Some(free) = self.limits.login_failures {
                    throttle.failed(from, &user, free, Instant::now());
                }
                let reason = hash.map_or("unknown_user", |_| "wrong_password");
                Err((Refused::BadLogin, reason))
            }
            (right, Some(hash)) => {
                throttle.succeeded(from, &user, Instant::now());
                self.status.logins.up();
                if right == Verdict::RightAsBefore {
                    self.status.logins_remembered.up();
                }
                Ok(Identity {
                    user: Some(user.into()),
                    login: Some(Arc::clone(hash)),
                })
            }
        }
    }

    /// What a client may do, kept up to date for as long as it is held.
    pub(crate) fn grant(
        self: &Arc<Self>,
        peer: &Peer,
        client_id: &str,
        identity: Identity,
    ) -> Result<Access, Refused> {
        let mut granted = lock(&self.granted);
        // Under the lock, so that a change of the rules either is seen here or finds the entry.
        let Some(rights) = self.policy().rights(&identity, client_id) else {
            self.note(Event {
                client: Some(excerpt(client_id)),
                user: identity.user.as_deref().map(excerpt),
                ..Event::new(What::LoginRefused, "user_changed", ip(peer))
            });
            return Err(Refused::NotAuthorized);
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let access = Access(Arc::new(Granted {
            guard: Arc::clone(self),
            number,
            client_id: client_id.into(),
            identity,
            address: ip(peer),
            rights: RwLock::new(rights),
            revoked: CancellationToken::new(),
        }));
        granted.insert(number, Arc::downgrade(&access.0));
        Ok(access)
    }

    pub(super) fn left(&self, number: u64) {
        lock(&self.granted).remove(&number);
    }

    fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&policy)
    }

    /// Reads the files again when they have changed.
    async fn follow_files(self: &Arc<Self>, stop: &CancellationToken) {
        let (mut current, mut before) = (self.first, self.first);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let now = stamps(&self.config);
            if now != current && now == before {
                current = now;
                let guard = Arc::clone(self);
                // Reads files, and goes through every connection.
                let reloading = tokio::task::spawn_blocking(move || guard.reload());
                let _ = reloading.await;
            }
            before = now;
        }
    }

    fn reload(&self) {
        let problem = match Policy::load(&self.config) {
            Ok(policy) => {
                let policy = Arc::new(policy);
                *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&policy);
                self.tell_counts();
                self.pass_on(&policy);
                self.status.access_reloads.up();
                tracing::info!("the users and rules of MQTT clients were read anew");
                None
            }
            Err(error) => {
                tracing::error!("{error}; until it is mended, the rules from before hold");
                Some(error.to_string())
            }
        };
        *lock(&self.status.access_problem) = problem;
    }

    fn pass_on(&self, policy: &Policy) {
        // Held no longer than it takes to look: dropping the last of one takes the lock again.
        let granted: Vec<Arc<Granted>> = lock(&self.granted)
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for granted in granted {
            granted.change(policy.rights(&granted.identity, &granted.client_id));
        }
    }

    fn tell_counts(&self) {
        let policy = self.policy();
        let users = policy.users.as_ref().map_or(0, Users::len);
        self.status.users.set(users);
        self.status
            .acl_rules
            .set(policy.acl.as_ref().map_or(0, Acl::len));
    }
}

fn stamps(config: &AccessConfig) -> [Stamp; 2] {
    [&config.users_file, &config.acl_file].map(|file| Stamp::of(file.as_deref()))
}

fn ip(peer: &Peer) -> Option<IpAddr> {
    peer.address.map(|address| address.ip().to_canonical())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
