//! What the demo shows: a picture that is redrawn at a terminal, or a line now and then.

use serde_json::Value;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

const EVENTS_SHOWN: usize = 8;
const BAR_WIDTH: usize = 24;

/// Everything on the screen at one moment.
#[derive(Debug, Clone)]
pub struct Scene {
    pub elapsed: Duration,
    pub total: Duration,
    pub act: &'static str,
    pub link_up: bool,
    pub node_starts: u32,
    /// The node's `/status`; `None` while it does not answer.
    pub status: Option<Value>,
}

/// Shows scenes and events.
pub struct View {
    live: bool,
    events: VecDeque<String>,
    lines_drawn: usize,
    rates: Rates,
    /// The last figures that the node gave.
    known: Figures,
}

impl View {
    /// Live at a terminal, unless `plain` lines are asked for.
    pub fn new(plain: bool) -> Self {
        Self {
            live: !plain && std::io::stdout().is_terminal(),
            events: VecDeque::new(),
            lines_drawn: 0,
            rates: Rates::default(),
            known: Figures::default(),
        }
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Something happened that a reader of the lines wants to know.
    pub fn event(&mut self, elapsed: Duration, text: &str) {
        let line = format!("{:>5.1} s  {text}", elapsed.as_secs_f64());
        if !self.live {
            println!("{line}");
            return;
        }
        self.events.push_back(line);
        if self.events.len() > EVENTS_SHOWN {
            self.events.pop_front();
        }
    }

    pub fn show(&mut self, scene: &Scene) {
        let figures = match &scene.status {
            Some(status) => Figures::of(status).after(&self.known),
            None => self.known.clone(),
        };
        let rates = self.rates.update(scene.elapsed, &figures);
        self.known = figures.clone();
        if self.live {
            let picture = picture(scene, &figures, &rates, &self.events);
            self.draw(&picture);
        } else {
            println!("{}", line(scene, &figures, &rates));
        }
    }

    /// Leaves the last picture standing and goes on below it.
    pub fn end(&mut self) {
        self.lines_drawn = 0;
    }

    fn draw(&mut self, picture: &str) {
        let mut out = String::new();
        if self.lines_drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.lines_drawn);
        }
        for line in picture.lines() {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        // Fewer lines than before must not leave old ones standing.
        out.push_str("\x1b[J");
        self.lines_drawn = picture.lines().count();
        let mut stdout = std::io::stdout().lock();
        // A terminal that went away ends the show, not the demo: the audit still counts.
        let _ = stdout.write_all(out.as_bytes());
        let _ = stdout.flush();
    }
}

/// The numbers of a scene.
#[derive(Debug, Clone, Default)]
struct Figures {
    mqtt_in: u64,
    opcua_in: u64,
    head: u64,
    confirmed: u64,
    scores: Vec<(String, f64, bool)>,
    alerts: u64,
}

