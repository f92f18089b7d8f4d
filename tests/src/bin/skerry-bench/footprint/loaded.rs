//! The memory of a node that has much to look at.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skerry_tests::node::{Node, Settings};
use skerry_tests::{Result, wait, workspace};

use super::{Scale, print};
use crate::opcua::{self, COUNTERS, Plant};
use crate::processes::resident_bytes;

const MODELS: u32 = 10;
/// Tensor columns of the bearing's model.
const COLUMNS: u32 = 4;
const LOOK: Duration = Duration::from_millis(250);

/// Every variable changes once a second, and each model scores eight times in its window.
pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let figure = format!("memory with {COUNTERS} OPC-UA variables at 1 Hz and {MODELS} models");
    let mut line = json!({"figure": figure, "unit": "bytes"});
    if !workspace::opcua_c().join("opcua-server").exists() {
        line["why"] = json!("open62541 is not built; `tests/run` does it");
        print(&line);
        return Ok(());
    }
    let plant = Plant::start(folder, 1)?;
    let mut settings = Settings::new(folder)?;
    settings.more = opcua::endpoint(plant.port) + &models();
    let mut node = Node::new(settings, folder, folder)?;
    node.start()?;
    node.wait_for_status("every model has scored", wait::START, |status| {
        let models = status["inference"]["models"].as_array();
        let scored = |model: &&Value| model["scores_total"].as_u64() > Some(0);
        models.map_or(0, |models| models.iter().filter(scored).count()) == MODELS as usize
    })?;
    let id = node.running()?.id();
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < scale.measured {
        most = most.max(resident_bytes(id)?);
        thread::sleep(LOOK);
    }
    line["ours"] = json!(most);
    line["node_alone"] = json!(node.memory()?.resident_kib * 1024);
    print(&line);
    node.terminate()?;
    plant.finish()
}

fn models() -> String {
    let file = workspace::root().join("inference/models/bearing/bearing.onnx");
    let mut text = String::new();
    for model in 0..MODELS {
        let counters = model * COLUMNS..(model + 1) * COLUMNS;
        let inputs: Vec<String> = counters
            .map(|counter| format!(r#"{{ opcua = "Counter{counter}" }}"#))
            .collect();
        write!(
            text,
            "\n[[model]]\nname = \"model-{model}\"\nfile = \"{}\"\nassets = [ \"a\" ]\n\
             window = 32\nstep = 4\nthreshold = 1e9\ninputs = [ {} ]\n",
            file.display(),
            inputs.join(", ")
        )
        .expect("a String takes everything");
    }
    text
}
