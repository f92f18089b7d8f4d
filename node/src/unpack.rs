//! `skerry unpack`: what is in the cluster's topics, record by record, whether packed or not; onto
//! the screen, or into [another topic](copying).

mod copying;

use crate::cli::Unpack;
use crate::config::Config;
use crate::exit::Exit;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skerry_bridge::uplink;
use skerry_bridge::uplink::unpack::{Account, Error, Unpacked};
use std::io::{self, Write};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub fn run(args: &Unpack) -> Exit {
    let job = args.to.as_deref().map(|to| copying::asked(args, to));
    let (config, job) = match config(args).and_then(|config| Ok((config, job.transpose()?))) {
        Ok(found) => found,
        Err(why) => {
            eprintln!("{why}");
            return Exit::Usage;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let stop = stopped()?;
            Ok(match job {
                Some(job) => copying::copy(config, job, stop).await,
                None => print(config, args, stop).await,
            })
        })
    });
    ended.unwrap_or_else(|error| {
        eprintln!("skerry: cannot start: {error}");
        Exit::Failed
    })
}

/// Cancelled by Ctrl-C or SIGTERM.
fn stopped() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}

/// From the command line, or what the node itself uses.
fn config(args: &Unpack) -> Result<uplink::Config, String> {
    if !args.brokers.is_empty() {
        let node = uplink::NodeName::new("unpack").expect("letters are allowed");
        return Ok(uplink::Config::new(node, args.brokers.clone()));
    }
    let path = &args.config;
    let config = Config::load(path).map_err(|error| error.to_string())?;
    config.uplink.ok_or_else(|| {
        format!(
            "skerry: {} has no [kafka] section; name the cluster with --brokers",
            path.display()
        )
    })
}

async fn print(config: uplink::Config, args: &Unpack, stop: CancellationToken) -> Exit {
    let mut out = io::BufWriter::new(io::stdout());
    let follow = args.follow;
    let mut each = |record: Result<Unpacked, uplink::unpack::Damaged>| match record {
        Ok(record) => {
            writeln!(out, "{}", in_json(&record))?;
            // Whoever follows wants to see it now.
            if follow { out.flush() } else { Ok(()) }
        }
        Err(damaged) => {
            eprintln!("skerry: passed over {damaged}");
            Ok(())
        }
    };
    let outcome = uplink::unpack::unpack(config, &args.topics, follow, stop, &mut each).await;
    let outcome = outcome.and_then(|account| {
        out.flush()?;
        Ok(account)
    });
    match outcome {
        Ok(account) => told(account),
        // `skerry unpack … | head` is no failure.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => {
            eprintln!("skerry: {error}");
            Exit::Failed
        }
    }
}

/// Says what was done, and what the command ends with for it.
fn told(account: Account) -> Exit {
    eprintln!(
        "skerry: {} records out of {} packed ones, {} as they were, {} damaged",
        account.unpacked, account.packed, account.plain, account.damaged
    );
    match account.damaged {
        0 => Exit::Clean,
        _ => Exit::Failed,
    }
}

fn in_json(record: &Unpacked) -> Value {
    let headers = record.headers.iter().map(|(name, value)| {
        let value = value.as_deref().map(|value| String::from_utf8_lossy(value));
        json!([name, value])
    });
    let mut object = json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "kafka_offset": record.kafka_offset,
        "offset": record.offset.or_else(|| in_header(record)),
        "timestamp_ms": record.timestamp_ms,
        "key": record.key.as_deref().map(|key| String::from_utf8_lossy(key)),
        "headers": headers.collect::<Vec<_>>(),
    });
    let value = record.value.as_deref().unwrap_or_default();
    // As `skerry log cat --json`: JSON inside stays JSON, other text is a string.
    let (name, value) = match (&record.value, serde_json::from_slice(value)) {
        (None, _) => ("value", Value::Null),
        (_, Ok(value)) => ("value", value),
        _ => match std::str::from_utf8(value) {
            Ok(text) => ("value", json!(text)),
            Err(_) => ("value_base64", json!(BASE64.encode(value))),
        },
    };
    object[name] = value;
    object
}

/// The log's offset of a record that was not packed.
fn in_header(record: &Unpacked) -> Option<u64> {
    let mut headers = record.headers.iter();
    let (_, value) = headers.find(|(name, _)| name == "skerry-offset")?;
    std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(value: Option<&'static [u8]>, offset: Option<u64>) -> Unpacked {
        Unpacked {
            topic: "t".into(),
            partition: 1,
            kafka_offset: 5,
            offset,
            timestamp_ms: 7,
            key: Some(Bytes::from_static(b"pump1")),
            value: value.map(Bytes::from_static),
            headers: vec![("skerry-offset".to_owned(), Some(Bytes::from_static(b"42")))],
        }
    }

    #[test]
    fn a_line_has_the_record_as_it_was() {
        let line = in_json(&record(Some(b"{\"value\":1.50}"), Some(41)));
        assert_eq!(line["offset"], 41);
        assert_eq!(line["kafka_offset"], 5);
        assert_eq!(line["value"]["value"], 1.5);
        assert_eq!(line["headers"], json!([["skerry-offset", "42"]]));
        let line = in_json(&record(Some(b"on"), None));
        assert_eq!(
            (&line["offset"], &line["value"]),
            (&json!(42), &json!("on"))
        );
        let line = in_json(&record(Some(b"\xff\xfe"), None));
        assert_eq!(
            (&line["value_base64"], &line["value"]),
            (&json!("//4="), &Value::Null)
        );
        assert_eq!(in_json(&record(None, None))["value"], Value::Null);
    }
}
