//! `skerry log …`: looking into the durable log, beside a running node or without one.

mod export;
mod open;
mod repair;
mod stats;

pub use open::{Opened, Place};
pub use repair::Answer;

use crate::cli::{Cat, LogCommand, LogDirectory, NewKey, Range, Tail};
use crate::exit::Exit;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};
use skerry_store::inspect::{Fault, Records, Times};
use skerry_store::{Error, Keys, Offset, Record, StreamName, WallNanos, inspect};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a followed stream is looked at: a person does not notice less.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Bytes of a payload shown on a line; `--json` shows all.
const PAYLOAD_SHOWN: usize = 120;

pub fn run(command: &LogCommand) -> Exit {
    let done = match command {
        LogCommand::Ls(log) => looked_for(&log.data_dir).and_then(|()| ls(log)),
        LogCommand::Tail(args) => looked_for(&args.log.data_dir).and_then(|()| tail(args)),
        LogCommand::Cat(args) => looked_for(&args.log.data_dir).and_then(|()| cat(args)),
        LogCommand::Export(args) => looked_for(&args.log.data_dir).and_then(|()| export::run(args)),
        LogCommand::Stats(args) => looked_for(&args.log.data_dir).and_then(|()| stats::run(args)),
        LogCommand::Verify(log) => looked_for(&log.data_dir).and_then(|()| verify(log)),
        LogCommand::Repair(args) => repair::run(args),
        LogCommand::NewKey(args) => new_key(args),
    };
    done.unwrap_or_else(told)
}

/// Says what failed; what that means to whoever called.
pub fn told(failure: Failure) -> Exit {
    match failure {
        Failure::Log(Error::UnknownStream { name }) => {
            eprintln!("skerry: the log has no stream `{name}`; `skerry log ls` lists them");
            Exit::Failed
        }
        // `skerry log cat … | head` is no failure.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Failure::Config(why) => {
            eprintln!("{why}");
            Exit::Usage
        }
        failure => {
            eprintln!("skerry: {failure}");
            Exit::Failed
        }
    }
}

pub fn looked_for(directory: &Path) -> Result<(), Failure> {
    match directory.join("streams").is_dir() {
        true => Ok(()),
        false => Err(Failure::NoLog(directory.to_owned())),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "{} holds no log; name the node's data_dir with --data-dir (and may this user read it?)",
        .0.display()
    )]
    NoLog(PathBuf),
    #[error(transparent)]
    Log(#[from] Error),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Told(String),
}

pub fn keys(log: &LogDirectory) -> Result<Option<Keys>, Error> {
    log.key_file.as_deref().map(Keys::read).transpose()
}

fn new_key(args: &NewKey) -> Result<Exit, Failure> {
    let id = Keys::create(&args.file)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "key {id} is in {}; name the file as store.encryption_key_file, and keep a copy away from \
         this box: without it what was encrypted is lost",
        args.file.display()
    )?;
    Ok(Exit::Clean)
}

fn ls(log: &LogDirectory) -> Result<Exit, Failure> {
    let streams = inspect::streams(&log.data_dir)?;
    let mut out = io::stdout().lock();
    if !log.json {
        writeln!(
            out,
            "{:24} {:>12} {:>12} {:>12} {:>10} {:>8}",
            "STREAM", "FIRST", "NEXT", "RECORDS", "BYTES", "SEGMENTS"
        )?;
    }
    for stream in streams {
        if log.json {
            writeln!(out, "{}", json!(stream))?;
            continue;
        }
        writeln!(
            out,
            "{:24} {:>12} {:>12} {:>12} {:>10} {:>8}",
            stream.name,
            stream.tail,
            stream.head,
            stream.head.0 - stream.tail.0,
            bytesize::ByteSize::b(stream.bytes).to_string(),
            stream.segments
        )?;
    }
    Ok(Exit::Clean)
}

