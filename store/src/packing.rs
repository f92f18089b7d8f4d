//! Frames of one commit become bytes: on the writer's thread, or on two where there is much to
//! compress. That is most of what a busy writer does, and no frame waits for another.

use crate::frame::{BODY_BYTES_TARGET, Seed};
use crate::plan::Planned;
use crate::{Codec, Offset};
use std::sync::LazyLock;

/// What the buffer of packed frames may keep from one commit to the next.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;
/// A commit of less is packed before another thread has begun.
const SHARED_BYTES_MIN: usize = 2 * BODY_BYTES_TARGET;

static HAS_TWO_CORES: LazyLock<bool> =
    LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1));

/// Memory that one commit leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Packer([Packed; 2]);

/// Frames behind one another.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    /// The first record of each frame, and where in `bytes` it starts.
    pub(crate) starts: Vec<(Offset, u64)>,
    /// Of one frame, before it is packed.
    body: Vec<u8>,
}

impl Packer {
    /// The frames as they follow one another in a segment, in one piece or in two.
    pub(crate) fn pack(
        &mut self,
        frames: &[&Planned<'_>],
        seed: &Seed,
        codec: Codec,
    ) -> impl Iterator<Item = &Packed> {
        let (here, there) = frames.split_at(share(frames, codec));
        let [first, second] = &mut self.0;
        std::thread::scope(|scope| {
            if there.is_empty() {
                second.clear();
            } else {
                scope.spawn(|| second.fill(there, seed, codec));
            }
            first.fill(here, seed, codec);
        });
        self.0.iter().filter(|packed| !packed.starts.is_empty())
    }

    /// What a large commit took is given back, not kept for a rare one like it.
    pub(crate) fn shrink(&mut self) {
        for packed in &mut self.0 {
            packed.clear();
            packed.body.clear();
            packed.body.shrink_to(2 * BODY_BYTES_TARGET);
            packed.bytes.shrink_to(BUFFER_BYTES_KEPT);
        }
    }
}

/// How many of the frames this thread is to pack.
fn share(frames: &[&Planned<'_>], codec: Codec) -> usize {
    let bytes = |frame: &&Planned<'_>| frame.builder.bytes();
    let all: usize = frames.iter().map(bytes).sum();
    if codec == Codec::None || all < SHARED_BYTES_MIN || !*HAS_TWO_CORES {
        return frames.len();
    }
    let mut packed = 0;
    let half = |frame: &&&Planned<'_>| {
        packed += bytes(frame);
        packed <= all / 2
    };
    frames.iter().take_while(half).count().max(1)
}

impl Packed {
    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    fn fill(&mut self, frames: &[&Planned<'_>], seed: &Seed, codec: Codec) {
        self.clear();
        for frame in frames {
            let builder = &frame.builder;
            self.starts.push((builder.base, self.bytes.len() as u64));
            builder.finish(
                frame.sequence(),
                seed,
                codec,
                &mut self.body,
                &mut self.bytes,
            );
        }
    }
}
