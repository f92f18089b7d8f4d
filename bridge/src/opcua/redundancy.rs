//! Several servers for the same plant: which of them is connected to.
//!
//! The first one, until it cannot be reached; then the next, and from the last on the first one
//! again. A connection that breaks is tried anew where it was, because the subscription there can
//! be carried on; the subscription of one server is never looked for at another.

use super::address::EndpointUrl;
use super::config::{Config, Security};
use super::error::Error;
use super::link::Link;
use super::pki::Identity;
use super::progress::Progress;
use super::user::login;
use super::wire::{Calls, Session, Target};
use std::sync::Arc;

impl Config {
    /// All endpoints, in the order in which they are tried.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointUrl> {
        std::iter::once(&self.endpoint).chain(&self.standby)
    }

    /// The names that the endpoints' certificates are pinned under, in the same order: the
    /// configured one, and with a number behind it.
    pub fn pin_names(&self) -> impl Iterator<Item = String> {
        let numbered = (2..=self.standby.len() + 1).map(|number| format!("{}_{number}", self.name));
        std::iter::once(self.name.clone()).chain(numbered)
    }
}

impl Link {
    /// Which endpoint the subscription is at, as a number among all.
    pub(super) fn endpoint_of(config: &Config, progress: Option<&Progress>) -> usize {
        let url = progress.and_then(|progress| progress.endpoint.as_deref());
        let mut all = config.endpoints();
        url.and_then(|url| all.position(|it| it.as_str() == url))
            .unwrap_or_default()
    }

    pub(super) fn endpoint(&self) -> &EndpointUrl {
        let config = &self.ingest.config;
        config.endpoints().nth(self.at).unwrap_or(&config.endpoint)
    }

    /// Goes on to the next endpoint; `true` if all were tried.
    pub(super) fn next_endpoint(&mut self) -> bool {
        let all = 1 + self.ingest.config.standby.len();
        if all == 1 {
            return true;
        }
        self.at = (self.at + 1) % all;
        self.tried += 1;
        // It belongs to the one before.
        self.session = None;
        self.ingest.status.endpoint(self.endpoint().to_string());
        self.tried.is_multiple_of(all)
    }

    pub(super) async fn connect(&mut self) -> Result<Session, Error> {
        let config = Arc::clone(&self.ingest.config);
        let preparing = Arc::clone(&config);
        // Reads files, and makes a key at the first time.
        let prepared = tokio::task::spawn_blocking(move || {
            let identity = Identity::open(&preparing.pki_directory, preparing.security)?;
            let login = login(preparing.user.as_ref())?;
            Ok::<_, Error>((identity, login))
        });
        let (identity, login) = prepared.await.expect("reading files does not panic")?;
        if let (None, Some(reverse)) = (&self.calls, &config.reverse) {
            self.calls = Some(Arc::new(Calls::listen(reverse).await?));
        }
        let calls = self.calls.clone();
        let pin = config.pin_names().nth(self.at);
        let url = self.endpoint().clone();
        let target = Target {
            name: pin.as_deref().unwrap_or(&config.name),
            url: &url,
            security: config.security,
            login,
            identity: &identity,
            calls: calls.as_deref(),
        };
        let session = target.connect(&mut self.session).await?;
        // Only such a session can be taken up again; see `Target::revive`.
        self.session = (config.security == Security::None).then(|| session.token());
        Ok(session)
    }
}
