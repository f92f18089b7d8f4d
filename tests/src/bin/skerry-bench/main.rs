//! `tests/bench`: figures against peers, interleaved on the same machine, one JSON object a line.

mod brokers;
mod figures;
mod footprint;
mod inference;
mod mqtt;
mod opcua;
mod processes;
mod uplink;

use std::process::ExitCode;

const USAGE: &str =
    "usage: tests/bench mqtt|uplink|footprint|store|opcua|inference [--quick] [FIGURE]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let names = arguments.iter().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| !name.starts_with('-')).collect();
    let outcome = match names[..] {
        ["mqtt"] => mqtt::run(quick, None),
        ["mqtt", figure] if mqtt::is_figure(figure) => mqtt::run(quick, Some(figure)),
        ["mqtt", _] => {
            eprintln!("figures of mqtt: {}", mqtt::names().join(", "));
            return ExitCode::from(2);
        }
        ["footprint"] => footprint::run(quick, None),
        ["footprint", figure] if footprint::is_figure(figure) => {
            footprint::run(quick, Some(figure))
        }
        ["footprint", _] => {
            eprintln!("figures of footprint: {}", footprint::names().join(", "));
            return ExitCode::from(2);
        }
        ["uplink"] => uplink::run(quick, None),
        ["uplink", figure] if uplink::is_figure(figure) => uplink::run(quick, Some(figure)),
        ["uplink", _] => {
            eprintln!("figures of uplink: {}", uplink::names().join(", "));
            return ExitCode::from(2);
        }
        ["opcua"] => opcua::run(quick, None),
        ["opcua", figure] if opcua::is_figure(figure) => opcua::run(quick, Some(figure)),
        ["opcua", _] => {
            eprintln!("figures of opcua: {}", opcua::names().join(", "));
            return ExitCode::from(2);
        }
        ["inference"] => inference::run(quick, None),
        ["inference", figure] if inference::is_figure(figure) => {
            inference::run(quick, Some(figure))
        }
        ["inference", _] => {
            eprintln!("figures of inference: {}", inference::names().join(", "));
            return ExitCode::from(2);
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
