//! What packing gains and costs, on telemetry of several shapes.
//!
//! ```text
//! cargo run --release -p skerry-pack --example measure
//! ```
//!
//! A line per shape and number of rows: bytes a record takes packed, as an lz4 batch of the same
//! records as Kafka has them (headers included), what both take without headers, and nanoseconds
//! a record for packing and unpacking. Times are the best of several rounds on one core.

#![expect(
    clippy::unwrap_used,
    reason = "a program to be looked at while it runs"
)]

use skerry_pack::{Header, Options, Packer, Row, unpack};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: Duration = Duration::from_millis(400);

struct Record {
    key: Vec<u8>,
    value: Vec<u8>,
    timestamp_ms: i64,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
}

type Make = fn(usize) -> Vec<Record>;

/// xorshift64, and what can be made of it.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// As `bridge/src/uplink/mapping.rs` makes them.
fn record(number: usize, nanos: i64, key: String, value: String) -> Record {
    let headers = [
        ("skerry-node", "vessel-7".to_owned()),
        ("skerry-epoch", "5f3a91c27be04d18".to_owned()),
        ("skerry-stream", "telemetry".to_owned()),
        ("skerry-offset", (4_200_000 + number).to_string()),
        ("skerry-kind", "mqtt".to_owned()),
        ("skerry-ingest-time", nanos.to_string()),
    ];
    Record {
        key: key.into_bytes(),
        value: value.into_bytes(),
        timestamp_ms: nanos.div_euclid(1_000_000),
        headers: headers
            .map(|(n, v)| (n.as_bytes().to_vec(), v.into_bytes()))
            .into(),
    }
}

