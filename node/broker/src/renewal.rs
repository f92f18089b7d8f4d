//! A TLS listener's files over time. New ones are taken up while connections go on; bad ones are
//! told of, and the ones before stay in use.

use crate::certificate::Validity;
use crate::status::CertificateStatus;
use crate::tls::{Server, Tls, TlsError};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the files are looked at. They have to look the same twice: a certificate and its key
/// are seldom written in the same moment.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From here on the log warns once a day.
pub const EXPIRES_SOON_DAYS: i64 = 14;

/// What of the files betrays a change, whoever made it and however: the inode and the time of its
/// last change, which no program can set.
type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

/// How the files looked when they were loaded, and when they were last looked at.
struct Looks {
    loaded: Stamp,
    seen: Stamp,
}

#[derive(Debug)]
pub(crate) struct Renewal {
    /// The listener, for the log.
    name: String,
    tls: Tls,
    protocol: &'static [u8],
    /// The files before they were first read.
    first: Stamp,
    current: Mutex<Option<Arc<Server>>>,
    status: Arc<CertificateStatus>,
}

impl Renewal {
    pub(crate) fn new(
        name: String,
        tls: Tls,
        protocol: &'static [u8],
        status: Arc<CertificateStatus>,
    ) -> Self {
        Self {
            name,
            first: stamp(&tls),
            tls,
            protocol,
            current: Mutex::default(),
            status,
        }
    }

    /// What new connections are served with; `None` while no set of files was good.
    pub(crate) fn current(&self) -> Option<Arc<Server>> {
        self.lock().clone()
    }

    /// Reads the files now. A node whose certificate is broken starts nevertheless: its other
    /// listeners work, and this one does as soon as the files do.
    pub(crate) fn load(&self) {
        match Server::load(&self.tls, self.protocol) {
            Ok(server) => self.take(server),
            Err(error) => self.keep(&error),
        }
    }

    fn take(&self, server: Server) {
        let validity = server.validity;
        let renewed = self.lock().replace(Arc::new(server)).is_some();
        self.status.good(validity);
        if renewed {
            let days_left = validity.days_left(now());
            tracing::info!(
                listener = self.name,
                days_left,
                "a new certificate is in use"
            );
        }
    }

    fn keep(&self, error: &TlsError) {
        let told = error.to_string();
        // The same trouble is told once, however often the files are touched.
        if !self.status.bad(&told) {
            return;
        }
        if self.lock().is_some() {
            tracing::error!(
                listener = self.name,
                "new TLS files cannot be used, and the ones before stay in use: {told}"
            );
        } else {
            tracing::error!(
                listener = self.name,
                "no client can connect before the TLS files are mended: {told}"
            );
        }
    }

    /// Looks after the files, for as long as it is polled.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut looks = Looks {
            loaded: self.first.clone(),
            seen: self.first.clone(),
        };
        let mut warned = None;
        loop {
            self.warn_of_expiry(&mut warned);
            tokio::time::sleep(LOOK_INTERVAL).await;
            let this = Arc::clone(&self);
            // A file system that hangs has a thread of its own to hold up.
            let look = tokio::task::spawn_blocking(move || this.look(looks));
            looks = match look.await {
                Ok(looks) => looks,
                // The broker stops.
                Err(_) => return,
            };
        }
    }

    fn look(&self, before: Looks) -> Looks {
        let seen = stamp(&self.tls);
        let settled = seen == before.seen;
        let loaded = if settled && seen != before.loaded {
            self.load();
            seen.clone()
        } else {
            before.loaded
        };
        Looks { loaded, seen }
    }

    fn warn_of_expiry(&self, warned: &mut Option<i64>) {
        let Some(validity) = self.current().map(|server| server.validity) else {
            return;
        };
        let days_left = validity.days_left(now());
        if days_left >= EXPIRES_SOON_DAYS || *warned == Some(days_left) {
            return;
        }
        *warned = Some(days_left);
        let (listener, file) = (&self.name, self.tls.cert_file.display());
        if days_left < 0 {
            tracing::error!(
                listener,
                "the certificate in {file} has expired: clients that check it stay away"
            );
        } else {
            tracing::warn!(
                listener,
                days_left,
                "the certificate in {file} expires soon"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Server>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(tls: &Tls) -> Stamp {
    let stamps = tls.files().map(|file| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((
            metadata.dev(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ))
    });
    stamps.collect()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

impl Validity {
    /// Whole days that are left now; negative once it has expired.
    #[must_use]
    pub fn days_left_now(self) -> i64 {
        self.days_left(now())
    }
}
