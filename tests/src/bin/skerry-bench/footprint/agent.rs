//! What a site has in place of the node otherwise: a broker, and an agent that takes everything down.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use skerry_tests::load::Paced;
use skerry_tests::process::Process;
use skerry_tests::{Result, ensure, wait, workspace};

use super::{MESSAGES_PER_SECOND, Scale, print};
use crate::brokers::{self, Broker};
use crate::figures::Rounds;
use crate::processes::{cpu_seconds, resident_bytes};

const PEER: &str = "mosquitto, persistence on, and Telegraf";

/// As `tests/bench` builds it: with no more plugins than it takes, stripped.
pub(super) const PROGRAM: &str = "telegraf/telegraf";

/// Every message is recorded: by the node, as always; by Telegraf in a file, from a session that
/// stays, at QoS 1, flushed every second. It does not sync what it writes.
pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let memory = "memory while 1,000 msg/s are recorded, qos1, 200 B";
    let processor = "processor while 1,000 msg/s are recorded, qos1, 200 B";
    let program = workspace::target().join(PROGRAM);
    let why = match (program.exists(), brokers::mosquitto_program()) {
        (false, _) => Some("Telegraf is not built; `tests/bench footprint` does it where Go is"),
        (true, None) => Some("mosquitto is not installed"),
        (true, Some(_)) => None,
    };
    if let Some(why) = why {
        print(&json!({"figure": processor, "unit": "percent of a core", "why": why}));
        return Ok(());
    }
    let (mut ours, mut theirs) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..scale.rounds {
        let folder = folder.join(format!("agent-{round}"));
        fs::create_dir_all(&folder)?;
        let node = brokers::skerry(&folder)?;
        let (taken, _) = costs(&node, &[node.id], scale)?;
        ours.iter_mut()
            .zip(taken)
            .for_each(|(all, one)| all.push(one));
        drop(node);

        let mosquitto = brokers::mosquitto_patient(&folder)?.map_err(anyhow::Error::msg)?;
        let written = folder.join("telegraf.json");
        let telegraf = telegraf(&program, &folder, mosquitto.port, &written)?;
        let (taken, sent) = costs(&mosquitto, &[mosquitto.id, telegraf.id()], scale)?;
        theirs
            .iter_mut()
            .zip(taken)
            .for_each(|(all, one)| all.push(one));
        wait::until("Telegraf has written everything", wait::DRAIN, || {
            let lines = fs::read(&written)?
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            ensure!(lines as u64 >= sent, "{lines} of {sent}");
            Ok(Some(()))
        })?;
    }
    for (at, figure, unit) in [(0, processor, "percent of a core"), (1, memory, "bytes")] {
        let rounds = Rounds {
            figure,
            unit,
            ours: &ours[at],
            peer: Some(PEER),
            theirs: &theirs[at],
            aim: None,
        };
        print(&rounds.figure());
    }
    Ok(())
}

/// Processor and memory of these processes under load, and how many messages that was.
fn costs(broker: &Broker, processes: &[u32], scale: Scale) -> Result<([f64; 2], u64)> {
    let load = Paced {
        connections: 10,
        per_second: MESSAGES_PER_SECOND,
        subscribed: false,
        measured: scale.measured,
    };
    let spent = || {
        processes
            .iter()
            .map(|id| cpu_seconds(*id))
            .sum::<Result<f64>>()
    };
    let before = spent()?;
    let seconds = load.run(broker.port)?.as_secs_f64();
    let percent = (spent()? - before) / seconds * 100.0;
    let held = processes
        .iter()
        .map(|id| resident_bytes(*id))
        .sum::<Result<u64>>()?;
    let sent = u64::from(MESSAGES_PER_SECOND) * scale.measured.as_secs();
    Ok(([percent, held as f64], sent))
}

fn telegraf(program: &Path, folder: &Path, port: u16, written: &Path) -> Result<Process> {
    let config = folder.join("telegraf.conf");
    let text = format!(
        r#"
[agent]
interval = "1s"
flush_interval = "1s"
flush_jitter = "0s"
metric_batch_size = 1000
metric_buffer_limit = 100000
omit_hostname = true

[[inputs.mqtt_consumer]]
servers = ["tcp://127.0.0.1:{port}"]
topics = ["plant/#"]
qos = 1
persistent_session = true
client_id = "telegraf"
max_undelivered_messages = 10000
data_format = "value"
data_type = "string"

[[outputs.file]]
files = ["{}"]
data_format = "json"
"#,
        written.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    let log = folder.join("telegraf.log");
    let process = Process::start("telegraf", &mut command, &log)?;
    wait::until_true("Telegraf has subscribed", wait::START, || {
        Ok(fs::read_to_string(&log)?.contains("Connected [tcp://"))
    })?;
    Ok(process)
}
