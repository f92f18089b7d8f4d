//! A real Kafka cluster as the demo's central side, behind a link that can be cut.
//!
//! Kafka's clients connect to the brokers that the cluster *advertises*, so a plain TCP proxy is
//! left behind after the first answer. This one reads just enough of what passes to stay in the
//! way: wherever an answer names a broker, it names a loopback port of the link instead.
//!
//! ```text
//! client ─► a door per broker ─► link (frames both ways) ─► the broker
//!                                   └ rewrite: answers that name brokers (pure)
//! audit  ──────────────────────► reader ───────────────────► the brokers, whatever the link does
//! ```
//!
//! Every other frame passes as it came, byte for byte. It is for brokers that listen in plain
//! text: TLS, SASL and share groups are absent.

mod link;
mod reader;
mod rewrite;
mod wire;

#[cfg(test)]
mod tests;

use crate::central::Delivered;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use link::Link;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use wire::{Endpoint, Peer};

/// A cluster that is not ours, and the link to it. Dropping it takes the link down.
#[derive(Debug)]
pub struct RealCluster {
    bootstrap: Endpoint,
    address: SocketAddr,
    link: Arc<Link>,
}

impl RealCluster {
    /// Connects to `bootstrap` (`HOST:PORT`) once, to see that a Kafka which can be used listens
    /// there, and puts the link in front of it.
    ///
    /// # Errors
    /// When `bootstrap` is no address, nobody answers there, or what answers is not Kafka or too
    /// old; the message says what to do.
    pub async fn behind_link(bootstrap: &str) -> io::Result<Self> {
        let bootstrap: Endpoint = bootstrap.parse()?;
        let mut peer = Peer::connect(&bootstrap).await?;
        // Version 0 is what every broker answers, however old or new.
        let offered = peer
            .call(0, &ApiVersionsRequest::default())
            .await
            .map_err(hint)?;
        sufficient(&bootstrap, &offered)?;
        // A broker that wants a login tells its versions to anybody, and nothing else.
        reader::metadata(&mut peer, &[]).await.map_err(hint)?;
        let link = Link::new();
        let address = link.door(&bootstrap)?;
        Ok(Self {
            bootstrap,
            address,
            link,
        })
    }

    /// What goes into `brokers`: the cluster as it is reached through the link.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link: connections are reset wherever they are, new ones refused. A request that
    /// arrived may have been carried out without its answer coming back.
    pub fn cut(&self) {
        self.link.cut();
    }

    /// The opposite of [`cut`](Self::cut).
    pub fn restore(&self) {
        self.link.restore();
    }

    /// Everything committed in `topics` so far, by topic as given and then by partition, read from
    /// the brokers directly. A topic that does not exist has no records. A cluster may hold the
    /// records of earlier demos too: their `skerry-epoch` header tells them apart.
    ///
    /// # Errors
    /// When the cluster cannot be read for longer than a change of leaders takes, or a batch is
    /// damaged or packed in a way that skerry does not use.
    pub async fn records(&self, topics: &[String]) -> io::Result<Vec<Delivered>> {
        reader::committed(&self.bootstrap, topics).await
    }

    /// Takes the link down and waits until it is. The cluster itself stays as it is.
    pub async fn stop(self) {
        self.link.stop().await;
    }
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        self.link.abort();
    }
}

fn hint(error: io::Error) -> io::Error {
    let hint = "it must be a Kafka broker's PLAINTEXT listener, without TLS or SASL";
    io::Error::new(error.kind(), format!("{error}; {hint}"))
}

/// Whether the cluster speaks what the audit will ask for: better known now than after the demo.
fn sufficient(bootstrap: &Endpoint, offered: &ApiVersionsResponse) -> io::Result<()> {
    for (api, version) in reader::NEEDED {
        let speaks = offered.api_keys.iter().any(|offer| {
            offer.api_key == api as i16
                && (offer.min_version..=offer.max_version).contains(&version)
        });
        if !speaks {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the broker at {bootstrap} does not speak {} version {version}: \
                     use Apache Kafka 2.7 or later",
                    name(api)
                ),
            ));
        }
    }
    Ok(())
}

fn name(api: ApiKey) -> String {
    format!("{api:?}")
}
