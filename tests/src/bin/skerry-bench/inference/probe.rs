//! One more model beside the plant's, that of a machine which fails and recovers with each reading:
//! from a reading on disk to its alert at a subscriber.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use skerry_tests::load::Answered;
use skerry_tests::{Context as _, Result, workspace};

/// The model's name, the asset's, and the last part of the topic of its readings.
pub(super) const NAME: &str = "probe";
const MODEL: &str = "milling/logistic";
/// Between an answer and the next reading.
const PAUSE: Duration = Duration::from_millis(61);

pub(super) struct Probe {
    file: PathBuf,
    /// Of a machine that works, and of one that fails.
    readings: [Vec<u8>; 2],
    columns: usize,
}

impl Probe {
    pub(super) fn new() -> Result<Self> {
        let folder = workspace::root().join("inference/models");
        let golden = std::fs::read(folder.join(format!("{MODEL}.golden.json")))?;
        let golden: Value = serde_json::from_slice(&golden)?;
        let cases = golden["cases"].as_array().context("no golden cases")?;
        // They are in the order of their scores.
        let ends = [cases.first(), cases.last()];
        let mut readings = ends.map(|case| Some(&case?["input"][0]));
        let columns = readings[0].and_then(Value::as_array).map_or(0, Vec::len);
        let readings = readings
            .each_mut()
            .map(|reading| reading.map_or_else(Vec::new, |row| row.to_string().into_bytes()));
        Ok(Self {
            file: folder.join(format!("{MODEL}.onnx")),
            readings,
            columns,
        })
    }

    pub(super) fn topic() -> String {
        format!("plant/{NAME}")
    }

    pub(super) fn config(&self) -> String {
        let mut inputs = String::new();
        for column in 0..self.columns {
            let topic = Self::topic();
            write!(
                inputs,
                "{{ mqtt = \"{topic}\", pointer = \"/{column}\" }}, "
            )
            .expect("a String takes everything");
        }
        format!(
            "\n[[model]]\nname = \"{NAME}\"\nfile = \"{}\"\nassets = [\"{NAME}\"]\nwindow = 1\n\
             step = 1\nthreshold = 0.5\nclear = 0.4\ninputs = [ {inputs} ]\n",
            self.file.display()
        )
    }

    /// Milliseconds of each alert, raised and cleared in turn.
    pub(super) fn run(&self, port: u16, time: Duration) -> Result<Vec<f64>> {
        let filter = format!("skerry/alerts/{NAME}/{NAME}");
        let mut path = Answered::open(port, NAME, &filter)?;
        let [works, fails] = &self.readings;
        let (begun, mut took_ms) = (Instant::now(), Vec::new());
        while begun.elapsed() < time {
            for reading in [fails, works] {
                let took = path.once(&Self::topic(), reading)?;
                took_ms.push(took.as_secs_f64() * 1e3);
                thread::sleep(PAUSE);
            }
        }
        Ok(took_ms)
    }
}
