//! `skerry unpack TOPIC --to TOPIC`: what was packed is in the other topic as if it never had been,
//! once and in order, however often that is killed; and what it does not do, it says.

use std::path::PathBuf;
use std::process::Command;

use skerry_tests::chance::Chance;
use skerry_tests::kafka::Kafka;
use skerry_tests::process::{Output, Process, Signal};
use skerry_tests::python::Helper;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, node, wait, workspace};

const PACKED: &str = "skerry.packed";
const PLAIN: &str = "skerry.plain";
const PARTITIONS: u32 = 4;
const KILLS: usize = 7;
/// As it begins its work; before that it finds its place.
const BEGUN: &str = "of the group";
/// The blocks whose header names are text, as Kafka's are, and whose times a broker takes.
const BLOCKS: [&str; 9] = [
    "each",
    "far-apart",
    "many-shapes",
    "noise",
    "numbers",
    "one",
    "outliers",
    "quotes",
    "telemetry",
];

/// Killed at any moment of joining, reading, writing and committing; then taken over from; then
/// stopped in good order.
pub(crate) fn killed(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    create(&kafka, PACKED, PARTITIONS, &[])?;
    create(&kafka, PLAIN, PARTITIONS, &[])?;
    let mut chance = Chance::from_environment()?;
    let seed = format!("--seed={}", chance.below(1 << 32));
    let partitions = format!("--partitions={PARTITIONS}");
    let feeding = [&*seed, &*partitions, "--interval=0.05"];
    let mut feed = helper(
        world,
        &kafka,
        "feed",
        "feed",
        PACKED,
        &feeding,
        &blocks(&BLOCKS),
    )?;
    feed.wait_for("a backlog", wait::START, |lines| lines.len() > 5)?;

    for kill in 0..KILLS {
        let mut copier = follow(world, &kafka, &[])?;
        // Every third dies on the way to its work, and it is not known where.
        if kill % 3 != 2 {
            copier.wait_for_output(BEGUN, wait::START)?;
        }
        std::thread::sleep(chance.millis(20..900));
        copier.kill()?;
    }
    let mut older = follow(world, &kafka, &[])?;
    older.wait_for_output(BEGUN, wait::START)?;
    let mut younger = follow(world, &kafka, &[])?;
    let ended = older.wait(wait::START)?;
    let told = older.output()?;
    ensure!(
        ended.code() == Some(1) && told.contains("has taken over"),
        "the older one ended with {ended}: {told}"
    );
    feed.finish(wait::START)?;
    younger.wait_for_output("from where it stopped", wait::START)?;
    std::thread::sleep(chance.millis(20..900));
    younger.signal(Signal::TERM)?;
    let ended = younger.wait(wait::START)?;
    let told = younger.output()?;
    ensure!(
        ended.success() && told.contains(" damaged"),
        "stopped, it ended with {ended}: {told}"
    );

    let rest = copy(&kafka, &[PACKED, "--to", PLAIN])?;
    ensure!(rest.code == Some(0), "the rest: {}", rest.text());
    let audited = audit(world, &kafka, "audit", PACKED, PLAIN, &[])?;
    println!("  {audited} records, of {KILLS} kills");
    ensure!(audited > 2_000, "only {audited} records were copied");

    let nothing = copy(&kafka, &[PACKED, "--to", PLAIN])?;
    let told = "skerry: 0 records out of 0 packed ones, 0 as they were, 0 damaged";
    ensure!(
        nothing.code == Some(0) && nothing.stderr.contains(told),
        "there was more: {}",
        nothing.text()
    );
    Ok(())
}

