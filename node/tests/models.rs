//! A real node with models good and bad: what `skerry model` does to it, and what nothing does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../inference/tests/common/onnx.rs"]
mod onnx;

use onnx::{bomb, mean_then, package};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ROWS: usize = 4;
const SKERRY: &str = env!("CARGO_BIN_EXE_skerry");

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

struct Node {
    folder: tempfile::TempDir,
    process: Child,
    http: String,
    mqtt: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// With a model of each of these files, all bound to the same topic.
    fn with_models(files: &[(&str, Vec<u8>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (http, mqtt) = (free_port(), free_port());
        let place = folder.path();
        let mut config = format!(
            "[node]\nname = \"test\"\ndata_dir = \"{}\"\nallow_volatile = true\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n[mqtt]\nlisten = \"127.0.0.1:{mqtt}\"\n",
            place.join("data").display(),
        );
        for (name, bytes) in files {
            std::fs::write(place.join(name).with_extension("onnx"), bytes).unwrap();
            write!(
                config,
                "[[model]]\nname = \"{name}\"\nfile = \"{name}.onnx\"\nassets = [\"a\"]\n\
                 window = {ROWS}\nthreshold = 50\nmemory_max = \"64MiB\"\n\
                 inputs = [{{ mqtt = \"t\", pointer = \"/value\" }}]\n"
            )
            .unwrap();
        }
        std::fs::write(place.join("skerry.toml"), config).unwrap();
        let process = Command::new(SKERRY)
            .arg("run")
            .arg(place.join("skerry.toml"))
            .env("SKERRY_LOG", "off")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let address = |port| format!("127.0.0.1:{port}");
        let (http, mqtt) = (address(http), address(mqtt));
        let node = Self {
            folder,
            process,
            http,
            mqtt,
        };
        node.until("every model is decided on", |models| {
            models.len() == files.len() && models.iter().all(|it| it["state"] != "starting")
        });
        node
    }

    fn models(&self) -> Vec<Value> {
        let answer = ureq::get(format!("http://{}/models", self.http)).call();
        let Ok(mut answer) = answer else {
            return Vec::new();
        };
        let answer: Value =
            serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        answer["models"].as_array().cloned().unwrap_or_default()
    }

    fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let models = self.models();
            if holds(&models) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {models:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn scores_until(&self, count: u64) {
        let scored = |models: &[Value]| models[0]["scores_total"] == count;
        self.until("scores", scored);
    }

    /// Each value at QoS 1; returns once all are acknowledged.
    fn publish(&self, values: impl IntoIterator<Item = f64>) {
        let mut stream = TcpStream::connect(&self.mqtt).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // MQTT 3.1.1, clean session, no name, a keep-alive of a minute.
        stream
            .write_all(b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0")
            .unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        for (at, value) in values.into_iter().enumerate() {
            let payload = format!("{{\"value\":{value}}}");
            let id = u16::try_from(at + 1).unwrap().to_be_bytes();
            let body = [b"\0\x01t".as_slice(), &id, payload.as_bytes()].concat();
            let head = [0x32, u8::try_from(body.len()).unwrap()];
            stream
                .write_all(&[head.as_slice(), &body].concat())
                .unwrap();
            let mut ack = [0; 4];
            stream.read_exact(&mut ack).unwrap();
            assert_eq!((ack[0], &ack[2..]), (0x40, id.as_slice()));
        }
    }

    fn skerry(&self, arguments: &[&str]) -> Output {
        let output = Command::new(SKERRY)
            .args(arguments)
            .env("SKERRY_LOG", "off")
            .output();
        output.unwrap()
    }

    /// `skerry model …` of this node.
    fn model(&self, arguments: &[&str]) -> Output {
        let arguments = [&["model"], arguments, &["--node", &self.http]].concat();
        self.skerry(&arguments)
    }

    /// The processes that the node has started and that still run.
    fn children(&self) -> Vec<u32> {
        let parent = self.process.id().to_string();
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| fields(*pid).is_some_and(|it| it[1] == parent && it[0] != "Z"))
            .collect()
    }
}

/// What `/proc` says of a process after its name: state, parent and more.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    Some(after.split_whitespace().map(str::to_owned).collect())
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

fn mean() -> Vec<u8> {
    mean_then(&[], ROWS as u64)
}

#[test]
fn bad_models_are_disabled_with_reasons_and_the_good_one_scores() {
    let flipped = |at: usize| {
        let mut bytes = mean();
        bytes[at] ^= 0xff;
        bytes
    };
    let node = Node::with_models(&[
        ("good", mean()),
        ("bomb", bomb(ROWS as u64)),
        ("cut", mean()[..60].to_vec()),
        ("flipped", flipped(20)),
        ("huge", vec![0; 65 * 1024 * 1024]),
        ("other-shape", mean_then(&[], 7)),
        ("text", b"no model at all".to_vec()),
    ]);
    for model in node.models().iter().skip(1) {
        let reason = model["reason"].as_str().unwrap_or_default();
        assert!(
            model["state"] == "disabled" && !reason.is_empty(),
            "{model:#}"
        );
    }
    node.publish((0..200).map(f64::from));
    node.scores_until(197);
}

#[test]
fn versions_come_and_go_by_command_and_a_replay_says_what_they_would_have() {
    let node = Node::with_models(&[("mean", mean())]);
    let versions = node.folder.path().join("data/models/mean");
    let rows = ROWS as u64;
    package(
        &versions.join("negative"),
        &mean_then(&["Neg"], rows),
        ROWS,
        -1.0,
    );
    package(
        &versions.join("wrong"),
        &mean_then(&["Neg"], rows),
        ROWS,
        1.0,
    );
    node.publish([1.0, 2.0, 3.0, 4.0]);
    node.scores_until(1);

    let wrong = node.model(&["activate", "mean", "wrong"]);
    assert!(
        !wrong.status.success() && text(&wrong).contains("golden case"),
        "{}",
        text(&wrong)
    );
    let done = node.model(&["activate", "mean", "negative"]);
    assert!(done.status.success(), "{}", text(&done));
    let list = text(&node.model(&["list"]));
    assert!(
        list.contains("negative") && list.contains("running"),
        "{list}"
    );
    let shadow = node.model(&["shadow", "mean", "negative"]);
    assert!(shadow.status.success(), "{}", text(&shadow));
    node.publish([5.0]);
    node.scores_until(2);
    node.until("compared", |models| {
        models[0]["shadow"]["windows_total"] == 1
    });
    let report = text(&node.model(&["report", "mean"]));
    assert!(report.contains("1 scored by both"), "{report}");
    assert!(node.model(&["shadow", "mean", "--off"]).status.success());
    assert!(node.model(&["rollback", "mean"]).status.success());

    let config = node.folder.path().join("skerry.toml");
    let replay = |more: &[&str]| {
        let arguments = [
            "model",
            "replay",
            "mean",
            "--config",
            config.to_str().unwrap(),
        ];
        let output = node.skerry(&[&arguments, more].concat());
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    // The first score is the configured file's, the second the other version's.
    let configured = replay(&[]);
    assert!(
        configured.contains("\"score\":2.5") && configured.contains("\"score\":3.5"),
        "{configured}"
    );
    assert!(
        configured.contains("1 scores are in the log as"),
        "{configured}"
    );
    let negative = replay(&["--version", "negative", "--format", "csv", "--from", "1"]);
    assert!(
        negative.contains(",a,-3.5,") && !negative.contains("-2.5"),
        "{negative}"
    );
    let none = replay(&["--to", "3"]);
    assert!(none.contains("0 scores"), "{none}");
}

#[test]
fn a_host_that_is_killed_is_replaced_and_one_without_a_node_ends() {
    let mut node = Node::with_models(&[("mean", mean())]);
    node.publish([1.0, 2.0, 3.0, 4.0]);
    node.scores_until(1);
    let hosts = node.children();
    assert_eq!(hosts.len(), 1, "all models share one process");
    let kill = |pid: u32| {
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
    };
    kill(hosts[0]);
    node.publish([5.0]);
    node.scores_until(2);
    assert_eq!(node.models()[0]["state"], "running");

    let hosts = node.children();
    assert_eq!(hosts.len(), 1);
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{}", hosts[0])).exists()
        && fields(hosts[0]).is_some_and(|it| it[0] != "Z")
    {
        assert!(Instant::now() < deadline, "the host outlives its node");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn files_are_looked_at_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    package(&folder.path().join("1.0"), &mean(), ROWS, 1.0);
    std::fs::write(folder.path().join("bomb.onnx"), bomb(ROWS as u64)).unwrap();
    let look = |arguments: &[&str]| {
        let mut command = Command::new(SKERRY);
        command
            .current_dir(folder.path())
            .arg("model")
            .args(arguments);
        command.output().unwrap()
    };
    let good = look(&["check", "1.0"]);
    assert!(good.status.success(), "{}", text(&good));
    assert!(
        text(&good).contains("4 rows of 1") && text(&good).contains("1 cases agree"),
        "{}",
        text(&good)
    );
    let bench = look(&["bench", "1.0", "--windows", "50", "--json"]);
    let bench: Value = serde_json::from_slice(&bench.stdout).unwrap();
    let micros = |name: &str| bench["bench"][name].as_f64().unwrap();
    assert!(
        0.0 < micros("run_p50_us") && micros("run_p50_us") < micros("whole_p50_us"),
        "{bench}"
    );
    let bomb = look(&["check", "bomb.onnx", "--window", "4", "--columns", "1"]);
    assert_eq!(bomb.status.code(), Some(1), "{}", text(&bomb));
    let shapeless = look(&["check", "bomb.onnx"]);
    assert!(
        text(&shapeless).contains("--window"),
        "{}",
        text(&shapeless)
    );
}
