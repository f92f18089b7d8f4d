//! How bytes of a fuzzer's stand for frames and for segment files whose checksums pass, which it
//! would never hit upon by itself. Every input stands for something, and what it lacks is zero.

use crate::cipher::Salt;
use crate::codec::Codec;
use crate::digest::Digest;
use crate::encoding;
use crate::frame::{HEADER_BYTES, Header, MARKER, Seed};
use crate::segment::{Name, Preface};
use crate::{Offset, WallNanos};

/// Four windows of a walk, as long as they are under a fuzzer.
pub(super) const FILE_BYTES_MAX: usize = 16 * 1024;
const PIECES_MAX: usize = 64;

/// What is left of an input.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    /// The next bytes, as many of those as there are.
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// What a segment's seed is made of.
pub(super) struct Origin {
    pub(super) epoch: u64,
    pub(super) name: Name,
}

impl Origin {
    pub(super) fn cook(input: &mut Input<'_>) -> Self {
        Self {
            epoch: input.u64(),
            name: Name {
                base: Offset(input.u64()),
                sequence: input.u64(),
            },
        }
    }

    pub(super) fn seed(&self) -> Seed {
        Seed::new(self.epoch, self.name.base, self.name.sequence)
    }
}

/// Bits of a frame's first byte: what of it is not as a writer would have it.
mod how {
    /// The payload is what the input has, not what the codec makes of that.
    pub(super) const RAW: u8 = 1;
    /// The header claims another length of the body.
    pub(super) const BODY_BYTES: u8 = 2;
    /// The header claims another number of records.
    pub(super) const COUNT: u8 = 4;
    /// The body is repeated, and so may be longer than the input.
    pub(super) const REPEATED: u8 = 8;
    /// A byte is altered, after the checksums were made.
    pub(super) const SPOILT: u8 = 16;
    /// The end is missing.
    pub(super) const CUT: u8 = 32;
    /// The header claims another length of the payload.
    pub(super) const PAYLOAD_BYTES: u8 = 64;
}

/// A frame, with checksums to match whatever else is wrong with it.
pub(super) fn frame(input: &mut Input<'_>, seed: &Seed) -> Vec<u8> {
    let how = input.byte();
    let codec = Codec::from_byte(input.byte() % 3).expect("one of the three");
    let flags = input.byte();
    let (base, sequence) = (Offset(input.u64()), input.u64());
    let length = input.u16();
    let mut body = input.take(length.into()).to_vec();
    if !body.is_empty() && how & how::REPEATED != 0 {
        let times = usize::from(input.byte()).min(FILE_BYTES_MAX / body.len());
        body = body.repeat(times);
    }
    let mut payload = Vec::new();
    let codec = match how & how::RAW {
        0 => codec.pack(&body, &mut payload),
        _ => {
            payload.extend_from_slice(&body);
            codec
        }
    };
    let mut claimed = |bit, real: usize| match how & bit {
        0 => u32::try_from(real).expect("an input is small"),
        _ => input.u32(),
    };
    let body_bytes = claimed(how::BODY_BYTES, body.len());
    let payload_bytes = claimed(how::PAYLOAD_BYTES, payload.len());
    let header = Header {
        payload_bytes,
        body_bytes,
        count: claimed(how::COUNT, records(&body)),
        base,
        sequence,
        first_time: WallNanos::default(),
        last_time: WallNanos::default(),
        codec,
        flags,
        salt: Salt::default(),
        payload_checksum: seed.checksum(&payload),
    };
    let mut bytes = [&header.encode(seed)[..], &payload].concat();
    if how & how::SPOILT != 0 {
        let at = usize::from(input.u16()) % bytes.len();
        bytes[at] ^= input.byte();
    }
    if how & how::CUT != 0 {
        bytes.truncate(input.u16().into());
    }
    bytes
}

/// How many records a body says it has: the first thing in it.
fn records(body: &[u8]) -> usize {
    encoding::decode::<u32>(body).map_or(0, |count| count as usize)
}

/// A segment file: a header, intact or not, and pieces of all that may be found behind it.
pub(super) fn file(input: &mut Input<'_>, origin: &Origin) -> Vec<u8> {
    let mut bytes = match input.byte() % 3 {
        0 => preface(input, origin).encode().to_vec(),
        1 => input.array::<{ crate::segment::HEADER_BYTES }>().to_vec(),
        _ => Vec::new(),
    };
    for _ in 0..PIECES_MAX {
        if input.0.is_empty() || bytes.len() >= FILE_BYTES_MAX {
            break;
        }
        piece(input, origin, &mut bytes);
    }
    bytes.truncate(FILE_BYTES_MAX);
    bytes
}

fn preface(input: &mut Input<'_>, origin: &Origin) -> Preface {
    Preface {
        epoch: origin.epoch,
        boot: 0,
        name: origin.name,
        created: WallNanos::default(),
        interval: false,
        previous: Digest([input.byte(); 32]),
        stream: "fuzzed".to_owned(),
        key: None,
    }
}

fn piece(input: &mut Input<'_>, origin: &Origin, bytes: &mut Vec<u8>) {
    let kind = input.byte() % 6;
    let long = |length: u16| usize::from(length) % (FILE_BYTES_MAX / 2);
    match kind {
        0 => bytes.extend(frame(input, &origin.seed())),
        1 => {
            let name = Name {
                sequence: origin.name.sequence ^ 1,
                ..origin.name
            };
            let elsewhere = Origin { name, ..*origin };
            bytes.extend(frame(input, &elsewhere.seed()));
        }
        2 => {
            let length = input.byte();
            bytes.extend(input.take(length.into()));
        }
        3 => bytes.resize(bytes.len() + long(input.u16()), 0),
        4 => {
            let length = long(input.u16());
            bytes.extend((0..length).map(|at| (at as u8).wrapping_mul(167) | 1));
        }
        _ => {
            let header = [&MARKER[..], &[0; HEADER_BYTES - MARKER.len()]].concat();
            let length = 1 + usize::from(input.byte()) % HEADER_BYTES;
            let times = input.byte();
            bytes.extend(header[..length].repeat(times.into()));
        }
    }
}
