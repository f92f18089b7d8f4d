//! `skerry status`: asks the running node and prints what an operator wants to know first.

use crate::cli;
use crate::exit::Exit;
use serde_json::Value;
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Fetches `path` from a node's HTTP address.
///
/// # Errors
/// When nobody answers, or with the body of an answer that is not 200.
pub fn fetch(address: &str, path: &str) -> Result<String, String> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN));
    let agent = ureq::Agent::from(agent.http_status_as_error(false).build());
    body(agent.get(format!("http://{address}{path}")).call())
}

/// Has a node do something, which may take as long as it takes.
///
/// # Errors
/// When nobody takes the call, or with the body of an answer that is not 200.
pub fn post(address: &str, path: &str) -> Result<String, String> {
    let agent = ureq::Agent::config_builder().timeout_connect(Some(ANSWER_WITHIN));
    let agent = ureq::Agent::from(agent.http_status_as_error(false).build());
    body(agent.post(format!("http://{address}{path}")).send_empty())
}

fn body(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer
        .body_mut()
        .read_to_string()
        .map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200 => Ok(body),
        code => Err(format!("{code}: {}", body.trim())),
    }
}

pub fn run(args: &cli::Status) -> Exit {
    let body = match fetch(&args.address, "/status") {
        Ok(body) => body,
        Err(why) => {
            eprintln!(
                "skerry: no answer from a node at {}: {why}\n\
                 Is it running (systemctl status skerry)? Is this its [http] listen address?",
                args.address
            );
            return Exit::Failed;
        }
    };
    if args.json {
        println!("{body}");
        return Exit::Clean;
    }
    match serde_json::from_str::<Value>(&body) {
        Ok(status) => {
            print!("{}", render(&status));
            Exit::Clean
        }
        Err(why) => {
            eprintln!(
                "skerry: {} answered with something else: {why}",
                args.address
            );
            Exit::Failed
        }
    }
}

/// One screen: health first, then what comes in, what is kept, what is computed, what leaves.
fn render(status: &Value) -> String {
    let mut lines = vec![headline(status)];
    for part in entries(status, "/parts") {
        if let Some(why) = part["last_error"].as_str() {
            let running = if part["running"] == true {
                "running again"
            } else {
                "DOWN"
            };
            lines.push(format!(
                "  part     {}: {running} after: {why}",
                word(&part["name"])
            ));
        }
    }
    if let Some(why) = status
        .pointer("/store/storage/reason")
        .and_then(Value::as_str)
    {
        lines.push(format!("  storage  FAILED: {why}"));
    }
    let mqtt = &status["mqtt"];
    if mqtt.is_object() {
        lines.push(format!(
            "  mqtt     {} clients, {} publishes acknowledged, {} retained topics",
            mqtt["connections"], mqtt["acknowledged_total"], mqtt["retained_topics"]
        ));
        if let Some(why) = mqtt["access_problem"].as_str() {
            lines.push(format!("  access   the rules from before hold: {why}"));
        }
    }
    for listener in entries(status, "/mqtt/listeners") {
        lines.extend(certificate_line(&listener));
    }
    for server in entries(status, "/opcua") {
        let why = because(&server["error"]);
        lines.push(format!(
            "  opcua    {}: {}{why}, {} nodes good, {} bad, {} values",
            word(&server["name"]),
            word(&server["state"]),
            server["nodes_good"],
            server["nodes_bad"],
            server["values_total"]
        ));
    }
    for stream in entries(status, "/store/streams") {
        lines.push(stream_line(&stream, status));
    }
    for model in entries(status, "/inference/models") {
        let why = because(&model["reason"]);
        lines.push(format!(
            "  model    {}: {}{why}, {} scores, {} alerts",
            word(&model["name"]),
            word(&model["state"]),
            model["scores_total"],
            model["alerts_total"]
        ));
        for asset in entries(&model, "/assets") {
            if let Some(score) = asset["last_score"].as_f64() {
                let alert = if asset["alert"] == true {
                    "  ALERT"
                } else {
                    ""
                };
                lines.push(format!(
                    "             {} {score:.3}{alert}",
                    word(&asset["asset"])
                ));
            }
        }
    }
    let link = &status["uplink"]["link"];
    if link.is_object() {
        lines.push(format!(
            "  uplink   {}{}",
            word(&link["state"]),
            because(&link["because"])
        ));
    }
    for lane in entries(status, "/uplink/streams") {
        if let Some(why) = lane["last_error"].as_str() {
            lines.push(format!("             {}: {why}", word(&lane["stream"])));
        }
    }
    lines.join("\n") + "\n"
}

