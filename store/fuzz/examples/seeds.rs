//! Writes the seeds in `corpus/` that were thought of, not found: what is in the golden files of
//! the format, and edge cases by hand. Leaves all others there alone. See README.md.

use skerry_store::fuzzing::body;
use skerry_store::{Change, Gap, Kind, Offset, Record, WallNanos};
use std::fs;
use std::path::Path;

const FIXTURE: &str = "../tests/fixtures/format-1/streams";
const SEGMENTS: [(&str, &str); 3] = [
    (
        "catalog",
        "_catalog/00000000000000000000-00000000000000000002.seg",
    ),
    (
        "lz4",
        "telemetry/00000000000000000000-00000000000000000001.seg",
    ),
    (
        "zstd",
        "telemetry/00000000000000000042-00000000000000000005.seg",
    ),
];
const HEADER_BYTES: usize = 256;
const FRAME_HEADER_BYTES: usize = 64;
/// Epoch, base offset and sequence, as every input with a frame in it begins.
const ORIGIN: [u8; 24] = [3; 24];

fn main() {
    for (name, file) in SEGMENTS {
        let bytes = fs::read(Path::new(FIXTURE).join(file)).expect("a golden file");
        golden(name, &bytes);
    }
    bodies();
    frames();
    segments();
    small();
}

fn save(target: &str, name: &str, parts: &[&[u8]]) {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), parts.concat()).expect("a seed");
}

/// A segment file, its header, and its frames.
fn golden(name: &str, bytes: &[u8]) {
    let origin = [&bytes[8..16], &bytes[32..48]].concat();
    let (header, frames) = bytes.split_at(HEADER_BYTES);
    save("preface", &format!("golden-{name}"), &[&[0], header]);
    save("preface", &format!("golden-{name}-sealed"), &[&[1], header]);

    let mut pieces = Vec::new();
    for chunk in frames.chunks(255) {
        pieces.extend([2, chunk.len() as u8]);
        pieces.extend(chunk);
    }
    save(
        "segment",
        &format!("golden-{name}"),
        &[&origin, &[1], header, &pieces],
    );

    let mut rest = frames;
    let mut number = 0;
    while !rest.is_empty() {
        let payload = u32::from_le_bytes(rest[4..8].try_into().expect("four bytes"));
        let (frame, after) = rest.split_at(FRAME_HEADER_BYTES + payload as usize);
        save(
            "frame",
            &format!("golden-{name}-{number}"),
            &[&origin, &[0], frame],
        );
        (rest, number) = (after, number + 1);
    }
}

fn record() -> Record {
    Record {
        kind: Kind::Opcua,
        source: "pump1/vibration".into(),
        payload: "{\"value\":1.5}".into(),
        source_time: Some(WallNanos(-1)),
        server_time: Some(WallNanos(i64::MAX)),
        ingest_time: WallNanos(i64::MIN),
        status: u32::MAX,
        attributes: vec![("unit".into(), "mm/s".into()), (String::new(), "".into())],
    }
}

fn changes() -> Vec<Change> {
    vec![
        Change::Advance {
            cursor: "uplink".into(),
            stream: "telemetry".into(),
            next: Offset(u64::MAX),
        },
        Change::Put {
            bucket: "b".into(),
            key: "k".into(),
            value: "v".into(),
        },
        Change::Delete {
            bucket: "b".into(),
            key: "k".into(),
        },
    ]
}

fn bodies() {
    save("record", "empty", &[&body(&[], &[])]);
    save(
        "record",
        "full",
        &[&body(&[record(), record()], &changes())],
    );
    save("record", "changes", &[&body(&[], &changes())]);
    // Claims of more than there is: records, bytes of a string, attributes, a varint without end.
    save(
        "record",
        "records-claimed",
        &[&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]],
    );
    save(
        "record",
        "string-claimed",
        &[&[1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, b'a']],
    );
    save(
        "record",
        "attributes-claimed",
        &[&[1, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0x0F]],
    );
    save("record", "varint-without-end", &[&[0x80; 12]]);
    save(
        "record",
        "not-utf8",
        &[&[1, 0, 2, 0xC3, 0x28, 0, 0, 0, 0, 0, 0, 0]],
    );
    // A hundred records of nothing but zeros.
    save("record", "zeros", &[&[100], &[0; 801]]);
}

/// A frame by recipe: `how` is wrong with it, and what goes with that.
fn recipe(how: u8, codec: u8, flags: u8, body: &[u8], more: &[u8]) -> Vec<u8> {
    let head = [how, codec, flags];
    let position = [0; 16];
    let length = (body.len() as u16).to_le_bytes();
    [&head[..], &position, &length, body, more].concat()
}

