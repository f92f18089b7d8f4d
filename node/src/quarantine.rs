//! `skerry quarantine …`: records that the cluster refused, and what is to become of them.
//!
//! A running node is asked over its HTTP, from this machine only; on a stopped one this process
//! opens the log, and does the same.

mod serve;

pub use serve::routes;

use crate::cli::{
    Chosen, LogOrNode, QuarantineCommand, QuarantineDrop, QuarantineLs, QuarantineRetry,
    QuarantineShow,
};
use crate::exit::Exit;
use crate::logs::{Failure, Opened, Place, printable, time, told};
use crate::status;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytesize::ByteSize;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use skerry_bridge::uplink::quarantine::{self, How, Kept};
use skerry_store::{Class, Log, Offset, Record};
use std::io::{self, Write};

/// Characters of a reason in the list; `show` has all of it.
const REASON_SHOWN: usize = 100;

/// One record with all there is of it.
#[derive(Debug, Serialize, Deserialize)]
struct Whole {
    #[serde(flatten)]
    kept: Kept,
    /// Name and value in base64, as the payload.
    attributes: Vec<(String, String)>,
    payload: String,
}

/// What somebody decides on some records.
#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    how: How,
    /// None means all that wait.
    ids: Option<Vec<u64>>,
    by: String,
}

/// What came of a decision.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Outcome {
    settled: Vec<u64>,
    problems: Vec<String>,
}

pub fn run(command: &QuarantineCommand) -> Exit {
    let done = match command {
        QuarantineCommand::Ls(args) => ls(args),
        QuarantineCommand::Show(args) => show(args),
        QuarantineCommand::Retry(QuarantineRetry { chosen, of }) => {
            decide(of, How::Retried, chosen)
        }
        QuarantineCommand::Drop(args) if !args.yes => would_drop(args),
        QuarantineCommand::Drop(QuarantineDrop { chosen, of, .. }) => {
            decide(of, How::Dropped, chosen)
        }
    };
    done.unwrap_or_else(told)
}

fn ls(args: &QuarantineLs) -> Result<Exit, Failure> {
    let kept = Source::of(&args.of)?.list(args.all)?;
    let mut out = io::stdout().lock();
    if args.of.log.json {
        for kept in kept {
            writeln!(out, "{}", json!(kept))?;
        }
        return Ok(Exit::Clean);
    }
    writeln!(
        out,
        "{:>6} {:24} {:16} {:>10} {:24} {:>9} REASON",
        "ID", "WHEN", "STREAM", "OFFSET", "SOURCE", "BYTES"
    )?;
    for kept in kept {
        writeln!(out, "{}", line(&kept))?;
    }
    Ok(Exit::Clean)
}

fn line(kept: &Kept) -> String {
    let mut reason: String = kept.reason.chars().take(REASON_SHOWN).collect();
    if reason.len() < kept.reason.len() {
        reason.push('…');
    }
    let settled = kept.settled.as_ref().map_or_else(String::new, |settled| {
        let (by, at) = (&settled.by, time(settled.at));
        format!("[{} by {by}, {at}] ", settled.how.in_words())
    });
    format!(
        "{:>6} {:24} {:16} {:>10} {:24} {:>9} {}",
        kept.id,
        time(kept.refused_at),
        kept.stream,
        kept.offset,
        printable(&kept.source),
        ByteSize::b(kept.payload_bytes).to_string(),
        printable(&format!("{settled}{reason}")),
    )
}

fn show(args: &QuarantineShow) -> Result<Exit, Failure> {
    let whole = Source::of(&args.of)?.find(args.id)?;
    let whole = whole.ok_or_else(|| {
        let told = format!(
            "there is no record {} in quarantine; `skerry quarantine ls` lists them",
            args.id
        );
        Failure::Told(told)
    })?;
    let mut out = io::stdout().lock();
    if args.of.log.json {
        writeln!(out, "{}", json!(whole))?;
    } else if args.raw {
        out.write_all(&decoded(&whole.payload)?)?;
    } else {
        write!(out, "{}", shown(&whole)?)?;
    }
    Ok(Exit::Clean)
}

fn decoded(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes = BASE64_STANDARD.decode(text);
    bytes.map_err(|why| Failure::Told(format!("the node answered with no base64: {why}")))
}

