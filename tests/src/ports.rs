//! Ports nobody else uses.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use anyhow::{Context, Result};

/// Ports given out by this process: the kernel may offer one again before it is bound.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port that is free now and given to nobody else in this process.
pub fn free() -> Result<u16> {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let port = listener.local_addr()?.port();
        let mut given = GIVEN
            .lock()
            .expect("nothing panics while holding the ports");
        if given.insert(port) {
            return Ok(port);
        }
    }
}
