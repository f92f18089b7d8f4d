//! The house rules that a machine can check: who depends on whom, where vendor crates are named,
//! no dead files, files of a readable length, and a README that tells what the code has.

#![expect(
    clippy::unwrap_used,
    reason = "a file of tests and of what only they call"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use skerry_tests::workspace;

/// Who may name whom in its manifest.
const MAY_DEPEND_ON: [(&str, &[&str]); 8] = [
    ("skerry-store", &[]),
    ("skerry-bridge", &["skerry-store", "skerry-pack"]),
    ("skerry-pack", &[]),
    ("skerry-inference", &["skerry-store"]),
    ("skerry-broker", &["skerry-store"]),
    ("skerry-simulation", &[]),
    (
        "skerry",
        &[
            "skerry-store",
            "skerry-bridge",
            "skerry-inference",
            "skerry-broker",
            "skerry-simulation",
        ],
    ),
    ("skerry-tests", &["skerry-store"]),
];

/// Crates that are to be replaceable: one file per crate of ours may name each, and what is in the
/// folder of that file.
const VENDORS: [&str; 24] = [
    "sled",
    "argon2",
    "rpassword",
    "blake3",
    "chacha20poly1305",
    "lz4_flex",
    "zstd",
    "postcard",
    "tokio_rustls",
    "tokio_tungstenite",
    "x509_parser",
    "jiff",
    "socket2",
    "nix",
    "getrandom",
    "krafka",
    "rdkafka",
    "opcua_client",
    "opcua_types",
    "opcua_core",
    "opcua_crypto",
    "opcua_server",
    "tract_onnx",
    "rustfft",
];

/// Past this, a file hides a concept.
const LINES_MAX: usize = 600;

/// The members of the workspace as cargo sees them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace::root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn folder(package: &Value) -> PathBuf {
    Path::new(package["manifest_path"].as_str().unwrap())
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Files below `folder` whose names end in `ending`, without other packages' and built ones.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let foreign = name == "target" || name.starts_with('.');
            if !foreign && !path.join("Cargo.toml").exists() {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of a Rust file that are not comments.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| !line.starts_with("//"))
        .map(str::to_owned)
        .collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn dependencies_point_one_way() {
    let allowed = BTreeMap::from(MAY_DEPEND_ON);
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in MAY_DEPEND_ON"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let ours = on == "skerry" || on.starts_with("skerry-");
            // The simulation stands on nothing of ours, so any crate's tests may use it.
            let in_tests = dependency["kind"] == "dev" && on == "skerry-simulation";
            assert!(
                !ours || in_tests || may.contains(&on),
                "{name} must not depend on {on}"
            );
        }
    }
}

/// The features of `skerry`, with crates that nothing else brings.
const BROUGHT: [(&str, &[&str]); 3] = [
    ("opcua", &["async-opcua-client", "async-opcua-types"]),
    ("inference", &["skerry-inference", "tract-onnx", "rustfft"]),
    ("demo", &["skerry-simulation", "async-opcua-server"]),
];

#[test]
fn what_a_build_leaves_out_brings_no_crate() {
    for built in [
        "",
        "opcua",
        "inference",
        "opcua,inference",
        "opcua,inference,demo",
    ] {
        let crates = crates_of_a_node_with(built);
        assert!(crates.contains("skerry-broker"), "{crates:?}");
        for (feature, brought) in BROUGHT {
            let is_in = built.split(',').any(|it| it == feature);
            for name in brought {
                let named = crates.contains(*name);
                assert_eq!(named, is_in, "{name} in a build with \"{built}\"");
            }
        }
    }
}

/// The names of all crates that the binary is made of.
fn crates_of_a_node_with(features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "skerry", "--edges", "normal"])
        .args(["--no-default-features", "--features", features])
        .args(["--prefix", "none", "--locked", "--offline"])
        .current_dir(workspace::root())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_member_has_the_workspace_lints() {
    for package in packages() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let text = fs::read_to_string(manifest).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{manifest} leaves the lints out"
        );
    }
}

#[test]
fn each_vendor_crate_is_named_in_one_file_per_crate() {
    let mut crowded = Vec::new();
    for package in packages() {
        for vendor in VENDORS {
            let sources = files(&folder(&package).join("src"), ".rs");
            let naming: Vec<_> = sources
                .iter()
                .filter(|path| code(path).iter().any(|l| names(l, vendor)))
                .collect();
            let own = naming.iter().min_by_key(|path| path.components().count());
            let Some(own) = own else { continue };
            let folder = own.with_extension("");
            let is_own = |path: &Path| path == own.as_path() || path.starts_with(&folder);
            if !naming.iter().all(|path| is_own(path)) {
                let paths: Vec<_> = naming.iter().map(|path| shown(path)).collect();
                crowded.push(format!("{vendor}: {}", paths.join(", ")));
            }
        }
    }
    assert!(
        crowded.is_empty(),
        "named in more than one file:\n{}",
        crowded.join("\n")
    );
}

/// Whether a line of code has `vendor::` or `use vendor` in it as a word of its own.
fn names(line: &str, vendor: &str) -> bool {
    line.match_indices(vendor).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let own_word = !before.is_some_and(|c| c.is_alphanumeric() || "_:.\"".contains(c));
        let after = &line[at + vendor.len()..];
        let used = line.starts_with("use ") || line.starts_with("pub(crate) use ");
        own_word && (after.starts_with("::") || (used && after.starts_with([';', ' '])))
    })
}

