//! Cuts on what a process really asked of its operating system: a small library loaded before the
//! C library (`shim.c`) writes down every change of a file. The store's own seam has no part in
//! it, and sled's files are cut as all others are.

use crate::common::name;
use crate::common::rng::Rng;
use crate::disk::Op;
use crate::history::{Asked, Encrypted, Fate, History, STREAMS, options};
use crate::life::{Plan, live};
use crate::recorder::Event;
use crate::world::World;
use serde::{Deserialize, Serialize};
use skerry_store::{Error, Log};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const CUTS_DEFAULT: usize = 300;
const CHILDREN: usize = 3;
const GROUPS: usize = 30;
const ROOT: &str = "SKERRY_SHIM_ROOT";
const SEED: &str = "SKERRY_POWER_CUT_SEED";
/// Where the child tells, so that it comes into the journal, what it asked and what was answered.
const SAID: &str = "said";
/// The boot of a new [`World`], as the kernel writes it.
const BOOT: &str = "00000000-0000-0000-0000-000000000001\n";

#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Asked(Asked),
    Answered(usize, Fate),
}

#[test]
fn what_was_acknowledged_survives_on_a_real_file_system() {
    let scratch = tempfile::tempdir().unwrap();
    let shim = match build(scratch.path()) {
        Ok(shim) => shim,
        Err(why) => return skip(&why),
    };
    let number = |variable| std::env::var(variable).ok()?.parse().ok();
    let wanted: usize = number("SKERRY_POWER_CUTS_REAL").unwrap_or(CUTS_DEFAULT);
    let first: usize = number(SEED).unwrap_or(1);
    for seed in first..first + CHILDREN {
        let scratch = scratch.path().join(seed.to_string());
        let journal = journal_of_one_life(&scratch, &shim, seed);
        let cuts = wanted.div_ceil(CHILDREN);
        if let Err(why) = explore(&scratch, &journal, cuts, seed) {
            panic!("{SEED}={seed}: {why}");
        }
    }
    println!("{wanted} power cuts, seeds {first}..{}", first + CHILDREN);
}

/// Says why this cannot run here; where everything has to run, that is a failure.
fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    eprintln!("skipped: {why}");
}

fn build(scratch: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powercut/shim.c");
    let shim = scratch.join("shim.so");
    let built = Command::new("cc")
        .args([
            "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
        ])
        .args([&shim, &source])
        .output()
        .map_err(|error| format!("there is no C compiler `cc` to build shim.c with: {error}"))?;
    let complaints = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "shim.c: {complaints}");
    Ok(shim)
}

fn journal_of_one_life(scratch: &Path, shim: &Path, seed: usize) -> Vec<Event> {
    let root = scratch.join("live");
    std::fs::create_dir_all(&root).unwrap();
    let (journal, boot) = (scratch.join("journal"), scratch.join("boot_id"));
    std::fs::write(&boot, BOOT).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["preloaded::child", "--exact", "--ignored", "--nocapture"])
        .env(ROOT, &root)
        .env(SEED, seed.to_string())
        .env("LD_PRELOAD", shim)
        .env("SKERRY_SHIM_JOURNAL", &journal)
        .env("SKERRY_SHIM_BOOT", &boot)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{complaints}");
    let events = events(&std::fs::read(&journal).unwrap());
    let syncs = events
        .iter()
        .filter(|event| matches!(event, Event::Op(Op::Sync(_))));
    assert!(syncs.count() > GROUPS, "the shim missed most of it");
    events
}

