//! Models that do all that no model should, each beside one that must not notice.

use super::child::serve_with;
use super::*;
use crate::error::{Error, RunFault};
use crate::output::Output;
use crate::runner::{Runner, Score};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const MEMORY_MAX: u64 = 64 * MIB;

/// What [`command`] starts: a host in which a model's file name says what it does.
#[test]
#[ignore = "other tests start it"]
fn child() {
    serve_with(load).unwrap();
}

fn command() -> HostCommand {
    HostCommand::this_program([
        "--exact",
        "isolation::tests::child",
        "--ignored",
        "--nocapture",
    ])
}

struct Scripted<F>(F);

impl<F: FnMut(&[f32]) -> f32> Runner for Scripted<F> {
    fn run(&mut self, window: &[f32]) -> Result<Score, String> {
        Ok(Score::from((self.0)(window)))
    }
}

fn load(order: &Order) -> Result<(Box<dyn Runner>, Loaded), Error> {
    let file = order.file.clone();
    let name = order.file.file_name().unwrap().to_str().unwrap();
    let runner: Box<dyn Runner> = match name {
        "sums" => Box::new(Scripted(|window: &[f32]| window.iter().sum())),
        "panics" => Box::new(Scripted(|_: &[f32]| panic!("no such operator"))),
        "answers NaN" => Box::new(Scripted(|_: &[f32]| f32::NAN)),
        "exits" => Box::new(Scripted(|_: &[f32]| std::process::exit(3))),
        "spins" => Box::new(Scripted(|_: &[f32]| spin())),
        "overflows" => Box::new(Scripted(|_: &[f32]| deeper(1))),
        "allocates" => Box::new(Scripted(|_: &[f32]| {
            black_box(vec![1_u8; 1024 * MIB as usize])
                .iter()
                .map(|it| f32::from(*it))
                .sum()
        })),
        "leaks" => {
            let mut kept = Vec::new();
            Box::new(Scripted(move |_: &[f32]| {
                kept.push(black_box(vec![1_u8; 8 * MIB as usize]));
                kept.len() as f32
            }))
        }
        "dawdles" => Box::new(Scripted(|_: &[f32]| {
            std::thread::sleep(Duration::from_millis(40));
            0.0
        })),
        "is killed once" | "is killed again and again" => Box::new(Scripted(move |_: &[f32]| {
            let once = name_of(&file) == "is killed once";
            if !(once && file.exists()) {
                std::fs::write(&file, "").unwrap();
                let this = std::process::id().to_string();
                Command::new("kill").args(["-9", &this]).status().unwrap();
                spin();
            }
            7.0
        })),
        "spins while loading" => spin(),
        "allocates while loading" => {
            // What nobody looks into need not be allocated, says the optimiser.
            let block = black_box(vec![1_u8; 1024 * MIB as usize]);
            return Err(Error::File {
                path: file,
                reason: format!("{} bytes too many", block.len()),
            });
        }
        "panics while loading" => panic!("no such format"),
        other => panic!("unknown script {other}"),
    };
    let loaded = Loaded {
        sha256: String::new(),
        version: None,
        rows: 2,
        columns: 1,
        reference: None,
        time_max: order.time_max,
        memory_max_bytes: order.memory_max_bytes,
        file_bytes: 0,
        golden_cases: None,
        golden_time_max: None,
        load_time: Duration::ZERO,
        held_bytes: 0,
    };
    Ok((runner, loaded))
}

