//! A satellite's link: 256 kbit/s, 600 ms there and back.
//!
//! Each drain is left alone until it is steady, then looked at for a while. Bytes are those of
//! TCP's payload as the link carried them; what IP and TCP add is the same for all.

use std::path::Path;

use skerry_tests::proxy::Link;
use skerry_tests::{Result, ensure};

use super::backlog::Backlog;
use super::cluster::{BITS_PER_SECOND, Cluster};
use super::peers::{Producer, RDKAFKA};
use super::site::{Pack, Site, Way, Work};
use super::{Compared, Maybe, Scale, column};
use crate::figures::Aim;

const KINDS: [(Pack, &str); 2] = [(Pack::Off, "each record by itself"), (Pack::Auto, "packed")];
/// Records in a batch of a peer, and the aim for the bytes of ours against it.
const BATCHES: [(u32, f64); 2] = [(100, 0.15), (1_000, 0.1)];
/// For counting bytes; more make no difference.
const COUNTED: u64 = 200_000;

/// A drain in its steady part, and what the link carried of it.
struct Drain {
    work: Work,
    there: f64,
    back: f64,
}

impl Drain {
    fn bytes_per_record(&self) -> f64 {
        (self.there + self.back) / self.work.records
    }

    fn bytes_per_second(&self) -> f64 {
        self.there / self.work.seconds
    }
}

struct Bench<'a> {
    folder: &'a Path,
    scale: Scale,
    backlog: Backlog,
    cluster: Cluster,
}

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let bench = Bench {
        folder,
        scale,
        backlog: Backlog::of(scale.backlog)?,
        cluster: Cluster::start(folder)?,
    };
    let mut ours: [Vec<Maybe<Drain>>; 2] = Default::default();
    let (mut capped, mut costs) = (Vec::new(), Vec::new());
    let mut batches: [Vec<Maybe<f64>>; 2] = Default::default();
    for round in 0..scale.rounds {
        bench.cluster.narrow();
        ours[0].push(bench.node(KINDS[0].0, "")?);
        costs.push(bench.rdkafka(&format!("narrow-{round}"))?);
        ours[1].push(bench.node(KINDS[1].0, "")?);
        bench.cluster.wide();
        capped.push(bench.node(Pack::Off, "bandwidth = \"256 kbit/s\"\n")?);
        bench.cluster.link.set(Link::GOOD);
        for (batches, (records, _)) in batches.iter_mut().zip(BATCHES) {
            batches.push(bench.batched(&format!("batches-{round}-{records}"), records)?);
        }
    }
    for (ours, (_, kind)) in ours.iter().zip(KINDS) {
        Compared {
            figure: &format!("processor time of a drain, 256 kbit/s, 600 ms, {kind}, 200 B"),
            unit: "s/million records",
            ours: &column(ours, |drain| drain.work.cpu_seconds_per_million()),
            peer: RDKAFKA,
            theirs: &column(&costs, Work::cpu_seconds_per_million),
            aim: Aim::AtMost(0.1),
        }
        .print();
    }
    for (ours, (_, kind)) in ours.iter().zip(KINDS) {
        link_use(&format!("link use, 256 kbit/s, 600 ms, {kind}"), ours);
    }
    link_use(
        "link use, a cap of 256 kbit/s on a wide link, 600 ms",
        &capped,
    );
    for (batches, (records, aim)) in batches.iter().zip(BATCHES) {
        Compared {
            figure: &format!("bytes on the wire per 200 B record, packed, batches of {records}"),
            unit: "bytes",
            ours: &column(&ours[1], Drain::bytes_per_record),
            peer: RDKAFKA,
            theirs: &column(batches, |bytes| *bytes),
            aim: Aim::AtMost(aim),
        }
        .print();
    }
    Ok(())
}

/// Of what the link takes towards the broker.
fn link_use(figure: &str, drains: &[Maybe<Drain>]) {
    let cap = f64::from(BITS_PER_SECOND / 8);
    Compared {
        figure,
        unit: "bytes/s",
        ours: &column(drains, Drain::bytes_per_second),
        peer: "the link's cap",
        theirs: &Ok(vec![cap; drains.len()]),
        aim: Aim::AtLeast(0.9),
    }
    .print();
}

impl Bench<'_> {
    fn node(&self, pack: Pack, kafka_more: &str) -> Result<Maybe<Drain>> {
        let link = &self.cluster.link;
        let way = Way {
            brokers: link.address(),
            pack: Some(pack),
            kafka_more: kafka_more.to_owned(),
            ..Way::default()
        };
        let mut site = match Site::start(self.folder, Some(&self.backlog), &way)? {
            Ok(site) => site,
            Err(why) => return Ok(Err(why)),
        };
        site.begun()?;
        std::thread::sleep(self.scale.settle);
        let (from, carried_before) = (site.mark()?, link.carried());
        std::thread::sleep(self.scale.steady);
        let (to, carried) = (site.mark()?, link.carried());
        site.remove()?;
        ensure!(to.confirmed < to.head, "the backlog was too short");
        Ok(Ok(Drain {
            work: Work::between(from, to)?,
            there: (carried.there - carried_before.there) as f64,
            back: (carried.back - carried_before.back) as f64,
        }))
    }

    fn rdkafka(&self, topic: &str) -> Result<Maybe<Work>> {
        let producer = Producer {
            brokers: &self.cluster.link.address(),
            topic,
            reports: &self.backlog.reports,
            records: self.backlog.records,
            batch_records: None,
            window: Some([self.scale.settle, self.scale.steady]),
        };
        producer.run()
    }

    /// Bytes per record in full batches, both ways, connecting included.
    fn batched(&self, topic: &str, records: u32) -> Result<Maybe<f64>> {
        let link = &self.cluster.link;
        let before = link.carried();
        let producer = Producer {
            brokers: &link.address(),
            topic,
            reports: &self.backlog.reports,
            records: COUNTED,
            batch_records: Some(records),
            window: None,
        };
        let work = producer.run()?;
        let carried = link.carried();
        let bytes = (carried.there - before.there + carried.back - before.back) as f64;
        Ok(work.map(|work| bytes / work.records))
    }
}
