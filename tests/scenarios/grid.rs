//! Windows on a grid of time, through a node: values with times of their own, late ones and none.

use std::fmt::Write as _;
use std::fs;

use skerry_tests::node;
use skerry_tests::process::Signal;
use skerry_tests::python;
use skerry_tests::world::World;
use skerry_tests::{Result, ensure, wait, workspace};

use crate::bound::{numbers, scores_agree};
use crate::common::heads;

/// Period, wait, window and step are those of `tests/python/grid.py`.
fn settings(port: u16) -> String {
    let model = workspace::root().join("inference/tests/families/polynomial.onnx");
    format!(
        r#"
[[stream]]
name = "machines"
topics = []

[[opcua]]
name = "tank"
endpoint = "opc.tcp://127.0.0.1:{port}/tests"
stream = "machines"
publishing_interval = "50ms"
nodes = [ {{ name = "Level", id = "ns=2;s=Level" }}, {{ name = "Load", id = "ns=2;s=Load" }} ]

[[model]]
name = "tank"
file = "{}"
assets = ["m1"]
grid = "100ms"
late = "500ms"
stale_after = "2s"
window = "2s"
every = "500ms"
threshold = 1e30
inputs = [
    {{ opcua = "Level", fill = "linear", features = ["mean", "std", "slope"] }},
    {{ opcua = "Load", features = ["mean", "std", "slope"] }},
]
"#,
        model.display()
    )
}

pub(crate) fn as_numpy(world: &World) -> Result<()> {
    let port = world.port()?;
    let arguments = [format!("--port={port}")];
    let mut server = world.helper("grid_server.py", "server", "--out", &arguments)?;
    server.wait_for("the server serves", wait::START, |lines| !lines.is_empty())?;
    let mut with_model = world.settings()?;
    with_model.more.write_str(&settings(port))?;
    let mut node = world.started(with_model)?;
    node.wait_for_status(
        "the model runs and the first values are there",
        wait::START,
        |status| {
            let first = heads(status).is_ok_and(|heads| heads.get("machines") >= Some(&2));
            first && status["inference"]["models"][0]["state"] == "running"
        },
    )?;
    server.process().signal(Signal::USR1)?;
    let lines = server.wait_for("all is told", wait::DRAIN, |lines| {
        python::count(lines, "all set") == 1
    })?;
    let told = python::count(&lines, "set");
    // Besides the first two, and what tells that the server was found.
    let all = told as u64 + 2;
    let status = node.wait_for_status("all is looked at", wait::DRAIN, |status| {
        let looked_at = status["inference"]["models"][0]["records_total"].as_u64();
        let logged = heads(status)
            .ok()
            .and_then(|heads| heads.get("machines").copied());
        logged >= Some(all) && looked_at == logged
    })?;
    let model = &status["inference"]["models"][0];
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");

    let log = world.folder().join("machines.jsonl");
    let records = node::log_cat(&node.settings().data, "machines")?;
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    fs::write(&log, text)?;
    let arguments = [format!("--log={}", log.display())];
    let expected = world.helper("grid.py", "grid", "--out", &arguments)?;
    let expected = expected.join(wait::DRAIN)?;
    let scores = numbers(&expected[0]["scores"]);
    ensure!(
        scores.len() > 80,
        "numpy has only {} scores: {expected:?}",
        scores.len()
    );
    scores_agree(&node, "tank", &scores)?;

    for (of_model, of_numpy) in [
        (&model["rows_total"], &expected[0]["rows"]),
        (
            &model["values_left_out_total"]["late"],
            &expected[0]["late"],
        ),
    ] {
        ensure!(
            of_model == of_numpy && *of_numpy != 0,
            "{model}, and numpy has {expected:?}"
        );
    }
    ensure!(
        model["holes_total"] == 1,
        "a silence is passed over: {model}"
    );
    Ok(())
}
