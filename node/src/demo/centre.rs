//! The central side of the demo: the stand-in, or a real cluster behind a link that can be cut.

use super::audit::Entry;
use skerry_simulation::central::{Central, Delivered};
use skerry_simulation::real::RealCluster;
use skerry_store::Gap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

/// Streams of the demo's config that leave the site, each a topic. Nobody is refused in the demo, so
/// `audit` stays empty.
const STREAMS: [&str; 6] = [
    "alerts",
    "default",
    "machines",
    "node",
    "scores",
    "telemetry",
];

pub enum Centre {
    StandIn(Central),
    Real(RealCluster),
}

impl Centre {
    /// The stand-in, or the cluster at `kafka`.
    pub async fn start(kafka: Option<&str>) -> io::Result<Self> {
        match kafka {
            None => Ok(Self::StandIn(Central::start(0).await?)),
            Some(address) => Ok(Self::Real(RealCluster::behind_link(address).await?)),
        }
    }

    pub fn describe(&self) -> &'static str {
        match self {
            Self::StandIn(_) => "a stand-in for the central Kafka cluster",
            Self::Real(_) => "your Kafka cluster, behind a link that can be cut",
        }
    }

    /// What the node is told as `brokers`.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::StandIn(central) => central.address(),
            Self::Real(cluster) => cluster.address(),
        }
    }

    pub fn cut(&self) {
        match self {
            Self::StandIn(central) => central.cut(),
            Self::Real(cluster) => cluster.cut(),
        }
    }

    pub fn restore(&self) {
        match self {
            Self::StandIn(central) => central.restore(),
            Self::Real(cluster) => cluster.restore(),
        }
    }

    /// Everything committed under `epoch`, this demo's data directory; what the uplink delivered
    /// as a gap of the log's is added to `gaps`.
    pub async fn delivered(
        &self,
        epoch: &str,
        gaps: &mut Vec<(String, Range<u64>)>,
    ) -> io::Result<Vec<Entry>> {
        let records = match self {
            Self::StandIn(central) => central.records(),
            Self::Real(cluster) => {
                let topics = STREAMS.map(|stream| format!("skerry.{stream}"));
                cluster.records(&topics).await?
            }
        };
        let mut entries = Vec::new();
        for record in records {
            if record.header("skerry-epoch") != Some(epoch) {
                continue;
            }
            match entry(&record) {
                Some(entry) => entries.push(entry),
                None => gaps.extend(gap(&record)),
            }
        }
        Ok(entries)
    }
}

fn entry(record: &Delivered) -> Option<Entry> {
    let key = record.key.as_deref().unwrap_or_default();
    Some(Entry {
        stream: record.header("skerry-stream")?.to_owned(),
        offset: record.header("skerry-offset")?.parse().ok()?,
        source: String::from_utf8_lossy(key).into_owned(),
        payload: record.value.as_deref().unwrap_or_default().to_vec(),
    })
}

/// A gap that the uplink itself reports has no offset of its own.
fn gap(record: &Delivered) -> Option<(String, Range<u64>)> {
    let gap: Gap = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let (first, next) = gap.offsets?;
    Some((gap.subject, first.0..next.0))
}
