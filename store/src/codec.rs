//! How frame bodies are compressed: the crates that do it are named here alone.

use lz4_flex::block::get_maximum_output_size;
use std::cell::RefCell;

/// Bodies under this are stored as they are: nothing gains on them.
const COMPRESS_BYTES_MIN: usize = 128;
/// zstd's quickest: the writer's one thread pays for it.
const ZSTD_LEVEL: i32 = 1;

/// How a stream's frames are compressed. Each frame says how it was, so that a stream may change
/// its codec at any opening. A frame that would not shrink is stored as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Codec {
    None = 0,
    #[default]
    Lz4 = 1,
    /// Smaller; takes more memory.
    Zstd = 2,
}

thread_local! {
    /// Made once per thread, not once per frame: its tables are larger than most frames.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

impl Codec {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Adds the body as it is to be stored to `out`, and says which codec made it so.
    pub(crate) fn pack(self, body: &[u8], out: &mut Vec<u8>) -> Self {
        let start = out.len();
        let packed = match self {
            _ if body.len() < COMPRESS_BYTES_MIN => None,
            Self::None => None,
            Self::Lz4 => lz4(body, out),
            Self::Zstd => zstd(body, out),
        };
        match packed.filter(|packed| *packed < body.len()) {
            Some(packed) => {
                out.truncate(start + packed);
                self
            }
            None => {
                out.truncate(start);
                out.extend_from_slice(body);
                Self::None
            }
        }
    }

    /// Makes `body` the one that a payload stands for. False unless that has exactly
    /// `body_bytes`: however much it would unfold to, no more memory than that is taken.
    pub(crate) fn unpack(self, payload: &[u8], body_bytes: usize, body: &mut Vec<u8>) -> bool {
        body.resize(body_bytes, 0);
        let unpacked = match self {
            Self::None if payload.len() == body_bytes => {
                body.copy_from_slice(payload);
                Some(body_bytes)
            }
            Self::None => None,
            Self::Lz4 => lz4_flex::block::decompress_into(payload, body).ok(),
            Self::Zstd => zstd::bulk::decompress_to_buffer(payload, body.as_mut_slice()).ok(),
        };
        unpacked == Some(body_bytes)
    }
}

/// Adds the packed body, and perhaps some bytes more, to `out`; how many are the packed body.
fn lz4(body: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.resize(start + get_maximum_output_size(body.len()), 0);
    lz4_flex::block::compress_into(body, &mut out[start..]).ok()
}

/// The same. `None` if there is no memory for it: then the frame goes uncompressed.
fn zstd(body: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    ZSTD.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let packed = compressor.as_mut()?.compress(body).ok()?;
        out.extend_from_slice(&packed);
        Some(packed.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

    /// Behind something else, which stays.
    fn packed(codec: Codec, body: &[u8]) -> (Codec, Vec<u8>) {
        let mut out = vec![1, 2, 3];
        let used = codec.pack(body, &mut out);
        assert_eq!(out[..3], [1, 2, 3]);
        (used, out.split_off(3))
    }

    #[test]
    fn what_is_packed_is_smaller_and_says_how() {
        let body = b"{\"value\":1.5}".repeat(100);
        for codec in CODECS {
            let (used, packed) = packed(codec, &body);
            assert_eq!(used, codec);
            assert_eq!(packed.len() < body.len(), codec != Codec::None);
            let mut unpacked = vec![7; 10];
            assert!(used.unpack(&packed, body.len(), &mut unpacked));
            assert_eq!(unpacked, body);
            assert_eq!(Codec::from_byte(codec as u8), Some(codec));
        }
        let noise: Vec<u8> = (0..200_u8).collect();
        for stays in [&body[..100], &noise] {
            for codec in CODECS {
                assert_eq!(packed(codec, stays), (Codec::None, stays.to_vec()));
            }
        }
    }

    #[test]
    fn a_payload_that_unfolds_to_more_than_it_says_is_refused() {
        let bomb = vec![0; 1 << 20];
        for codec in CODECS {
            let (used, packed) = packed(codec, &bomb);
            let mut body = Vec::new();
            assert!(used.unpack(&packed, bomb.len(), &mut body));
            for claimed in [0, 1_000, bomb.len() - 1, bomb.len() + 1] {
                let unpacked = used.unpack(&packed, claimed, &mut body);
                assert!(!unpacked && body.len() == claimed, "{used:?} {claimed}");
            }
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(payload: Vec<u8>, claimed in 0usize..5_000) {
            for codec in CODECS {
                let mut body = Vec::new();
                codec.unpack(&payload, claimed, &mut body);
                prop_assert_eq!(body.len(), claimed);
            }
        }
    }
}
