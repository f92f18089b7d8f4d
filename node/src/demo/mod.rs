//! `skerry demo`: the whole product at work, and the proof that it kept its promises.
//!
//! The plant and the central side are simulated, in this process; the node is the real one, in a
//! process of its own, and its crash is a `kill -9`. The script:
//!
//! ```text
//!   0 %   25 %      35 %     40 %        60 %       80 %            100 %
//!   │ live │ link cut │ kill -9, restart │ link back │ plant stops, drain, audit │
//! ```

mod arguments;
mod audit;
mod centre;
mod config;
mod node;
mod place;
mod site;
mod view;

pub use arguments::Arguments;

use crate::exit::Exit;
use audit::{Entry, Evidence, Verdict};
use centre::Centre;
use node::NodeProcess;
use place::{Place, Ports};
use serde_json::Value;
use site::Site;
use skerry_bridge::uplink::quarantine::QUARANTINE;
use skerry_store::{Gap, Kind, Offset, StreamName, inspect};
use std::error::Error;
use std::time::{Duration, Instant};
use view::{Scene, View};

const CUT_AT: f64 = 0.25;
const CRASH_AT: f64 = 0.40;
const RESTORE_AT: f64 = 0.60;
const LAST_READING_AT: f64 = 0.80;

/// Time to drain beyond the end, where the machine is slow: an audit of a half-drained backlog
/// would say nothing.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

const LIVE_EVERY: Duration = Duration::from_millis(250);
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Names of broken records printed of each kind.
const SHOWN: usize = 5;

type Failure = Box<dyn Error + Send + Sync>;

pub fn run(args: Arguments) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("skerry-worker")
        .enable_all()
        .build();
    let played = match runtime {
        Ok(runtime) => runtime.block_on(play(args)),
        Err(error) => Err(error.into()),
    };
    match played {
        Ok(verdict) if verdict.holds() => Exit::Clean,
        Ok(_) => Exit::Failed,
        Err(why) => {
            eprintln!("skerry demo: {why}");
            Exit::Failed
        }
    }
}

async fn play(args: Arguments) -> Result<Verdict, Failure> {
    let total = Duration::from_secs(args.seconds);
    let mut stage = Stage::set(args, total).await?;
    let interrupted = stage.perform().await;
    let drained = match interrupted {
        Ok(()) => stage.drain().await,
        Err(why) => Err(why),
    };
    let verdict = match drained {
        Ok(()) => stage.audit().await,
        Err(why) => Err(why),
    };
    stage.strike().await?;
    verdict
}

/// Everything that stands while the demo runs.
struct Stage {
    total: Duration,
    started: Instant,
    place: Place,
    node: NodeProcess,
    site: Site,
    centre: Centre,
    link_up: bool,
    view: View,
}

impl Stage {
    async fn set(args: Arguments, total: Duration) -> Result<Self, Failure> {
        let place = Place::make(args.dir)?;
        let ports = Ports::choose()?;
        let centre = Centre::start(args.kafka.as_deref()).await?;
        let site = Site::build(&place, &ports, args.seed, total).await?;
        let model = place.put_model()?;
        let brokers = centre.address().to_string();
        let text = config::text(
            &place,
            &ports,
            &brokers,
            &model,
            &site.opcua_url(),
            site.opcua_tags(),
        );
        std::fs::write(&place.config_file, text)?;

        println!(
            "skerry demo: a simulated plant, a real node, and {}",
            centre.describe()
        );
        println!("  config     {}", place.config_file.display());
        println!("  data       {}", place.data_dir.display());
        println!("  node log   {}", place.log_file.display());
        println!(
            "  MQTT       127.0.0.1:{}   (try: mosquitto_sub -p {} -t '#' -v)",
            ports.mqtt, ports.mqtt
        );
        println!("  status     skerry status 127.0.0.1:{}", ports.http);
        println!("  OPC-UA     {}", site.opcua_url());
        println!();
        let http = format!("127.0.0.1:{}", ports.http);
        let node = NodeProcess::start(&place.config_file, &place.log_file, &http).await?;
        let mut stage = Self {
            total,
            started: Instant::now(),
            place,
            node,
            site,
            centre,
            link_up: true,
            view: View::new(args.plain),
        };
        stage.site.run();
        stage.tell("the node is up, the plant runs, records flow to the centre");
        Ok(stage)
    }

