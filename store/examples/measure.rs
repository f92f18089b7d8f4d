//! How fast, at what cost: `measure DIRECTORY [SECONDS] [STREAMS]`. Prints one JSON object.
//!
//! Appends 200-byte JSON telemetry records from 16 tasks, each waiting for the disk before it
//! goes on, 64 records at a time.

use skerry_store::{Append, Kind, Log, Offset, Options, Record, StreamName, StreamOptions};
use std::time::{Duration, Instant};

const TASKS: usize = 16;
const RECORDS_PER_APPEND: u64 = 64;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("measure DIRECTORY [SECONDS] [STREAMS]")?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |n| n.parse())?;
    let streams: usize = arguments.next().map_or(Ok(1), |n| n.parse())?;
    let names = (0..streams).map(|index| StreamName::new(&format!("s{index}")));
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    let mut options = Options::new(&directory);
    options.streams = names
        .iter()
        .map(|name| StreamOptions::new(name.clone(), 1 << 40))
        .collect();
    let opening = Instant::now();
    let (log, _) = Log::open(options)?;
    let open_ms = opening.elapsed().as_millis();

    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            tokio::spawn(append_until(
                end,
                log.clone(),
                names[task % streams].clone(),
            ))
        })
        .collect();
    let mut records = 0;
    for task in tasks {
        records += task.await??;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let stats = log.stats();

    let reading = Instant::now();
    let mut reader = log.reader(&names[0], Offset::ZERO)?;
    let mut read = 0;
    loop {
        let batch = reader.next(1 << 20)?;
        if batch.is_empty() {
            break;
        }
        read += batch.records.len();
    }
    let read_rate = read as f64 / reading.elapsed().as_secs_f64();
    let report = serde_json::json!({
        "open_ms": open_ms,
        "records_per_s": (records as f64 / elapsed) as u64,
        "bytes_on_disk_per_byte": stats.bytes_written_total as f64 / (records * 200) as f64,
        "commits_per_s": (stats.commits_total as f64 / elapsed) as u64,
        "sync_max_us": stats.sync_max_us,
        "read_records_per_s": read_rate as u64,
        "resident": resident()?,
    });
    println!("{report}");
    Ok(log.close().await?)
}

async fn append_until(
    end: Instant,
    log: Log,
    stream: StreamName,
) -> Result<u64, skerry_store::Error> {
    let mut number = 0_u64;
    while Instant::now() < end {
        let records = (0..RECORDS_PER_APPEND).map(|_| {
            number += 1;
            telemetry(number)
        });
        let append = Append {
            stream: stream.clone(),
            records: records.collect(),
            changes: Vec::new(),
        };
        log.append(append).await?;
    }
    Ok(number)
}

fn telemetry(number: u64) -> Record {
    let noise = number.wrapping_mul(6_364_136_223_846_793_005);
    let payload = format!(
        "{{\"ts\":{},\"asset\":\"pump-{}\",\"vibration\":{:.4},\"temperature\":{:.3},\
         \"pressure\":{:.3},\"current\":{:.3},\"rpm\":{},\"state\":\"running\",\"seq\":{:08}}}",
        1_760_000_000_000 + number,
        noise % 7,
        (noise >> 40) as f64 / 1e6,
        40.0 + (noise >> 48) as f64 / 1e4,
        (noise >> 44) as f64 / 1e5,
        (noise >> 46) as f64 / 1e4,
        1_400 + (noise >> 58),
        number,
    );
    Record::new(Kind::Mqtt, "plant/hall-1/pump", format!("{payload:<200}"))
}

fn resident() -> std::io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = |key: &str| {
        status
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    let words = format!("{} {}", line("VmRSS"), line("VmHWM"));
    Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
}
