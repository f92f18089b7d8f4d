//! `$SYS/broker/…`: what the broker says of itself, under the names that mosquitto gave them
//! (mosquitto(8), "Broker Status"), so that dashboards made for it go on working.
//!
//! These messages are retained and never logged. A value is published when it has changed.

use crate::codec::{Publish, PublishProperties, Qos};
use crate::ingest::Ingest;
use crate::message::Message;
use crate::status::Snapshot;
use skerry_store::WallNanos;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// As often as mosquitto does by default.
const INTERVAL: Duration = Duration::from_secs(10);

/// Time constants of the load averages, in minutes.
const AVERAGES: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

type Counter = fn(&Snapshot) -> u64;

/// Counters whose rate a minute is averaged.
const LOADS: [(&str, Counter); 9] = [
    ("messages/received", |now| now.packets_in_total),
    ("messages/sent", |now| now.packets_out_total),
    ("publish/received", publishes),
    ("publish/sent", |now| now.deliveries_total),
    ("publish/dropped", dropped),
    ("bytes/received", |now| now.bytes_in_total),
    ("bytes/sent", |now| now.bytes_out_total),
    ("sockets", |now| now.connections_total),
    ("connections", |now| now.connections_total),
];

fn publishes(now: &Snapshot) -> u64 {
    now.publishes_qos0_total + now.publishes_qos1_total + now.publishes_qos2_total
}

fn dropped(now: &Snapshot) -> u64 {
    now.slow_reader_losses_total + now.deliveries_expired_total + now.deliveries_too_large_total
}

/// Publishes them until it is dropped.
pub(crate) async fn run(ingest: Arc<Ingest>) {
    let started = Instant::now();
    let mut loads = Loads::default();
    loop {
        let now = ingest.status.snapshot();
        let uptime = started.elapsed().as_secs();
        let values = figures(&now, uptime);
        for (name, value) in values.into_iter().chain(loads.next(&now)) {
            say(&ingest, &name, value);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn say(ingest: &Ingest, name: &str, value: String) {
    let publish = Publish {
        topic: format!("$SYS/broker/{name}"),
        payload: value.into(),
        qos: Qos::AtMostOnce,
        retain: true,
        properties: PublishProperties::default(),
        ..Publish::default()
    };
    let message = Message::new(publish, WallNanos::now(), None);
    if ingest.retained.say(&message) {
        ingest.registry.publish_now(&message, false);
    }
}

fn figures(now: &Snapshot, uptime: u64) -> Vec<(String, String)> {
    let sessions = now.connections + now.sessions_absent;
    let figures: [(&str, u64); 21] = [
        ("clients/total", sessions),
        ("clients/connected", now.connections),
        ("clients/active", now.connections),
        ("clients/disconnected", now.sessions_absent),
        ("clients/inactive", now.sessions_absent),
        ("clients/maximum", now.connections_most),
        ("clients/expired", now.sessions_expired_total),
        ("messages/received", now.packets_in_total),
        ("messages/sent", now.packets_out_total),
        ("publish/messages/received", publishes(now)),
        ("publish/messages/sent", now.deliveries_total),
        ("publish/messages/dropped", dropped(now)),
        ("publish/bytes/received", now.payload_bytes_in_total),
        ("publish/bytes/sent", now.payload_bytes_out_total),
        ("bytes/received", now.bytes_in_total),
        ("bytes/sent", now.bytes_out_total),
        ("retained messages/count", now.retained_topics),
        ("messages/stored", now.retained_topics),
        ("store/messages/count", now.retained_topics),
        ("subscriptions/count", now.subscriptions),
        ("shared_subscriptions/count", now.shared_subscriptions),
    ];
    let figures = figures.map(|(name, value)| (name.to_owned(), value.to_string()));
    let said = [
        (
            "version",
            format!("skerry version {}", env!("CARGO_PKG_VERSION")),
        ),
        ("uptime", format!("{uptime} seconds")),
    ];
    let said = said.map(|(name, value)| (name.to_owned(), value));
    said.into_iter().chain(figures).collect()
}

/// Exponentially weighted averages of rates a minute.
#[derive(Debug, Default)]
struct Loads {
    last: Option<[u64; LOADS.len()]>,
    averages: [[f64; AVERAGES.len()]; LOADS.len()],
}

impl Loads {
    /// The averages, one interval further on.
    fn next(&mut self, now: &Snapshot) -> Vec<(String, String)> {
        let counts = LOADS.map(|(_, count)| count(now));
        let last = self.last.replace(counts).unwrap_or_default();
        let minutes = INTERVAL.as_secs_f64() / 60.0;
        let mut said = Vec::new();
        for (load, (name, _)) in LOADS.iter().enumerate() {
            let rate = counts[load].saturating_sub(last[load]) as f64 / minutes;
            for (average, (span, constant)) in self.averages[load].iter_mut().zip(AVERAGES) {
                let weight = (-minutes / constant).exp();
                *average = rate + weight * (*average - rate);
                said.push((format!("load/{name}/{span}"), format!("{average:.2}")));
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    #[test]
    fn a_steady_rate_becomes_its_own_average() {
        let status = Status::default();
        let mut loads = Loads::default();
        let mut said = Vec::new();
        // Two hours of one packet a second.
        for _ in 0..720 {
            status.packets_in.add(10);
            said = loads.next(&status.snapshot());
        }
        let of = |name: &str| {
            let found = said.iter().find(|(held, _)| held == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(of("load/messages/received/1min"), Some("60.00"));
        assert_eq!(of("load/messages/received/15min"), Some("59.98"));
        assert_eq!(of("load/messages/sent/1min"), Some("0.00"));
    }
}
