//! Where things are in this checkout and in its target folder.

use std::path::{Path, PathBuf};

/// The folder of the workspace's `Cargo.toml`.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

/// Cargo's target folder: the tests write nowhere else.
#[must_use]
pub fn target() -> PathBuf {
    // target/release/deps/scenarios-0123456789abcdef
    let exe = std::env::current_exe().expect("a running program has a path");
    exe.ancestors()
        .nth(3)
        .expect("cargo runs tests in target/PROFILE/deps")
        .to_path_buf()
}

/// The binary under test, from the same profile as the test itself.
#[must_use]
pub fn skerry() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    exe.ancestors()
        .nth(2)
        .expect("cargo runs tests in target/PROFILE/deps")
        .join("skerry")
}

/// The Python of the environment `tests/run` made.
#[must_use]
pub fn python() -> PathBuf {
    target().join("venv/bin/python")
}

/// The folder of Kafka's jars that `tests/run` made.
#[must_use]
pub fn kafka_jars() -> PathBuf {
    target().join("kafka")
}