/// The 200-byte payload of the node's own benchmark: five numbers of pure noise.
fn noise(count: usize) -> Vec<Record> {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let mut nanos = 1_764_168_164_123_456_789;
    let records = (0..count).map(|number| {
        let mut json = format!(r#"{{"sensor":"pump{}","seq":{number}"#, number % 20);
        for name in ["vibration", "temperature", "pressure", "flow", "current"] {
            let value = noise.next() % 100_000;
            json += &format!(r#","{name}":{}.{:03}"#, value / 1_000, value % 1_000);
        }
        json += r#","note":""#;
        json += &"-".repeat(198 - json.len());
        json += r#""}"#;
        nanos += 20_000 + (noise.next() % 20_000).cast_signed();
        record(number, nanos, format!("plant/pump{}", number % 20), json)
    });
    records.collect()
}

/// 200 bytes of telemetry as a gateway sends it: values that drift, a time, names and a state.
fn telemetry(count: usize) -> Vec<Record> {
    let mut noise = Noise(77);
    let mut values = [[2.4, 61.0, 4.2, 118.0]; 20];
    let mut nanos = 1_764_168_164_123_456_789;
    let records = (0..count).map(|number| {
        let pump = number % 20;
        let values = &mut values[pump];
        for (value, step) in values.iter_mut().zip([0.02, 0.05, 0.004, 0.3]) {
            *value += noise.normal() * step;
        }
        nanos += 50_000_000 + (noise.next() % 400_000).cast_signed();
        let [vibration, temperature, pressure, flow] = *values;
        let json = format!(
            r#"{{"device":"pump-{pump:02}","site":"vessel-7","time":{},"vibration":{vibration:.3},"temperature":{temperature:.2},"pressure":{pressure:.3},"flow":{flow:.1},"running":true,"quality":"good","unit":"mm/s,°C,bar,m³/h"}}"#,
            nanos / 1_000_000 - 3 - i64::from(noise.next().is_multiple_of(4)),
        );
        record(number, nanos, format!("vessel-7/engine-room/pump-{pump:02}"), json)
    });
    records.collect()
}

/// The small payloads of the simulated plant's sensors (`node/simulation`): a value with as many
/// digits as it needs, a unit, a time.
fn plant(count: usize) -> Vec<Record> {
    const SIGNALS: [(&str, &str); 3] = [("temperature", "°C"), ("flow", "m³/h"), ("speed", "rpm")];
    let mut noise = Noise(5);
    let mut values = [[41.0, 120.0, 2960.0]; 6];
    let mut nanos = 1_764_168_164_123_456_789_i64;
    let records = (0..count).map(|number| {
        let (pump, signal) = (number / 3 % 6, number % 3);
        let value = &mut values[pump][signal];
        *value += noise.normal() * [0.01, 0.2, 0.5][signal];
        if number % 18 == 0 {
            nanos += 200_000_000;
        }
        let (name, unit) = SIGNALS[signal];
        let (value, time) = ((*value * 1e4).round() / 1e4, nanos / 1_000_000);
        let json = format!(r#"{{"value":{value},"unit":"{unit}","time":{time}}}"#);
        let late = (number % 18 * 20_000) as i64 + (noise.next() % 20_000).cast_signed();
        record(
            number,
            nanos + late,
            format!("plant/pump{pump}/{name}"),
            json,
        )
    });
    records.collect()
}

/// A record batch of Kafka's as it is on the wire, without its 61 bytes of head.
fn batch(records: &[Record], headers: bool) -> Vec<u8> {
    let varint = |out: &mut Vec<u8>, value: i64| {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    };
    let text = |out: &mut Vec<u8>, text: &[u8]| {
        varint(out, text.len() as i64);
        out.extend_from_slice(text);
    };
    let mut all = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let mut one = vec![0];
        varint(&mut one, record.timestamp_ms - records[0].timestamp_ms);
        varint(&mut one, number as i64);
        text(&mut one, &record.key);
        text(&mut one, &record.value);
        let count = if headers { record.headers.len() } else { 0 };
        varint(&mut one, count as i64);
        for (name, value) in &record.headers[..count] {
            text(&mut one, name);
            text(&mut one, value);
        }
        varint(&mut all, one.len() as i64);
        all.extend(one);
    }
    all
}

fn lz4(records: &[Record], headers: bool) -> f64 {
    let batch = batch(records, headers);
    (lz4_flex::block::compress(&batch).len() + 61) as f64 / records.len() as f64
}

fn push(packer: &mut Packer, number: usize, record: &Record, headers: bool) {
    let count = if headers { record.headers.len() } else { 0 };
    let headers = record.headers[..count].iter().map(|(name, value)| Header {
        name,
        value: Some(value),
    });
    let row = Row {
        offset: 4_200_000 + number as u64,
        timestamp_ms: record.timestamp_ms,
        key: &record.key,
        value: &record.value,
        headers,
    };
    packer.push(row).unwrap();
}

/// The best time a record took.
fn best(rows: usize, mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::MAX;
    while begin.elapsed() < ROUNDS {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_nanos() as f64 / rows as f64);
    }
    best
}

fn main() {
    let level = std::env::args()
        .nth(1)
        .map_or(6, |level| level.parse().unwrap());
    let mut packer = Packer::new(Options { level });
    println!(
        "{:10} {:>6} {:>6} {:>7} {:>7} {:>6} {:>7} {:>7} {:>6} {:>6} {:>6}",
        "shape",
        "rows",
        "value",
        "packed",
        "lz4",
        "ratio",
        "bare",
        "lz4",
        "ratio",
        "pack",
        "unpack"
    );
    let shapes: [(&str, Make); 3] = [("telemetry", telemetry), ("plant", plant), ("noise", noise)];
    for (name, make) in shapes {
        for rows in [1, 10, 100, 1_000, 10_000] {
            let records = make(rows);
            let mut pack = |headers| {
                for (number, record) in records.iter().enumerate() {
                    push(&mut packer, number, record, headers);
                }
                packer.finish().unwrap()
            };
            let bare = pack(false).len() as f64 / rows as f64;
            let block = pack(true);
            let packed = block.len() as f64 / rows as f64;
            let bytes: usize = records.iter().map(|record| record.value.len()).sum();
            let (with, without) = (lz4(&records, true), lz4(&records, false));
            let pack_ns = best(rows, || drop(black_box(pack(true))));
            let unpack_ns = best(rows, || drop(black_box(unpack(&block).unwrap())));
            println!(
                "{name:10} {rows:6} {:6.0} {packed:7.2} {with:7.1} {:6.3} {bare:7.2} {without:7.1} {:6.3} {pack_ns:6.0} {unpack_ns:6.0}",
                bytes as f64 / rows as f64,
                packed / with,
                bare / without,
            );
        }
    }
}
