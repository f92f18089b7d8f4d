//! A stand-in for the central Kafka cluster, for `skerry demo` and for tests without one.
//!
//! **It is not Kafka.** It speaks enough of the wire protocol for producers with transactions
//! and for plain consumers, keeps everything in memory, and forgets it at the end. What it does
//! speak it takes seriously: checksums are verified, repeated batches recognised by sequence,
//! replaced producers fenced by epoch, and a transaction's records are readable after its commit
//! or never, so that an audit against it means something. Consumer groups, replication,
//! retention, compaction, security and KIP-890 are absent.
//!
//! ```text
//! connections ─► protocol (frames ◄► requests) ─► cluster (the rules, pure) ─► batch (format v2)
//! ```

pub(crate) mod batch;
mod cluster;
mod protocol;

pub use cluster::Counts;

use bytes::{Bytes, BytesMut};
use cluster::Cluster;
use protocol::Answer;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Larger frames are refused (`socket.request.max.bytes` is 100 MiB; nobody here needs that).
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A committed record, as a `read_committed` consumer gets it.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Delivered {
    /// The first header of that name, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.and_then(|(_, value)| std::str::from_utf8(value.as_ref()?).ok())
    }
}

/// A running stand-in. Dropping it stops it.
#[derive(Debug)]
pub struct Central {
    shared: Arc<Shared>,
    reachable: watch::Sender<bool>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    cluster: Mutex<Cluster>,
    /// Something became readable.
    written: Notify,
}

impl Central {
    /// Listens on loopback; port 0 takes a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            cluster: Mutex::default(),
            written: Notify::new(),
        });
        let (reachable, up) = watch::channel(true);
        let server = tokio::spawn(serve(Arc::clone(&shared), listener, up));
        Ok(Self {
            shared,
            reachable,
            server,
        })
    }

    /// What goes into `brokers`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Cuts the link: connections are reset wherever they are, new ones refused. A request that
    /// arrived may have been carried out without its answer leaving, as in life.
    pub fn cut(&self) {
        self.reachable.send_replace(false);
    }

    /// The opposite of [`cut`](Self::cut).
    pub fn restore(&self) {
        self.reachable.send_replace(true);
    }

    /// Changes `max.message.bytes`, which is 1 MiB and 12 bytes at first, as with real brokers.
    pub fn set_message_bytes_max(&self, bytes: usize) {
        self.shared.cluster().batch_bytes_max = Some(bytes);
    }

    /// Everything committed so far, ordered within each partition.
    #[must_use]
    pub fn records(&self) -> Vec<Delivered> {
        let cluster = self.shared.cluster();
        let mut delivered = Vec::new();
        for (topic, partition, base, batch) in cluster.committed() {
            delivered.extend(batch.open().into_iter().flatten().map(|record| Delivered {
                topic: topic.to_owned(),
                partition,
                offset: base + record.delta,
                timestamp_ms: record.timestamp_ms,
                key: record.key,
                value: record.value,
                headers: record.headers,
            }));
        }
        delivered
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.cluster().counts
    }

    /// Ends the server and every connection.
    pub async fn stop(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl Drop for Central {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts while reachable; without a listener the system refuses for us.
async fn serve(shared: Arc<Shared>, listener: TcpListener, mut up: watch::Receiver<bool>) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if !*up.borrow_and_update() {
            listener = None;
            connections.shutdown().await;
            if up.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            match TcpListener::bind(shared.address).await {
                Ok(bound) => listener = Some(bound),
                Err(error) => {
                    tracing::debug!(%error, "the stand-in cannot listen yet");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(Arc::clone(&shared), stream));
            },
            changed = up.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream) {
    // A cut must look like one: no orderly goodbye with everything delivered.
    let _ = stream.set_zero_linger();
    let _ = stream.set_nodelay(true);
    while let Some(frame) = read_frame(&mut stream).await {
        match respond(&shared, frame).await {
            Some(answer) => {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            None => return,
        }
    }
}

async fn read_frame(stream: &mut TcpStream) -> Option<Bytes> {
    let length = usize::try_from(stream.read_i32().await.ok()?).ok()?;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let mut frame = BytesMut::zeroed(length);
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame.freeze())
}

/// The answer's frame, empty where none is due; none when the connection must end.
async fn respond(shared: &Shared, frame: Bytes) -> Option<Bytes> {
    let mut deadline = None;
    loop {
        let written = shared.written.notified();
        tokio::pin!(written);
        written.as_mut().enable();
        let patient = deadline.is_none_or(|deadline| Instant::now() < deadline);
        let answered = protocol::answer(
            &mut shared.cluster(),
            shared.address,
            frame.clone(),
            patient,
        );
        match answered {
            Ok(Answer::Now(answer)) => {
                shared.written.notify_waiters();
                return Some(answer);
            }
            Ok(Answer::Nothing) => return Some(Bytes::new()),
            Ok(Answer::Wait(wait)) => {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + wait);
                let _ = timeout_at(deadline, written).await;
            }
            Err(nonsense) => {
                tracing::warn!(%nonsense, "the stand-in ends a connection");
                return None;
            }
        }
    }
}