    /// Plays the script up to the last reading, or until Ctrl-C.
    async fn perform(&mut self) -> Result<(), Failure> {
        let script: [(f64, Act); 4] = [
            (CUT_AT, Act::Cut),
            (CRASH_AT, Act::Crash),
            (RESTORE_AT, Act::Restore),
            (LAST_READING_AT, Act::LastReading),
        ];
        let mut next = script.iter();
        let mut coming = next.next();
        let mut alerts = 0;
        let mut shown = Instant::now();
        while let Some((share, act)) = coming {
            if self.started.elapsed() >= self.total.mul_f64(*share) {
                self.play(*act).await?;
                coming = next.next();
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(LIVE_EVERY) => {}
                _ = tokio::signal::ctrl_c() => {
                    self.tell("Ctrl-C: ending early, with the same audit");
                    if !self.link_up {
                        self.play(Act::Restore).await?;
                    }
                    return self.play(Act::LastReading).await;
                }
            }
            let status = self.node.status().await;
            if let Some(status) = &status {
                alerts = self.tell_alerts(status, alerts);
            }
            if self.view.is_live() || shown.elapsed() >= PLAIN_EVERY {
                shown = Instant::now();
                self.show(status, act_name(*act));
            }
        }
        Ok(())
    }

    async fn play(&mut self, act: Act) -> Result<(), Failure> {
        match act {
            Act::Cut => {
                self.centre.cut();
                self.link_up = false;
                self.tell("the link to the centre is cut: the node goes on and keeps everything");
            }
            Act::Crash => {
                self.node.crash().await?;
                self.tell("kill -9: the node is gone in the middle of its work");
                self.show(None, "the node is down");
                let began = Instant::now();
                self.node.start_again().await?;
                let took = began.elapsed().as_millis();
                self.tell(&format!(
                    "the node is back after {took} ms; devices resend what was not acknowledged"
                ));
            }
            Act::Restore => {
                self.centre.restore();
                self.link_up = true;
                self.tell("the link is back: the backlog drains");
            }
            Act::LastReading => {
                self.site.stop().await?;
                self.tell("the plant has stopped, every publish is acknowledged; waiting for the rest to drain");
            }
        }
        Ok(())
    }

    /// Waits until the cluster has confirmed all there is, models' answers included.
    async fn drain(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        let mut settled_at = None;
        let mut shown = Instant::now();
        loop {
            let status = self.node.status().await;
            let lag = status.as_ref().and_then(Lag::of);
            match lag {
                // Twice the same and nothing behind: the models have nothing more to say.
                Some(lag) if lag.records == 0 && settled_at == Some(lag.heads) => return Ok(()),
                Some(lag) if lag.records == 0 => settled_at = Some(lag.heads),
                _ => settled_at = None,
            }
            if Instant::now() >= deadline {
                let behind = lag.map_or("unknown".to_owned(), |lag| lag.records.to_string());
                let log = self.place.log_file.display();
                return Err(format!(
                    "the backlog did not drain within {DRAIN_WITHIN:?}: {behind} records behind; \
                     the node's log is {log}"
                )
                .into());
            }
            if self.view.is_live() || shown.elapsed() >= PLAIN_EVERY {
                shown = Instant::now();
                self.show(status, "draining");
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                _ = tokio::signal::ctrl_c() => return Err("interrupted while draining; nothing was audited".into()),
            }
        }
    }

    /// Reads both sides back and holds them against each other.
    async fn audit(&mut self) -> Result<Verdict, Failure> {
        let status = self.node.status().await;
        let epoch = status.as_ref().and_then(|status| status["epoch"].as_str());
        let epoch = epoch.ok_or("the node does not answer")?.to_owned();
        self.show(status, "audit");
        self.view.end();
        let mut evidence = self.read_log()?;
        evidence.acknowledged = self.site.acknowledged();
        evidence.delivered = self.centre.delivered(&epoch, &mut evidence.gaps).await?;
        let verdict = audit::audit(&evidence);
        println!();
        println!(
            "audit: {} readings acknowledged over MQTT ({} sent again after the crash), {} not kept",
            evidence.acknowledged.len(),
            self.site.resent(),
            verdict.broken_acknowledgements.len()
        );
        for (what, names) in [
            ("lost", &verdict.missing),
            ("altered", &verdict.altered),
            ("out of order", &verdict.disordered),
            (
                "acknowledged and not kept",
                &verdict.broken_acknowledgements,
            ),
        ] {
            if !names.is_empty() {
                let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
                println!("audit: {} {what}: {} …", names.len(), shown.join(", "));
            }
        }
        println!("audit: {verdict}");
        let words = match verdict.holds() {
            true => "every promise held",
            false => "A PROMISE WAS BROKEN; please report this with the demo's folder",
        };
        println!("audit: {words}");
        Ok(verdict)
    }