impl Figures {
    fn of(status: &Value) -> Self {
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let entries = |pointer: &str| {
            let list = status.pointer(pointer).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let sum = |pointer: &str, field: &str| -> u64 {
            let list = entries(pointer);
            list.iter()
                .filter_map(|entry| entry.get(field)?.as_u64())
                .sum()
        };
        let streams = entries("/store/streams");
        let head = streams
            .iter()
            .filter(|stream| !stream["name"].as_str().unwrap_or("_").starts_with('_'))
            .filter_map(|stream| stream["head"].as_u64())
            .sum();
        let mut scores = Vec::new();
        for model in entries("/inference/models") {
            for asset in model["assets"].as_array().into_iter().flatten() {
                let name = asset["asset"].as_str().unwrap_or("?").to_owned();
                let score = asset["last_score"].as_f64();
                let alert = asset["alert"].as_bool().unwrap_or(false);
                if let Some(score) = score {
                    scores.push((name, score, alert));
                }
            }
        }
        Self {
            mqtt_in: number("/mqtt/acknowledged_total"),
            opcua_in: sum("/opcua", "values_total"),
            head,
            confirmed: sum("/uplink/streams", "position"),
            scores,
            alerts: sum("/inference/models", "alerts_total"),
        }
    }

    /// A node that has just started does not know yet what the cluster has confirmed.
    fn after(mut self, known: &Self) -> Self {
        self.confirmed = self.confirmed.max(known.confirmed);
        self
    }

    fn lag(&self) -> u64 {
        self.head.saturating_sub(self.confirmed)
    }
}

/// Rates per second between two scenes, in and out.
#[derive(Debug, Default)]
struct Rates {
    before: Option<(Duration, u64, u64)>,
}

impl Rates {
    /// Records per second into the log and into the cluster since the last scene.
    fn update(&mut self, now: Duration, figures: &Figures) -> (f64, f64) {
        let before = self.before.replace((now, figures.head, figures.confirmed));
        let Some((then, head, confirmed)) = before else {
            return (0.0, 0.0);
        };
        let seconds = now.saturating_sub(then).as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        (rate(figures.head, head), rate(figures.confirmed, confirmed))
    }
}

fn line(scene: &Scene, figures: &Figures, (into, out): &(f64, f64)) -> String {
    let mut line = format!(
        "{:>5.1} s  link {:4}  in {into:>5.0}/s  out {out:>5.0}/s  log {:>6}  delivered {:>6}  lag {:>5}",
        scene.elapsed.as_secs_f64(),
        if scene.link_up { "up" } else { "DOWN" },
        figures.head,
        figures.confirmed,
        figures.lag(),
    );
    if scene.status.is_none() {
        line.push_str("  node DOWN");
    }
    for (asset, score, alert) in &figures.scores {
        let mark = if *alert { "!" } else { "" };
        let _ = write!(line, "  {asset} {score:.2}{mark}");
    }
    line
}

fn picture(
    scene: &Scene,
    figures: &Figures,
    (into, out): &(f64, f64),
    events: &VecDeque<String>,
) -> String {
    let mut text = String::new();
    let link = match scene.link_up {
        true => "\x1b[32m━━━━ link up ━━━━▶\x1b[0m",
        false => "\x1b[31m━━━━ ✕ link cut ✕ \x1b[0m",
    };
    let node = match scene.status {
        Some(_) => "\x1b[32mrunning\x1b[0m",
        None => "\x1b[31mdown\x1b[0m",
    };
    let _ = writeln!(
        text,
        "\x1b[1mskerry demo\x1b[0m   {:.0} s of {:.0} s   {}",
        scene.elapsed.as_secs_f64(),
        scene.total.as_secs_f64(),
        scene.act
    );
    let _ = writeln!(text);
    let _ = writeln!(
        text,
        "  plant ──▶ node {node} (start {})  {link}  central",
        scene.node_starts
    );
    let _ = writeln!(
        text,
        "  MQTT {} · OPC-UA {}    in {into:.0}/s    log head {}    out {out:.0}/s    delivered {}",
        figures.mqtt_in, figures.opcua_in, figures.head, figures.confirmed
    );
    let _ = writeln!(
        text,
        "  lag  {} {}",
        bar(figures.lag(), figures.head),
        figures.lag()
    );
    let _ = writeln!(text);
    for (asset, score, alert) in &figures.scores {
        let mark = match alert {
            true => "\x1b[31mALERT: bearing wears out\x1b[0m",
            false => "",
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a thousand, for the eye"
        )]
        let share = (score.clamp(0.0, 1.0) * 1000.0) as u64;
        let _ = writeln!(text, "  {asset:8} {} {score:.2} {mark}", bar(share, 1000));
    }
    let _ = writeln!(text, "  alerts so far: {}", figures.alerts);
    let _ = writeln!(text);
    for event in events {
        let _ = writeln!(text, "  {event}");
    }
    text
}

fn bar(part: u64, whole: u64) -> String {
    let width = BAR_WIDTH as u64;
    let filled = (part * width).checked_div(whole).unwrap_or(0).min(width);
    let filled = usize::try_from(filled).unwrap_or(BAR_WIDTH);
    "█".repeat(filled) + &"░".repeat(BAR_WIDTH - filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plain_line_tells_state_rates_and_scores() {
        let mut scene = Scene {
            elapsed: Duration::from_secs(10),
            total: Duration::from_secs(60),
            act: "the link is down",
            link_up: false,
            node_starts: 1,
            status: Some(json!({
                "store": {"streams": [
                    {"name": "telemetry", "head": 120},
                    {"name": "_catalog", "head": 9},
                ]},
                "uplink": {"streams": [{"stream": "telemetry", "position": 100}]},
                "inference": {"models": [
                    {"alerts_total": 1, "assets": [{"asset": "pump1", "last_score": 0.93, "alert": true}]},
                ]},
            })),
        };
        let figures = Figures::of(scene.status.as_ref().unwrap());
        assert_eq!((figures.head, figures.lag(), figures.alerts), (120, 20, 1));
        let text = line(&scene, &figures, &(40.0, 0.0));
        for part in ["link DOWN", "in    40/s", "lag    20", "pump1 0.93!"] {
            assert!(text.contains(part), "{text}");
        }
        scene.status = None;
        assert!(line(&scene, &figures, &(0.0, 0.0)).contains("node DOWN"));
        let restarted = Figures::default().after(&figures);
        assert_eq!(restarted.confirmed, 100, "what was confirmed stays so");
    }

    #[test]
    fn a_bar_is_never_wider_than_its_frame() {
        for (part, whole) in [(0, 0), (1, 0), (5, 10), (20, 10)] {
            assert_eq!(bar(part, whole).chars().count(), BAR_WIDTH);
        }
    }
}
