//! Which of many connections have something to read.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Connections told of at once: all subscribers of a fan-out.
const READY_MAX: usize = 1_024;

pub(super) struct Poll {
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

impl Poll {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(READY_MAX),
        })
    }

    pub(super) fn add(&self, stream: &TcpStream, number: usize) -> Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, stream, data, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// The numbers of those that have something to read, at most after `timeout`.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<impl Iterator<Item = usize> + '_> {
        self.ready.clear();
        let timeout = Timespec::try_from(timeout)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let number = |event: &epoll::Event| {
            usize::try_from(event.data.u64()).expect("it was a usize before")
        };
        Ok(self.ready.iter().map(number))
    }
}
