//! The child's side: loads what it is told to, runs one window at a time, and keeps each model to
//! its memory.

use super::confine::{self, Memory};
use super::protocol::{self, GREETING, LENGTH_BYTES, Loaded, Order, Reply, Request, Scored, Slot};
use crate::encoding;
use crate::error::{Error, RunFault};
use crate::package;
use crate::runner::{Answer, Runner, run_caught, words};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Graphs are walked by recursion; what needs more than this is no model but an attack.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Serves the node at the other end of standard input and output, until that end is closed.
///
/// What the caller has printed before is passed over by the node; afterwards both are this
/// function's alone.
///
/// # Errors
/// When the pipes fail, or this process cannot be confined.
pub fn serve() -> io::Result<()> {
    serve_with(package::load)
}

/// What makes of an order something that runs.
type Load = fn(&Order) -> Result<(Box<dyn Runner>, Loaded), Error>;

pub(super) fn serve_with(load: Load) -> io::Result<()> {
    confine::end_with_the_parent()?;
    let memory = Memory::open()?;
    // Past the buffers of the standard library, of which one looks for ends of lines.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let thread = std::thread::Builder::new().name("model-host".to_owned());
    let thread = thread.stack_size(STACK_BYTES);
    let serving = thread.spawn(move || {
        let child = Child {
            load,
            memory,
            seats: BTreeMap::new(),
        };
        child.serve(BufReader::new(input), output)
    })?;
    serving
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread of the models panicked")))
}

struct Child {
    load: Load,
    memory: Memory,
    seats: BTreeMap<Slot, Seat>,
}

/// A loaded model, and what of this process's memory is on its account.
struct Seat {
    runner: Box<dyn Runner>,
    held_bytes: u64,
    memory_max_bytes: u64,
}

impl Child {
    fn serve(mut self, mut input: impl Read, mut output: impl Write) -> io::Result<()> {
        output.write_all(GREETING)?;
        loop {
            let mut head = [0; LENGTH_BYTES];
            match input.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            let mut body = vec![0; protocol::length(head)?];
            input.read_exact(&mut body)?;
            let request = encoding::read(&body)
                .ok_or_else(|| io::Error::other("a request is not understood"))?;
            drop(body);
            let reply = self.reply(request)?;
            output.write_all(&protocol::frame(&reply))?;
        }
    }

    fn reply(&mut self, request: Request) -> io::Result<Reply> {
        Ok(match request {
            Request::Probe { order } => {
                confine::be_nice();
                Reply::Loaded(self.load(Slot(0), &order)?)
            }
            Request::Load { slot, order } => {
                self.seats.remove(&slot);
                Reply::Loaded(self.load(slot, &order)?)
            }
            Request::Run { slot, window } => {
                let scored = self.run(slot, &window)?;
                if matches!(scored, Err(RunFault::Panicked(_))) {
                    // What a panic left behind must not score anything else.
                    self.seats.remove(&slot);
                }
                Reply::Scored(scored.map(Scored::from))
            }
            Request::Unload { slot } => {
                self.seats.remove(&slot);
                Reply::Unloaded
            }
        })
    }

    fn load(&mut self, slot: Slot, order: &Order) -> io::Result<Result<Loaded, Error>> {
        let started = Instant::now();
        let before = self.memory.used()?;
        self.memory
            .limit(before.saturating_add(order.memory_max_bytes))?;
        let caught = catch_unwind(AssertUnwindSafe(|| (self.load)(order)));
        self.memory.unlimit()?;
        let loaded = caught.unwrap_or_else(|panic| {
            Err(Error::NotAModel {
                path: order.file.clone(),
                reason: format!("loading it panicked: {}", words(&*panic)),
            })
        });
        let held_bytes = self.memory.used()?.saturating_sub(before);
        Ok(loaded.map(|(runner, known)| {
            let seat = Seat {
                runner,
                held_bytes,
                memory_max_bytes: known.memory_max_bytes,
            };
            self.seats.insert(slot, seat);
            Loaded {
                load_time: started.elapsed(),
                held_bytes,
                ..known
            }
        }))
    }

    fn run(&mut self, slot: Slot, window: &[f32]) -> io::Result<Result<Answer, RunFault>> {
        let Some(seat) = self.seats.get_mut(&slot) else {
            return Ok(Err(RunFault::Failed("it is not loaded".to_owned())));
        };
        let before = self.memory.used()?;
        let may_take = seat.memory_max_bytes.saturating_sub(seat.held_bytes);
        self.memory.limit(before.saturating_add(may_take))?;
        let answer = run_caught(&mut *seat.runner, window);
        let after = self.memory.used()?;
        self.memory.unlimit()?;
        // What a window before left for the next to use is on its account already.
        seat.held_bytes = (seat.held_bytes + after).saturating_sub(before);
        if seat.held_bytes > seat.memory_max_bytes {
            return Ok(Err(RunFault::Memory {
                held_bytes: seat.held_bytes,
                memory_max_bytes: seat.memory_max_bytes,
            }));
        }
        Ok(answer)
    }
}
