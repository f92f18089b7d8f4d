//! The blocks in `vectors/`, which decoders in other languages are tested with too.
//!
//! A format version never changes, so neither does a committed block. New ones are written with
//! `SKERRY_PACK_VECTORS=write cargo test -p skerry-pack --test vectors`, which leaves those alone
//! that are there.

#![expect(
    clippy::unwrap_used,
    reason = "a file of tests and of what only they call"
)]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{Record, resealed, rows, telemetry};
use serde_json::{Value, json};
use skerry_pack::{Options, Packer, unpack};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn described(records: &[Record]) -> Value {
    let rows = records.iter().map(|record| {
        let headers = record.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| {
                json!([
                    BASE64.encode(name),
                    value.as_ref().map(|v| BASE64.encode(v))
                ])
            })
            .collect();
        json!({
            "offset": record.offset.to_string(),
            "timestamp_ms": record.timestamp_ms.to_string(),
            "key": BASE64.encode(&record.key),
            "value": BASE64.encode(&record.value),
            "headers": headers,
        })
    });
    json!({ "rows": rows.collect::<Vec<_>>() })
}

fn bare(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<Record> {
    let values = values.into_iter().enumerate();
    let records = values.map(|(number, value)| Record {
        offset: 10 + number as u64,
        timestamp_ms: 1_764_168_164_000 + 250 * number as i64,
        key: b"k".to_vec(),
        value,
        headers: Vec::new(),
    });
    records.collect()
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Record> {
    bare(values.into_iter().map(|value| value.as_bytes().to_vec()))
}

/// Every part of the format is in one of these.
fn cases() -> Vec<(&'static str, Vec<Record>)> {
    let mut cases = vec![
        ("telemetry", telemetry(64)),
        ("one", telemetry(1)),
        ("short", texts(["1"])),
        ("empty", texts(["", "", "{}", ""])),
    ];

    let numbers = [
        "0",
        "-1",
        "0.05",
        "1e5",
        "-0",
        "007",
        "9223372036854775807",
        "9223372036854775808",
    ];
    let fewest = [
        "0.000000000000000001",
        "-9223372036854775807",
        "1.50",
        "null",
        "true",
        "\"12\"",
    ];
    cases.push(("numbers", texts(numbers.into_iter().chain(fewest))));
    let trimmed = ["21.5", "21.25", "22", "-0.125", "0"].map(|n| format!("{{\"v\":{n}}}"));
    cases.push(("trimmed", texts(trimmed.iter().map(String::as_str))));
    let each = ["21.50", "21.25", "22", "-0.1250", "0.0"].map(|n| format!("{{\"v\":{n}}}"));
    cases.push(("each", texts(each.iter().map(String::as_str))));
    let apart = (0..40_i64).map(|n| n.wrapping_mul(0x1234_5678_9abc_def1) >> (n * 3 % 64));
    let apart: Vec<_> = apart.map(|n| n.to_string()).collect();
    cases.push(("far-apart", texts(apart.iter().map(String::as_str))));

    let outliers = (0..60_i64).map(|n| match n {
        23 => 8_999_999_999_999_999_999,
        41 => -4_000_000_000_000,
        _ => n * n * n * 7_919 % 1_013,
    });
    let outliers: Vec<_> = outliers.map(|n| n.to_string()).collect();
    cases.push(("outliers", texts(outliers.iter().map(String::as_str))));

    let times = [
        "1969-12-31T23:59:59.5Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    let more = [
        "2024-02-29T12:00:00.000000001Z",
        "2023-02-29T12:00:00Z",
        "2026-11-26T14:42:44+01:00",
    ];
    let times = times
        .into_iter()
        .chain(more)
        .map(|t| format!("{{\"t\":\"{t}\"}}"));
    cases.push((
        "times",
        texts(times.collect::<Vec<_>>().iter().map(String::as_str)),
    ));
    let late = (0..30_i64).map(|n| {
        let sent = 1_764_168_164_000 + 250 * n - 7 - n * n % 3;
        format!("{{\"sent\":{sent}}}")
    });
    let mut late = texts(late.collect::<Vec<_>>().iter().map(String::as_str));
    for (number, record) in late.iter_mut().enumerate() {
        record.timestamp_ms += (number * number * 37 % 101) as i64;
        let sent = record.timestamp_ms - 7 - (number % 3) as i64;
        record.value = format!("{{\"sent\":{sent}}}").into_bytes();
    }
    cases.push(("since-timestamps", late));

    let noise = (0..24_u8).map(|n| {
        (0..n)
            .map(|m| m.wrapping_mul(97) ^ n.wrapping_mul(31))
            .collect()
    });
    cases.push(("noise", bare(noise)));
    let unlike = (0..40).map(|n| format!("<{}>", "ab".repeat(n)).into_bytes());
    cases.push(("many-shapes", bare(unlike)));
    let unfinished = [
        "\"a",
        "{\"a\":\"b\\\"",
        "\"\"",
        "\"a\":1",
        "[1,2,[3,\"x\"]]",
        "{\"ä\": \"ö\" }",
    ];
    cases.push(("quotes", texts(unfinished)));
    cases.push((
        "many-pieces",
        texts([&*"1,".repeat(300), &*"2,".repeat(300)]),
    ));

    let mut headers = telemetry(40);
    for (number, record) in headers.iter_mut().enumerate() {
        record.timestamp_ms -= 1_764_168_164_500;
        record.headers.push((vec![0xff, number as u8], None));
        record
            .headers
            .push((b"unit".to_vec(), Some(vec![0xff, 0xfe])));
        record.headers.push((b"unit".to_vec(), Some(Vec::new())));
        record.headers.truncate(number % 10);
    }
    cases.push(("headers", headers));
    let mut holes = telemetry(12);
    for (number, record) in holes.iter_mut().enumerate() {
        record.offset = (1 << 62) + (number as u64).pow(7) * 0x1000_0000;
    }
    holes[0].offset = 3;
    holes[11].offset = u64::MAX;
    holes[5].timestamp_ms = i64::MIN;
    holes[6].timestamp_ms = i64::MAX;
    cases.push(("holes", holes));
    cases
}

/// What decoders must refuse, and why.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let block = pack(&telemetry(3));
    let small = pack(&texts(["1"]));
    let changed = |block: &[u8], at: usize, byte: u8| {
        let mut changed = block.to_vec();
        changed[at] = byte;
        resealed(changed)
    };
    let mut damaged = block.clone();
    damaged[25] ^= 0x10;
    let mut longer = small.clone();
    let end = longer.len() - 4;
    longer.insert(end, 0);
    vec![
        ("refused-json", b"{\"value\":1}".to_vec(), "no packed block"),
        ("refused-version", changed(&block, 4, 2), "format version 2"),
        ("refused-flags", changed(&block, 5, 3), "malformed flags"),
        ("refused-damaged", damaged, "the block is damaged"),
        ("refused-cut", block[..block.len() / 2].to_vec(), "length"),
        ("refused-longer", resealed(longer), "length of the block"),
        // The head of a small block has a byte for each number: unpacked bytes are the fourth.
        (
            "refused-bytes",
            changed(&small, 9, small[9] - 1),
            "number of unpacked bytes",
        ),
        ("refused-rows", changed(&small, 8, 0), "number of rows"),
    ]
}

fn pack(records: &[Record]) -> Vec<u8> {
    let mut packer = Packer::new(Options::default());
    records
        .iter()
        .for_each(|record| record.push(&mut packer).unwrap());
    packer.finish().unwrap().to_vec()
}

#[test]
fn blocks_unpack_to_what_is_written_beside_them() {
    if std::env::var_os("SKERRY_PACK_VECTORS").is_some_and(|what| what == "write") {
        write();
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let block = fs::read(&path).unwrap();
            let expected = fs::read(path.with_extension("json")).unwrap();
            let expected: Value = serde_json::from_slice(&expected).unwrap();
            match unpack(&block) {
                Ok(block) => assert_eq!(described(&rows(&block)), expected, "{name}"),
                Err(error) => {
                    let why = expected["refused"].as_str().unwrap_or_default();
                    let told = error.to_string();
                    assert!(!why.is_empty() && told.contains(why), "{name}: {told}");
                }
            }
            names.insert(name);
        }
    }
    let cases = cases().into_iter().map(|(name, _)| name);
    let refused = refused().into_iter().map(|(name, ..)| name);
    for name in cases.chain(refused) {
        assert!(names.contains(name), "vectors/{name}.bin is missing");
    }
}

fn write() {
    let put = |name: &str, block: Vec<u8>, expected: Value| {
        let path = folder().join(name).with_extension("bin");
        if !path.exists() {
            fs::write(&path, block).unwrap();
            let text = serde_json::to_string(&expected).unwrap();
            fs::write(path.with_extension("json"), text + "\n").unwrap();
        }
    };
    for (name, records) in cases() {
        put(name, pack(&records), described(&records));
    }
    for (name, block, why) in refused() {
        put(name, block, json!({ "refused": why }));
    }
}

/// A packer of today makes blocks of the same rows that unpack to them, whatever zstd it has.
#[test]
fn the_rows_of_the_vectors_survive_packing() {
    for (name, records) in cases() {
        assert_eq!(rows(&unpack(&pack(&records)).unwrap()), records, "{name}");
    }
}
