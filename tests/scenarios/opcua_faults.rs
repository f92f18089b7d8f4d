//! What befalls a line to a PLC, on three servers that are not ours at once: whatever they say they
//! have set is in the log, or in a gap record's time, and never twice.
//!
//! ```text
//!  asyncua    ─► Proxy ─┐
//!  node-opcua ─► Proxy ─┼─► Node ─► log ─┐
//!  open62541  ─► Proxy ─┘                ├─► judge
//!      └── what was set, and when ───────┘
//! ```
//!
//! `SKERRY_LONG_FAULTS=1` has the faults last as long as in a plant: minutes.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use skerry_tests::node::{self, Node};
use skerry_tests::opcua::judge::{self, Verdict};
use skerry_tests::opcua::{Make, NAMESPACE, OpcuaServer};
use skerry_tests::process::Signal;
use skerry_tests::proxy::{Link, Proxy};
use skerry_tests::python::{Helper, count};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};

const COUNTERS: u32 = 3;
const STREAM: &str = "machines";
/// Ticks of each server before anything befalls it, and after it has recovered.
const TICKS: usize = 20;
/// "Data again within 30 s."
const BACK: Duration = Duration::from_secs(30);
/// The groups of the counters.
const PACES: [Option<&str>; COUNTERS as usize] = [None, Some("fast"), Some("slow")];
/// A server that takes another's place starts here, far from where the first can have got to.
const SECOND_FROM: u64 = 100_000;

/// A server with the line to it.
struct Plant {
    make: Make,
    port: u16,
    proxy: Proxy,
    server: Option<Helper>,
    /// What its predecessors have said.
    before: Vec<Value>,
}

struct Site<'a> {
    world: &'a World,
    plants: Vec<Plant>,
    node: Node,
}

/// All of them killed; others take their places, with their namespaces in another order.
pub(crate) fn server_rebuilt(world: &World) -> Result<()> {
    let mut site = Site::start(world)?;
    for plant in &mut site.plants {
        let server = plant.server.take().context("it runs")?;
        plant.before = server.lines()?;
        server.kill()?;
    }
    site.all_are("retrying")?;
    for plant in &mut site.plants {
        let name = format!("{}-second", plant.make.name());
        let server = OpcuaServer::new(plant.make, &name, plant.port)
            .with(format!("--first={SECOND_FROM}"))
            .with("--namespaces=2");
        plant.server = Some(server.start(world)?);
    }
    site.recovers(&[]).map(drop)
}

/// They do nothing for a while, and then go on as if nothing had been.
pub(crate) fn server_frozen(world: &World) -> Result<()> {
    let site = Site::start(world)?;
    site.signal(Signal::STOP)?;
    let bridging = lasts(30, 300);
    site.signal(Signal::CONT)?;
    site.recovers(bridging).map(drop)
}

/// Packets are lost for a while, and the connections of before stay dead without a word.
pub(crate) fn cable_pulled(world: &World) -> Result<()> {
    let site = Site::start(world)?;
    site.plants
        .iter()
        .for_each(|plant| plant.proxy.set(Link::Lossy));
    let bridging = lasts(5, 120);
    site.plants.iter().for_each(|plant| plant.proxy.restore());
    site.recovers(bridging).map(drop)
}

/// The servers throw everybody out: sessions, or with asyncua subscriptions, are gone.
pub(crate) fn sessions_deleted(world: &World) -> Result<()> {
    let site = Site::start(world)?;
    site.signal(Signal::USR2)?;
    site.recovers(&[]).map(drop)
}

/// The same on the two that keep history: what the subscriptions no longer bring, it does.
pub(crate) fn history_read(world: &World) -> Result<()> {
    const PLANTS: [(Make, &str); 2] = [
        (Make::NodeOpcua, "--history"),
        (Make::Open62541, "--history=10000"),
    ];
    let site = Site::of(world, &PLANTS.map(|(make, option)| (make, vec![option])))?;
    site.signal(Signal::USR2)?;
    let verdicts = site.recovers(&[])?;
    for (make, verdict) in verdicts {
        let lost = verdict.in_gaps;
        ensure!(lost == 0, "{}: {lost} values only in gaps", make.name());
    }
    Ok(())
}

/// The node is killed; its subscriptions are still there when it comes back.
pub(crate) fn node_killed(world: &World) -> Result<()> {
    let mut site = Site::start(world)?;
    site.node.kill()?;
    let bridging = lasts(6, 60);
    site.node.start()?;
    site.recovers(bridging).map(drop)
}

/// The same with nodes at three paces, which are three subscriptions at each server.
pub(crate) fn node_with_groups_killed(world: &World) -> Result<()> {
    let plants = Make::ALL.map(|make| (make, Vec::new()));
    let mut site = Site::grouped(world, &plants, &PACES)?;
    let status = site.node.status()?;
    for at in 0..site.plants.len() {
        let groups = &status["opcua"][at]["groups"];
        let paces = PACES.iter().flatten().zip([100, 2_000]);
        for (place, (group, interval_ms)) in paces.enumerate() {
            let granted = &groups[place];
            let as_asked =
                granted["name"] == *group && granted["publishing_interval_ms"] == interval_ms;
            ensure!(as_asked, "{granted}");
        }
    }
    site.node.kill()?;
    let bridging = lasts(6, 60);
    site.node.start()?;
    site.recovers(bridging).map(drop)
}

/// Passes a fault's time; the servers that keep our subscription through it. open62541 hands one on
/// only as long as the session lives that made it, which is a minute.
fn lasts(seconds: u64, seconds_in_a_plant: u64) -> &'static [Make] {
    let long = std::env::var("SKERRY_LONG_FAULTS").is_ok_and(|value| value == "1");
    let seconds = if long { seconds_in_a_plant } else { seconds };
    thread::sleep(Duration::from_secs(seconds));
    match long {
        false => &[Make::Open62541, Make::NodeOpcua],
        true => &[Make::NodeOpcua],
    }
}