fn name_of(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[expect(unconditional_recursion, reason = "until the stack is used up")]
fn deeper(depth: u64) -> f32 {
    deeper(black_box(depth) + 1) + 1.0
}

fn order(file: impl Into<PathBuf>) -> Order {
    Order {
        file: file.into(),
        shape: Some((2, 1)),
        output: Output::default(),
        sha256: None,
        load_time_max: Duration::from_secs(10),
        time_max: Duration::from_secs(2),
        memory_max_bytes: MEMORY_MAX,
    }
}

async fn fault_of(worker: &Worker) -> RunFault {
    for _ in 0..100 {
        match worker.run(vec![1.0, 2.0]).await {
            Ok(_) => {}
            Err(Error::Run { fault, .. }) => return fault,
            Err(other) => panic!("expected a fault, got {other:?}"),
        }
    }
    panic!("no fault in a hundred windows")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_one_model_does_the_other_scores_every_window() {
    let host = Host::new(command());
    let (good, _) = host.load(order("sums")).await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let counted = tokio::spawn(async move {
        let mut windows = 0_u32;
        while stopped.try_recv().is_err() {
            let answer = good.run(vec![1.0, windows as f32]).await;
            assert_eq!(answer.unwrap().score, Score::from(1.0 + windows as f32));
            windows += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        windows
    });
    for (file, words) in [
        ("panics", "no such operator"),
        ("answers NaN", "NaN"),
        ("exits", "exit status: 3"),
        ("spins", "no answer within"),
        ("overflows", "overflowed its stack"),
        ("allocates", "memory allocation of 1073741824 bytes failed"),
        ("leaks", "memory"),
    ] {
        let mut order = order(file);
        order.time_max = match file {
            "spins" => Duration::from_millis(100),
            _ => Duration::from_secs(20),
        };
        let (bad, _) = host.load(order).await.unwrap();
        let fault = fault_of(&bad).await;
        assert!(fault.to_string().contains(words), "{file}: {fault}");
    }
    stop.send(()).unwrap();
    let windows = counted.await.unwrap();
    assert!(windows > 10, "{windows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_culprit_stays_out_of_the_next_host() {
    let host = Host::new(command());
    let (good, _) = host.load(order("sums")).await.unwrap();
    let (bad, _) = host.load(order("exits")).await.unwrap();
    let first = fault_of(&bad).await;
    assert!(matches!(first, RunFault::Died(_)), "{first:?}");
    let started = Instant::now();
    assert_eq!(fault_of(&bad).await, first, "told, not tried again");
    assert_eq!(good.run(vec![1.0, 2.0]).await.unwrap().score.value, 3.0);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_while_loading_reaches_no_host() {
    let host = Host::new(command());
    let (good, _) = host.load(order("sums")).await.unwrap();
    for (file, words) in [
        ("panics while loading", "no such format"),
        (
            "allocates while loading",
            "memory allocation of 1073741824 bytes failed",
        ),
        ("spins while loading", "did not load within"),
    ] {
        let mut order = order(file);
        if file == "spins while loading" {
            order.load_time_max = Duration::from_millis(300);
        }
        let error = host.load(order).await.unwrap_err();
        assert!(error.to_string().contains(words), "{file}: {error}");
        assert!(error.to_string().contains(file), "{file}: {error}");
    }
    assert_eq!(good.run(vec![1.0, 2.0]).await.unwrap().score.value, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_late_again_and_again_is_out_and_who_is_late_once_is_not() {
    let host = Host::new(command());
    let mut slow = order("dawdles");
    slow.time_max = Duration::from_millis(20);
    let (worker, _) = host.load(slow).await.unwrap();
    for _ in 0..2 {
        assert_eq!(worker.run(vec![1.0, 2.0]).await.unwrap().score.value, 0.0);
    }
    let fault = fault_of(&worker).await;
    assert!(matches!(fault, RunFault::Slow { .. }), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_from_outside_accuses_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new(command());
    let once = order(directory.path().join("is killed once"));
    let (worker, _) = host.load(once).await.unwrap();
    assert_eq!(worker.run(vec![1.0, 2.0]).await.unwrap().score.value, 7.0);
    let always = order(directory.path().join("is killed again and again"));
    let (worker, _) = host.load(always).await.unwrap();
    let fault = fault_of(&worker).await;
    assert!(fault.to_string().contains("signal: 9"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_child_there_is_an_error_that_passes() {
    let program = PathBuf::from("/no/such/program");
    let arguments = Vec::new();
    let host = Host::new(HostCommand { program, arguments });
    let error = host.load(order("sums")).await.unwrap_err();
    assert!(matches!(error, Error::Host { .. }), "{error:?}");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

/// As after a `kill -9` of the node in the middle of an endless run.
#[test]
fn a_child_ends_with_its_parent_whatever_it_is_doing() {
    let HostCommand { program, arguments } = command();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut requests = child.stdin.take().unwrap();
    let (slot, order) = (protocol::Slot(0), order("spins"));
    let window = vec![1.0, 2.0];
    let load = protocol::Request::Load { slot, order };
    let run = protocol::Request::Run { slot, window };
    for request in [load, run] {
        requests.write_all(&protocol::frame(&request)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it spins");
    drop(requests);
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it outlived its parent");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
