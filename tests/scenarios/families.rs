//! Every family of models that exporters write, over whole test sets: the onnxruntime of the
//! test environment answers them live, and the node's own check holds each answer and each class.

use skerry_tests::node;
use skerry_tests::world::World;
use skerry_tests::{Result, ensure, wait, workspace};

/// Models of scikit-learn, LightGBM, XGBoost and by hand, and two auto-encoders.
const FAMILIES_MIN: usize = 70;
/// AI4I's held-out rows, for each model over them.
const ROWS_MIN: u64 = 1_000;

pub(crate) fn agree(world: &World) -> Result<()> {
    let arguments = [
        format!("--folder={}", world.folder().display()),
        format!("--data={}", workspace::shared_data().display()),
    ];
    let helper = world.helper("families.py", "families", "--out", &arguments)?;
    let families = helper.join(wait::DRAIN)?;
    ensure!(
        families.len() >= FAMILIES_MIN,
        "{} families",
        families.len()
    );
    let mut settings = world.settings()?;
    let mut rows = 0;
    for family in &families {
        let count = family["rows"].as_u64().unwrap_or(0);
        ensure!(count >= ROWS_MIN, "{} has {count} rows", family["name"]);
        rows += count;
        settings.more += family["toml"].as_str().unwrap_or_default();
    }
    let node = world.node(settings)?;
    let output = node::skerry(&["check".as_ref(), node.config().as_os_str()])?;
    ensure!(output.code == Some(0), "{}{}", output.stdout, output.stderr);
    println!(
        "  {} families, {rows} rows as in onnxruntime",
        families.len()
    );

    // What tells right from wrong: one answer of the test set altered.
    let golden = world.folder().join("forest_words.golden.json");
    let altered = std::fs::read_to_string(&golden)?.replacen("\"none\"", "\"wear\"", 1);
    std::fs::write(&golden, altered)?;
    let output = node::skerry(&["check".as_ref(), node.config().as_os_str()])?;
    let told = format!("{}{}", output.stdout, output.stderr);
    ensure!(output.code != Some(0), "a wrong class passed: {told}");
    ensure!(told.contains("golden case"), "{told}");
    Ok(())
}
