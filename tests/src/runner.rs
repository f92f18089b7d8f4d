//! Runs scenarios, those that mostly wait beside the others, and says what was skipped, by name
//! and with the reason.
//!
//! Cargo's own harness has no word for "skipped because a part is missing here"; with `CI=true`
//! a missing part is a failure.

use std::fs;
use std::ops::Add;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::world::World;
use crate::{cgroup, disk, machine, stick, workspace};

/// A part that is not ours and may be missing on a developer's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The Python environment with paho, confluent-kafka, asyncua and onnxruntime.
    Python,
    /// Java 17 and Kafka's jars.
    Kafka,
    /// What unpacks packed records in Java, built.
    PackJava,
    /// The right to mount a file system in a namespace of one's own.
    Mount,
    /// mosquitto_pub and mosquitto_sub.
    Mosquitto,
    /// Node.js and MQTT.js.
    MqttJs,
    /// Node.js and node-opcua.
    NodeOpcua,
    /// Java 17 and the server on Eclipse Milo.
    Milo,
    /// The OPC-UA server in C.
    Open62541,
    /// A file system of one's own that can be frozen: root, a loop device and `fsfreeze`.
    Disk,
    /// A machine of one's own with systemd and dpkg: root, overlayfs, binutils.
    Machine,
    /// A USB stick for such a machine: udev, a loop device, e2fsprogs.
    Stick,
    /// systemd-analyze.
    Systemd,
    /// Control groups with a memory limit.
    MemoryLimit,
    /// The real series beside the repository.
    SharedData,
}