/// The child: a log's life from its first opening.
#[test]
#[ignore = "started by the test above, in a process of its own, to be watched"]
fn child() {
    let root = PathBuf::from(std::env::var(ROOT).unwrap());
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let mut said = std::fs::File::create(root.join(SAID)).unwrap();
    let mut say = |what: Said| {
        let line = serde_json::to_string(&what).unwrap() + "\n";
        said.write_all(line.as_bytes()).unwrap();
    };
    let mut rng = Rng::new(seed);
    let (mut history, mut cursors) = (History::default(), [0; STREAMS.len()]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (log, _) = Log::open(options(&root.join("data"), Encrypted::of(seed as usize))).unwrap();
    runtime.block_on(async {
        for _ in 0..GROUPS {
            let heads = STREAMS.map(|stream| log.head(&name(stream)).unwrap().borrow().0);
            let mut pending = Vec::new();
            for _ in 0..1 + rng.below(4) {
                let asked = Asked::draw(&mut rng, heads, &mut cursors);
                let number = history.ask(asked.clone());
                let append = asked.append(number);
                say(Said::Asked(asked));
                pending.push((number, log.submit(append).await.unwrap()));
            }
            for (number, pending) in pending {
                let fate = match pending.committed().await {
                    Ok(committed) if history.is_unsynced(number) => {
                        Fate::Waiting(committed.first.0)
                    }
                    Ok(committed) => Fate::There(committed.first.0),
                    Err(Error::Full { .. }) => Fate::Absent,
                    Err(error) => panic!("{error}"),
                };
                say(Said::Answered(number, fate));
            }
        }
        log.close().await.unwrap();
    });
}

fn explore(scratch: &Path, journal: &[Event], cuts: usize, seed: usize) -> Result<(), String> {
    let mut rng = Rng::new(seed as u64);
    let mut points: Vec<_> = (0..cuts).map(|_| rng.below(journal.len())).collect();
    points.sort_unstable();
    let mut points = points.into_iter().peekable();
    let mut world = World::new(Encrypted::of(seed));
    for (at, event) in journal.iter().enumerate() {
        world.apply(event);
        while points.next_if_eq(&at).is_some() {
            let root = scratch.join("left");
            let left = world.cut(&mut rng);
            std::fs::create_dir(&root).unwrap();
            left.write_to(&root);
            let plan = Plan {
                groups: 1,
                recording: false,
            };
            live(&left, &root, plan, &mut rng)
                .map_err(|why| format!("cut after event {at}: {why}"))?;
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
    Ok(())
}

/// The lines of the shim's journal.
fn events(journal: &[u8]) -> Vec<Event> {
    let mut rest = journal;
    let mut take = |length: usize| {
        let (taken, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(taken)
    };
    let mut line = || {
        let kind = take(1)?[0];
        let at = u64::from_ne_bytes(take(8)?.try_into().unwrap());
        let lengths = [take(4)?, take(4)?];
        let [path, second] = lengths
            .map(|length| u32::from_ne_bytes(length.try_into().unwrap()))
            .map(|length| take(length as usize));
        let path = PathBuf::from(std::str::from_utf8(path?).unwrap());
        Some((kind, at, path, second?))
    };
    let mut events = Vec::new();
    while let Some((kind, at, path, second)) = line() {
        if path == Path::new(SAID) {
            if kind == b'w' {
                events.push(heard(second));
            }
            continue;
        }
        events.push(Event::Op(match kind {
            b'c' => Op::Create(path),
            b'w' => Op::Write {
                path,
                bytes: second.to_vec(),
                at,
            },
            b't' => Op::Truncate { path, bytes: at },
            b's' => Op::Sync(path),
            b'S' => Op::SyncDirectory(path),
            b'r' => Op::Remove(path),
            b'n' => Op::Rename {
                from: path,
                to: PathBuf::from(std::str::from_utf8(second).unwrap()),
            },
            b'd' => Op::CreateDirectory(path),
            other => panic!("{other} is no change of a file"),
        }));
    }
    events
}

fn heard(line: &[u8]) -> Event {
    match serde_json::from_slice(line).unwrap() {
        Said::Asked(asked) => Event::Asked(asked),
        Said::Answered(number, fate) => Event::Answered(number, fate),
    }
}