/// Only what somebody has to see to.
fn certificate_line(listener: &Value) -> Option<String> {
    let certificate = &listener["certificate"];
    let told = match (
        certificate["error"].as_str(),
        certificate["days_left"].as_i64(),
    ) {
        (Some(error), None) => format!("NO CERTIFICATE: {error}"),
        (Some(error), Some(_)) => format!("NEW CERTIFICATE NOT IN USE: {error}"),
        (None, Some(days)) if days < 0 => "certificate EXPIRED".to_owned(),
        (None, Some(days)) if days < skerry_broker::EXPIRES_SOON_DAYS => {
            format!("certificate expires in {days} days")
        }
        _ => return None,
    };
    Some(format!("             {}: {told}", word(&listener["name"])))
}

fn headline(status: &Value) -> String {
    let state = match (status["healthy"] == true, status["ready"] == true) {
        (true, true) => "healthy and ready",
        (true, false) => "NOT READY",
        (false, _) => "NOT HEALTHY",
    };
    let uptime = Duration::from_secs(status["uptime_seconds"].as_u64().unwrap_or(0));
    format!(
        "{} is {state}, up {}, skerry {}",
        word(&status["node"]),
        humantime::format_duration(uptime),
        word(&status["version"])
    )
}

fn stream_line(stream: &Value, status: &Value) -> String {
    let lanes = entries(status, "/uplink/streams");
    let lane = lanes.iter().find(|lane| lane["stream"] == stream["name"]);
    let behind = match lane {
        None => String::new(),
        Some(lane) => match lane["lag_records"].as_u64() {
            Some(0) => ", all in the cluster".to_owned(),
            Some(lag) => format!(", {lag} still to deliver"),
            None => ", not yet heard from the cluster".to_owned(),
        },
    };
    let bytes = |field: &str| bytesize::ByteSize::b(stream[field].as_u64().unwrap_or(0));
    format!(
        "  stream   {}: next offset {}, {} of {}{behind}",
        word(&stream["name"]),
        stream["head"],
        bytes("bytes"),
        bytes("bytes_max"),
    )
}

fn entries(value: &Value, pointer: &str) -> Vec<Value> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.cloned().unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn because(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(String::new, |why| format!(" ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_screen_names_what_is_wrong() {
        let status = json!({
            "node": "vessel-7", "version": "0.1.0", "healthy": true, "ready": false,
            "uptime_seconds": 61,
            "parts": [{"name": "mqtt", "running": false, "last_error": "address in use"}],
            "mqtt": {
                "connections": 1, "acknowledged_total": 2, "retained_topics": 3,
                "access_problem": "acl:3: no rule",
                "listeners": [
                    {"name": "[::]:1883", "certificate": null},
                    {"name": "[::]:8883", "certificate": {"error": "not PEM", "days_left": 40}},
                    {"name": "[::]:8884", "certificate": {"error": null, "days_left": 13}},
                    {"name": "[::]:8885", "certificate": {"error": null, "days_left": 14}},
                ],
            },
            "store": {
                "storage": {"state": "storage_failed", "reason": "no space"},
                "streams": [{"name": "telemetry", "head": 9, "bytes": 1024, "bytes_max": 4096}],
            },
            "opcua": [{"name": "hall", "state": "retrying", "error": "refused", "nodes_good": 0, "nodes_bad": 2, "values_total": 0}],
            "inference": {"models": [{"name": "m", "state": "disabled", "reason": "not a model", "scores_total": 0, "alerts_total": 0}]},
            "uplink": {
                "link": {"state": "down", "because": "no route"},
                "streams": [{"stream": "telemetry", "lag_records": 5, "last_error": "no topic"}],
            },
        });
        let screen = render(&status);
        for part in [
            "vessel-7 is NOT READY, up 1m 1s",
            "mqtt: DOWN after: address in use",
            "FAILED: no space",
            "the rules from before hold: acl:3: no rule",
            "hall: retrying (refused)",
            "telemetry: next offset 9, 1.0 KiB of 4.0 KiB, 5 still to deliver",
            "m: disabled (not a model)",
            "uplink   down (no route)",
            "telemetry: no topic",
            "[::]:8883: NEW CERTIFICATE NOT IN USE: not PEM",
            "[::]:8884: certificate expires in 13 days",
        ] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        assert!(
            !screen.contains("1883:") && !screen.contains("8885:"),
            "{screen}"
        );
    }
}
