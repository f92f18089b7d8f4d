//! `skerry uplink doctor`: whether what is to leave will arrive and stay.

use crate::cli::Doctor;
use crate::config::Config;
use crate::exit::Exit;
use skerry_bridge::uplink::doctor::{self, Finding, Report, Site, Verdict};

pub fn run(args: &Doctor) -> Exit {
    let path = args.config.path();
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage;
        }
    };
    let Some(uplink) = &config.uplink else {
        let path = path.display();
        eprintln!(
            "skerry: {path} has no [kafka]: nothing leaves the site, and nothing is to be examined"
        );
        return Exit::Usage;
    };
    let packet_bytes = config
        .mqtt
        .as_ref()
        .map(|mqtt| mqtt.packet_bytes_max as u64);
    let streams = config.store.streams.iter();
    let site = Site {
        data_dir: config.store.directory.clone(),
        streams: streams.map(|stream| stream.name.clone()).collect(),
        keys: config.store.keys.clone(),
        record_bytes_max: packet_bytes,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("skerry: cannot start: {error}");
            return Exit::Failed;
        }
    };
    let report = runtime.block_on(doctor::examine(uplink, &site));
    match args.json {
        true => println!("{}", serde_json::json!(report)),
        false => print!("{}", in_words(&report)),
    }
    match report.count(Verdict::Problem) {
        0 => Exit::Clean,
        _ => Exit::Failed,
    }
}

/// A line per check, what to do below it, and what it comes to.
fn in_words(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().flat_map(lines_of).collect();
    lines.push(report.summary());
    lines.join("\n") + "\n"
}

fn lines_of(finding: &Finding) -> Vec<String> {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Problem => "PROBLEM",
        Verdict::Unknown => "unknown",
    };
    let about = match finding.about.as_str() {
        "" => String::new(),
        about => format!("{about}: "),
    };
    let mut lines = vec![format!(
        "{verdict:8} {:16} {about}{}",
        finding.check, finding.text
    )];
    lines.extend(finding.fix.iter().map(|fix| format!("{:26}{fix}", "")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_a_line_with_what_to_do_below_it() {
        let mut report = Report::default();
        let finding = |verdict, about: &str, fix: Option<&str>| Finding {
            check: "retention",
            about: about.to_owned(),
            verdict,
            text: "records are kept for 1h".to_owned(),
            fix: fix.map(str::to_owned),
        };
        report.findings = vec![
            finding(Verdict::Ok, "", None),
            finding(Verdict::Problem, "skerry.telemetry", Some("raise it")),
        ];
        let expected = "\
ok       retention        records are kept for 1h
PROBLEM  retention        skerry.telemetry: records are kept for 1h
                          raise it
1 problem
";
        assert_eq!(in_words(&report), expected);
    }
}