fn now() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_nanos())?)
}

impl<'a> Site<'a> {
    /// Three servers, and a node that has had some values of each.
    fn start(world: &'a World) -> Result<Self> {
        Self::of(world, &Make::ALL.map(|make| (make, Vec::new())))
    }

    /// The same of these servers with these options.
    fn of(world: &'a World, makes: &[(Make, Vec<&str>)]) -> Result<Self> {
        Self::grouped(world, makes, &[None; COUNTERS as usize])
    }

    /// The same with the counters in these groups.
    fn grouped(
        world: &'a World,
        makes: &[(Make, Vec<&str>)],
        groups: &[Option<&str>; COUNTERS as usize],
    ) -> Result<Self> {
        let mut plants = Vec::new();
        for (make, options) in makes {
            let port = world.port()?;
            let mut server = OpcuaServer::new(*make, make.name(), port);
            for option in options {
                server = server.with(*option);
            }
            plants.push(Plant {
                make: *make,
                port,
                proxy: Proxy::start(port)?,
                server: Some(server.start(world)?),
                before: Vec::new(),
            });
        }
        let mut settings = world.settings()?;
        settings.more = endpoints(&plants, groups);
        let node = world.started(settings)?;
        let site = Self {
            world,
            plants,
            node,
        };
        site.collected_since(now()?, wait::START)?;
        Ok(site)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut servers = self.plants.iter().filter_map(|plant| plant.server.as_ref());
        servers.try_for_each(|server| server.process().signal(signal))
    }

    fn all_are(&self, state: &str) -> Result<()> {
        let count = self.plants.len();
        let are = |status: &Value| (0..count).all(|at| status["opcua"][at]["state"] == state);
        let what = format!("every endpoint is {state}");
        self.node.wait_for_status(&what, wait::START, are)?;
        Ok(())
    }

    /// Waits until the log has [`TICKS`] values of every counter that were set since `since`.
    fn collected_since(&self, since: i64, deadline: Duration) -> Result<()> {
        wait::until_true("values of every counter", deadline, || {
            let logged = node::log_cat(&self.node.settings().data, STREAM)?;
            for plant in &self.plants {
                for counter in 0..COUNTERS {
                    let name = format!("{}/Counter{counter}", plant.make.name());
                    let fresh = logged.iter().filter(|record| {
                        record["source"] == name.as_str()
                            && record["source_time_ns"].as_i64() > Some(since)
                    });
                    let fresh = fresh.count();
                    ensure!(fresh >= TICKS, "{name}: {fresh} so far");
                }
            }
            Ok(true)
        })
    }

    /// Now that the fault is over: data again in time, and nothing missing silently. Servers that
    /// keep a subscription through such a fault have nothing to be lost, so there is no gap.
    fn recovers(mut self, bridging: &[Make]) -> Result<Vec<(Make, Verdict)>> {
        self.collected_since(now()?, BACK)?;
        let until = now()?;
        self.collected_since(until, BACK)?;
        ensure!(
            self.node.terminate()?.success(),
            "the node did not stop cleanly"
        );
        let logged = node::log_cat(&self.node.settings().data, STREAM)?;
        let mut told = String::new();
        let mut outcomes = Vec::new();
        for plant in self.plants {
            let (make, verdict) = (plant.make, plant.judged(&logged, until));
            writeln!(told, "{}: {verdict:?}", make.name()).expect("a String takes everything");
            outcomes.push(verdict.and_then(|verdict| {
                let gaps = verdict.gaps;
                let bridges = bridging.contains(&make);
                ensure!(!bridges || gaps == 0, "{}: {gaps} gaps", make.name());
                Ok((make, verdict))
            }));
        }
        std::fs::write(self.world.logs().join("verdicts.txt"), told)?;
        outcomes.into_iter().collect()
    }
}

impl Plant {
    fn judged(mut self, logged: &[Value], until: i64) -> Result<Verdict> {
        if let Some(server) = self.server.take() {
            let lines = server.lines()?;
            ensure!(count(&lines, "set") > 0, "the server has set nothing");
            self.before.extend(lines);
        }
        judge::judge(self.make.name(), &self.before, logged, until)
    }
}

fn endpoints(plants: &[Plant], groups: &[Option<&str>; COUNTERS as usize]) -> String {
    let mut text = format!("\n[[stream]]\nname = \"{STREAM}\"\ntopics = []\n");
    for plant in plants {
        let (name, port) = (plant.make.name(), plant.proxy.port());
        // Sampling zero: whatever is set is a sample.
        let nodes = groups.iter().enumerate().map(|(n, group)| {
            let group = group.map_or_else(String::new, |group| format!(", group = \"{group}\""));
            format!(
                "  {{ name = \"{name}/Counter{n}\", id = \"nsu={NAMESPACE};s=Counter{n}\", \
                 sampling = \"0ms\"{group} }},\n"
            )
        });
        let nodes: String = nodes.collect();
        write!(
            text,
            "\n[[opcua]]\nname = \"{name}\"\nendpoint = \"opc.tcp://127.0.0.1:{port}/tests\"\n\
             stream = \"{STREAM}\"\npublishing_interval = \"100ms\"\nnodes = [\n{nodes}]\n"
        )
        .expect("a String takes everything");
        for (group, interval) in groups.iter().flatten().zip(["100ms", "2s"]) {
            write!(
                text,
                "\n[[opcua.group]]\nname = \"{group}\"\npublishing_interval = \"{interval}\"\n"
            )
            .expect("a String takes everything");
        }
    }
    text
}