/// What would lose records, repeat them, or never end, is refused in words that help.
pub(crate) fn refused(world: &World) -> Result<()> {
    const DAMAGED: &str = "skerry.damaged";
    let kafka = world.kafka()?;
    create(&kafka, DAMAGED, 1, &[])?;
    create(&kafka, PLAIN, 1, &[])?;
    let values = blocks(&["telemetry", "refused-damaged", "trimmed"]);
    helper(world, &kafka, "put", "put-damaged", DAMAGED, &[], &values)?.join(wait::START)?;

    let missing = copy(&kafka, &[DAMAGED, "--to", "nowhere"])?;
    says(
        &missing,
        1,
        &["no topic `nowhere` to write to", "create it first"],
    )?;
    let missing = copy(&kafka, &["nothing", "--to", PLAIN])?;
    says(&missing, 1, &["no topic `nothing` to read"])?;
    let circle = copy(&kafka, &[DAMAGED, PLAIN, "--to", PLAIN])?;
    says(&circle, 2, &["`skerry.plain` is read and written to"])?;

    // Nothing is passed over that nobody said may be.
    let place = "skerry.damaged, partition 0, offset 1: the block is damaged";
    for _ in 0..2 {
        let stopped = copy(&kafka, &[DAMAGED, "--to", PLAIN])?;
        says(&stopped, 1, &["stopped at", place, "--skip-damaged"])?;
    }
    let passed = copy(&kafka, &[DAMAGED, "--to", PLAIN, "--skip-damaged"])?;
    says(
        &passed,
        1,
        &[
            "passed over",
            place,
            " 5 records out of 1 packed ones",
            " 1 damaged",
        ],
    )?;
    audit(world, &kafka, "audit-damaged", DAMAGED, PLAIN, &[])?;

    // Whoever does not know what is there would write it again.
    let another = ["--to", PLAIN, "--skip-damaged", "--group", "another"];
    let stranger = copy(&kafka, &[&[DAMAGED][..], &another].concat())?;
    says(
        &stranger,
        1,
        &["`skerry.plain` has records already", "--from-start"],
    )?;
    let again = copy(&kafka, &[&[DAMAGED, "--from-start"][..], &another].concat())?;
    says(
        &again,
        1,
        &["from the first record", " 69 records out of 2 packed ones"],
    )?;

    // A record that the output has no room for.
    create(
        &kafka,
        "skerry.narrow",
        1,
        &["--config", "max.message.bytes=200"],
    )?;
    let narrow = copy(&kafka, &[DAMAGED, "--to", "skerry.narrow"])?;
    says(
        &narrow,
        1,
        &[
            "`skerry.narrow` does not take a record from",
            "max.message.bytes",
        ],
    )?;

    // Where the counts differ, keys choose.
    create(&kafka, "skerry.wide", 3, &[])?;
    let wide = ["--to", "skerry.wide", "--skip-damaged"];
    let wide = copy(&kafka, &[&[DAMAGED][..], &wide].concat())?;
    says(&wide, 1, &["in partitions by key"])?;
    audit(
        world,
        &kafka,
        "audit-wide",
        DAMAGED,
        "skerry.wide",
        &["--by-key"],
    )?;
    Ok(())
}

fn says(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = output.code == Some(code) && words.iter().all(|word| output.stderr.contains(word));
    ensure!(
        said,
        "instead of {code} and {words:?}: {:?} and {}",
        output.code,
        output.text()
    );
    Ok(())
}

/// The times of the blocks are those of their making: retention would take them.
fn create(kafka: &Kafka, topic: &str, partitions: u32, more: &[&str]) -> Result<()> {
    let partitions = partitions.to_string();
    let own = ["--create", "--topic", topic, "--partitions", &*partitions];
    let kept = ["--config", "retention.ms=-1"];
    kafka.topics(&[&own[..], &kept, more].concat())
}

fn copy(kafka: &Kafka, arguments: &[&str]) -> Result<Output> {
    let brokers = kafka.address();
    node::skerry(&[&["unpack", "--brokers", &*brokers][..], arguments].concat())
}

fn follow(world: &World, kafka: &Kafka, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(workspace::skerry());
    command
        .args(["unpack", PACKED, "--to", PLAIN, "--follow", "--brokers"])
        .arg(kafka.address())
        .args(more);
    Process::start("unpack", &mut command, &world.logs().join("unpack.log"))
}

fn blocks(names: &[&str]) -> Vec<PathBuf> {
    let vectors = workspace::root().join("bridge/pack/vectors");
    let each = names.iter();
    each.map(|name| vectors.join(name).with_extension("bin"))
        .collect()
}

fn helper(
    world: &World,
    kafka: &Kafka,
    what: &str,
    name: &str,
    topic: &str,
    more: &[&str],
    values: &[PathBuf],
) -> Result<Helper> {
    let brokers = kafka.address();
    let own = [what, "--brokers", &*brokers, "--topic", topic];
    let arguments = own.iter().chain(more).map(|word| (*word).to_owned());
    let values = values.iter().map(|path| path.display().to_string());
    let arguments: Vec<String> = arguments.chain(values).collect();
    let (folder, logs) = (world.folder(), world.logs());
    Helper::start("copied.py", name, "--out", &arguments, folder, logs)
}

/// Compares the topics to the byte; how many records there are.
fn audit(
    world: &World,
    kafka: &Kafka,
    name: &str,
    topic: &str,
    to: &str,
    more: &[&str],
) -> Result<u64> {
    let more = [&["--to", to][..], more].concat();
    let told = helper(world, kafka, "audit", name, topic, &more, &[])?.join(wait::START)?;
    let records = told.last().and_then(|line| line["records"].as_u64());
    records.context("the audit counted nothing")
}
