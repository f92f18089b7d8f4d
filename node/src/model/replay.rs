//! `skerry model replay`: what a model would have said of records in the log.

use super::arguments::ModelReplay;
use super::trial::configured;
use crate::cli::Format;
use crate::config::Config;
use crate::exit::Exit;
use crate::logs::{Failure, time};
use serde_json::{Value, json};
use skerry_inference::Said;
use skerry_store::inspect::{self, Records, Times};
use skerry_store::{Keys, Offset, Record, StreamName};
use std::collections::HashMap;
use std::io::{self, Write};
use std::iter::Peekable;
use std::path::Path;

pub(super) fn run(args: &ModelReplay) -> Result<Exit, Failure> {
    let config = Config::load(&args.config)?;
    let model = configured(&config, &args.config, &args.name)?;
    let directory = &config.store.directory;
    let log = args.log(directory.clone());
    crate::logs::looked_for(directory)?;
    let keys = crate::logs::keys(&log)?;
    let folder = config.models.versions.clone();
    let version = args.version.as_ref().zip(folder);
    let version = version.map(|(version, folder)| folder.join(&model.name).join(version));
    let file = args.file.clone().or(version);

    let streams = model.streams();
    let open = |stream| Lane::open(args, directory, stream, keys.as_ref());
    let lanes = streams.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut printer = Printer::new(args.format, io::stdout().lock())?;
    let mut said = Vec::new();
    let host = &config.models.host;
    let info = model.replay(file, host, Merged { lanes }, |one: Said| {
        said.push(one);
        Ok::<_, Failure>(())
    })?;
    let mut summary = Summary::default();
    let told = told(directory, &model.scores, &model.name, keys.as_ref())?;
    for one in &said {
        let payload: Value = serde_json::from_slice(&one.record.payload).unwrap_or_default();
        printer.print(&payload, one)?;
        summary.count(&payload, &told);
    }
    printer.finish()?;
    let sha256 = &info.sha256;
    let Summary {
        scores,
        alerts,
        same,
        other,
        untold,
    } = summary;
    eprintln!(
        "{scores} scores and {alerts} other records by {sha256}: {same} scores are in the log as \
         they are here, {other} have another number there, {untold} are not in it"
    );
    Ok(Exit::Clean)
}

/// Scores in the log, by source and the offset of the window's end.
type Told = HashMap<(String, u64), f64>;

fn told(
    directory: &Path,
    scores: &StreamName,
    model: &str,
    keys: Option<&Keys>,
) -> Result<Told, Failure> {
    let mut told = Told::new();
    let prefix = format!("{model}/");
    for entry in inspect::records(directory, scores, Offset::ZERO, keys)? {
        let (_, record) = entry?;
        let payload: Value = serde_json::from_slice(&record.payload).unwrap_or_default();
        if let (true, Some(end), Some(score)) = (
            record.source.starts_with(&prefix),
            payload["last_offset"].as_u64(),
            payload["score"].as_f64(),
        ) {
            told.insert((record.source, end), score);
        }
    }
    Ok(told)
}

#[derive(Default)]
struct Summary {
    scores: u64,
    alerts: u64,
    same: u64,
    other: u64,
    untold: u64,
}

impl Summary {
    fn count(&mut self, payload: &Value, told: &Told) {
        // What is no score has a state: raised, or cleared.
        if !payload["state"].is_null() {
            self.alerts += 1;
            return;
        }
        self.scores += 1;
        let part = |name: &str| payload[name].as_str().unwrap_or_default();
        let source = format!("{}/{}", part("model"), part("asset"));
        let end = payload["last_offset"].as_u64().unwrap_or_default();
        let score = payload["score"].as_f64();
        let counter = match told.get(&(source, end)) {
            None => &mut self.untold,
            Some(there) if Some(*there) == score => &mut self.same,
            Some(_) => &mut self.other,
        };
        *counter += 1;
    }
}

enum Printer<W: Write> {
    Lines(io::BufWriter<W>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Printer<W> {
    fn new(format: Format, out: W) -> Result<Self, Failure> {
        if format == Format::Jsonl {
            return Ok(Self::Lines(io::BufWriter::new(out)));
        }
        let mut writer = csv::Writer::from_writer(out);
        let names = [
            "time",
            "stream",
            "asset",
            "score",
            "class",
            "state",
            "last_offset",
        ];
        writer.write_record(names).map_err(io::Error::other)?;
        Ok(Self::Csv(Box::new(writer)))
    }

    fn print(&mut self, payload: &Value, said: &Said) -> Result<(), Failure> {
        let writer = match self {
            Self::Lines(out) => {
                let line = json!({ "stream": said.stream.as_str(), "payload": payload });
                writeln!(out, "{line}")?;
                return Ok(());
            }
            Self::Csv(writer) => writer,
        };
        let cell = |name: &str| match &payload[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let start = [time(said.record.event_time()), said.stream.to_string()];
        let cells = ["asset", "score", "class", "state", "last_offset"].map(cell);
        let row = start.iter().chain(&cells);
        writer.write_record(row).map_err(io::Error::other)?;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        match &mut self {
            Self::Lines(out) => out.flush(),
            Self::Csv(writer) => writer.flush(),
        }
    }
}

/// The records of one stream that are asked for.
struct Lane {
    records: Peekable<Records>,
    end: Option<Offset>,
}

impl Lane {
    fn open(
        args: &ModelReplay,
        directory: &Path,
        stream: &StreamName,
        keys: Option<&Keys>,
    ) -> Result<Self, Failure> {
        let from = Offset(args.from.unwrap_or(0));
        let times = Times {
            since: args.since,
            until: args.until,
        };
        let records = inspect::records(directory, stream, from, keys)?.within(times);
        Ok(Self {
            records: records.peekable(),
            end: args.to.map(Offset),
        })
    }
}

/// All streams as one, by the time at which the node took records in, as a running model has them.
struct Merged {
    lanes: Vec<Lane>,
}

impl Iterator for Merged {
    type Item = Result<(usize, Offset, Record), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.lanes.iter_mut().enumerate();
        let first = heads.filter_map(|(index, lane)| match lane.records.peek()? {
            Ok((offset, _)) if lane.end.is_some_and(|end| *offset >= end) => None,
            Ok((_, record)) => Some((record.ingest_time, index)),
            // Told at once.
            Err(_) => Some((skerry_store::WallNanos(i64::MIN), index)),
        });
        let (_, index) = first.min()?;
        let entry = self.lanes[index].records.next()?;
        Some(match entry {
            Ok((offset, record)) => Ok((index, offset, record)),
            Err(error) => Err(error.into()),
        })
    }
}
