//! One client's connection. Sockets block; [`super::poll`] tells when reading does not.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};

use super::STALLED;
use super::packet::{self, CONNACK, Packet};
use super::poll::Poll;

/// Where packets are read to, shared by all connections of a load.
pub(super) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(vec![0; 64 * 1024].into_boxed_slice())
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    /// The start of a packet whose rest has not come yet.
    tail: Vec<u8>,
}

impl Connection {
    /// Sends CONNECT and does not wait for the answer.
    pub(super) fn dial(port: u16, client: &str) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALLED))?;
        stream.set_write_timeout(Some(STALLED))?;
        let tail = Vec::new();
        let mut connection = Self { stream, tail };
        connection.send(&packet::connect(client))?;
        Ok(connection)
    }

    /// Connected, as the broker says too.
    pub(super) fn open(port: u16, client: &str, scratch: &mut Scratch) -> Result<Self> {
        let mut connection = Self::dial(port, client)?;
        connection.await_packet(scratch, |packet| accepted(packet).map(Some))?;
        Ok(connection)
    }

    pub(super) fn poll(&self, poll: &Poll, number: usize) -> Result<()> {
        poll.add(&self.stream, number)
    }

    /// Callers keep so little unanswered that it fits into the socket's buffer.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .write_all(bytes)
            .context("the broker takes nothing")
    }

    /// Reads once and gives every whole packet to `each`.
    pub(super) fn receive(
        &mut self,
        scratch: &mut Scratch,
        mut each: impl FnMut(Packet<'_>) -> Result<()>,
    ) -> Result<()> {
        let Scratch(scratch) = scratch;
        let held = self.tail.len();
        scratch[..held].copy_from_slice(&self.tail);
        let count = match self.stream.read(&mut scratch[held..]) {
            Ok(0) => bail!("the broker hung up"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error).context("nothing comes from the broker"),
        };
        let mut rest = &scratch[..held + count];
        while let Some((packet, behind)) = Packet::split(rest)? {
            each(packet)?;
            rest = behind;
        }
        self.tail.clear();
        self.tail.extend_from_slice(rest);
        Ok(())
    }

    /// Reads until `wanted` makes something of a packet; others are passed over.
    pub(super) fn await_packet<T>(
        &mut self,
        scratch: &mut Scratch,
        mut wanted: impl FnMut(Packet<'_>) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut found = None;
        while found.is_none() {
            self.receive(scratch, |packet| {
                if let Some(value) = wanted(packet)? {
                    found = Some(value);
                }
                Ok(())
            })?;
        }
        found.context("the loop ended with it")
    }

    pub(super) fn await_kind(&mut self, scratch: &mut Scratch, kind: u8) -> Result<()> {
        self.await_packet(scratch, |packet| Ok((packet.kind() == kind).then_some(())))
    }
}

/// The answer to a CONNECT, if it is a good one.
pub(super) fn accepted(packet: Packet<'_>) -> Result<()> {
    ensure!(
        packet.kind() == CONNACK && packet.body == [0, 0],
        "refused: {packet:?}"
    );
    Ok(())
}
