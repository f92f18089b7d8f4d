//! Cuts on a simulated disk, at every operation that the log's files saw.
//!
//! `SKERRY_POWER_CUTS` is how many; `SKERRY_POWER_CUT_SEED` is where to start, to see a failure
//! again (with one cut, just that history).

use crate::common::rng::Rng;
use crate::common::scratch;
use crate::history::Encrypted;
use crate::life::{Plan, live};
use crate::recorder::Event;
use crate::world::World;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

const CUTS_DEFAULT: usize = 10_000;
/// Of a life that is cut short by a second cut, this many moments; and this many states that an
/// orderly stop may leave.
const CUTS_OF_SECOND_LIFE: usize = 3;
/// Making a data directory is a matter of a few operations, and happens once.
const CUTS_PER_OPERATION_OF_OPENING: usize = 8;
const CUTS_AFTER_STOP: usize = 20;
const WORKERS: usize = 2;

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let number = |variable| std::env::var(variable).ok()?.parse().ok();
    let wanted = number("SKERRY_POWER_CUTS").unwrap_or(CUTS_DEFAULT);
    let first = number("SKERRY_POWER_CUT_SEED").unwrap_or(1);
    let (done, next) = (AtomicUsize::new(0), AtomicUsize::new(first));
    let failed = std::thread::scope(|scope| {
        let work = || {
            while done.load(Ordering::Relaxed) < wanted {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let mut explorer = Explorer::new(seed);
                let explored = explorer.explore();
                done.fetch_add(explorer.cuts, Ordering::Relaxed);
                if let Err(why) = explored {
                    done.store(wanted, Ordering::Relaxed);
                    return Some(format!(
                        "SKERRY_POWER_CUT_SEED={seed} SKERRY_POWER_CUTS=1: {why}"
                    ));
                }
            }
            None
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let failed = workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap());
        failed.collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!(
        "{} power cuts, seeds {first}..{}",
        done.into_inner(),
        next.into_inner()
    );
}

/// One history, and what cuts make of it.
struct Explorer {
    rng: Rng,
    encrypted: Encrypted,
    scratch: tempfile::TempDir,
    lives: usize,
    cuts: usize,
}

impl Explorer {
    fn new(seed: usize) -> Self {
        Self {
            rng: Rng::new(seed as u64),
            encrypted: Encrypted::of(seed),
            scratch: scratch(),
            lives: 0,
            cuts: 0,
        }
    }

    fn explore(&mut self) -> Result<(), String> {
        let plan = Plan {
            groups: 1 + self.rng.below(24),
            recording: true,
        };
        let mut world = World::new(self.encrypted);
        let journal = self.live(&world, plan)?;
        let mut cuts = CUTS_PER_OPERATION_OF_OPENING;
        for (at, event) in journal.iter().enumerate() {
            world.apply(event);
            match event {
                Event::Op(_) => {}
                Event::Checked(_) => {
                    cuts = 1;
                    continue;
                }
                _ => continue,
            }
            for _ in 0..cuts {
                self.cut(&world)
                    .map_err(|why| format!("cut after event {at}: {why}"))?;
            }
        }
        for _ in 0..CUTS_AFTER_STOP {
            self.cut(&world)
                .map_err(|why| format!("cut after an orderly stop: {why}"))?;
        }
        Ok(())
    }

    /// Cuts the power here. Some of the lives after that end early as well, as do some lives that
    /// follow a mere crash of the process.
    fn cut(&mut self, world: &World) -> Result<(), String> {
        let rng = &mut self.rng.fork();
        let killed = rng.one_in(8);
        let again = killed || rng.one_in(8);
        let left = if killed {
            world.kill(rng)
        } else {
            world.cut(rng)
        };
        self.cuts += usize::from(!killed);
        let plan = Plan {
            groups: if again { rng.below(3) } else { 0 },
            recording: again,
        };
        let journal = self.live(&left, plan)?;
        if !again {
            return Ok(());
        }
        for _ in 0..CUTS_OF_SECOND_LIFE {
            let mut world = left.clone();
            let at = rng.below(journal.len() + 1);
            journal[..at].iter().for_each(|event| world.apply(event));
            let left = world.cut(rng);
            self.cuts += 1;
            let last = Plan {
                groups: 0,
                recording: false,
            };
            self.live(&left, last).map_err(|why| {
                let life = if killed { "killed" } else { "cut" };
                format!("the life after it was {life} too, after event {at}: {why}")
            })?;
        }
        Ok(())
    }

    fn live(&mut self, world: &World, plan: Plan) -> Result<Vec<Event>, String> {
        self.lives += 1;
        let root: PathBuf = self.scratch.path().join(self.lives.to_string());
        std::fs::create_dir(&root).unwrap();
        world.write_to(&root);
        let mut rng = self.rng.fork();
        let lived = live(world, &root, plan, &mut rng)?;
        std::fs::remove_dir_all(&root).unwrap();
        Ok(lived)
    }
}
