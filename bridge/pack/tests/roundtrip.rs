//! What goes in comes out, whatever it is; and what did not come from a packer ends in an error.

#![expect(
    clippy::unwrap_used,
    reason = "a file of tests and of what only they call"
)]

mod common;

use common::{Record, resealed, rows, telemetry};
use proptest::prelude::*;
use skerry_pack::{
    COLUMN_BYTES_MAX, Error, Options, Packer, ROWS_MAX, Row, Summary, UNPACKED_BYTES_MAX,
    is_packed, unpack,
};

fn pack(records: &[Record]) -> Vec<u8> {
    pack_with(&mut Packer::new(Options::default()), records)
}

fn pack_with(packer: &mut Packer, records: &[Record]) -> Vec<u8> {
    records
        .iter()
        .for_each(|record| record.push(packer).unwrap());
    let bytes_max = packer.packed_bytes_max();
    let block = packer.finish().unwrap();
    assert!(block.len() <= bytes_max, "{} of {bytes_max}", block.len());
    block.to_vec()
}

/// What counts as unpacked.
fn bytes_of(record: &Record) -> usize {
    let headers = record.headers.iter();
    let headers = headers.map(|(n, v)| n.len() + v.as_ref().map_or(0, Vec::len));
    record.key.len() + record.value.len() + headers.sum::<usize>()
}

/// Numbers, words and noise, put together like JSON, almost like JSON, and not at all.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?",
        "-?[0-9]{1,25}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,10})?",
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
    ];
    let telemetry = (number.clone(), number.clone(), "[a-c]{0,2}").prop_map(|(a, b, text)| {
        format!(r#"{{"a":{a},"time":"{b}Z","unit":"{text}","ok":true}}"#).into_bytes()
    });
    let pieces = prop_oneof![
        number.prop_map(String::into_bytes),
        "[{}\\[\\]\",:\\\\ ]".prop_map(String::into_bytes),
        "true|false|null|\"[a-z]{0,3}\"|\"[a-z]\":|-".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop_oneof![
        4 => telemetry,
        2 => prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn header() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
    let name = prop_oneof![
        4 => "skerry-[a-c]".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..5),
    ];
    let value = prop_oneof![
        4 => "[a-c]|[0-9]{1,22}(\\.[0-9])?".prop_map(|value| Some(value.into_bytes())),
        1 => prop::option::of(prop::collection::vec(any::<u8>(), 0..5)),
    ];
    (name, value)
}

fn records(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Record>> {
    let key = prop_oneof!["[a-c]", "[a-z]{0,8}"].prop_map(String::into_bytes);
    let timestamp = prop_oneof![any::<i64>(), 1_700_000_000_000..1_700_000_100_000_i64];
    let step = prop_oneof![8 => Just(1), 1 => 1..1_000_u64, 1 => 1..1_u64 << 50];
    let headers = prop::collection::vec(header(), 0..5);
    let record = (step, timestamp, key, payload(), headers);
    (any::<u32>(), prop::collection::vec(record, count)).prop_map(|(first, records)| {
        let mut offset = u64::from(first);
        let each = records
            .into_iter()
            .map(|(step, timestamp_ms, key, value, headers)| {
                offset += step;
                Record {
                    offset,
                    timestamp_ms,
                    key,
                    value,
                    headers,
                }
            });
        each.collect()
    })
}

proptest! {
    #[test]
    fn rows_come_back_to_the_byte(blocks in prop::collection::vec(records(1..40), 1..4)) {
        let mut packer = Packer::new(Options::default());
        for records in blocks {
            let block = pack_with(&mut packer, &records);
            prop_assert_eq!(&rows(&unpack(&block).unwrap()), &records);
            // What was packed before leaves no trace.
            prop_assert_eq!(&pack(&records), &block);
            let summary = Summary::read(&block).unwrap();
            prop_assert_eq!(summary.first_offset, records[0].offset);
            prop_assert_eq!(summary.last_offset, records[records.len() - 1].offset);
            prop_assert_eq!(summary.rows, records.len());
            let bytes: usize = records.iter().map(bytes_of).sum();
            prop_assert_eq!(summary.unpacked_bytes, bytes);
        }
    }

    /// With the checksum as it was a changed block is always refused; with one that fits it may
    /// be another block, but never more than its head says.
    #[test]
    fn a_changed_block_is_refused_or_another(
        records in records(1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        reseal: bool,
    ) {
        let block = pack(&records);
        let mut changed = block.clone();
        for (at, byte) in changes {
            *at.get_mut(&mut changed) = byte;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(changed.len()));
        }
        if reseal {
            changed = resealed(changed);
        }
        match unpack(&changed) {
            Ok(unpacked) => {
                prop_assert!(reseal || changed == block);
                let rows = rows(&unpacked);
                let bytes: usize = rows.iter().map(bytes_of).sum();
                prop_assert_eq!(bytes, unpacked.summary().unpacked_bytes);
                prop_assert_eq!(rows.len(), unpacked.summary().rows);
            }
            Err(_) => prop_assert!(changed != block),
        }
    }

    #[test]
    fn noise_is_refused(noise: Vec<u8>) {
        prop_assert_eq!(unpack(&noise).unwrap_err(), Error::NotPacked);
        prop_assert!(!is_packed(&noise));
    }
}

/// Bits of a block with a right checksum: the decoder itself has to notice, or to say something
/// that is as short as the head says.
#[test]
fn every_flipped_bit_is_survived() {
    for uncompressed in [false, true] {
        let records = if uncompressed {
            telemetry(2)
        } else {
            telemetry(60)
        };
        let block = pack(&records);
        for bit in 0..(block.len() - 4) * 8 {
            let mut changed = block.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&changed).is_err(), "bit {bit}");
            if let Ok(unpacked) = unpack(&resealed(changed)) {
                assert_eq!(rows(&unpacked).len(), records.len());
            }
        }
        for length in 0..block.len() {
            assert!(unpack(&block[..length]).is_err(), "cut to {length}");
        }
    }
}

