//! From a full log to a broker beside it, exactly once.

use std::path::Path;

use skerry_tests::Result;

use super::backlog::Backlog;
use super::cluster::Cluster;
use super::peers::{PERF_TEST, Producer, RDKAFKA, perf_test};
use super::site::{Pack, Site, Way, Work};
use super::{Compared, Maybe, Scale, column};
use crate::figures::Aim;

/// Unpacked is the honest comparison: the broker then stores what the peers' stores.
const KINDS: [(Pack, &str); 2] = [(Pack::Off, "each record by itself"), (Pack::Auto, "packed")];

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let backlog = Backlog::of(scale.backlog)?;
    let cluster = Cluster::start(folder)?;
    let brokers = cluster.kafka.address();
    let mut ours: [Vec<Maybe<Work>>; 2] = Default::default();
    let (mut rates, mut rdkafka) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        ours[0].push(node(folder, &backlog, &brokers, Pack::Off)?);
        let topic = format!("perf-test-{round}");
        rates.push(perf_test(
            &brokers,
            &topic,
            &backlog.reports,
            backlog.records,
        )?);
        ours[1].push(node(folder, &backlog, &brokers, Pack::Auto)?);
        let producer = Producer {
            brokers: &brokers,
            topic: &format!("rdkafka-{round}"),
            reports: &backlog.reports,
            records: backlog.records,
            batch_records: None,
            window: None,
        };
        rdkafka.push(producer.run()?);
    }
    let rates = Ok(rates);
    let costs = column(&rdkafka, Work::cpu_seconds_per_million);
    for (ours, (_, kind)) in ours.iter().zip(KINDS) {
        Compared {
            figure: &format!("drain rate, exactly once, local broker, {kind}, 200 B"),
            unit: "records/s",
            ours: &column(ours, Work::rate),
            peer: PERF_TEST,
            theirs: &rates,
            aim: Aim::AtLeast(1.0),
        }
        .print();
        Compared {
            figure: &format!("processor time of a drain, local broker, {kind}, 200 B"),
            unit: "s/million records",
            ours: &column(ours, Work::cpu_seconds_per_million),
            peer: RDKAFKA,
            theirs: &costs,
            aim: Aim::AtMost(1.0),
        }
        .print();
    }
    Ok(())
}

fn node(folder: &Path, backlog: &Backlog, brokers: &str, pack: Pack) -> Result<Maybe<Work>> {
    let way = Way {
        brokers: brokers.to_owned(),
        pack: Some(pack),
        ..Way::default()
    };
    let mut site = match Site::start(folder, Some(backlog), &way)? {
        Ok(site) => site,
        Err(why) => return Ok(Err(why)),
    };
    let begun = site.begun()?;
    let drained = site.drained()?;
    site.remove()?;
    Work::between(begun, drained).map(Ok)
}
