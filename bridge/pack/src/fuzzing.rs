//! What the fuzz targets in `bridge/pack/fuzz` run. Here and not there, so that nothing has to be
//! public for it.
//!
//! In a build of the product this module does not exist: it takes `--cfg fuzzing`, or the tests,
//! which run all committed seeds. A target panics where a promise is broken, and returns how many
//! bytes of memory it may have taken at most for the promises to hold.

use crate::block::{self, Head};
use crate::{Block, Header, Options, Packer, Row, Summary, VALUES_MAX, unpack};

/// Its name, which is also that of its seeds' folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]) -> usize);

pub const TARGETS: [Target; 2] = [("block", block), ("rows", rows)];

/// A number of a column and a header take this much, and vectors grow by doubling.
const VALUE_BYTES: usize = 64;
/// What is left of a block takes little beside that: compressors, tables, a packer's columns.
const REST_BYTES: usize = 16 << 20;

/// Both sections of a block, whose head and checksum are made to fit: a fuzzer would never hit
/// upon them by itself.
///
/// ```text
/// rows: 2 │ offsets beyond that: 1 │ unpacked bytes: 3 │ bytes of bits: 1 │ bits │ columns
/// ```
pub fn block(input: &[u8]) -> usize {
    let [r0, r1, beyond, u0, u1, u2, bit_bytes, rest @ ..] = input else {
        return 0;
    };
    let rows = 1 + usize::from(u16::from_le_bytes([*r0, *r1]) % 1_024);
    let (bits, columns) = rest.split_at(rest.len().min(usize::from(*bit_bytes)));
    let head = Head {
        summary: Summary {
            first_offset: 7,
            last_offset: 6 + rows as u64 + if rows > 1 { u64::from(*beyond) } else { 0 },
            rows,
            unpacked_bytes: u32::from_le_bytes([*u0, *u1, *u2, 0]) as usize,
        },
        compressed: false,
        column_bytes: columns.len(),
        stored_column_bytes: columns.len(),
        bit_bytes: bits.len(),
    };
    let mut bytes = Vec::new();
    head.put(&mut bytes);
    bytes.extend_from_slice(columns);
    bytes.extend_from_slice(bits);
    block::seal(&mut bytes);
    let mut unpacked_bytes = head.summary.unpacked_bytes;
    if let Ok(unpacked) = unpack(&bytes) {
        assert_eq!(unpacked.summary(), head.summary);
        survives(&unpacked);
        unpacked_bytes *= 8;
    }
    VALUES_MAX * VALUE_BYTES + 4 * unpacked_bytes + REST_BYTES
}

/// Payloads, a line each, whose first byte is the key and whose second may add a header.
pub fn rows(input: &[u8]) -> usize {
    let mut packer = Packer::new(Options::default());
    let mut lines = Vec::new();
    for (number, line) in input.split(|byte| *byte == b'\n').enumerate() {
        let (key, rest) = line.split_at(line.len().min(1));
        let (value, header) = match rest {
            [b'\t', rest @ ..] => {
                let at = rest.iter().position(|byte| *byte == b'\t');
                let (header, value) = rest.split_at(at.unwrap_or(rest.len()));
                (value, Some(header))
            }
            rest => (rest, None),
        };
        let headers = header.into_iter().map(|value| Header {
            name: key,
            value: Some(value),
        });
        let row = Row {
            offset: number as u64,
            timestamp_ms: number as i64 * 1_000,
            key,
            value,
            headers,
        };
        packer.push(row.clone()).expect("far from full");
        lines.push(row);
    }
    let bytes_max = packer.packed_bytes_max();
    let bytes = packer.finish().expect("a line at least");
    assert!(bytes.len() <= bytes_max);
    let unpacked = unpack(&bytes).expect("what was packed");
    assert_eq!(unpacked.rows().len(), lines.len());
    for (row, line) in unpacked.rows().zip(lines) {
        assert_eq!(
            (row.offset, row.timestamp_ms),
            (line.offset, line.timestamp_ms)
        );
        assert_eq!((row.key, row.value), (line.key, line.value));
        assert!(row.headers.eq(line.headers));
    }
    survives(&unpacked);
    1_024 * input.len() + 2 * REST_BYTES
}

/// What unpacks is packed again, and unpacks to the same.
fn survives(unpacked: &Block) {
    let mut packer = Packer::new(Options::default());
    for row in unpacked.rows() {
        packer.push(row).expect("a block takes what a block had");
    }
    let bytes = packer.finish().expect("a row at least");
    let again = unpack(&bytes).expect("what was packed");
    assert_eq!(again.summary(), unpacked.summary());
    for (row, other) in unpacked.rows().zip(again.rows()) {
        assert_eq!(
            (row.offset, row.timestamp_ms),
            (other.offset, other.timestamp_ms)
        );
        assert_eq!((row.key, row.value), (other.key, other.value));
        assert!(row.headers.eq(other.headers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// What once broke a promise, and all else that was worth keeping, in `fuzz/corpus`.
    #[test]
    fn every_seed_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (target, run) in TARGETS {
            let seeds = std::fs::read_dir(corpus.join(target)).expect("a folder of seeds");
            let mut count = 0;
            for seed in seeds {
                let path = seed.expect("a seed").path();
                println!("{}", path.display());
                run(&std::fs::read(path).expect("readable"));
                count += 1;
            }
            assert!(count > 0, "no seeds for {target}");
        }
        let folders = std::fs::read_dir(corpus).expect("a folder");
        let folders: BTreeSet<_> = folders
            .map(|folder| folder.expect("a folder").file_name())
            .collect();
        let targets = TARGETS.map(|(target, _)| target.into());
        assert_eq!(folders, BTreeSet::from(targets), "seeds without a target");
    }
}
