//! What all targets share: one look-up, and an eye on the memory they take.

use peak_alloc::PeakAlloc;
use skerry_inference::fuzzing::TARGETS;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs a target, and panics if it took more memory than it may.
pub fn run(target: &str, input: &[u8]) {
    let (_, run) = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a target of the crate's");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let bytes_max = run(input);
    let bytes = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        bytes <= bytes_max,
        "{bytes} bytes of memory were taken, {bytes_max} are allowed"
    );
}
