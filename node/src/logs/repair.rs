//! `skerry log repair`: finds all damage, and has it noted now instead of when a reader comes upon
//! it. On a stopped node this process opens the log; a running node is asked to do it itself.

use super::{Failure, Opened, Place, offsets_lost, place};
use crate::cli::Repair;
use crate::exit::Exit;
use crate::status;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use serde_json::json;
use skerry_store::{Keys, Log, Outcome, Place as Damaged, Recovery, Scrub, inspect};
use std::io::{self, Write};
use std::path::Path;

/// What a running node answers to `POST /log/scrub`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Of its data directory, as in `/status`.
    pub epoch: String,
    pub scrub: Scrub,
}

pub(super) fn run(args: &Repair) -> Result<Exit, Failure> {
    let (place, as_json) = (Place::of(&args.of, "log repair")?, args.of.log.json);
    if args.dry_run {
        let options = &place.options;
        return dry_run(&options.directory, options.keys.as_ref(), as_json);
    }
    let (recovery, scrub) = match place.open()? {
        Opened::Here(log, recovery) => (Some(recovery), scrub(log)?),
        Opened::There(node) => {
            let scrub = ask(&node)?;
            if !as_json {
                println!("the node at {node} runs on this data directory, and did it:");
            }
            (None, scrub)
        }
    };
    let mut out = io::stdout().lock();
    match as_json {
        true => writeln!(out, "{}", json!({ "recovery": recovery, "scrub": scrub }))?,
        false => write!(out, "{}", in_words(recovery.as_ref(), &scrub))?,
    }
    Ok(match scrub.count(Outcome::Open) {
        0 => Exit::Clean,
        _ => Exit::Failed,
    })
}

fn scrub(log: Log) -> Result<Scrub, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let scrub = log.scrub().await;
        log.close().await?;
        Ok(scrub?)
    })
}

/// Has the node at `address` do it.
fn ask(address: &str) -> Result<Scrub, Failure> {
    let answer = status::post(address, "/log/scrub", "")
        .map_err(|why| Failure::Told(format!("the node at {address} could not do it: {why}")))?;
    let answer: Answer = serde_json::from_str(&answer).map_err(|why| {
        Failure::Told(format!(
            "the node at {address} answered something else: {why}"
        ))
    })?;
    Ok(answer.scrub)
}

/// What [`inspect::verify`] finds, as what a repair would do.
fn dry_run(directory: &Path, keys: Option<&Keys>, as_json: bool) -> Result<Exit, Failure> {
    let report = inspect::verify(directory, keys)?;
    let open = report.open_faults().count();
    let nothing_to_do = open == 0;
    let exit = match nothing_to_do {
        true => Exit::Clean,
        false => Exit::Failed,
    };
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json!(report))?;
        return Ok(exit);
    }
    writeln!(
        out,
        "read {} records in {} frames of {} segments, {}; nothing was written",
        report.records,
        report.frames,
        report.segments,
        ByteSize::b(report.bytes)
    )?;
    if report.unfinished_bytes > 0 {
        let bytes = report.unfinished_bytes;
        writeln!(
            out,
            "would cut off {bytes} bytes of a write that never finished; nothing in them was \
             acknowledged (on a running node: a write under way, which stays)"
        )?;
    }
    for fault in &report.faults {
        let fate = match (fault.is_open(), fault.missing.is_some(), fault.told) {
            (true, true, _) => "would be noted in a gap record",
            (true, false, _) => "would be replaced by a new copy of the catalog",
            (false, _, true) => "a gap record tells so",
            (false, ..) => "cannot be repaired; no record is missing because of it",
        };
        writeln!(out, "{}: {fate}", place(fault))?;
    }
    match open {
        0 => writeln!(out, "nothing to do")?,
        1 => writeln!(out, "1 place to see to: repeat without --dry-run")?,
        _ => writeln!(out, "{open} places to see to: repeat without --dry-run")?,
    }
    Ok(exit)
}

fn in_words(recovery: Option<&Recovery>, scrub: &Scrub) -> String {
    let mut lines = recovery.map_or_else(Vec::new, opening_in_words);
    let by_opening =
        recovery.is_some_and(|recovery| recovery.quarantined_frames + recovery.records_missing > 0);
    lines.push(format!(
        "read {} records in {} frames of {} segments, {}",
        scrub.records,
        scrub.frames,
        scrub.segments,
        ByteSize::b(scrub.bytes)
    ));
    lines.extend(scrub.places.iter().map(place_in_words));
    let count = |outcome| scrub.count(outcome);
    let (known, open) = (count(Outcome::KnownBefore), count(Outcome::Open));
    lines.push(if open > 0 {
        format!("{open} places could not be noted: the messages of the log say why; try again")
    } else if by_opening || count(Outcome::Noted) + count(Outcome::Replaced) > 0 {
        "done: all damage is noted now".to_owned()
    } else if known > 0 {
        format!("nothing to do: {known} damaged places, all noted before")
    } else {
        "nothing to do: no damage".to_owned()
    });
    lines.join("\n") + "\n"
}

/// What had to be mended for the log to open.
fn opening_in_words(recovery: &Recovery) -> Vec<String> {
    let mut lines = Vec::new();
    if recovery.torn_bytes > 0 {
        let bytes = recovery.torn_bytes;
        lines.push(format!(
            "cut off {bytes} bytes of a write that never finished; nothing in them was acknowledged"
        ));
    }
    if recovery.quarantined_frames > 0 {
        let places = recovery.quarantined_frames;
        lines.push(format!(
            "put {places} damaged places in the newest segments into quarantine"
        ));
    }
    if recovery.records_missing > 0 {
        let missing = recovery.records_missing;
        lines.push(format!("noted {missing} missing records in gap records"));
    }
    if recovery.catalog_rebuilt {
        lines.push("rebuilt the catalog from the log".to_owned());
    }
    lines
}

fn place_in_words(place: &Damaged) -> String {
    let fate = match place.outcome {
        Outcome::Noted => "noted now in a gap record",
        Outcome::KnownBefore => "a gap record tells so",
        Outcome::Replaced => "replaced by a new copy of the catalog",
        Outcome::Harmless => "no record is missing",
        Outcome::Open => "COULD NOT BE NOTED",
    };
    let kept = place.quarantine.as_ref().map_or_else(String::new, |path| {
        format!("; {} bytes kept in {}", place.bytes, path.display())
    });
    format!(
        "{} at byte {}: {}{}: {fate}{kept}",
        place.file.display(),
        place.position,
        place.what,
        offsets_lost(place.missing)
    )
}
