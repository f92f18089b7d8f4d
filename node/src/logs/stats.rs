//! `skerry log stats`: what a stream is made of.

use super::{Failure, keys, place, time};
use crate::cli::Stats;
use crate::exit::Exit;
use bytesize::ByteSize;
use serde_json::json;
use skerry_store::inspect::{self, StreamFigures};
use skerry_store::{Error, StreamName};
use std::io::{self, Write};

pub(super) fn run(args: &Stats) -> Result<Exit, Failure> {
    let (directory, keys) = (&args.log.data_dir, keys(&args.log)?);
    let streams = inspect::streams(directory)?;
    let wanted = |name: &String| args.stream.as_ref().is_none_or(|stream| stream == name);
    let names = streams.into_iter().map(|stream| stream.name);
    let names: Vec<_> = names.filter(wanted).collect();
    if let (true, Some(name)) = (names.is_empty(), args.stream.clone()) {
        return Err(Error::UnknownStream { name }.into());
    }
    let mut out = io::stdout().lock();
    for name in names {
        let figures = inspect::figures(directory, &StreamName::new(&name)?, keys.as_ref())?;
        match args.log.json {
            true => writeln!(out, "{}", in_json(&figures))?,
            false => write!(out, "{}", in_words(&figures))?,
        }
    }
    Ok(Exit::Clean)
}

/// What was found, and what is worked out from it.
fn in_json(figures: &StreamFigures) -> serde_json::Value {
    let mut object = json!(figures);
    object["records_per_frame"] = json!(records_per_frame(figures));
    object["compression_ratio"] = json!(compression_ratio(figures));
    object
}

fn records_per_frame(figures: &StreamFigures) -> Option<f64> {
    let frames = (figures.frames > 0).then_some(figures.frames)?;
    Some(figures.records as f64 / frames as f64)
}

/// How many bytes there were for each that is on the disk.
fn compression_ratio(figures: &StreamFigures) -> Option<f64> {
    let bytes = (figures.payload_bytes > 0).then_some(figures.payload_bytes)?;
    Some(figures.body_bytes as f64 / bytes as f64)
}

fn in_words(figures: &StreamFigures) -> String {
    let summary = &figures.summary;
    let mut lines = vec![summary.name.clone()];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:10}{text}"));
    line(
        "offsets",
        format!("first {}, next {}", summary.tail, summary.head),
    );
    let mean = records_per_frame(figures).filter(|mean| *mean > 0.0);
    let mean = mean.map_or_else(String::new, |mean| {
        format!(" in {} frames, {mean:.1} a frame", figures.frames)
    });
    line("records", format!("{}{mean}", figures.records));
    let ratio = compression_ratio(figures).map_or_else(String::new, |ratio| {
        let bytes = ByteSize::b(figures.body_bytes);
        format!("; {bytes} of content, compressed {ratio:.1} to 1")
    });
    let bytes = ByteSize::b(summary.bytes);
    line(
        "on disk",
        format!("{bytes} in {} segments{ratio}", summary.segments),
    );
    if let (Some(first), Some(last)) = (figures.first_time, figures.last_time) {
        line("times", format!("{} to {}", time(first), time(last)));
    }
    let kinds = figures.kinds.iter();
    let kinds: Vec<_> = kinds
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if !kinds.is_empty() {
        line("kinds", kinds.join(", "));
    }
    for (index, gap) in figures.gaps.iter().enumerate() {
        let values = match (gap.values, gap.uncounted) {
            (values, 0) => format!("{values} values missing"),
            (0, _) => "values missing, nobody knows how many".to_owned(),
            (values, _) => format!("{values} values missing at least"),
        };
        let told = format!("{values}, in {} gap records: {}", gap.records, gap.reason);
        line(heading("gaps", index), told);
    }
    for (index, found) in figures.top_sources.iter().enumerate() {
        let told = format!("{:>10}  {}", found.records, super::printable(&found.source));
        line(heading("sources", index), told);
    }
    if figures.top_sources_short_by > 0 {
        let most = figures.top_sources_short_by;
        let told = format!("very many: each of these may have up to {most} more");
        line("", told);
    }
    for (index, fault) in figures.faults.iter().enumerate() {
        line(heading("damage", index), place(fault));
    }
    lines.join("\n") + "\n"
}

/// What is of one kind has one heading.
const fn heading(name: &str, index: usize) -> &str {
    if index == 0 { name } else { "" }
}