#[test]
fn refusals_say_why() {
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let block = pack(&telemetry(3));
    let refused = |change: Change<'_>| {
        let mut changed = block.clone();
        change(&mut changed);
        unpack(&changed).unwrap_err().to_string()
    };
    let cases: [(Change<'_>, &str); 5] = [
        (&|block| block.clear(), "this is no packed block"),
        (&|block| block[4] = 9, "format version 9"),
        (
            &|block| block[5] = 2,
            "malformed flags at byte 6 of the head",
        ),
        (
            &|block| block.truncate(20),
            "stored length of the columns is 1",
        ),
        (&|block| block[30] ^= 1, "the block is damaged"),
    ];
    for (change, expected) in cases {
        let error = refused(change);
        assert!(
            error.contains(expected),
            "{error:?} instead of {expected:?}"
        );
    }
}

#[test]
fn rows_are_taken_in_the_order_of_their_offsets() {
    let mut packer = Packer::new(Options::default());
    let [first, second] = <[Record; 2]>::try_from(telemetry(2)).unwrap();
    second.push(&mut packer).unwrap();
    let error = first.push(&mut packer).unwrap_err();
    assert_eq!(
        error,
        Error::NotAhead {
            offset: first.offset,
            last: second.offset
        }
    );
    assert_eq!(packer.rows(), 1);
    assert_eq!(rows(&unpack(&packer.finish().unwrap()).unwrap()), [second]);
    assert_eq!(packer.finish(), None);
    first.push(&mut packer).unwrap();
}

#[test]
fn offsets_reach_from_the_first_to_the_last() {
    let mut records = telemetry(3);
    records[0].offset = 0;
    records[2].offset = u64::MAX;
    assert_eq!(rows(&unpack(&pack(&records)).unwrap()), records);
}

#[test]
fn a_full_block_says_so_and_takes_nothing() {
    let mut packer = Packer::new(Options::default());
    let bare = |offset, value| Row {
        offset,
        timestamp_ms: 0,
        key: b"k",
        value,
        headers: std::iter::empty(),
    };
    for offset in 0..ROWS_MAX as u64 {
        packer.push(bare(offset, b"1")).unwrap();
    }
    assert_eq!(packer.push(bare(1 << 40, b"1")), Err(Error::Full));
    let block = unpack(&packer.finish().unwrap()).unwrap();
    assert_eq!(block.rows().len(), ROWS_MAX);

    let large = vec![b'x'; UNPACKED_BYTES_MAX - 1];
    packer.push(bare(1, &large)).unwrap();
    assert_eq!(packer.push(bare(2, b"1")), Err(Error::Full));
    let block = packer.finish().unwrap();
    assert_eq!(unpack(&block).unwrap().rows().next().unwrap().value, large);
    let larger = vec![b'x'; UNPACKED_BYTES_MAX];
    let error = packer.push(bare(1, &larger)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

/// A few bytes that claim to be much: the claim is refused before memory is taken for it.
#[test]
fn claims_are_limited() {
    let mut head = vec![0xF5, b'S', b'K', b'P', 1, 1, 0, 0, 1, 0];
    let mut claimed = COLUMN_BYTES_MAX as u64 + 1;
    while claimed >= 0x80 {
        head.push(claimed as u8 | 0x80);
        claimed >>= 7;
    }
    head.push(claimed as u8);
    head.extend([0; 6]);
    let error = unpack(&resealed(head)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                what: "length of the column section",
                ..
            }
        ),
        "{error}"
    );
}

/// One long text that every row repeats is a small block; the rows must not be put together
/// beyond what the head says.
#[test]
fn a_text_repeated_without_end_is_refused() {
    let mut packer = Packer::new(Options::default());
    let text = vec![b'x'; 1 << 16];
    for offset in 0..64 {
        let row = Row {
            offset,
            timestamp_ms: 0,
            key: &text,
            value: b"",
            headers: std::iter::empty(),
        };
        packer.push(row).unwrap();
    }
    let block = packer.finish().unwrap();
    assert!(block.len() < 200, "{}", block.len());
    let summary = Summary::read(&block).unwrap();
    assert_eq!(summary.unpacked_bytes, 64 << 16);
    // The number of unpacked bytes is the third of the head's counts, here of four bytes.
    let mut lying = block.to_vec();
    assert_eq!(lying[9..13], [0x80, 0x80, 0x80, 0x02]);
    lying[12] = 0x01;
    let error = unpack(&resealed(lying)).unwrap_err();
    assert!(
        error.to_string().contains("number of unpacked bytes"),
        "{error}"
    );
}

#[test]
fn telemetry_becomes_small() {
    for (count, bytes_max) in [(100, 12.0), (1_000, 7.0)] {
        let block = pack(&telemetry(count));
        let bytes = block.len() as f64 / count as f64;
        assert!(bytes < bytes_max, "{bytes} bytes a record of {count}");
    }
}
