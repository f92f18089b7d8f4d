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
    profile()
        .parent()
        .expect("a profile's folder lies in the target folder")
        .to_path_buf()
}

/// The binary under test: `SKERRY_BINARY`, as a package has it, or that from the same profile as the
/// test itself.
#[must_use]
pub fn skerry() -> PathBuf {
    std::env::var_os("SKERRY_BINARY").map_or_else(|| built("skerry"), PathBuf::from)
}

/// A program from the same profile as the test itself.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    profile().join(name)
}

/// Real series for predictive maintenance, which are not part of the repository.
#[must_use]
pub fn shared_data() -> PathBuf {
    root().join("../shared/data")
}

/// An example of a crate of ours, which `--all-targets` builds.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    profile().join("examples").join(name)
}

/// `target/PROFILE`: the running program is in it, or in its `deps`.
fn profile() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    let folder = exe.parent().expect("a program lies in a folder");
    let inside = folder.ends_with("deps").then(|| folder.parent()).flatten();
    inside.unwrap_or(folder).to_path_buf()
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

/// The folder in which `tests/run` built what unpacks in Java.
#[must_use]
pub fn pack_java() -> PathBuf {
    target().join("pack-java")
}

/// The folder in which `tests/run` installed MQTT.js.
#[must_use]
pub fn mqtt_js() -> PathBuf {
    target().join("mqtt-js")
}

/// The folder in which `tests/run` installed node-opcua.
#[must_use]
pub fn opcua_js() -> PathBuf {
    target().join("opcua-js")
}

/// The folder in which `tests/run` built an OPC-UA server and client in C.
#[must_use]
pub fn opcua_c() -> PathBuf {
    target().join("opcua-c")
}

/// The folder in which `tests/run` built the server on Eclipse Milo.
#[must_use]
pub fn opcua_milo() -> PathBuf {
    target().join("opcua-milo")
}