#[test]
fn vendors_are_recognised_where_they_are_used() {
    for line in [
        "use sled::Db;",
        "    -> sled::Result<()>",
        "use sled;",
        "pub(crate) use sled::X;",
    ] {
        assert!(names(line, "sled"), "{line}");
    }
    for line in [
        "use crate::sled::Db;",
        "unsled::x()",
        "let sled = 1;",
        "\"sled::\"",
    ] {
        assert!(!names(line, "sled"), "{line}");
    }
}

#[test]
fn every_source_file_is_reachable() {
    let mut reached = BTreeSet::new();
    let mut present = BTreeSet::new();
    for package in packages() {
        for target in package["targets"].as_array().unwrap() {
            let root = PathBuf::from(target["src_path"].as_str().unwrap());
            reach(&root, root.parent().unwrap(), &mut reached);
        }
        present.extend(files(&folder(&package), ".rs"));
    }
    let dead: Vec<_> = present
        .difference(&reached)
        .map(|path| shown(path))
        .collect();
    assert!(dead.is_empty(), "no `mod` leads to {dead:?}");
}

/// Follows the `mod` lines of a file, whose modules live in `folder`.
fn reach(file: &Path, folder: &Path, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_path_buf()) {
        return;
    }
    let mut elsewhere = None;
    for line in code(file) {
        if let Some(path) = line.strip_prefix("#[path = \"") {
            elsewhere = path.split('"').next().map(|name| file.with_file_name(name));
            continue;
        }
        if let Some(choice) = line.strip_prefix("#[cfg_attr(") {
            // What stands in for the usual file, which is reached below.
            let path = choice.split_once("path = \"");
            let name = path.and_then(|(_, path)| path.split('"').next());
            if let Some(name) = name {
                reach(&file.with_file_name(name), folder, reached);
            }
            continue;
        }
        let Some(head) = line.strip_suffix(';') else {
            continue;
        };
        let Some((visibility, name)) = head.rsplit_once("mod ") else {
            continue;
        };
        if !(visibility.is_empty() || visibility.starts_with("pub")) {
            continue;
        }
        let inside = folder.join(name);
        let usual = [folder.join(format!("{name}.rs")), inside.join("mod.rs")];
        let candidates = elsewhere.take().into_iter().chain(usual);
        if let Some(next) = candidates.into_iter().find(|path| path.exists()) {
            reach(&next, &inside, reached);
        }
    }
}

#[test]
fn files_are_of_a_readable_length() {
    let mut long = Vec::new();
    for package in packages() {
        for ending in [".rs", ".py"] {
            for path in files(&folder(&package), ending) {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                if lines > LINES_MAX {
                    long.push(format!("{}: {lines}", shown(&path)));
                }
            }
        }
    }
    assert!(
        long.is_empty(),
        "longer than {LINES_MAX} lines: {}",
        long.join(", ")
    );
}

fn readme() -> String {
    fs::read_to_string(workspace::root().join("README.md")).expect("README.md is for newcomers")
}

/// What the process touches, by the names the code has for it.
#[test]
fn the_readme_tells_what_the_process_touches() {
    let readme = readme();
    let mut things: BTreeSet<String> = ["SIGTERM", "SIGINT", "NOTIFY_SOCKET"]
        .map(str::to_owned)
        .into();
    for path in files(&workspace::root().join("node/src"), ".rs") {
        for line in code(&path) {
            things.extend(defaults(&line));
            things.extend(environment(&line));
        }
    }
    assert!(
        things.len() > 6,
        "the defaults are not where they were: {things:?}"
    );
    let untold: Vec<_> = things
        .iter()
        .filter(|thing| !readme.contains(*thing))
        .collect();
    assert!(untold.is_empty(), "README.md does not mention {untold:?}");
}

/// `const …_DEFAULT: &str = "…"`: an address counts by its port, all else as it is.
fn defaults(line: &str) -> Option<String> {
    let (name, value) = line.split_once(": &str = \"")?;
    let value = value.strip_suffix("\";")?;
    if !name.contains("const ") || !name.ends_with("_DEFAULT") {
        return None;
    }
    Some(
        value
            .rsplit_once(':')
            .map_or(value, |(_, port)| port)
            .to_owned(),
    )
}

/// `env::var("NAME")` and `env::var_os("NAME")`.
fn environment(line: &str) -> Option<String> {
    let (_, rest) = line
        .split_once("env::var(\"")
        .or_else(|| line.split_once("env::var_os(\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Every exit code of the program is in the README's row of them.
#[test]
fn the_readme_has_every_exit_code() {
    let readme = readme();
    let row = readme
        .lines()
        .find(|line| line.starts_with("| exit codes |"));
    let row = row.expect("README.md has a row for the exit codes");
    let told: BTreeSet<u8> = row
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|w| w.parse().ok())
        .collect();
    let mut codes = BTreeSet::new();
    for line in code(&workspace::root().join("node/src/exit.rs")) {
        let variant = line.trim_end_matches(',').split_once(" = ");
        codes.extend(variant.and_then(|(_, code)| code.parse::<u8>().ok()));
    }
    assert_eq!(
        told, codes,
        "README.md tells the left ones, node/src/exit.rs has the right ones"
    );
}
