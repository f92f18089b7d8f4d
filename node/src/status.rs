//! `skerry status`: asks the running node and prints what an operator wants to know first.

use crate::cli;
use crate::exit::Exit;
use serde_json::Value;
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// More than any answer of a node has.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

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
pub fn post(address: &str, path: &str, text: &str) -> Result<String, String> {
    let agent = ureq::Agent::config_builder().timeout_connect(Some(ANSWER_WITHIN));
    let agent = ureq::Agent::from(agent.http_status_as_error(false).build());
    body(agent.post(format!("http://{address}{path}")).send(text))
}

/// The same with something to say.
///
/// # Errors
/// As with [`post`].
pub fn post_json(address: &str, path: &str, value: &Value) -> Result<String, String> {
    let agent = ureq::Agent::config_builder().timeout_connect(Some(ANSWER_WITHIN));
    let agent = ureq::Agent::from(agent.http_status_as_error(false).build());
    let request = agent.post(format!("http://{address}{path}"));
    let request = request.header("Content-Type", "application/json");
    body(request.send(value.to_string()))
}

fn body(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
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
        if server["degraded"] == true {
            lines.push(format!(
                "           the server can serve only in part, by its own word: level {} of 255",
                server["service_level"]
            ));
        }
        lines.extend(commands_line(&server["commands"]));
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
    lines.extend(
        plans(&status["uplink"])
            .iter()
            .map(|plan| format!("             {plan}")),
    );
    let waiting = status.pointer("/uplink/quarantine/waiting");
    match waiting.and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(waiting) => lines.push(format!(
            "             QUARANTINE: {waiting} records that the cluster refused wait for a decision \
             (skerry quarantine ls)"
        )),
    }
    for lane in entries(status, "/uplink/streams") {
        if let Some(why) = lane["last_error"].as_str() {
            lines.push(format!("             {}: {why}", word(&lane["stream"])));
        }
    }
    lines.join("\n") + "\n"
}

/// Only what somebody has to see to.
/// What MQTT clients had done at a server, where they may.
fn commands_line(commands: &Value) -> Option<String> {
    let topics = commands["topics"].as_u64()?;
    let last = &commands["last_error"];
    let last = match last.is_object() {
        true => format!("; last: {}: {}", word(&last["topic"]), word(&last["why"])),
        false => String::new(),
    };
    Some(format!(
        "           commands by {topics} topics: {} done, {} refused, {} failed, {} unknown{last}",
        commands["done_total"],
        commands["refused_total"],
        commands["failed_total"],
        commands["unknown_total"],
    ))
}

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
            Some(lag) => format!(", {lag} still to deliver{}", measured(lane)),
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

/// How much a lag is in bytes and time, as far as it is known.
fn measured(lane: &Value) -> String {
    let bytes = lane["lag_bytes"]
        .as_u64()
        .map(|bytes| bytesize::ByteSize::b(bytes).to_string());
    let since = lane["lag_seconds"].as_f64();
    let since = since.map(|seconds| format!("the oldest for {}", about(seconds)));
    let known: Vec<_> = bytes.into_iter().chain(since).collect();
    match known.as_slice() {
        [] => String::new(),
        known => format!(" ({})", known.join(", ")),
    }
}

/// What an operator plans by: when the cluster is current, how long the disk lasts without it, and
/// what the link had to carry.
fn plans(uplink: &Value) -> Vec<String> {
    // Nothing was looked at yet, or the node has no way north.
    let Some(lag) = uplink["lag_records"].as_u64() else {
        return Vec::new();
    };
    let number = |field: &str| uplink[field].as_f64();
    let linked = uplink["link"]["state"] == "up";
    let mut plans = Vec::new();
    if lag > 0 {
        let until = match number("drain_eta_seconds") {
            Some(seconds) if linked => format!("current in about {}", about(seconds)),
            Some(seconds) => format!(
                "current about {} after the link is back, at the rate last measured",
                about(seconds)
            ),
            None if number("drain_records_per_second").is_none() => {
                "how long that takes is not known yet: no backlog was drained since the start"
                    .to_owned()
            }
            None => "it grows: more comes in than the link carries".to_owned(),
        };
        plans.push(format!(
            "{lag} records behind{}; {until}",
            measured_in(uplink)
        ));
    }
    plans.push(
        match (
            number("autonomy_seconds"),
            number("ingest_bytes_per_second"),
        ) {
            (Some(seconds), _) => {
                let limit = match word(&uplink["autonomy_limit"]) {
                    "disk" => "then it is full".to_owned(),
                    stream => format!("then stream {stream} is"),
                };
                format!(
                    "without the cluster the disk lasts {} at this rate, {limit}",
                    about(seconds)
                )
            }
            (None, Some(_)) => "nothing comes in that would fill the disk".to_owned(),
            (None, None) => {
                "how long the disk lasts is not known yet: it takes a minute to measure".to_owned()
            }
        },
    );
    if let Some(bytes) = uplink["sent_today_bytes"].as_u64() {
        let bytes = bytesize::ByteSize::b(bytes);
        plans.push(format!("{bytes} sent today (UTC, before compression)"));
    }
    plans
}

