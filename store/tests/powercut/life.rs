//! One run of a log, from its opening to its end, as a recorder saw it.

use crate::common::name;
use crate::common::rng::Rng;
use crate::history::{Asked, Each, Fate, History, INTERVAL, STREAMS, options};
use crate::recorder::{Event, Recorder, tree};
use crate::world::World;
use skerry_store::{Committed, Disk, Error, Log};
use std::path::Path;
use std::sync::Arc;

/// What a life is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How often some appends are asked for at once.
    pub(crate) groups: usize,
    /// Whether it is to be cut as well.
    pub(crate) recording: bool,
}

struct Life<'a> {
    log: Log,
    recorder: Arc<Recorder>,
    rng: &'a mut Rng,
    history: History,
    /// Acknowledged before the sync: their numbers, and where their records are.
    unsynced: Vec<(usize, Committed)>,
    cursors: Each<u64>,
}

/// Opens the log that `world` left at `root`, checks it, works with it and closes it.
pub(crate) fn live(
    world: &World,
    root: &Path,
    plan: Plan,
    rng: &mut Rng,
) -> Result<Vec<Event>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let recorder = Recorder::new(root, world.boot, plan.recording);
    let data = root.join("data");
    let disk = Disk::failing(recorder.clone());
    let (log, _) =
        Log::open_on(options(&data, world.encrypted), disk).map_err(|error| error.to_string())?;
    let mut history = world.history.clone();
    history.check(&log)?;
    let mut life = Life {
        log,
        recorder,
        rng,
        unsynced: Vec::new(),
        cursors: history.cursors(),
        history,
    };
    life.note_check();
    runtime.block_on(async {
        for _ in 0..plan.groups {
            let full = life.rng.one_in(10);
            life.recorder.fill(full);
            life.group().await?;
            life.recorder.fill(false);
            if plan.recording {
                life.note_catalog(&data);
            }
        }
        // Whatever happened before, it takes appends.
        let probes = (0..STREAMS.len()).map(Asked::probe).collect();
        life.together(probes).await?;
        life.all_synced();
        life.history.check(&life.log)?;
        life.note_check();
        let stopped = life.log.clone().close().await;
        stopped.map_err(|error| error.to_string())?;
        if plan.recording {
            life.note_catalog(&data);
        }
        Ok(life.recorder.take())
    })
}

impl Life<'_> {
    fn note_check(&self) {
        let history = Box::new(self.history.clone());
        self.recorder.record(Event::Checked(history));
    }

    fn note_catalog(&self, data: &Path) {
        let files = Arc::new(tree(&data.join("catalog")));
        self.recorder.record(Event::Catalog(files));
    }

    /// Waits until all that was acknowledged is there to be read.
    fn all_synced(&self) {
        let waits = || {
            let streams = self.log.stats().streams;
            streams.iter().any(|stream| stream.unsynced_records > 0)
        };
        while waits() {
            std::thread::yield_now();
        }
    }

    /// What can be read has to be there from now on.
    fn note_synced(&mut self) {
        let head = *self.log.head(&name(STREAMS[INTERVAL])).unwrap().borrow();
        let (synced, waiting) = self.unsynced.iter().partition(|(_, at)| at.next <= head);
        self.unsynced = waiting;
        let synced: Vec<_> = synced;
        for (number, at) in synced {
            self.answer(number, Fate::There(at.first.0));
        }
    }

    fn answer(&mut self, number: usize, fate: Fate) {
        self.history.answer(number, fate);
        self.recorder.record(Event::Answered(number, fate));
    }

    /// Some appends at once.
    async fn group(&mut self) -> Result<(), String> {
        let heads = STREAMS.map(|stream| self.log.head(&name(stream)).unwrap().borrow().0);
        let count = 1 + self.rng.below(4);
        let asked = (0..count).map(|_| Asked::draw(self.rng, heads, &mut self.cursors));
        let asked = asked.collect();
        self.together(asked).await
    }

    /// The first is a commit of its own, the others one together.
    async fn together(&mut self, group: Vec<Asked>) -> Result<(), String> {
        let mut pending = Vec::new();
        self.recorder.close_gate();
        for asked in group {
            let number = self.history.ask(asked.clone());
            let append = asked.append(number);
            self.recorder.record(Event::Asked(asked));
            pending.push((number, self.log.submit(append).await.unwrap()));
            while self.log.stats().queue_appends > 0 && !self.recorder.holds_the_writer() {
                std::thread::yield_now();
            }
        }
        self.recorder.open_gate();
        for (number, pending) in pending {
            let fate = match pending.committed().await {
                Ok(committed) if self.history.is_unsynced(number) => {
                    self.unsynced.push((number, committed));
                    Fate::Waiting(committed.first.0)
                }
                Ok(committed) => Fate::There(committed.first.0),
                Err(Error::Full { .. }) => Fate::Absent,
                // The disk is full. Part of it may have been written, and is taken back.
                Err(Error::Storage { .. }) => continue,
                Err(error) => return Err(error.to_string()),
            };
            self.answer(number, fate);
        }
        self.note_synced();
        Ok(())
    }
}
