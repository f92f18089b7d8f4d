//! How long windows take, one at a time and 32.

use anyhow::Result;
use std::time::Instant;

use crate::Scale;
use crate::figures::{Figure, quantile};
use crate::models::{MODELS, Model};
use crate::theirs;

const BATCHES: [usize; 2] = [1, 32];
/// Calls of a turn, however long they take.
const CALLS_MIN: usize = 8;

pub(crate) fn run(library: &str, scale: Scale) -> Result<()> {
    theirs::load_library(library)?;
    for model in &MODELS {
        for batch in BATCHES {
            measure(model, batch, scale)?;
        }
    }
    Ok(())
}

/// Microseconds of each call of a turn.
type Turn = Vec<f64>;

fn measure(model: &Model, batch: usize, scale: Scale) -> Result<()> {
    let (bytes, windows) = (model.bytes()?, model.windows()?);
    let mut theirs = model.theirs(&bytes, batch)?;
    model.agrees(&windows, batch, &mut theirs)?;
    let mut ours = model.ours(&bytes)?;
    let mut our_windows = windows.chunks_exact(batch * model.width()).cycle();
    let mut their_windows = our_windows.clone();
    let (mut our_turns, mut their_turns) = (Vec::new(), Vec::new());
    for number in 0..scale.turns {
        let mut our_turn = || {
            turn(scale, || {
                let windows = our_windows.next().unwrap_or_default();
                for window in windows.chunks_exact(model.width()) {
                    let score = ours.score(window).map_err(anyhow::Error::msg)?;
                    std::hint::black_box(score);
                }
                Ok(())
            })
        };
        let mut their_turn = || {
            turn(scale, || {
                theirs.run(their_windows.next().unwrap_or_default())
            })
        };
        // Whoever comes first after the other's turn finds the caches full of it.
        if number % 2 == 0 {
            our_turns.push(our_turn()?);
            their_turns.push(their_turn()?);
        } else {
            their_turns.push(their_turn()?);
            our_turns.push(our_turn()?);
        }
    }
    print(model, batch, &our_turns, &their_turns);
    Ok(())
}

fn turn(scale: Scale, mut call: impl FnMut() -> Result<()>) -> Result<Turn> {
    // The first brings its code and numbers back into the caches.
    call()?;
    let mut took_us = Vec::new();
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < scale.turn || took_us.len() < CALLS_MIN {
        call()?;
        let now = Instant::now();
        took_us.push((now - last).as_secs_f64() * 1e6);
        last = now;
    }
    Ok(took_us)
}

fn print(model: &Model, batch: usize, ours: &[Turn], theirs: &[Turn]) {
    let title = model.title();
    let each = |of: &[Turn], figure: fn(&Turn, usize) -> f64| -> Vec<f64> {
        of.iter().map(|turn| figure(turn, batch)).collect()
    };
    let of_turns = |what: &str, unit: &str, figure: fn(&Turn, usize) -> f64, aim: Option<f64>| {
        let what = format!("{title}: {what}, batch {batch}");
        let (ours, theirs) = (each(ours, figure), each(theirs, figure));
        let line = Figure::of_turns(&what, unit, &ours, &theirs);
        Figure { aim, ..line }.print();
    };
    let aim = (batch == 1).then(|| model.family.aim());
    of_turns(
        "p50",
        "us",
        |turn, _| quantile(turn.iter().copied(), 50),
        aim,
    );
    // One turn has too few calls for it.
    let p99 = |of: &[Turn]| quantile(of.iter().flatten().copied(), 99);
    let (our_p99, their_p99) = (p99(ours), p99(theirs));
    Figure {
        figure: &format!("{title}: p99, batch {batch}"),
        unit: "us",
        ours: our_p99,
        theirs: their_p99,
        ratio: our_p99 / their_p99,
        aim: None,
        runs: ours.len(),
    }
    .print();
    let rate = |turn: &Turn, batch| {
        let seconds = turn.iter().sum::<f64>() / 1e6;
        (turn.len() * batch) as f64 / seconds
    };
    of_turns("throughput", "windows/s", rate, None);
}