fn tail(args: &Tail) -> Result<Exit, Failure> {
    let stream = StreamName::new(&args.stream)?;
    let keys = keys(&args.log)?;
    let streams = inspect::streams(&args.log.data_dir)?;
    let summary = streams.iter().find(|summary| summary.name == args.stream);
    let head = summary.map_or(0, |summary| summary.head.0);
    let mut next = Offset(head.saturating_sub(args.lines));
    loop {
        let mut records = inspect::records(&args.log.data_dir, &stream, next, keys.as_ref())?;
        next = print(&mut records, None, args.log.json)?;
        if !args.follow {
            return Ok(Exit::Clean);
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
}

fn cat(args: &Cat) -> Result<Exit, Failure> {
    let stream = StreamName::new(&args.stream)?;
    let mut records = select(&args.log, &stream, &args.range)?;
    print(&mut records, args.range.lines, args.log.json)?;
    Ok(Exit::Clean)
}

/// The records that are asked for, but for how many.
fn select(log: &LogDirectory, stream: &StreamName, range: &Range) -> Result<Records, Failure> {
    let (directory, keys) = (&log.data_dir, keys(log)?);
    let from = match range.from {
        Some(from) => Offset(from),
        None => {
            let streams = inspect::streams(directory)?;
            let summary = streams.iter().find(|found| found.name == stream.as_str());
            summary.map_or(Offset::ZERO, |summary| summary.tail)
        }
    };
    let from = match range.since {
        Some(since) => from.max(inspect::offset_at(directory, stream, since, keys.as_ref())?),
        None => from,
    };
    let times = Times {
        since: range.since,
        until: range.until,
    };
    Ok(inspect::records(directory, stream, from, keys.as_ref())?.within(times))
}

/// Prints records and returns where to go on.
fn print(records: &mut Records, lines: Option<u64>, as_json: bool) -> Result<Offset, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for_each(records, lines, |offset, record| match as_json {
        true => writeln!(out, "{}", in_json(offset, record)),
        false => writeln!(out, "{}", in_words(offset, record)),
    })?;
    out.flush()?;
    Ok(records.account().next)
}

/// Hands over records, as many as are asked for, and names the damage that is passed.
fn for_each(
    records: &mut Records,
    lines: Option<u64>,
    mut each: impl FnMut(Offset, &Record) -> io::Result<()>,
) -> Result<(), Failure> {
    for _ in 0..lines.unwrap_or(u64::MAX) {
        let entry = records.next();
        for fault in records.take_faults() {
            eprintln!("skerry: passed over {}", place(&fault));
        }
        match entry.transpose()? {
            Some((offset, record)) => each(offset, &record)?,
            None => break,
        }
    }
    Ok(())
}

/// Where something is wrong, what, and what is missing because of it.
fn place(fault: &Fault) -> String {
    let (file, position) = (fault.file.display(), fault.position);
    let lost = offsets_lost(fault.missing);
    format!("{file} at byte {position}: {}{lost}", fault.what)
}

fn offsets_lost(missing: Option<(Offset, Offset)>) -> String {
    match missing {
        Some((first, next)) if first.plus(1) == next => format!("; offset {first} does not read"),
        Some((first, next)) => format!("; offsets {first} to {} do not read", next.0 - 1),
        None => String::new(),
    }
}

fn in_json(offset: Offset, record: &Record) -> Value {
    let attributes: Vec<Value> = record
        .attributes
        .iter()
        .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
        .collect();
    // JSON inside stays JSON; other text a string; bytes that are no text are told apart.
    let payload = match (
        serde_json::from_slice(&record.payload),
        std::str::from_utf8(&record.payload),
    ) {
        (Ok(value), _) => ("payload", value),
        (_, Ok(text)) => ("payload", json!(text)),
        _ => ("payload_bytes", json!(record.payload.to_vec())),
    };
    let mut object = json!({
        "offset": offset,
        "kind": record.kind,
        "source": record.source,
        "source_time_ns": record.source_time,
        "server_time_ns": record.server_time,
        "ingest_time_ns": record.ingest_time,
        "status": record.status,
        "attributes": attributes,
    });
    object[payload.0] = payload.1;
    object
}

fn in_words(offset: Offset, record: &Record) -> String {
    let text = String::from_utf8_lossy(&record.payload);
    let mut shown: String = text.chars().take(PAYLOAD_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    let status = match record.status {
        0 => String::new(),
        status => format!("  status {status:#010x}"),
    };
    format!(
        "{offset:>10}  {}  {:6}  {}  {}{status}",
        time(record.event_time()),
        record.kind.word(),
        record.source,
        printable(&shown)
    )
}

/// One line stays one line, and a payload never steers a terminal.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '·' } else { c };
    text.chars().map(harmless).collect()
}

pub fn time(at: WallNanos) -> String {
    DateTime::from_timestamp_nanos(at.0).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn verify(log: &LogDirectory) -> Result<Exit, Failure> {
    let report = inspect::verify(&log.data_dir, keys(log)?.as_ref())?;
    let mut out = io::stdout().lock();
    let exit = match report.is_sound() {
        true => Exit::Clean,
        false => Exit::Failed,
    };
    if log.json {
        writeln!(out, "{}", json!(report))?;
        return Ok(exit);
    }
    writeln!(
        out,
        "{} records in {} frames of {} segments of {} streams, {}",
        report.records,
        report.frames,
        report.segments,
        report.streams,
        bytesize::ByteSize::b(report.bytes)
    )?;
    if report.unfinished_bytes > 0 {
        writeln!(
            out,
            "{} bytes of a commit under way, or one that never finished and was never acknowledged",
            report.unfinished_bytes
        )?;
    }
    if report.locked_frames > 0 {
        writeln!(
            out,
            "{} frames are encrypted with a key that was not given: checksums and hash chain were \
             checked, not what is inside; --key-file FILE has it looked at",
            report.locked_frames
        )?;
    }
    for fault in &report.faults {
        let told = match fault.told {
            true => " (a gap record tells so)",
            false => "",
        };
        writeln!(out, "{}{told}", place(fault))?;
    }
    let (faults, open) = (report.faults.len(), report.open_faults().count());
    match (faults, open) {
        (0, _) if report.locked_frames > 0 => writeln!(
            out,
            "sound on the outside: offsets are contiguous, the hash chain holds"
        )?,
        (0, _) => writeln!(
            out,
            "sound: every frame reads, offsets are contiguous, the hash chain holds"
        )?,
        (_, 0) => writeln!(
            out,
            "{faults} faults; all that is missing is told by gap records"
        )?,
        _ => writeln!(
            out,
            "{faults} faults, {open} of them not yet noted in gap records: the node does so when \
             it comes upon them, `skerry log repair` does so now"
        )?,
    }
    Ok(exit)
}
