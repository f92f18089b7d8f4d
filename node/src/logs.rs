//! `skerry log …`: looking into the durable log, beside a running node or without one.

use crate::cli::{Cat, LogCommand, LogDirectory, NewKey, Tail};
use crate::exit::Exit;
use serde_json::{Value, json};
use skerry_store::{Error, Keys, Offset, Record, StreamName, WallNanos, inspect};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// How often a followed stream is looked at: a person does not notice less.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Bytes of a payload shown on a line; `--json` shows all.
const PAYLOAD_SHOWN: usize = 120;

pub fn run(command: &LogCommand) -> Exit {
    let directory = match command {
        LogCommand::Ls(log) | LogCommand::Verify(log) => Some(&log.data_dir),
        LogCommand::Tail(args) => Some(&args.log.data_dir),
        LogCommand::Cat(args) => Some(&args.log.data_dir),
        LogCommand::NewKey(_) => None,
    };
    if let Some(directory) = directory
        && !directory.join("streams").is_dir()
    {
        let directory = directory.display();
        eprintln!(
            "skerry: {directory} holds no log; name the node's data_dir with --data-dir (and may \
             this user read it?)"
        );
        return Exit::Failed;
    }
    let done = match command {
        LogCommand::Ls(log) => ls(log),
        LogCommand::Tail(args) => tail(args),
        LogCommand::Cat(args) => cat(args),
        LogCommand::Verify(log) => verify(log),
        LogCommand::NewKey(args) => new_key(args),
    };
    match done {
        Ok(exit) => exit,
        Err(Failure::Log(Error::UnknownStream { name })) => {
            eprintln!("skerry: the log has no stream `{name}`; `skerry log ls` lists them");
            Exit::Failed
        }
        Err(Failure::Log(error)) => {
            eprintln!("skerry: {error}");
            Exit::Failed
        }
        // `skerry log cat … | head` is no failure.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(Failure::Output(error)) => {
            eprintln!("skerry: cannot print: {error}");
            Exit::Failed
        }
    }
}

enum Failure {
    Log(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Log(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn keys(log: &LogDirectory) -> Result<Option<Keys>, Error> {
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
        next = print_from(&args.log, keys.as_ref(), &stream, next, None)?;
        if !args.follow {
            return Ok(Exit::Clean);
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
}

fn cat(args: &Cat) -> Result<Exit, Failure> {
    let stream = StreamName::new(&args.stream)?;
    let from = Offset(args.from.unwrap_or(0));
    let keys = keys(&args.log)?;
    print_from(&args.log, keys.as_ref(), &stream, from, args.lines)?;
    Ok(Exit::Clean)
}

/// Prints records from `from` on and returns where to go on.
fn print_from(
    log: &LogDirectory,
    keys: Option<&Keys>,
    stream: &StreamName,
    from: Offset,
    lines: Option<u64>,
) -> Result<Offset, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut next = from;
    let limit = lines.map_or(usize::MAX, |lines| {
        usize::try_from(lines).unwrap_or(usize::MAX)
    });
    for entry in inspect::records(&log.data_dir, stream, from, keys)?.take(limit) {
        let (offset, record) = entry?;
        match log.json {
            true => writeln!(out, "{}", in_json(offset, &record))?,
            false => writeln!(out, "{}", in_words(offset, &record))?,
        }
        next = offset.plus(1);
    }
    out.flush()?;
    Ok(next)
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
fn printable(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '·' } else { c };
    text.chars().map(harmless).collect()
}

fn time(at: WallNanos) -> String {
    match u64::try_from(at.0) {
        Ok(nanos) => {
            let time = UNIX_EPOCH + Duration::from_nanos(nanos);
            humantime::format_rfc3339_millis(time).to_string()
        }
        Err(_) => format!("{} ns before 1970", at.0.unsigned_abs()),
    }
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
        write!(
            out,
            "{} at byte {}: {}",
            fault.file.display(),
            fault.position,
            fault.what
        )?;
        match fault.missing {
            Some((first, next)) => {
                writeln!(out, "; offsets {first} to {} do not read", next.0 - 1)?
            }
            None => writeln!(out)?,
        }
    }
    match report.faults.len() {
        0 if report.locked_frames > 0 => writeln!(
            out,
            "sound on the outside: offsets are contiguous, the hash chain holds"
        )?,
        0 => writeln!(
            out,
            "sound: every frame reads, offsets are contiguous, the hash chain holds"
        )?,
        count => writeln!(
            out,
            "{count} faults; the node starts all the same, and notes the loss in gap records"
        )?,
    }
    Ok(exit)
}
