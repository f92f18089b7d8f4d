//! How column sections are compressed: the crate that does it is named here alone.

use std::cell::RefCell;

/// What column sections look like before anything of them is known; see `FORMAT.md`. Part of the
/// format: another text is another version.
const PRESET: &[u8] = include_bytes!("../preset-1.txt");

thread_local! {
    /// Made once per thread: a block may be smaller than what decompressing it takes.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

#[derive(Default)]
pub(crate) struct Compressor(Option<zstd::bulk::Compressor<'static>>);

impl Compressor {
    /// Without memory for one, sections go uncompressed.
    pub(crate) fn new(level: i32) -> Self {
        Self(zstd::bulk::Compressor::with_dictionary(level, PRESET).ok())
    }

    /// Adds the section to `out`, compressed if that is shorter, and says whether it was.
    pub(crate) fn compress(
        &mut self,
        section: &[u8],
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        scratch.clear();
        // With less room than it could need it fails sooner or later, depending on how much less.
        scratch.reserve(zstd::zstd_safe::compress_bound(section.len()));
        let shorter = self.0.as_mut().is_some_and(|compressor| {
            let bytes = compressor.compress_to_buffer(section, scratch);
            bytes.is_ok_and(|bytes| bytes < section.len())
        });
        out.extend_from_slice(if shorter { scratch } else { section });
        shorter
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

/// The section, unless it has not exactly `bytes`: however much it would unfold to, no more memory
/// than that is taken.
pub(crate) fn decompress(compressed: &[u8], bytes: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = zstd::bulk::Decompressor::with_dictionary(PRESET).ok();
        }
        let mut section = Vec::with_capacity(bytes);
        let decompressor = decompressor.as_mut()?;
        decompressor
            .decompress_to_buffer(compressed, &mut section)
            .ok()?;
        (section.len() == bytes).then_some(section)
    })
}
