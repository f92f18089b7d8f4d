//! What a running node is asked, and told, about its models.

use super::arguments::{ModelActivate, ModelList, ModelNamed, ModelReport, ModelShadow};
use crate::exit::Exit;
use crate::logs::printable;
use crate::status;
use bytesize::ByteSize;
use serde_json::{Value, json};
use skerry_inference::Command;

const PATH: &str = "/models";

pub(super) fn activate(args: &ModelActivate) -> Exit {
    let version = args.version.clone();
    command(&args.node.node, &args.name, &Command::Activate { version })
}

pub(super) fn rollback(args: &ModelNamed) -> Exit {
    command(&args.node.node, &args.name, &Command::Rollback)
}

pub(super) fn shadow(args: &ModelShadow) -> Exit {
    let version = args.version.clone().filter(|_| !args.off);
    command(&args.node.node, &args.name, &Command::Shadow { version })
}

fn command(node: &str, model: &str, command: &Command) -> Exit {
    let path = format!("{PATH}/{model}");
    print(node, status::post_json(node, &path, &json!(command)))
}

pub(super) fn list(args: &ModelList) -> Exit {
    let node = &args.node.node;
    print(
        node,
        models(node).map(|models| match args.json {
            true => Value::from(models).to_string(),
            false => models.iter().map(line).collect::<Vec<_>>().join("\n"),
        }),
    )
}

pub(super) fn report(args: &ModelReport) -> Exit {
    let (node, name) = (&args.of.node.node, &args.of.name);
    let found = models(node).and_then(|models| {
        let mut models = models.into_iter();
        let model = models.find(|model| model["name"] == name.as_str());
        let mut model = model.ok_or_else(|| format!("there is no model `{name}`"))?;
        match (model["shadow"].take(), model["canary"].take()) {
            (Value::Null, Value::Null) => Err(format!(
                "nothing runs beside `{name}`; start it with skerry model shadow {name} VERSION"
            )),
            both => Ok(both),
        }
    });
    print(
        node,
        found.map(|(shadow, canary)| match args.json {
            true => json!({ "shadow": shadow, "canary": canary }).to_string(),
            false => {
                let both = [("beside the live one", shadow), (BEFORE, canary)];
                let told = both.into_iter().filter(|(_, report)| !report.is_null());
                let told = told.map(|(place, report)| in_words(name, place, &report));
                told.collect::<Vec<_>>().join("\n\n")
            }
        }),
    )
}

/// What a version that ran before the live one is there for.
const BEFORE: &str = "before the live one, which is on trial against it";

fn models(node: &str) -> Result<Vec<Value>, String> {
    let body = status::fetch(node, PATH)?;
    let answer: Value = serde_json::from_str(&body)
        .map_err(|error| format!("its answer is not understood: {error}"))?;
    let models = answer["models"].as_array();
    models
        .cloned()
        .ok_or_else(|| "its answer has no models".to_owned())
}

fn line(model: &Value) -> String {
    let version = model["version"].as_str().unwrap_or("-");
    let held = model["held_bytes"].as_u64().unwrap_or(0);
    let mut line = format!(
        "{:20} {:10} {:10} {:>8} scores  p50 {}  {}",
        text(&model["name"]),
        version,
        text(&model["state"]),
        model["scores_total"],
        micros(&model["run_p50_us"]),
        ByteSize::b(held),
    );
    for (key, words) in [("rolled_back", "rolled back: "), ("reason", "")] {
        if let Some(why) = model[key].as_str() {
            line += &format!("\n    {words}{}", printable(why));
        }
    }
    if let Some(shadow) = model["shadow"]["version"].as_str() {
        line += &format!("\n    beside it, to compare: {shadow}");
    }
    if let Some(before) = model["canary"]["version"].as_str() {
        line += &format!(
            "\n    on trial against {before}: {}",
            trial(&model["canary"]["canary"])
        );
    }
    line
}

/// How far a version on trial is.
fn trial(canary: &Value) -> String {
    format!(
        "{} of {} windows, {} differ, {} may; another class in {}, apart {:.6} at most",
        canary["windows_total"],
        canary["windows_max"],
        canary["differing_total"],
        canary["differing_max"],
        canary["classes_differing_total"],
        canary["difference_max"].as_f64().unwrap_or_default(),
    )
}

/// `place` is where the version is that the report is about.
fn in_words(name: &str, place: &str, report: &Value) -> String {
    let mut words = format!(
        "{name}: version {} {place}\n\
         windows       {} scored by both, {} passed over\n\
         difference    mean {:.6}, most {:.6}\n\
         threshold     {} windows on different sides; live beyond in {}, the other in {}\n\
         classes       {} windows with another\n\
         time          live p50 {} p99 {}, the other p50 {} p99 {}",
        text(&report["version"]),
        report["windows_total"],
        report["windows_skipped_total"],
        report["difference_mean"].as_f64().unwrap_or_default(),
        report["difference_max"].as_f64().unwrap_or_default(),
        report["disagreements_total"],
        report["live_above_total"],
        report["shadow_above_total"],
        report["classes_differing_total"],
        micros(&report["live_p50_us"]),
        micros(&report["live_p99_us"]),
        micros(&report["shadow_p50_us"]),
        micros(&report["shadow_p99_us"]),
    );
    if !report["canary"].is_null() {
        words += &format!("\ntrial         {}", trial(&report["canary"]));
    }
    if let Some(why) = report["failed"].as_str() {
        words += &format!("\ndropped       {}", printable(why));
    }
    words
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn micros(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |us| format!("{us} us"))
}

fn print(node: &str, answer: Result<String, String>) -> Exit {
    match answer {
        Ok(told) => {
            println!("{told}");
            Exit::Clean
        }
        Err(why) => {
            eprintln!("skerry: the node at {node}: {why}");
            Exit::Failed
        }
    }
}
