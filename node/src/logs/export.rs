//! `skerry log export`: records of a stream as JSON lines or CSV, with an account of every offset.

use super::{Failure, for_each, in_json, select};
use crate::cli::{Export, Format};
use crate::exit::Exit;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde_json::json;
use skerry_store::inspect::{Account, Records};
use skerry_store::{Offset, Record, StreamName, WallNanos};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const COLUMNS: [&str; 10] = [
    "offset",
    "kind",
    "source",
    "event_time",
    "source_time",
    "server_time",
    "ingest_time",
    "status",
    "payload",
    "payload_encoding",
];

pub(super) fn run(args: &Export) -> Result<Exit, Failure> {
    let stream = StreamName::new(&args.stream)?;
    let draft = args.output.as_deref();
    let draft = draft.map(|target| Draft::create(target, args.force));
    let draft = draft.transpose()?;
    let mut records = select(&args.log, &stream, &args.range)?;
    match draft {
        None => write(&mut records, args, io::stdout().lock())?,
        Some(draft) => {
            let written = write(&mut records, args, &draft.file);
            written.map_err(|failure| draft.named_in(failure))?;
            draft.publish()?;
        }
    }
    let account = records.account();
    match args.log.json {
        true => eprintln!("{}", json!({ "stream": args.stream, "account": account })),
        false => eprintln!("{}", in_words(&args.stream, &account)),
    }
    Ok(match account.lost {
        0 => Exit::Clean,
        _ => Exit::Failed,
    })
}

fn write(records: &mut Records, args: &Export, out: impl Write) -> Result<(), Failure> {
    let lines = args.range.lines;
    match args.format {
        Format::Jsonl => {
            let mut out = BufWriter::new(out);
            for_each(records, lines, |offset, record| {
                writeln!(out, "{}", in_json(offset, record))
            })?;
            out.flush()?;
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(out);
            out.write_record(COLUMNS).map_err(io::Error::from)?;
            for_each(records, lines, |offset, record| {
                out.write_record(row(offset, record)).map_err(Into::into)
            })?;
            out.flush()?;
        }
    }
    Ok(())
}

fn row(offset: Offset, record: &Record) -> [String; COLUMNS.len()] {
    let time = |at: Option<WallNanos>| at.map_or_else(String::new, exactly);
    let (payload, encoding) = match std::str::from_utf8(&record.payload) {
        Ok(text) => (text.to_owned(), "text"),
        Err(_) => (BASE64_STANDARD.encode(&record.payload), "base64"),
    };
    [
        offset.to_string(),
        record.kind.word().to_owned(),
        record.source.clone(),
        exactly(record.event_time()),
        time(record.source_time),
        time(record.server_time),
        exactly(record.ingest_time),
        record.status.to_string(),
        payload,
        encoding.to_owned(),
    ]
}

/// To the nanosecond, in UTC.
fn exactly(at: WallNanos) -> String {
    DateTime::from_timestamp_nanos(at.0).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn in_words(stream: &str, account: &Account) -> String {
    let Account {
        first,
        next,
        records,
        outside,
        retired,
        lost,
    } = account;
    let range = match next.0 - first.0 {
        0 => format!("nothing from offset {first} on"),
        1 => format!("offset {first} (1)"),
        count => format!("offsets {first} to {} ({count})", next.0 - 1),
    };
    format!(
        "{stream}: {range} = {records} exported + {outside} outside the times asked for + \
         {retired} no longer held + {lost} damaged"
    )
}

/// A file that gets its name only once it is whole and on the disk.
struct Draft {
    path: PathBuf,
    target: PathBuf,
    force: bool,
    file: File,
    published: bool,
}

impl Draft {
    fn create(target: &Path, force: bool) -> Result<Self, Failure> {
        refuse_to_replace(target, force)?;
        let Some(name) = target.file_name() else {
            let target = target.display();
            return Err(Failure::Told(format!("{target} is no name for a file")));
        };
        let mut draft = name.to_owned();
        draft.push(format!(".{}.partial", std::process::id()));
        let path = target.with_file_name(draft);
        let file = File::create_new(&path).map_err(|error| cannot("create", &path, &error))?;
        Ok(Self {
            path,
            target: target.to_owned(),
            force,
            file,
            published: false,
        })
    }

    /// A failure to write it, with the file's name.
    fn named_in(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Output(error) => cannot("write", &self.path, &error),
            other => other,
        }
    }

    fn publish(mut self) -> Result<(), Failure> {
        refuse_to_replace(&self.target, self.force)?;
        let directory = match self.target.parent() {
            Some(above) if above != Path::new("") => above,
            _ => Path::new("."),
        };
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.target))
            .map_err(|error| cannot("write", &self.target, &error))?;
        self.published = true;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| cannot("sync", directory, &error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Of no use to anybody; its name says so, should it stay.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn refuse_to_replace(target: &Path, force: bool) -> Result<(), Failure> {
    if force || !target.exists() {
        return Ok(());
    }
    let target = target.display();
    Err(Failure::Told(format!(
        "{target} is there already: name another file, or replace it with --force"
    )))
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Told(format!("cannot {action} {}: {error}", path.display()))
}
