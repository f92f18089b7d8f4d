//! A line to a server on which answers are not what the server said.
//!
//! Without security a message is a chunk: a header of twenty-four bytes (Part 6, 6.7.2), the id of
//! its type, and its fields. The liar passes everything on, and what it is told to lie about it
//! replaces, with the chunks still numbered as they should be.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Ids of the answers' binary encodings (Part 6, annex A).
pub(crate) const PUBLISH: u16 = 829;
pub(crate) const CREATE_SUBSCRIPTION: u16 = 790;
pub(crate) const CREATE_MONITORED_ITEMS: u16 = 754;
pub(crate) const BROWSE: u16 = 530;
pub(crate) const BROWSE_NEXT: u16 = 536;

/// Type, size, channel, token, sequence number, request.
const CHUNK_HEADER: usize = 24;
const SEQUENCE_AT: usize = 16;
const REQUEST_AT: usize = 20;
/// Namespace 0 and the id.
const TYPE_ID: usize = 4;
/// Time, handle, result; no diagnostics, no strings, nothing more.
const RESPONSE_HEADER: usize = 24;

/// An answer of the server, as one chunk.
#[derive(Clone)]
pub(crate) struct Answer {
    chunk: Vec<u8>,
}

impl Answer {
    fn id(&self) -> Option<u16> {
        let id = self.chunk.get(CHUNK_HEADER..CHUNK_HEADER + TYPE_ID)?;
        (self.chunk.starts_with(b"MSGF") && id[..2] == [1, 0])
            .then(|| u16::from_le_bytes([id[2], id[3]]))
    }

    /// The fields after the response's header.
    pub(crate) fn fields(&self) -> &[u8] {
        &self.chunk[CHUNK_HEADER + TYPE_ID + RESPONSE_HEADER..]
    }

    /// The same answer with other fields.
    pub(crate) fn with(&self, fields: &[u8]) -> Self {
        let kept = &self.chunk[..CHUNK_HEADER + TYPE_ID + RESPONSE_HEADER];
        Self::chunk([kept, fields].concat())
    }

    /// The same fields as an answer of another type.
    pub(crate) fn of_type(&self, id: u16) -> Self {
        let mut chunk = self.chunk.clone();
        chunk[CHUNK_HEADER + 2..CHUNK_HEADER + TYPE_ID].copy_from_slice(&id.to_le_bytes());
        Self { chunk }
    }

    /// The same answer to another request.
    pub(crate) fn to_request(&self, request: u32) -> Self {
        let mut chunk = self.chunk.clone();
        chunk[REQUEST_AT..CHUNK_HEADER].copy_from_slice(&request.to_le_bytes());
        Self { chunk }
    }

    /// A part of a message that goes on, with so many bytes of nothing.
    pub(crate) fn part(&self, bytes: usize) -> Self {
        let mut part = Self::chunk([&self.chunk[..CHUNK_HEADER], &vec![0; bytes]].concat());
        part.chunk[3] = b'C';
        part
    }

    fn chunk(mut chunk: Vec<u8>) -> Self {
        let size = u32::try_from(chunk.len()).unwrap();
        chunk[4..8].copy_from_slice(&size.to_le_bytes());
        Self { chunk }
    }

    fn numbered(mut self, number: u32) -> Vec<u8> {
        self.chunk[SEQUENCE_AT..REQUEST_AT].copy_from_slice(&number.to_le_bytes());
        self.chunk
    }

    fn number(&self) -> u32 {
        let number = &self.chunk[SEQUENCE_AT..REQUEST_AT];
        u32::from_le_bytes(number.try_into().unwrap())
    }
}

/// Made one by one: what a liar sends without end it need not hold.
type Instead = Box<dyn Iterator<Item = Answer> + Send>;
/// What is sent instead of an answer; `None` where this one is left as it is.
type Twist = dyn FnMut(&Answer) -> Option<Instead> + Send;

struct Lie {
    about: u16,
    times: u32,
    twist: Box<Twist>,
}

pub(crate) struct Liar {
    port: u16,
    lie: Arc<Mutex<Option<Lie>>>,
    task: JoinHandle<()>,
}

