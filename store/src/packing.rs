//! Frames of one commit become bytes: on the writer's thread, or on two where there is much to
//! compress. That is most of what a busy writer does, and no frame waits for another.

use crate::frame::{BODY_BYTES_TARGET, Seed};
use crate::plan::Planned;
use crate::recent::Unpacked;
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
    /// Those whose bodies stay in memory.
    pub(crate) recent: Vec<Unpacked>,
    /// Of one frame, before it is packed.
    body: Vec<u8>,
}

impl Packer {
    /// The frames as they follow one another in a segment, in one piece or in two. The bodies of
    /// those from `recent_from` on are kept.
    pub(crate) fn pack(
        &mut self,
        frames: &[&Planned<'_>],
        seed: &Seed,
        codec: Codec,
        recent_from: Offset,
    ) -> impl Iterator<Item = &mut Packed> {
        let (here, there) = frames.split_at(share(frames, codec));
        let [first, second] = &mut self.0;
        std::thread::scope(|scope| {
            if there.is_empty() {
                second.clear();
            } else {
                scope.spawn(|| second.fill(there, seed, codec, recent_from));
            }
            first.fill(here, seed, codec, recent_from);
        });
        let packed = self.0.iter_mut();
        packed.filter(|packed| !packed.starts.is_empty())
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
        self.recent.clear();
    }

    fn fill(&mut self, frames: &[&Planned<'_>], seed: &Seed, codec: Codec, recent_from: Offset) {
        self.clear();
        for frame in frames {
            let builder = &frame.builder;
            self.starts.push((builder.base, self.bytes.len() as u64));
            // What stays gets memory of its own, of its own size, and is not copied for it.
            let stays = builder.count > 0 && builder.base >= recent_from;
            let mut own = Vec::with_capacity(if stays { builder.bytes() } else { 0 });
            let body = if stays { &mut own } else { &mut self.body };
            builder.finish(frame.sequence(), seed, codec, body, &mut self.bytes);
            if stays {
                self.recent.push(Unpacked::new(builder, own));
            }
        }
    }
}
