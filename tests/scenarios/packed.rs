//! The decoders of packed records that consumers get agree with what is written beside each block
//! of `bridge/pack/vectors`, as ours does in its own tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skerry_tests::node;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, workspace};

/// A number of blocks that would be noticed to be missing.
const BLOCKS_MIN: usize = 20;

pub(crate) fn python(_world: &World) -> Result<()> {
    let mut command = Command::new(workspace::python());
    command
        .arg(pack().join("python/skerry_pack.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    agrees(command)
}

/// As a program, and as what a consumer has between the cluster and itself.
pub(crate) fn java(_world: &World) -> Result<()> {
    let java = |class: &str| {
        let built = workspace::pack_java();
        let jars = workspace::kafka_jars().join("*");
        let parts = [
            built.join("skerry-pack.jar"),
            built.join("test-classes"),
            jars,
        ];
        let mut path = OsString::new();
        for part in parts {
            path.push(part);
            path.push(":");
        }
        let mut command = Command::new("java");
        command.arg("-cp").arg(path).arg(class);
        command
    };
    agrees(java("skerry.pack.Print"))?;
    let told = output(java("skerry.pack.InterceptorCheck").arg(vectors()))?;
    let counts: Value = serde_json::from_str(told.trim())?;
    let (unpacked, refused) = (&counts["unpacked"], &counts["refused"]);
    ensure!(
        unpacked.as_u64() > Some(10) && refused.as_u64() > Some(5),
        "few blocks were checked: {told}"
    );
    Ok(())
}

fn pack() -> PathBuf {
    workspace::root().join("bridge/pack")
}

fn vectors() -> PathBuf {
    pack().join("vectors")
}

/// Gives all blocks to a decoder, which is to print a line for each.
fn agrees(mut decoder: Command) -> Result<()> {
    let mut blocks = Vec::new();
    for entry in std::fs::read_dir(vectors())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            blocks.push(path);
        }
    }
    ensure!(blocks.len() >= BLOCKS_MIN, "only {} blocks", blocks.len());
    let told = output(decoder.args(&blocks))?;
    ensure!(
        told.lines().count() == blocks.len(),
        "{} blocks, {} lines",
        blocks.len(),
        told.lines().count()
    );
    for (block, line) in blocks.iter().zip(told.lines()) {
        let told: Value = serde_json::from_str(line)?;
        let expected = described(block)?;
        let agrees = if expected["refused"].is_string() {
            told["refused"].is_string()
        } else {
            told == expected
        };
        ensure!(agrees, "{}: {line:.300}", block.display());
    }
    Ok(())
}

fn described(block: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(block.with_extension("json"))?;
    Ok(serde_json::from_str(&text)?)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot start the decoder")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the decoder failed: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Through a real cluster: what the Python module gives a consumer, and what `skerry unpack`
/// prints, are the records that were packed, and one between them that was not.
pub(crate) fn cluster(world: &World) -> Result<()> {
    const TOPIC: &str = "skerry.packed";
    let kafka = world.kafka()?;
    let plain = world.folder().join("plain.json");
    std::fs::write(&plain, PLAIN)?;
    let block = |name: &str| vectors().join(name).with_extension("bin");
    let values = [block("telemetry"), plain, block("trimmed")];
    let mut command = Command::new(workspace::python());
    command
        .arg(workspace::root().join("tests/python/packed.py"))
        .args(["--brokers", &kafka.address(), "--topic", TOPIC, "--decoder"])
        .arg(pack().join("python/skerry_pack.py"))
        .args(values)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let consumed = lines(&output(&mut command)?)?;

    let mut expected = rows("telemetry", 0)?;
    expected.push(json!({
        "kafka_offset": 1, "offset": 1, "timestamp_ms": 1_000,
        "key": "aw==", "value": BASE64.encode(PLAIN),
    }));
    expected.extend(rows("trimmed", 2)?);
    ensure!(consumed == expected, "the consumer got {consumed:?}");

    let brokers = kafka.address();
    let printed = node::skerry(&["unpack", TOPIC, "--brokers", &brokers])?;
    ensure!(printed.code == Some(0), "unpack failed: {}", printed.text());
    let printed = lines(&printed.stdout)?;
    ensure!(printed.len() == expected.len(), "{} lines", printed.len());
    for (line, expected) in printed.iter().zip(&expected) {
        let payload = BASE64.decode(expected["value"].as_str().unwrap_or_default())?;
        let payload: Value = serde_json::from_slice(&payload)?;
        let same = ["kafka_offset", "timestamp_ms"];
        ensure!(
            line["value"] == payload && same.iter().all(|name| line[name] == expected[name]),
            "{line} instead of {expected}"
        );
    }

    let refused = node::skerry(&["unpack", "no-such-topic", "--brokers", &brokers])?;
    ensure!(
        refused.code == Some(1) && refused.text().contains("no-such-topic"),
        "a topic that is not there was read: {}",
        refused.text()
    );
    Ok(())
}

const PLAIN: &str = r#"{"value":1.5}"#;

fn lines(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// What a consumer has of a block that is the record at `kafka_offset`.
fn rows(name: &str, kafka_offset: u64) -> Result<Vec<Value>> {
    let described = described(&vectors().join(name).with_extension("bin"))?;
    let rows = described["rows"].as_array().context("rows")?;
    let number =
        |value: &Value| -> Result<u64> { Ok(value.as_str().context("a number")?.parse()?) };
    let each = rows.iter().map(|row| {
        Ok(json!({
            "kafka_offset": kafka_offset,
            "offset": number(&row["offset"])?,
            "timestamp_ms": number(&row["timestamp_ms"])?,
            "key": row["key"],
            "value": row["value"],
        }))
    });
    each.collect()
}