fn measured_in(uplink: &Value) -> String {
    let as_lane = serde_json::json!({
        "lag_bytes": uplink["lag_bytes"],
        "lag_seconds": uplink["rpo_seconds"],
    });
    measured(&as_lane)
}

/// A time as a person says it: days where it is days, seconds only where it is minutes at most.
fn about(seconds: f64) -> String {
    const DAY: u64 = 86_400;
    let whole = Duration::try_from_secs_f64(seconds)
        .unwrap_or(Duration::MAX)
        .as_secs();
    let step = match whole {
        0..600 => 1,
        600..172_800 => 60,
        _ => DAY,
    };
    if whole > 3_650 * DAY {
        return "more than 10 years".to_owned();
    }
    match whole / DAY {
        days @ 2.. => format!("{days} days"),
        _ => humantime::format_duration(Duration::from_secs(whole / step * step)).to_string(),
    }
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
            "opcua": [{"name": "hall", "state": "retrying", "error": "refused", "nodes_good": 0, "nodes_bad": 2, "values_total": 0,
                "commands": {"topics": 1, "done_total": 3, "refused_total": 1, "failed_total": 0, "unknown_total": 0,
                             "last_error": {"topic": "cmd/a", "why": "too hot"}}}],
            "inference": {"models": [{"name": "m", "state": "disabled", "reason": "not a model", "scores_total": 0, "alerts_total": 0}]},
            "uplink": {
                "link": {"state": "down", "because": "no route"},
                "quarantine": {"waiting": 2},
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
            "by 1 topics: 3 done, 1 refused, 0 failed, 0 unknown; last: cmd/a: too hot",
            "telemetry: next offset 9, 1.0 KiB of 4.0 KiB, 5 still to deliver",
            "m: disabled (not a model)",
            "uplink   down (no route)",
            "QUARANTINE: 2 records that the cluster refused",
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

    #[test]
    fn plans_are_made_of_what_is_known() {
        let away = json!({
            "link": {"state": "down"}, "lag_records": 5_000, "lag_bytes": 1_048_576,
            "rpo_seconds": 11_100.0, "rto_seconds": null, "drain_eta_seconds": 750.0,
            "drain_records_per_second": 10.0, "ingest_bytes_per_second": 700.0,
            "autonomy_seconds": 1_700_000.0, "autonomy_limit": "telemetry",
            "sent_today_bytes": 2_097_152,
        });
        let told = plans(&away).join("\n");
        for part in [
            "5000 records behind (1.0 MiB, the oldest for 3h 5m)",
            "current about 12m after the link is back",
            "lasts 19 days at this rate, then stream telemetry is",
            "2.0 MiB sent today",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        let draining = json!({
            "link": {"state": "up"}, "lag_records": 5_000, "drain_eta_seconds": 42.4,
            "ingest_bytes_per_second": 0.0,
        });
        let told = plans(&draining).join("\n");
        assert!(told.contains("current in about 42s"), "{told}");
        assert!(told.contains("nothing comes in"), "{told}");
        let slow = json!({"lag_records": 5, "drain_records_per_second": 3.0});
        assert!(plans(&slow)[0].contains("it grows"));
        let unknown = json!({"lag_records": 5});
        let told = plans(&unknown).join("\n");
        assert_eq!(told.matches("not known yet").count(), 2, "{told}");
        assert_eq!(plans(&json!({"link": {"state": "up"}})), [] as [&str; 0]);
    }
}
