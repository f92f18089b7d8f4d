//! Between our Kafka client on loopback and a broker: bytes both ways, as the link allows.
//!
//! What waits, waits in the client's socket: it is read only when it may go, a chunk at a time.

use super::bucket::CHUNK_BYTES_MAX;
use super::cost::Cost;
use super::ledger::Ledger;
use super::pacer::Pacer;
use super::queue::Lane;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

pub(super) struct Relay<'g> {
    pub(super) lane: Lane,
    pub(super) cost: Cost,
    pub(super) sending: &'g Pacer,
    pub(super) receiving: &'g Pacer,
    pub(super) ledger: &'g Ledger,
    /// The kernel probes a far side that is silent for so long.
    pub(super) probe_after: Duration,
}

/// Which side's connection broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the client's side: {0}")]
    Near(io::Error),
    #[error("the broker's side: {0}")]
    Far(io::Error),
}

impl Relay<'_> {
    /// Until both sides have said that they are done, or one breaks.
    pub(super) async fn run(
        &self,
        near: &mut TcpStream,
        far: &mut TcpStream,
    ) -> Result<(), Broken> {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let client_done = AtomicBool::new(false);
        let up = self.up(near_read, far_write, &client_done);
        let down = self.down(far_read, near_write, &client_done);
        tokio::try_join!(up, down).map(|_| ())
    }

    async fn up(
        &self,
        mut near: ReadHalf<'_>,
        mut far: WriteHalf<'_>,
        done: &AtomicBool,
    ) -> Result<(), Broken> {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            let chunk = &mut buffer[..self.sending.chunk_bytes()];
            let read = near.read(chunk).await.map_err(Broken::Near)?;
            if read == 0 {
                done.store(true, Ordering::Relaxed);
                self.bare();
                return far.shutdown().await.map_err(Broken::Far);
            }
            let bytes = self.cost.carrying(read);
            self.sending.acquire(self.lane, bytes).await;
            self.may_go_on().await;
            self.ledger.spend(bytes, self.cost.acknowledging(read));
            far.write_all(&chunk[..read]).await.map_err(Broken::Far)?;
        }
    }

    async fn down(
        &self,
        mut far: ReadHalf<'_>,
        mut near: WriteHalf<'_>,
        client_done: &AtomicBool,
    ) -> Result<(), Broken> {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            self.may_go_on().await;
            let chunk = &mut buffer[..self.receiving.chunk_bytes()];
            let Ok(read) = timeout(self.probe_after, far.read(chunk)).await else {
                self.bare();
                // A broker hangs up on a client that is done; one that does not is not waited for.
                if client_done.load(Ordering::Relaxed) {
                    return Ok(());
                }
                continue;
            };
            let read = read.map_err(Broken::Far)?;
            if read == 0 {
                self.bare();
                return near.shutdown().await.map_err(Broken::Near);
            }
            let (bytes, answer) = (self.cost.carrying(read), self.cost.acknowledging(read));
            self.sending.charge(answer);
            self.receiving.acquire(self.lane, bytes).await;
            self.ledger.spend(answer, bytes);
            near.write_all(&chunk[..read]).await.map_err(Broken::Near)?;
        }
    }

    /// Not one chunk more once the link is not for this lane: whoever called ends the relay.
    async fn may_go_on(&self) {
        if !self.ledger.allows(self.lane.priority) {
            std::future::pending().await
        }
    }

    /// A FIN or a probe, one of which goes each way.
    fn bare(&self) {
        self.sending.charge(self.cost.bare());
        self.ledger.spend(self.cost.bare(), self.cost.bare());
    }
}