impl Need {
    fn is_there(self) -> bool {
        let succeeds = |command: &mut Command| {
            let quiet = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            quiet.status().is_ok_and(|status| status.success())
        };
        match self {
            Self::Python => workspace::python().exists(),
            Self::Kafka => {
                workspace::kafka_jars().exists() && succeeds(Command::new("java").arg("-version"))
            }
            Self::PackJava => workspace::pack_java().join("skerry-pack.jar").exists(),
            Self::Mount => {
                let script = "mount -t tmpfs -o size=1m none /mnt";
                succeeds(Command::new("unshare").args(["-rm", "sh", "-c", script]))
            }
            Self::Mosquitto => {
                // Asked for help, 2.0 gives it and ends with 1.
                let there = |program| Command::new(program).arg("--help").output().is_ok();
                there("mosquitto_pub") && there("mosquitto_sub")
            }
            Self::MqttJs => {
                workspace::mqtt_js().join("node_modules/mqtt").exists()
                    && succeeds(Command::new("node").arg("--version"))
            }
            Self::Milo => {
                workspace::opcua_milo().join("opcua-milo.jar").exists()
                    && succeeds(Command::new("java").arg("-version"))
            }
            Self::NodeOpcua => {
                workspace::opcua_js()
                    .join("node_modules/node-opcua")
                    .exists()
                    && succeeds(Command::new("node").arg("--version"))
            }
            Self::Open62541 => workspace::opcua_c().join("opcua-server").exists(),
            Self::Disk => disk::can_be_had(),
            Self::Machine => machine::can_be_had(),
            Self::Stick => stick::can_be_had(),
            Self::Systemd => succeeds(Command::new("systemd-analyze").arg("--version")),
            Self::MemoryLimit => cgroup::can_be_had(),
            Self::SharedData => workspace::shared_data().join("README.md").exists(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Python => "the Python environment of tests/run",
            Self::Kafka => "Apache Kafka and Java 17",
            Self::PackJava => "the Java decoder that tests/run builds (Java 17 and Maven)",
            Self::Mount => "the right to mount in a user namespace",
            Self::Mosquitto => "mosquitto_pub and mosquitto_sub (Debian: mosquitto-clients)",
            Self::MqttJs => "Node.js and the MQTT.js of tests/run",
            Self::NodeOpcua => "Node.js and the node-opcua of tests/run",
            Self::Milo => "the server on Eclipse Milo that tests/run builds (Java 17 and Maven)",
            Self::Open62541 => "the OPC-UA server that tests/run builds (a C compiler and cmake)",
            Self::Disk => "a file system that can be frozen (root, a loop device, fsfreeze)",
            Self::Machine => {
                "a machine to install on (root, overlayfs, Debian's dpkg, systemd, binutils, iproute2)"
            }
            Self::Stick => "a USB stick for that machine (Debian's udev, a loop device, e2fsprogs)",
            Self::Systemd => "systemd-analyze (Debian: systemd)",
            Self::MemoryLimit => "control groups whose memory can be limited (root, cgroup 1 or 2)",
            Self::SharedData => "the series in ../shared/data",
        }
    }

    /// Nothing that `tests/run` could bring, so its absence is no failure even in CI.
    const fn is_beside_the_repository(self) -> bool {
        matches!(self, Self::SharedData)
    }
}

/// One story on real parts.
pub struct Scenario {
    pub name: &'static str,
    pub needs: &'static [Need],
    pub run: fn(&World) -> Result<()>,
}

/// The whole program: runs the scenarios whose names contain one of the arguments, or `all`.
/// Those named in `waiting` spend their time in time-outs and pauses, so they are run beside the
/// others, one after the other.
#[must_use]
pub fn main(scenarios: &[Scenario], waiting: &[&str]) -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if wanted.is_empty() {
        println!(
            "{} scenarios, none asked for: give a part of a name, or all",
            scenarios.len()
        );
        return ExitCode::SUCCESS;
    }
    for name in waiting {
        let known = scenarios.iter().any(|scenario| scenario.name == *name);
        assert!(known, "no scenario is named {name}");
    }
    let asked_for = |scenario: &&Scenario| {
        wanted
            .iter()
            .any(|part| part == "all" || scenario.name.contains(part))
    };
    let chosen: Vec<_> = scenarios.iter().filter(asked_for).collect();
    if chosen.is_empty() {
        println!("no scenario has {} in its name", wanted.join(" or "));
        return ExitCode::FAILURE;
    }
    let is_waiting = |scenario: &&Scenario| waiting.contains(&scenario.name);
    let (beside, others): (Vec<_>, Vec<_>) = chosen.into_iter().partition(is_waiting);
    let count = thread::scope(|scope| {
        let beside = scope.spawn(|| run(&beside));
        let others = run(&others);
        others + beside.join().expect("a scenario's panic is its outcome")
    });
    let Count {
        passed,
        failed,
        skipped,
    } = count;
    // The wording of cargo's harness: tests/run adds all of them up.
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {skipped} ignored");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// One after the other.
fn run(scenarios: &[&Scenario]) -> Count {
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    let mut count = Count::default();
    for scenario in scenarios {
        let name = scenario.name;
        if let Some(need) = scenario.needs.iter().find(|need| !need.is_there()) {
            let must = strict && !need.is_beside_the_repository();
            let need = need.name();
            if must {
                count.failed += 1;
                println!("scenario {name} ... FAILED: needs {need}");
            } else {
                count.skipped += 1;
                println!("scenario {name} ... skipped: needs {need}");
            }
            continue;
        }
        let start = Instant::now();
        let outcome = play(scenario);
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                count.passed += 1;
                println!("scenario {name} ... ok, {seconds} s");
            }
            Err(error) => {
                count.failed += 1;
                let logs = ends_of_logs(&workspace::target().join("test-logs").join(name));
                println!("scenario {name} ... FAILED, {seconds} s: {error:#}{logs}");
            }
        }
    }
    count
}

fn play(scenario: &Scenario) -> Result<()> {
    let world = World::new(scenario.name)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&world)));
    outcome.map_err(|_| anyhow!("panicked"))??;
    world.remove()
}

/// On lines of their own, in one piece: another scenario may tell something meanwhile.
fn ends_of_logs(folder: &Path) -> String {
    const LINES: usize = 20;
    let mut told = String::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return told;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LINES)..];
        told += &format!("\n  --- the end of {}", path.display());
        for line in tail {
            told += "\n  | ";
            told += line;
        }
    }
    told
}
