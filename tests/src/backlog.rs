//! A data directory that has not been heard of for a while. No listener takes old records, so this
//! alone is written with our own code.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use skerry_store::{Append, Kind, Log, Options, Record, StreamName, StreamOptions, WallNanos};

/// A log below `data` in which each of `streams` has `count` records from so long ago.
pub fn write(data: &Path, streams: &[&str], count: u64, ago: Duration) -> Result<()> {
    let mut options = Options::new(data);
    for name in streams {
        options
            .streams
            .push(StreamOptions::new(StreamName::new(name)?, 1 << 30));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (log, _) = Log::open(options)?;
        let then = WallNanos::now().0 - i64::try_from(ago.as_nanos())?;
        for name in streams {
            let records = (0..count).map(|n| {
                let payload = format!("{{\"by\":\"backlog\",\"id\":{n}}}");
                let mut record = Record::new(Kind::Mqtt, format!("plant/{}", n % 5), payload);
                record.ingest_time = WallNanos(then + i64::try_from(n).unwrap_or(0));
                record
            });
            let append = Append {
                stream: StreamName::new(name)?,
                records: records.collect(),
                changes: Vec::new(),
            };
            log.append(append).await?;
        }
        Ok(log.close().await?)
    })
}