fn shown(whole: &Whole) -> Result<String, Failure> {
    let kept = &whole.kept;
    let decision = match &kept.settled {
        None => "none yet".to_owned(),
        Some(settled) => {
            let (how, at) = (settled.how.in_words(), time(settled.at));
            format!("{how} by {}, {at}", settled.by)
        }
    };
    let mut lines = vec![
        ("id", kept.id.to_string()),
        ("stream", format!("{}, offset {}", kept.stream, kept.offset)),
        ("log", kept.epoch.clone()),
        ("topic", kept.topic.clone()),
        ("key", kept.source.clone()),
        ("kind", kept.kind.word().to_owned()),
        ("taken in", time(kept.ingest_time)),
        ("refused", time(kept.refused_at)),
        ("reason", kept.reason.clone()),
        ("decision", decision),
    ];
    for (name, value) in &whole.attributes {
        let value = String::from_utf8_lossy(&decoded(value)?).into_owned();
        lines.push(("header", format!("{name}: {value}")));
    }
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("{name:9} {}\n", printable(value)))
        .collect();
    let bytes = ByteSize::b(kept.payload_bytes);
    if !kept.whole {
        text.push_str(&format!(
            "payload   {bytes}, not in the copy: there was no room for it; the record itself is in \
             its stream until retention takes it\n"
        ));
        return Ok(text);
    }
    let payload = decoded(&whole.payload)?;
    let is_plain = |text: &&str| {
        text.chars()
            .all(|c| !c.is_control() || c == '\n' || c == '\t')
    };
    match std::str::from_utf8(&payload).ok().filter(is_plain) {
        Some(plain) => text.push_str(&format!("payload   {bytes}\n\n{plain}\n")),
        None => text.push_str(&format!("payload   {bytes}, no text\n\n{}", hex(&payload))),
    }
    Ok(text)
}

/// Sixteen bytes a line, after the position of the first.
fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(line, bytes)| {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:08x}  {}\n", line * 16, bytes.join(" "))
    });
    lines.collect()
}

fn would_drop(args: &QuarantineDrop) -> Result<Exit, Failure> {
    let waiting = Source::of(&args.of)?.list(false)?;
    let chosen = |kept: &&Kept| args.chosen.all || args.chosen.ids.contains(&kept.id.0);
    let chosen: Vec<_> = waiting.iter().filter(chosen).collect();
    for kept in &chosen {
        println!("{}", line(kept));
    }
    eprintln!(
        "skerry: nothing was dropped: --yes lets go of {} of {} records that wait",
        chosen.len(),
        waiting.len()
    );
    Ok(Exit::Usage)
}

fn decide(of: &LogOrNode, how: How, chosen: &Chosen) -> Result<Exit, Failure> {
    let decision = Decision {
        how,
        ids: (!chosen.all).then(|| chosen.ids.clone()),
        by: user(),
    };
    let outcome = Source::of(of)?.decide(decision)?;
    let mut out = io::stdout().lock();
    if of.log.json {
        writeln!(out, "{}", json!(outcome))?;
    } else {
        match outcome.settled.len() {
            1 => writeln!(out, "1 record {}", how.in_words())?,
            count => writeln!(out, "{count} records {}", how.in_words())?,
        }
    }
    for problem in &outcome.problems {
        eprintln!("skerry: {problem}");
    }
    Ok(match outcome.problems.is_empty() {
        true => Exit::Clean,
        false => Exit::Failed,
    })
}

/// Who decides, as far as this process can tell.
fn user() -> String {
    let behind_sudo = std::env::var("SUDO_USER").ok();
    let named = behind_sudo.or_else(|| std::env::var("USER").ok());
    named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "somebody".to_owned())
}

/// Whoever has the quarantine.
enum Source {
    Here(Here),
    /// The node that answers there.
    There(String),
}

/// A log that this process has open.
struct Here {
    log: Log,
    runtime: tokio::runtime::Runtime,
}

impl Source {
    fn of(args: &LogOrNode) -> Result<Self, Failure> {
        // Somebody who names a node means it, whatever this machine has on its disk.
        if let Some(node) = &args.node {
            return Ok(Self::There(node.clone()));
        }
        Ok(match Place::of(args, "quarantine")?.open()? {
            Opened::There(node) => Self::There(node),
            Opened::Here(log, _) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build()?;
                Self::Here(Here { log, runtime })
            }
        })
    }

    fn list(self, also_settled: bool) -> Result<Vec<Kept>, Failure> {
        match self {
            Self::Here(here) => here.close(|log| async move { list(&log, also_settled) }),
            Self::There(node) if also_settled => get(&node, "/quarantine/all"),
            Self::There(node) => get(&node, "/quarantine"),
        }
    }

    fn find(self, id: u64) -> Result<Option<Whole>, Failure> {
        match self {
            Self::Here(here) => here.close(|log| async move { find(&log, id) }),
            Self::There(node) => get(&node, &format!("/quarantine/{id}")),
        }
    }

    fn decide(self, decision: Decision) -> Result<Outcome, Failure> {
        match self {
            Self::Here(here) => here.close(|log| async move { carry_out(&log, decision).await }),
            Self::There(node) => {
                let answer = status::post_json(&node, "/quarantine", &json!(decision));
                parsed(&node, answer)
            }
        }
    }
}

impl Here {
    /// Does one thing and closes the log.
    fn close<T, F: Future<Output = Result<T, skerry_store::Error>>>(
        self,
        what: impl FnOnce(Log) -> F,
    ) -> Result<T, Failure> {
        let Self { log, runtime } = self;
        runtime.block_on(async {
            let done = what(log.clone()).await;
            log.close().await?;
            Ok(done?)
        })
    }
}

fn get<T: DeserializeOwned>(node: &str, path: &str) -> Result<T, Failure> {
    parsed(node, status::fetch(node, path))
}

