//! What the fuzz targets in `inference/fuzz` run: our own readers of files that somebody else made.
//! Here and not there, so that nothing has to be public for it.
//!
//! In a build of the product this module does not exist: it takes `--cfg fuzzing`, or the tests,
//! which run all committed seeds. A target panics where a promise is broken, and returns how many
//! bytes of memory it may have taken at most for the promises to hold.

use crate::config::Budget;
use crate::drift::Reference;
use crate::golden::Golden;
use crate::graph;
use crate::isolation::Order;
use crate::manifest::{FILE_NAME, Manifest};
use crate::output::{Output, Pick, Reconstruction};
use crate::runner::{Runner, Score};
use std::path::Path;

/// Its name, which is also that of its seeds' folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]) -> usize);

pub const TARGETS: [Target; 2] = [("model", model), ("manifest", manifest)];

/// A varint of a byte is a number of eight, a name of a byte two words and a `String`; lists and
/// tables grow by doubling.
const BYTES_PER_BYTE: usize = 256;
/// The values between operators, of sixteen bytes at most each: as they are, as they were for the
/// window before, and as an operator sorts or sums them.
const VALUES_BYTES: usize = graph::VALUES_TOTAL_MAX * 16 * 4;

/// An ONNX file, run by our interpreter, be it a net or not. What loads answers the same to the
/// same window, whatever it answered in between.
///
/// ```text
/// rows │ columns │ what of the answer is the score │ the file
/// ```
pub fn model(input: &[u8]) -> usize {
    let [rows, columns, pick, file @ ..] = input else {
        return 0;
    };
    let (rows, columns) = (1 + usize::from(rows % 32), 1 + usize::from(columns % 32));
    let pick = match pick % 5 {
        0 => Pick::Default,
        1 => Pick::Index(usize::from(pick / 5)),
        2 => Pick::Error(Reconstruction::MeanSquared),
        3 => Pick::Error(Reconstruction::MeanAbsolute),
        _ => Pick::Class("1".to_owned()),
    };
    let output = Output { name: None, pick };
    if let Ok(mut runner) = graph::interpreted(file, rows, columns, &output) {
        let len = rows * columns;
        let plain: Vec<f32> = (0..len).map(|at| at as f32 - 2.5).collect();
        let odd = [f32::NAN, f32::INFINITY, -1e30, 0.0, 3.0];
        let odd: Vec<f32> = odd.into_iter().cycle().take(len).collect();
        let first = said(&mut *runner, &plain);
        let _ = said(&mut *runner, &odd);
        assert_eq!(
            first,
            said(&mut *runner, &plain),
            "the window between counts"
        );
    }
    VALUES_BYTES + BYTES_PER_BYTE * input.len()
}

/// By its bits, so that one NaN is the other.
fn said(runner: &mut dyn Runner, window: &[f32]) -> Result<(u32, Option<String>), String> {
    let Score { value, class } = runner.run(window)?;
    Ok((value.to_bits(), class.map(|class| class.to_string())))
}

/// A `model.json`, or a golden file. What is taken is within the configured budget, in its folder,
/// and its golden cases are windows of its shape.
pub fn manifest(input: &[u8]) -> usize {
    let folder = Path::new("models/pump/1.2");
    let order = Order::of(Budget::default());
    if let Ok(manifest) = Manifest::parse(input, &folder.join(FILE_NAME), &order) {
        assert_eq!(manifest.model_path(folder).parent(), Some(folder));
        let complete = manifest.complete(&order);
        assert!(complete.time_max <= order.time_max);
        assert!(complete.memory_max_bytes <= order.memory_max_bytes);
        let (rows, columns) = complete.shape.expect("a manifest tells it");
        fit(&manifest.golden, rows, columns);
        if let Some(reference) = &manifest.reference {
            // Refused or not, it is read.
            let _ = Reference::parse(&reference.to_string(), columns);
        }
    }
    let order = Order {
        file: folder.join("pump.onnx"),
        ..order
    };
    let beside = folder.join("golden.json");
    if let Ok(Some(golden)) = Golden::parse(input, beside, &order, "00")
        && let Some((rows, columns)) = golden.shape()
        && golden.fits(rows, columns).is_ok()
    {
        fit(&golden, rows, columns);
    }
    (1 << 20) + BYTES_PER_BYTE * input.len()
}

fn fit(golden: &Golden, rows: usize, columns: usize) {
    for case in &golden.cases {
        assert_eq!(case.input.concat().len(), rows * columns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_seed_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (target, run) in TARGETS {
            let seeds = std::fs::read_dir(corpus.join(target)).unwrap();
            let mut count = 0;
            for seed in seeds {
                let path = seed.unwrap().path();
                println!("{}", path.display());
                run(&std::fs::read(path).unwrap());
                count += 1;
            }
            assert!(count > 0, "no seeds for {target}");
        }
        let folders = std::fs::read_dir(corpus).unwrap();
        let folders: BTreeSet<_> = folders.map(|folder| folder.unwrap().file_name()).collect();
        let targets = TARGETS.map(|(target, _)| target.into());
        assert_eq!(folders, BTreeSet::from(targets), "seeds without a target");
    }
}
