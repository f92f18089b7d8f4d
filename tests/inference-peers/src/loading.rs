//! What a process takes that has a model loaded, and how long loading it takes: a process of its
//! own for each, which loads one model and scores one window.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Instant;

use crate::Scale;
use crate::figures::Figure;
use crate::models::{MODELS, Model};
use crate::theirs;

/// The memory is to be at most that share of theirs.
const AIM: f64 = 0.5;

pub(crate) fn run(library: &str, scale: Scale) -> Result<()> {
    for model in &MODELS {
        let (mut load_ms, mut resident) = ([vec![], vec![]], [vec![], vec![]]);
        for _ in 0..scale.loads {
            for (at, whose) in ["ours", "theirs"].into_iter().enumerate() {
                let told = ask(whose, model, library)?;
                let number = |name: &str| told[name].as_f64().context("a number is missing");
                load_ms[at].push(number("load_ms")?);
                resident[at].push(number("resident_bytes")?);
            }
        }
        let title = model.title();
        let figure = format!("{title}: memory of a process with it");
        let line = Figure::of_turns(&figure, "bytes", &resident[0], &resident[1]);
        let aim = Some(AIM);
        Figure { aim, ..line }.print();
        let figure = format!("{title}: load time");
        Figure::of_turns(&figure, "ms", &load_ms[0], &load_ms[1]).print();
    }
    Ok(())
}

fn ask(whose: &str, model: &Model, library: &str) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(["child", whose, model.path(), library])
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {error}", model.path());
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The library is there before the clock starts; its file's pages that are in use are its cost.
pub(crate) fn child(whose: &str, path: &str, library: &str) -> Result<()> {
    let model = Model::named(path)?;
    let (bytes, windows) = (model.bytes()?, model.windows()?);
    let window = &windows[..model.width()];
    let (load, resident) = match whose {
        "ours" => {
            let started = Instant::now();
            let mut ours = model.ours(&bytes)?;
            let load = started.elapsed();
            ours.score(window).map_err(anyhow::Error::msg)?;
            (load, resident_bytes()?)
        }
        "theirs" => {
            theirs::load_library(library)?;
            let started = Instant::now();
            let mut theirs = model.theirs(&bytes, 1)?;
            let load = started.elapsed();
            theirs.run(window)?;
            (load, resident_bytes()?)
        }
        _ => bail!("ours or theirs, not {whose}"),
    };
    let load_ms = load.as_secs_f64() * 1e3;
    println!(
        "{}",
        json!({"load_ms": load_ms, "resident_bytes": resident})
    );
    Ok(())
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no resident size")?.parse()?;
    Ok(kib * 1024)
}