fn parsed<T: DeserializeOwned>(node: &str, answer: Result<String, String>) -> Result<T, Failure> {
    let answer =
        answer.map_err(|why| Failure::Told(format!("no answer from a node at {node}: {why}")))?;
    serde_json::from_str(&answer)
        .map_err(|why| Failure::Told(format!("the node at {node} answered something else: {why}")))
}

/// What is in quarantine; nothing where the log has no such stream. Blocks on the disk.
fn list(log: &Log, also_settled: bool) -> Result<Vec<Kept>, skerry_store::Error> {
    match quarantine::list(log, also_settled) {
        Err(skerry_store::Error::UnknownStream { .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

/// The same of one record.
fn find(log: &Log, id: u64) -> Result<Option<Whole>, skerry_store::Error> {
    let found = match quarantine::find(log, Offset(id)) {
        Err(skerry_store::Error::UnknownStream { .. }) => None,
        found => found?,
    };
    Ok(found.map(|(kept, record)| whole(kept, &record)))
}

fn whole(kept: Kept, record: &Record) -> Whole {
    let attributes = record.attributes.iter();
    Whole {
        kept,
        attributes: attributes
            .map(|(name, value)| (name.clone(), BASE64_STANDARD.encode(value)))
            .collect(),
        payload: BASE64_STANDARD.encode(&record.payload),
    }
}

/// Settles one record after the other. What cannot be settled is told, and the others are; only a
/// log that takes nothing any more ends it.
async fn carry_out(log: &Log, decision: Decision) -> Result<Outcome, skerry_store::Error> {
    let ids = match decision.ids {
        Some(ids) => ids,
        None => {
            let log = log.clone();
            let listed = tokio::task::spawn_blocking(move || list(&log, false)).await;
            let listed = listed.map_err(|_| skerry_store::Error::Closed)??;
            listed.iter().map(|kept| kept.id.0).collect()
        }
    };
    let (mut outcome, by) = (Outcome::default(), &decision.by);
    for id in ids {
        let settled = match decision.how {
            How::Retried => quarantine::retry(log, Offset(id), by).await,
            How::Dropped => quarantine::drop(log, Offset(id), by).await,
        };
        match settled {
            Ok(_) => {
                tracing::info!(id, by, "quarantine: {}", decision.how.in_words());
                outcome.settled.push(id);
            }
            Err(quarantine::NotSettled::Log(error)) if error.class() == Class::Fatal => {
                return Err(error);
            }
            Err(why) => outcome.problems.push(why.to_string()),
        }
    }
    if !outcome.settled.is_empty() {
        quarantine::release(log).await?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_store::{Kind, WallNanos};

    fn kept() -> Kept {
        Kept {
            id: Offset(7),
            stream: "telemetry".to_owned(),
            offset: Offset(40),
            epoch: "00000000000000f3".to_owned(),
            topic: "skerry.telemetry".to_owned(),
            reason: format!("too large{}", " by far".repeat(40)),
            refused_at: WallNanos(1_772_366_400_000_000_000),
            kind: Kind::Mqtt,
            source: "plant/\u{1b}[31ma".to_owned(),
            ingest_time: WallNanos(1_772_366_399_000_000_000),
            payload_bytes: 1_500_000,
            whole: true,
            settled: None,
        }
    }

    #[test]
    fn a_line_says_what_why_and_what_became_of_it() {
        let text = line(&kept());
        for part in [
            "7 2026-03-01T12:00:00.000Z telemetry",
            " 40 ",
            "1.4 MiB",
            "by far",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains('\u{1b}') && text.ends_with('…'), "{text}");
        let settled = Kept {
            settled: Some(quarantine::Settled {
                how: How::Dropped,
                by: "ada".to_owned(),
                at: WallNanos(0),
            }),
            ..kept()
        };
        assert!(line(&settled).contains("[dropped by ada, 1970-01-01T00:00:00.000Z]"));
    }

    #[test]
    fn a_payload_is_shown_as_text_or_in_hex() {
        let mut record = Record::new(Kind::Mqtt, "a", "{\"value\":1}");
        record.attributes = vec![("unit".to_owned(), "mm/s".into())];
        let text = shown(&whole(kept(), &record)).expect("base64");
        for part in [
            "stream    telemetry, offset 40",
            "topic     skerry.telemetry",
            "header    unit: mm/s",
            "\n\n{\"value\":1}\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(text.contains(&kept().reason) && !text.contains('\u{1b}'));
        let bytes: Vec<u8> = (0..20).collect();
        let text = shown(&whole(kept(), &Record::new(Kind::Mqtt, "a", bytes))).expect("base64");
        assert!(text.ends_with("\n00000010  10 11 12 13\n"), "{text}");
        let stub = Kept {
            whole: false,
            ..kept()
        };
        let text = shown(&whole(stub, &Record::new(Kind::Mqtt, "a", ""))).expect("base64");
        assert!(text.contains("not in the copy"), "{text}");
    }
}
