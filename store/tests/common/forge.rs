//! What somebody does who alters a log and knows its format: every checksum is made to pass.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its own part of this"
)]

use std::path::Path;

const HEADER_BYTES: usize = 256;
const FRAME_HEADER_BYTES: usize = 64;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Alters a segment file, and makes it look like one that belongs under its name.
pub(crate) fn forge(file: &Path, alter: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    alter(&mut bytes);
    let name = file.file_stem().unwrap().to_str().unwrap();
    let (base, sequence) = name.split_once('-').unwrap();
    let (base, sequence): (u64, u64) = (base.parse().unwrap(), sequence.parse().unwrap());
    bytes[32..40].copy_from_slice(&base.to_le_bytes());
    bytes[40..48].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..252]);
    bytes[252..256].copy_from_slice(&checksum.to_le_bytes());
    let seed = [&bytes[8..16], &bytes[32..48]].concat();
    let seed = crc32c::crc32c(&seed);
    let mut rest = &mut bytes[HEADER_BYTES..];
    while rest.first().is_some_and(|byte| *byte == 0xF5) {
        let (frame, after) = rest.split_at_mut(FRAME_HEADER_BYTES + u32_at(rest, 4));
        let checksum = crc32c::crc32c_append(seed, &frame[FRAME_HEADER_BYTES..]);
        frame[56..60].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &frame[..60]);
        frame[60..64].copy_from_slice(&checksum.to_le_bytes());
        rest = after;
    }
    std::fs::write(file, bytes).unwrap();
}

/// Puts `new` where the file has `old`, of the same length.
pub(crate) fn replace(file: &Path, old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len());
    forge(file, |bytes| {
        let mut places = bytes.windows(old.len());
        let at = places.position(|place| place == old).unwrap();
        bytes[at..at + old.len()].copy_from_slice(new);
    });
}