impl Liar {
    pub(crate) async fn between(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lie: Arc<Mutex<Option<Lie>>> = Arc::default();
        let told = Arc::clone(&lie);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else {
                    continue;
                };
                let told = Arc::clone(&told);
                tokio::spawn(async move {
                    let ((mut near_in, near_out), (far_in, mut far_out)) =
                        (near.into_split(), far.into_split());
                    tokio::select! {
                        _ = tokio::io::copy(&mut near_in, &mut far_out) => {}
                        _ = back(far_in, near_out, &told) => {}
                    }
                });
            }
        });
        Self { port, lie, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/", self.port)
    }

    /// Lies so often about answers of this type.
    pub(crate) fn lie<I>(
        &self,
        times: u32,
        about: u16,
        mut twist: impl FnMut(&Answer) -> Option<I> + Send + 'static,
    ) where
        I: IntoIterator<Item = Answer, IntoIter: Send + 'static>,
    {
        let twist = move |answer: &Answer| -> Option<Instead> {
            let instead = twist(answer)?;
            Some(Box::new(instead.into_iter()))
        };
        *self.lie.lock().unwrap() = Some(Lie {
            about,
            times,
            twist: Box::new(twist),
        });
    }

    /// Whether it has lied as often as it was told.
    pub(crate) fn has_lied(&self) -> bool {
        self.lie.lock().unwrap().is_none()
    }

    pub(crate) fn is_honest_again(&self) {
        *self.lie.lock().unwrap() = None;
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// From the server to the client, chunk by chunk.
async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lie: &Mutex<Option<Lie>>,
) -> std::io::Result<()> {
    // Chunks more, or less, than the server has sent.
    let mut ahead = 0_u32;
    loop {
        let mut chunk = vec![0; 8];
        from.read_exact(&mut chunk).await?;
        let size = u32::from_le_bytes(chunk[4..8].try_into().unwrap());
        chunk.resize(size as usize, 0);
        from.read_exact(&mut chunk[8..]).await?;
        if !chunk.starts_with(b"MSG") {
            to.write_all(&chunk).await?;
            continue;
        }
        let answer = Answer { chunk };
        let mut number = answer.number().wrapping_add(ahead);
        let instead = instead(&answer, lie).unwrap_or_else(|| Box::new([answer].into_iter()));
        ahead = ahead.wrapping_sub(1);
        for answer in instead {
            to.write_all(&answer.numbered(number)).await?;
            number = number.wrapping_add(1);
            ahead = ahead.wrapping_add(1);
        }
    }
}

fn instead(answer: &Answer, lie: &Mutex<Option<Lie>>) -> Option<Instead> {
    let mut told = lie.lock().unwrap();
    let lie = told.as_mut().filter(|lie| answer.id() == Some(lie.about))?;
    let instead = (lie.twist)(answer)?;
    lie.times -= 1;
    if lie.times == 0 {
        *told = None;
    }
    Some(instead)
}

/// A publish response taken apart.
pub(crate) struct Published {
    pub(crate) subscription: u32,
    pub(crate) sequence: u32,
    /// Everything from the notifications on.
    rest: Vec<u8>,
}

impl Published {
    /// `None` where it carries no data.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let fields = answer.fields();
        let number = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().unwrap());
        let available = number(4);
        let available = if available == u32::MAX {
            0
        } else {
            available as usize
        };
        let message = 8 + 4 * available + 1;
        let notifications = message + 4 + 8;
        let data = i32::from_le_bytes(fields[notifications..notifications + 4].try_into().unwrap());
        (data > 0).then(|| Self {
            subscription: number(0),
            sequence: number(message),
            rest: fields[notifications..].to_vec(),
        })
    }

    /// As it is, with nothing left at the server to be fetched but itself.
    pub(crate) fn nothing_kept(&self) -> Vec<u8> {
        let mut fields = self.subscription.to_le_bytes().to_vec();
        fields.extend(1_u32.to_le_bytes());
        fields.extend(self.sequence.to_le_bytes());
        fields.push(0);
        fields.extend(self.sequence.to_le_bytes());
        fields.extend(0_i64.to_le_bytes());
        fields.extend(&self.rest);
        fields
    }

    /// With nothing left at the server to be fetched, and these notifications.
    pub(crate) fn with(&self, notifications: &[u8]) -> Vec<u8> {
        let mut fields = self.subscription.to_le_bytes().to_vec();
        fields.extend(u32::MAX.to_le_bytes());
        fields.push(0);
        fields.extend(self.sequence.to_le_bytes());
        fields.extend(0_i64.to_le_bytes());
        fields.extend(notifications);
        fields
    }

    pub(crate) fn fields(&self) -> Vec<u8> {
        self.with(&self.rest)
    }
}

/// An array of one notification of data changes: `count` of them, it says, and then `items`.
pub(crate) fn changes(count: i32, items: &[u8]) -> Vec<u8> {
    let body = [&count.to_le_bytes()[..], items, &u32::MAX.to_le_bytes()].concat();
    extension(811, body.len() as i32, &body)
}

/// An array of one notification of the type with this id, of `length` bytes, it says.
pub(crate) fn extension(id: u16, length: i32, body: &[u8]) -> Vec<u8> {
    let [low, high] = id.to_le_bytes();
    let head = [1, 0, 0, 0, 1, 0, low, high, 1];
    let nothing_more = [u32::MAX.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    [&head[..], &length.to_le_bytes(), body, &nothing_more].concat()
}

/// A change of the item with this handle to the variant of this type and encoding.
pub(crate) fn change(handle: u32, variant_type: u8, encoded: &[u8]) -> Vec<u8> {
    [&handle.to_le_bytes()[..], &[1, variant_type], encoded].concat()
}
