//! How many changes a second are taken without loss, and what each costs.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use skerry_tests::Result;

use super::clients::{Client, Make};
use super::plant::Plant;
use super::{COUNTERS, HERTZ, Scale, print};
use crate::figures::{Aim, Rounds, median};
use crate::processes::cpu_seconds;

const MAKES: [Make; 3] = [Make::Skerry, Make::Open62541, Make::NodeOpcua];
/// What is in the server's and the client's queues when a turn begins and ends is counted to one
/// and not to the other.
const SHARE_TAKEN: f64 = 0.98;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What one client did in one turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Values a second, in the log where there is one.
    rate: f64,
    /// Whether the server got all of them out, and the client took them all.
    without_loss: bool,
    cpu_seconds_per_million: f64,
    /// The most that was resident at once, while nothing but values came.
    resident_bytes: Option<f64>,
    /// The most that ever was, the start included.
    peak_bytes: Option<f64>,
}

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let mut sustained = MAKES.map(|_| 0.0_f64);
    for &hertz in scale.hertz {
        let mut turns = MAKES.map(|_| Vec::new());
        for _ in 0..scale.rounds {
            for (make, turns) in MAKES.into_iter().zip(&mut turns) {
                // The slow one is there for its cost at the rate that the issue names.
                let there = make.lacks().is_none();
                if there && (make != Make::NodeOpcua || hertz == HERTZ) {
                    turns.push(turn(folder, scale, make, hertz)?);
                }
            }
        }
        for (turns, sustained) in turns.iter().zip(&mut sustained) {
            let rates = turns.iter().map(|turn| turn.rate);
            if turns.iter().all(|turn| turn.without_loss) {
                *sustained = sustained.max(median(rates).unwrap_or(0.0));
            }
        }
        print_costs(hertz, &turns);
        if hertz == HERTZ {
            print_memory(&turns[0]);
        }
    }
    let ours = sustained[0];
    let aim = Aim::AtLeast(200_000.0);
    print(&json!({
        "figure": format!("changes of {COUNTERS} nodes into the synced log, none lost"),
        "unit": "changes/s", "ours": ours, "aim": aim.value(), "aim_met": aim.is_met_by(ours),
        "peer": Make::Open62541.name(), "theirs": sustained[1], "ratio": ours / sustained[1],
        "runs": scale.rounds,
    }));
    Ok(())
}

fn turn(folder: &Path, scale: Scale, make: Make, hertz: u32) -> Result<Turn> {
    let folder = folder.join("turn");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let plant = Plant::start(&folder, hertz)?;
    let mut client = make.start(&folder, plant.port)?;
    thread::sleep(scale.warm_up);
    let turn = measure(&plant, &mut client, scale.measured, hertz)?;
    client.finish()?;
    plant.finish()?;
    std::fs::remove_dir_all(&folder)?;
    Ok(turn)
}

fn measure(plant: &Plant, client: &mut Client, time: Duration, hertz: u32) -> Result<Turn> {
    let id = client.id()?;
    let look = |client: &Client| -> Result<_> {
        Ok((
            Instant::now(),
            cpu_seconds(id)?,
            client.received()?,
            plant.produced()?,
        ))
    };
    let (begun, cpu_before, before, produced_before) = look(client)?;
    let (mut resident, mut peak) = (None, None);
    while begun.elapsed() < time {
        thread::sleep(LOOK);
        if let Some(memory) = client.memory()? {
            resident = resident.max(Some(memory.resident_kib * 1024));
            peak = Some(memory.peak_kib * 1024);
        }
    }
    let (ended, cpu_after, after, produced_after) = look(client)?;
    let values = (after.values - before.values) as f64;
    let produced = (produced_after - produced_before) as f64;
    let elapsed = (ended - begun).as_secs_f64();
    let offered = f64::from(COUNTERS) * f64::from(hertz) * elapsed;
    let in_bytes = |bytes: u64| bytes as f64;
    Ok(Turn {
        rate: values / elapsed,
        without_loss: after.losses == before.losses
            && values >= produced * SHARE_TAKEN
            && produced >= offered * SHARE_TAKEN,
        cpu_seconds_per_million: (cpu_after - cpu_before) * 1e6 / values,
        resident_bytes: resident.map(in_bytes),
        peak_bytes: peak.map(in_bytes),
    })
}

fn print_costs(hertz: u32, turns: &[Vec<Turn>; 3]) {
    let costs =
        |of: &[Turn]| -> Vec<f64> { of.iter().map(|turn| turn.cpu_seconds_per_million).collect() };
    let ours = costs(&turns[0]);
    for (at, aim) in [(1, 3.0), (2, 0.3)] {
        if at == 2 && hertz != HERTZ {
            continue;
        }
        let aim = (hertz == HERTZ).then_some(Aim::AtMost(aim));
        let make = MAKES[at];
        let why = make.lacks();
        let mut line = Rounds {
            figure: &format!("processor time, {COUNTERS} nodes x {hertz} Hz into the synced log"),
            unit: "s/million changes",
            ours: &ours,
            peer: why.is_none().then(|| make.name()),
            theirs: &costs(&turns[at]),
            aim: aim.filter(|_| why.is_none()),
        }
        .figure();
        line["aim"] = json!(aim.map(Aim::value));
        line["rate"] = json!(median(turns[0].iter().map(|turn| turn.rate)));
        line["none_lost"] = json!(turns[0].iter().all(|turn| turn.without_loss));
        if let Some(why) = why {
            line["why"] = json!(why);
        }
        print(&line);
    }
}

fn print_memory(turns: &[Turn]) {
    const AIM_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
    let resident: Vec<f64> = turns
        .iter()
        .filter_map(|turn| turn.resident_bytes)
        .collect();
    let peak: Vec<f64> = turns.iter().filter_map(|turn| turn.peak_bytes).collect();
    let figures = [
        (
            "memory of the whole node",
            &resident,
            Some(Aim::AtMost(AIM_BYTES)),
        ),
        (
            "memory of the whole node at its highest, start included",
            &peak,
            None,
        ),
    ];
    for (figure, ours, aim) in figures {
        let line = Rounds {
            figure: &format!("{figure}, {COUNTERS} nodes x {HERTZ} Hz"),
            unit: "bytes",
            ours,
            peer: None,
            theirs: &[],
            aim,
        };
        print(&line.figure());
    }
}