    /// Everything in the node's log, beside the running node.
    fn read_log(&self) -> Result<Evidence, Failure> {
        let mut evidence = Evidence::default();
        for summary in inspect::streams(&self.place.data_dir)? {
            // The node's own streams stay on the site.
            if summary.name.starts_with('_') {
                continue;
            }
            let stream = StreamName::new(&summary.name)?;
            for entry in inspect::records(&self.place.data_dir, &stream, Offset::ZERO, None)? {
                let (offset, record) = entry?;
                if record.kind == Kind::Gap {
                    let gap: Gap = serde_json::from_slice(&record.payload)?;
                    if let Some((first, next)) = gap.offsets {
                        evidence.gaps.push((gap.subject, first.0..next.0));
                    }
                }
                evidence.logged.push(Entry {
                    stream: summary.name.clone(),
                    offset: offset.0,
                    source: record.source,
                    payload: record.payload.to_vec(),
                });
            }
        }
        Ok(evidence)
    }

    /// Ends everything in order.
    async fn strike(&mut self) -> Result<(), Failure> {
        self.view.end();
        let stopped = self.node.stop().await;
        stopped?;
        Ok(())
    }

    fn tell(&mut self, text: &str) {
        self.view.event(self.started.elapsed(), text);
    }

    fn tell_alerts(&mut self, status: &Value, known: usize) -> usize {
        let models = status
            .pointer("/inference/models")
            .and_then(Value::as_array);
        let assets = models
            .into_iter()
            .flatten()
            .filter_map(|model| model["assets"].as_array());
        let alerting: Vec<String> = assets
            .flatten()
            .filter(|asset| asset["alert"] == true)
            .map(|asset| {
                let name = asset["asset"].as_str().unwrap_or("?");
                let score = asset["last_score"].as_f64().unwrap_or(0.0);
                format!("{name} (score {score:.2})")
            })
            .collect();
        if alerting.len() > known {
            let names = alerting.join(", ");
            self.tell(&format!(
                "ALERT from the model on the box: a bearing wears out, {names}"
            ));
        }
        alerting.len()
    }

    fn show(&mut self, status: Option<Value>, act: &'static str) {
        let scene = Scene {
            elapsed: self.started.elapsed(),
            total: self.total,
            act,
            link_up: self.link_up,
            node_starts: self.node.starts,
            status,
        };
        self.view.show(&scene);
    }
}

/// What the script does to the stage.
#[derive(Debug, Clone, Copy)]
enum Act {
    Cut,
    Crash,
    Restore,
    LastReading,
}

/// What goes on until `act`.
fn act_name(act: Act) -> &'static str {
    match act {
        Act::Cut => "all is well",
        Act::Crash => "the link is cut; the site goes on",
        Act::Restore => "restarted after kill -9; still no link",
        Act::LastReading => "the link is back; live data and backlog",
    }
}

/// How far the cluster is behind the log.
#[derive(Debug, Clone, Copy)]
struct Lag {
    records: u64,
    heads: u64,
}

impl Lag {
    fn of(status: &Value) -> Option<Self> {
        let lanes = status.pointer("/uplink/streams")?.as_array()?;
        let mut lag = Self {
            records: 0,
            heads: 0,
        };
        for stream in status.pointer("/store/streams")?.as_array()? {
            let name = stream["name"].as_str()?;
            // What stays on the node has no lane.
            if name.starts_with('_') || name == QUARANTINE {
                continue;
            }
            let head = stream["head"].as_u64()?;
            let lane = lanes.iter().find(|lane| lane["stream"] == name)?;
            lag.heads += head;
            lag.records += head.saturating_sub(lane["position"].as_u64()?);
        }
        Some(lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lag_counts_every_stream_that_leaves_and_is_unknown_while_a_lane_is() {
        let mut status = json!({
            "store": {"streams": [{"name": "a", "head": 5}, {"name": "b", "head": 2}, {"name": "_c", "head": 9}, {"name": "quarantine", "head": 1}]},
            "uplink": {"streams": [{"stream": "a", "position": 3}, {"stream": "b", "position": 2}]},
        });
        let lag = Lag::of(&status).unwrap();
        assert_eq!((lag.records, lag.heads), (2, 7));
        status["uplink"]["streams"][0]["position"] = Value::Null;
        assert!(Lag::of(&status).is_none());
    }
}
