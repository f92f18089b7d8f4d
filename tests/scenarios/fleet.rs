//! Many nodes that lost the same link come back, and neither the cluster nor one of them suffers.
//!
//! They are uplinks in one process (`bridge/examples/fleet.rs`), each with a log and a name of its
//! own; what they share is a proxy, which sees every connection that is asked for.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use skerry_tests::audit::{self, Arrived};
use skerry_tests::chance::number_from_environment;
use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::process::Process;
use skerry_tests::proxy::Proxy;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

/// After the last one has noticed that the link is cut: long enough that each waits as long as it ever does, and
/// then to be looked at.
const SETTLE: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(15);
/// In one second at most this share of the nodes asks for a connection that is refused, and at
/// most this share of all connections is made that a return takes. In step it would be all.
const SHARE_MAX: f64 = 0.6;
/// Hundreds of nodes on a machine that has other work.
const SAIL: Duration = Duration::from_secs(900);

/// `SKERRY_FLEET=500` is what a fleet is; `tests/run` has fewer.
pub(crate) fn returns(world: &World) -> Result<()> {
    let nodes = number_from_environment("SKERRY_FLEET", 40)?;
    let [detour, advertised] = [world.port()?, world.port()?];
    let extra = Extra {
        detour: Some([detour, advertised]),
        ..Extra::default()
    };
    let kafka = Kafka::start_extended(world.folder(), world.logs(), &extra)?;
    let proxy = Proxy::start_on(advertised, detour)?;
    // All at once and in vain, as after a power cut that took the network with it.
    proxy.cut();
    let mut fleet = Fleet::start(world, &proxy, nodes)?;
    fleet.come_back(&proxy)?;

    let cut = Instant::now();
    proxy.cut();
    fleet.until("all links are down", |now| now.up == 0)?;
    println!("  a cut was noticed by all after {:?}", cut.elapsed());
    fleet.come_back(&proxy)?;

    let appended = fleet.finish()?;
    audited(world, &kafka, &appended)
}

/// Connections asked for in each second of a time.
fn seconds(proxy: &Proxy, from: Instant, to: Instant) -> Vec<usize> {
    let mut counts = vec![0; (to - from).as_secs_f64().ceil() as usize];
    for at in proxy.asked() {
        if at >= from && at < to {
            counts[(at - from).as_secs() as usize] += 1;
        }
    }
    counts
}

/// Every record of every node once, in order per source, by the word of a reader that is not ours.
fn audited(world: &World, kafka: &Kafka, appended: &BTreeMap<String, u64>) -> Result<()> {
    let consumer = world.consumer(&kafka.address())?;
    let expected: u64 = appended.values().sum();
    let arrived = wait::until("the cluster has everything", wait::DRAIN, || {
        let lines = consumer.lines()?;
        ensure!(
            lines.len() as u64 >= expected,
            "{} of {expected} records",
            lines.len()
        );
        Ok(Some(audit::arrived(&lines)?))
    })?;
    let mut nodes: BTreeMap<&str, Vec<Arrived>> = BTreeMap::new();
    for record in &arrived {
        let node = record.header("skerry-node")?;
        nodes.entry(node).or_default().push(record.clone());
    }
    for (node, count) in appended {
        let arrived = nodes.remove(&**node).unwrap_or_default();
        let accounts = audit::offsets(&arrived).with_context(|| node.clone())?;
        let account = accounts.get("telemetry").cloned().unwrap_or_default();
        ensure!(
            account.in_gaps.is_empty() && account.len() == *count,
            "{node}: {} of {count} records",
            account.len()
        );
    }
    ensure!(nodes.is_empty(), "unknown nodes: {:?}", nodes.keys());
    Ok(())
}

struct Fleet {
    process: Process,
    nodes: u64,
}

/// What the fleet last said of itself.
#[derive(Debug, Clone, Copy)]
struct Now {
    up: u64,
    appended: u64,
    confirmed: u64,
}

impl Fleet {
    fn start(world: &World, proxy: &Proxy, nodes: u64) -> Result<Self> {
        let folder = world.folder().join("fleet");
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(workspace::example("fleet"));
        command
            .args([proxy.address(), nodes.to_string()])
            .arg(folder);
        let log = world.logs().join("fleet.log");
        let process = Process::start("fleet", &mut command, &log)?;
        Ok(Self { process, nodes })
    }

    /// From behind a cut link, once it has been cut for long.
    fn come_back(&mut self, proxy: &Proxy) -> Result<()> {
        let nodes = self.nodes;
        self.until("the fleet has sailed", |_| true)?;
        std::thread::sleep(SETTLE + SETTLED);
        let returned = Instant::now();
        let refused = seconds(proxy, returned - SETTLED, returned);
        proxy.restore();
        self.until("all links are up", |now| now.up == nodes)?;
        let up = Instant::now();
        self.until_confirmed()?;
        let made = seconds(proxy, returned, up);
        println!(
            "  {nodes} nodes: {refused:?} asked each second; back within {:?}, connections each \
             second {made:?}; all confirmed after {:?}",
            up - returned,
            returned.elapsed()
        );
        let busiest = |of: &[usize]| of.iter().copied().max().unwrap_or(0) as f64;
        ensure!(
            busiest(&refused) <= SHARE_MAX * nodes as f64,
            "while the link is cut they ask in step: {refused:?}"
        );
        ensure!(
            busiest(&made) <= SHARE_MAX * made.iter().sum::<usize>() as f64,
            "they come back in step: {made:?}"
        );
        Ok(())
    }

    fn lines(&self) -> Result<Vec<Value>> {
        let output = self.process.output()?;
        let whole = output.rfind('\n').map_or("", |end| &output[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    fn now(&self) -> Result<Now> {
        let lines = self.lines()?;
        let last = lines.iter().rfind(|line| line["event"] == "fleet");
        let last = last.context("no word of the fleet yet")?;
        let number = |name: &str| last[name].as_u64().with_context(|| format!("no {name}"));
        Ok(Now {
            up: number("up")?,
            appended: number("appended")?,
            confirmed: number("confirmed")?,
        })
    }

    fn until(&mut self, what: &str, reached: impl Fn(Now) -> bool) -> Result<()> {
        wait::until(what, SAIL, || {
            ensure!(
                self.process.is_running()?,
                "the fleet ended: {}",
                self.process.output()?
            );
            let now = self.now()?;
            ensure!(reached(now), "{now:?}");
            Ok(Some(()))
        })
    }

    /// What was there when this began has arrived.
    fn until_confirmed(&mut self) -> Result<()> {
        let appended = self.now()?.appended;
        self.until("all is confirmed", |now| now.confirmed >= appended)
    }

    /// Ends it once everything is confirmed; what each node had appended.
    fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        self.process.close_input();
        let status = self.process.wait(SAIL)?;
        ensure!(
            status.success(),
            "the fleet failed: {}",
            self.process.output()?
        );
        let lines = self.lines()?;
        let nodes = lines.iter().filter(|line| line["event"] == "node");
        let appended = nodes.map(|line| {
            let name = line["node"].as_str().context("no node")?;
            let count = line["appended"].as_u64().context("no count")?;
            Ok((name.to_owned(), count))
        });
        appended.collect()
    }
}
