//! `skerry demo`, the first thing a newcomer runs.

use std::process::Command;

use skerry_tests::process::{self, Process, Signal};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, bail, ensure, wait, workspace};

const SECONDS: u64 = 60;

fn demo(world: &World) -> Command {
    let mut command = Command::new(workspace::skerry());
    command.args([
        "demo",
        "--plain",
        "--seconds",
        &SECONDS.to_string(),
        "--dir",
    ]);
    command.arg(world.folder().join("demo"));
    command
}

/// The audit's line holds, and about more than nothing.
fn holds(output: &str) -> Result<()> {
    let is_audit = |line: &&str| line.contains(" = delivered ");
    let line = output
        .lines()
        .rev()
        .find(is_audit)
        .context("the demo prints no audit")?;
    let after = |word: &str| -> Result<u64> {
        let (_, rest) = line
            .split_once(word)
            .with_context(|| format!("no {word:?} in {line}"))?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits
            .parse()
            .with_context(|| format!("no number after {word:?} in {line}"))
    };
    let (entered, delivered) = (after("in ")?, after("delivered ")?);
    let (gaps, duplicates) = (after("gaps ")?, after("duplicates ")?);
    if entered == 0 || entered != delivered || gaps != 0 || duplicates != 0 {
        bail!("the audit does not hold: {line}");
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = process::run(command, wait::DRAIN * 2)?;
    ensure!(
        output.code == Some(0),
        "exit code {:?}: {}",
        output.code,
        output.text()
    );
    holds(&output.stdout).with_context(|| output.text())
}

pub(crate) fn plain(world: &World) -> Result<()> {
    run(&mut demo(world))
}

pub(crate) fn kafka(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    run(demo(world).args(["--kafka", &kafka.address()]))
}

/// Ctrl-C ends it early, with the same audit, and leaves nobody behind.
pub(crate) fn interrupted(world: &World) -> Result<()> {
    let log = world.logs().join("demo.log");
    let mut demo = Process::start("demo", &mut demo(world), &log)?;
    demo.wait_for_output("the node is up", wait::START)?;
    let children = children(demo.id())?;
    demo.signal(Signal::INT)?;
    let ended = demo.wait(wait::START)?;
    let output = demo.output()?;
    ensure!(
        ended.code() == Some(0),
        "Ctrl-C ended it with {ended}: {output}"
    );
    holds(&output)?;
    ensure!(!children.is_empty(), "the demo has no node of its own");
    for child in children {
        let gone = || Ok(!std::path::Path::new(&format!("/proc/{child}/exe")).exists());
        wait::until_true("the demo's node is gone", wait::START, gone)?;
    }
    Ok(())
}

fn children(id: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let path = task?.path().join("children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        children.extend(
            text.split_whitespace()
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    Ok(children)
}