fn frames() {
    let full = body(&[record(), record()], &changes());
    let long = body(&vec![record(); 8], &[]);
    let recipes: [(&str, Vec<u8>); 9] = [
        ("plain", recipe(0, 0, 1, &full, &[])),
        ("lz4", recipe(0, 1, 0, &long, &[])),
        ("zstd", recipe(0, 2, 0, &long, &[])),
        ("bad-lz4", recipe(1, 1, 0, &full, &[])),
        ("bad-zstd", recipe(1, 2, 0, &full, &[])),
        // Payloads that would unfold to far more or less than is claimed.
        ("bomb", recipe(2 | 8, 2, 0, &[0; 200], &[255, 16, 0, 0, 0])),
        ("body-claimed", recipe(2, 0, 0, &full, &[0, 0, 128, 0])),
        ("count-claimed", recipe(4, 0, 0, &full, &[255; 4])),
        ("spoilt", recipe(16, 0, 1, &full, &[70, 0, 1])),
    ];
    for (name, recipe) in recipes {
        save("frame", name, &[&ORIGIN, &[1], &recipe]);
    }
}

fn segments() {
    let full = body(&[record()], &changes());
    let frame = [&[0][..], &recipe(0, 0, 0, &full, &[])].concat();
    let spoilt = [&[0][..], &recipe(16, 0, 0, &full, &[70, 0, 1])].concat();
    let cut = [&[0][..], &recipe(32, 0, 0, &full, &[80, 0])].concat();
    let foreign = [&[1][..], &recipe(0, 0, 0, &full, &[])].concat();
    let claimed = [&[0][..], &recipe(64, 0, 0, &full, &[0, 0, 128, 0])].concat();
    // A frame of 9,000 bytes, larger than a walk's window under a fuzzer.
    let large = [&[0][..], &recipe(8, 0, 0, &[1; 100], &[90])].concat();
    // Nearly a window of zeros, of noise, and of markers.
    let zeros = [3, 0xE8, 0x0F];
    let noise = [4, 0xE8, 0x0F];
    let markers = [5, 6, 250];
    let files: [(&str, Vec<&[u8]>); 9] = [
        ("header-alone", vec![]),
        ("room", vec![&frame, &frame, &zeros]),
        ("spoilt", vec![&frame, &spoilt, &frame]),
        ("torn", vec![&frame, &cut]),
        ("foreign", vec![&frame, &foreign, &frame]),
        ("claimed", vec![&frame, &claimed, &frame]),
        ("large", vec![&frame, &large, &spoilt, &large]),
        (
            "across-windows",
            vec![&frame, &noise, &frame, &zeros, &frame, &cut, &zeros],
        ),
        ("markers", vec![&markers, &frame, &markers]),
    ];
    for (name, pieces) in files {
        save("segment", name, &[&ORIGIN, &[0, 9], &pieces.concat()]);
    }
    save("segment", "no-header", &[&ORIGIN, &[2], &frame]);
}

fn small() {
    let marker = |heads: &str| {
        let checksum = crc32c::crc32c(format!("[7,{heads}]").as_bytes());
        format!("{{\"last_sequence\":7,\"heads\":{heads},\"checksum\":{checksum}}}")
    };
    save(
        "clean_stop",
        "two-streams",
        &[marker("{\"one\":3,\"two\":0}").as_bytes()],
    );
    save("clean_stop", "no-streams", &[marker("{}").as_bytes()]);
    save(
        "clean_stop",
        "wrong-checksum",
        &[b"{\"last_sequence\":18446744073709551615,\"heads\":{\"one\":3},\"checksum\":0}"],
    );

    let gap = Gap {
        subject: "one".into(),
        offsets: Some((Offset(3), Offset(9))),
        from: Some(WallNanos(-1)),
        to: Some(WallNanos(i64::MAX)),
        count: Some(6),
        reason: "the stream was full".into(),
    };
    let most = Gap {
        count: Some(u64::MAX),
        ..gap.clone()
    };
    let lines = [gap.clone(), gap, most].map(|gap| gap.into_record().payload);
    save("gap", "of-one-subject", &[&lines.join(&b"\n"[..])]);
    save("gap", "not-json", &[b"bearing data lost\n\xC3\x28\n{}"]);
    save(
        "preface",
        "name-longer-than-its-field",
        &[&[1], b"SKRY\x01\0", &[0; 90], &[157], &[b'a'; 157]],
    );
}
