//! The handle on an open log.

use crate::age::Ages;
use crate::append;
use crate::catalog::Catalog;
use crate::cipher::Cipher;
use crate::directory;
use crate::disk::Disk;
use crate::frame::Encoded;
use crate::give_up;
use crate::housekeeping::Snapshots;
use crate::keys;
use crate::packing::Packer;
use crate::queue::{Answer, Company, Producer, Queue};
use crate::recovery::{self, Found, Marker};
use crate::replay::{self, Truth};
use crate::reserve::Reserve;
use crate::stream::{Shared, Stream};
use crate::track::{Origin, Track};
use crate::writer::{Writer, is_full};
use crate::{
    Append, Change, Committed, Error, Offset, Options, Reader, Records, Recovery, Scrub, Stats,
    StreamName, StreamOptions, WallNanos,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::watch;

/// The open log. Cheap to clone; the last clone to go stops the writer after a final commit.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

/// An append that was found to be in order, as bytes.
struct Prepared {
    /// Streams by index: the one whose frame carries it, and the one its records are in.
    carrier: usize,
    stream: usize,
    encoded: Encoded,
}

struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handle {
    /// Waits for the last commit. Idle handles cost one short sync here.
    fn stop(&self) {
        self.shared.queue.close();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer panicked; what was acknowledged is on disk");
        }
    }
}

impl Log {
    /// Opens the log in `options.directory`, making or mending it as needed. Blocks on the disk.
    pub fn open(options: Options) -> Result<(Self, Recovery), Error> {
        Self::open_on(options, Disk::default())
    }

    /// The same, on a disk that may be made to fail.
    #[doc(hidden)]
    pub fn open_on(options: Options, disk: Disk) -> Result<(Self, Recovery), Error> {
        let (writer, recovery) = open(options, disk)?;
        let shared = Arc::clone(&writer.shared);
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(Error::storage("start the writer of", &shared.directory))?;
        let handle = Handle {
            shared,
            writer: Mutex::new(Some(thread)),
        };
        Ok((Self(Arc::new(handle)), recovery))
    }

    /// Queues the append and resolves when it is on disk. Waits while the bounded queue is full.
    /// Cancelling the future after it was queued does not undo the append.
    pub async fn append(&self, append: Append) -> Result<Committed, Error> {
        self.submit(append).await?.committed().await
    }

    /// The same for an append that is kept, to be tried again where the log refuses it.
    pub async fn append_kept(&self, append: &Append) -> Result<Committed, Error> {
        let prepared = self.prepare(append)?;
        self.queue(None, prepared).await?.committed().await
    }

    /// The same for records that are encoded already, which stay with the caller.
    pub async fn append_records(
        &self,
        stream: &StreamName,
        records: &Records,
        changes: &[Change],
    ) -> Result<Committed, Error> {
        let encode = || append::encode(stream, records, changes);
        let prepared = self.prepared(stream, records.is_empty(), encode)?;
        self.queue(None, prepared).await?.committed().await
    }

    /// Queues without waiting for the disk: the returned [`Pending`] resolves at the commit.
    /// Appends of one caller are committed in the order of their calls; where one of them fails,
    /// see [`Log::submit_from`].
    pub async fn submit(&self, append: Append) -> Result<Pending, Error> {
        let prepared = self.prepare(&append)?;
        drop(append);
        self.queue(None, prepared).await
    }

    /// The same, and committed only if nothing failed that `producer` had submitted to this
    /// stream before.
    pub async fn submit_from(&self, producer: &Producer, append: Append) -> Result<Pending, Error> {
        let prepared = self.prepare(&append)?;
        drop(append);
        self.queue(Some(producer), prepared).await
    }

    /// What waits in the queue is the bytes; the records need not wait with them.
    fn prepare(&self, append: &Append) -> Result<Prepared, Error> {
        self.prepared(&append.stream, append.records.is_empty(), || {
            append.encode()
        })
    }

    fn prepared(
        &self,
        stream: &StreamName,
        without_records: bool,
        encode: impl FnOnce() -> Result<Encoded, Error>,
    ) -> Result<Prepared, Error> {
        let shared = &self.0.shared;
        shared.check()?;
        let stream = shared.index(stream)?;
        let carrier = if without_records {
            shared.journal
        } else {
            stream
        };
        let encoded = encode()?;
        for change in &encoded.decoded {
            shared.check_advance(change)?;
        }
        Ok(Prepared {
            carrier,
            stream,
            encoded,
        })
    }

    async fn queue(
        &self,
        producer: Option<&Producer>,
        prepared: Prepared,
    ) -> Result<Pending, Error> {
        let Prepared {
            carrier,
            stream,
            encoded,
        } = prepared;
        let shared = &self.0.shared;
        let producer = producer.cloned();
        match shared.queue.push(carrier, stream, encoded, producer).await {
            Ok(answer) => Ok(Pending {
                answer,
                poison: shared.poison.clone(),
            }),
            Err(closed) => Err(shared.check().err().unwrap_or(closed)),
        }
    }

    /// A reader of durable records from `from` on; independent of every other reader.
    pub fn reader(&self, stream: &StreamName, from: Offset) -> Result<Reader, Error> {
        let shared = Arc::clone(&self.0.shared);
        let index = shared.index(stream)?;
        Ok(Reader::new(shared, index, from))
    }

    /// One past the last durable record; changes wake the waiter.
    pub fn head(&self, stream: &StreamName) -> Result<watch::Receiver<Offset>, Error> {
        Ok(self.0.shared.stream(stream)?.head.clone())
    }

    /// The first record still held.
    pub fn tail(&self, stream: &StreamName) -> Result<Offset, Error> {
        Ok(self.0.shared.stream(stream)?.tail())
    }

    /// The first record held whose event time ([`Record::event_time`]) is `time` or later, the
    /// head if there is none: where to begin to read from a time. Everything from that time on is
    /// behind it, and older records may be among it, as sources are late and clocks jump.
    ///
    /// Blocks on the disk. The first question reads the frame headers of the stream, what it
    /// learns is kept for the next ones. What does not read is passed over.
    ///
    /// [`Record::event_time`]: crate::Record::event_time
    pub fn offset_at(&self, stream: &StreamName, time: WallNanos) -> Result<Offset, Error> {
        self.0.shared.offset_at(stream, time)
    }

    /// About how many bytes of segment files hold the records of the stream from `from` on, packed
    /// as they are. Costs no disk: exact at the beginning of a segment, elsewhere estimated from
    /// the number of records.
    pub fn bytes_from(&self, stream: &StreamName, from: Offset) -> Result<u64, Error> {
        Ok(self.0.shared.stream(stream)?.bytes_from(from))
    }

    /// Reads every frame there is, beside readers and writer. Damage is put into quarantine and
    /// noted as gap records, as if a reader had come upon it; the answer comes once they are
    /// durable. A second scrub finds the same places, and that all of them are known.
    ///
    /// Holds one frame of memory. Cancelling ends it between two segments.
    pub async fn scrub(&self) -> Result<Scrub, Error> {
        self.0.shared.scrub().await
    }

    /// Where the named reader goes on; `None` if it never advanced.
    pub fn cursor(&self, cursor: &str, stream: &StreamName) -> Result<Option<Offset>, Error> {
        Ok(self.0.shared.catalog.cursor(cursor, stream.as_str()))
    }

    /// The value of a key. [`Error::Catalog`] while the catalog waits to be rebuilt.
    pub fn get(&self, bucket: &str, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.0.shared.catalog.get(bucket, key)
    }

    /// All entries of a bucket whose key starts with `prefix`, in key order. In a log with keys
    /// the whole bucket is read for it.
    pub fn scan(&self, bucket: &str, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.0.shared.catalog.scan(bucket, prefix)
    }

    /// Every stream, in name order, the node's own included.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamName> {
        let streams = self.0.shared.streams.iter();
        streams.map(|stream| stream.options.name.clone()).collect()
    }

    /// Random id of this data directory, made at its first opening.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.shared.epoch
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    /// Resolves when the log is poisoned, with why; never if it is closed instead. The process
    /// is to end then, with an exit code of its own.
    pub async fn poisoned(&self) -> Error {
        let mut poison = self.0.shared.poison.clone();
        let found = poison.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|error| error.clone());
        match found {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Commits what is queued, syncs, stops the writer, for every clone of this handle.
    pub async fn close(self) -> Result<(), Error> {
        self.0.stop();
        self.0.shared.check()
    }
}

/// Resolves when the append it came from is on disk.
#[must_use = "the append is queued, and may yet fail"]
pub struct Pending {
    answer: Answer,
    poison: watch::Receiver<Option<Error>>,
}

impl Pending {
    pub async fn committed(self) -> Result<Committed, Error> {
        match self.answer.await {
            Ok(result) => result,
            Err(_) => Err(self.poison.borrow().clone().unwrap_or(Error::Closed)),
        }
    }
}

/// Everything up to, and not including, the writer's thread.
fn open(options: Options, disk: Disk) -> Result<(Writer, Recovery), Error> {
    let directory = options.directory.clone();
    let lock = directory::claim(&disk, &directory, options.allow_volatile)?;
    let mut reserve = Reserve::open(&directory);
    let disk_full = make_room_to_open(&disk, &mut reserve);
    let epoch = directory::establish_epoch(&disk, &directory)?;
    let origin = Origin {
        epoch,
        boot: disk.boot_id().unwrap_or_else(directory::boot_id),
    };
    let cipher = options.keys.as_ref().map(Cipher::new).transpose()?;
    let cipher = cipher.map(Arc::new);
    keys::check(&directory, cipher.as_deref())?;
    let marker = Marker::take(&disk, &directory)?;
    let mut recovery = Recovery {
        clean_stop: marker.is_some(),
        ..Recovery::default()
    };

    let mut streams = Vec::new();
    let mut heads = Vec::new();
    let mut digests = Vec::new();
    let mut lacking = Vec::new();
    let mut last_frames = Vec::new();
    let mut damage = Vec::new();
    let mut last_sequence = marker.as_ref().map_or(0, |marker| marker.last_sequence);
    let all = all_streams(&options)?;
    // The newest segments, which cannot go, take a quarter of the quota at most.
    let quota = options.bytes_max_total.unwrap_or(u64::MAX);
    let segment_bytes = options.segment_bytes.min(quota / 4 / all.len() as u64);
    for stream in all {
        let path = directory::streams(&directory).join(stream.name.as_str());
        disk.create_directory(&path)
            .map_err(Error::storage("create", &path))?;
        let found = recovery::recover(&disk, &path, epoch, cipher.as_ref())?;
        let lacks = !recovery.clean_stop && found.may_lack(origin.boot, stream.durability);
        lacking.push(lacks.then_some(found.last_time));
        let Found {
            segments,
            head,
            last_sequence: newest,
            last_frame,
            digest,
            torn_bytes,
            damage: damaged,
            ..
        } = found;
        recovery.torn_bytes += torn_bytes;
        last_sequence = last_sequence.max(newest);
        last_frames.push(last_frame);
        digests.push(digest);
        damage.push(damaged);
        let (sender, receiver) = watch::channel(head);
        let stream = Stream::new(stream, path, segment_bytes, receiver, segments);
        streams.push(Arc::new(stream));
        heads.push(sender);
    }
    disk.sync_directory(&directory::streams(&directory))
        .map_err(Error::storage("sync", &directory))?;

    let catalog = Catalog::open(&directory.join("catalog"), cipher.clone());
    let journal = streams
        .iter()
        .position(|stream| stream.options.name == StreamName::catalog())
        .expect("all_streams adds it");
    // What is known of the heads besides the segments themselves.
    let mut floors = marker.map_or_else(BTreeMap::new, |marker| marker.heads);
    raise(&mut floors, replay::remembered_heads(&catalog, epoch));
    let mark = crate::catalog::Mark {
        epoch,
        boot: origin.boot,
        applied: last_sequence,
    };
    let known: Vec<_> = streams
        .iter()
        .map(|stream| {
            let name = stream.options.name.as_str();
            let floor = floors.get(name).copied().unwrap_or_default();
            (name, stream.head().max(floor))
        })
        .collect();
    let truth = Truth {
        streams: &streams,
        journal,
        mark,
        heads: &known,
    };
    let clean = recovery.clean_stop;
    let synchronised = match replay::synchronise(&catalog, truth, &last_frames, clean) {
        // Records can be read and written without it, and it is made anew once there is space.
        Err(error @ (Error::Catalog { .. } | Error::Storage { .. })) if disk_full.is_some() => {
            tracing::error!(%error, "the disk is full: the log is opened without its catalog");
            catalog.abandon();
            replay::unsynchronised(truth)?
        }
        other => other?,
    };
    recovery.catalog_rebuilt = synchronised.rebuilt && last_sequence > 0;
    let cursors = catalog.cursors().into_iter();
    raise(
        &mut floors,
        cursors.map(|((_, stream), next)| (stream, next)),
    );

    let mut notes: Vec<(usize, Encoded)> = Vec::new();
    let mut tracks = Vec::new();
    for (index, (stream, head)) in streams.iter().zip(heads).enumerate() {
        let name = stream.options.name.as_str();
        for damage in &damage[index] {
            let note = damage.note(&catalog, &directory, name);
            recovery.quarantined_frames += u64::from(note.is_some());
            if damage.records() > 0 {
                recovery.records_missing += note.as_ref().map_or(0, |_| damage.records());
                notes.extend(note.map(|note| (index, note)));
            }
        }
        if let Some(last_time) = lacking[index] {
            notes.push((index, recovery::power_cut(name, last_time)));
        }
        let found = *head.borrow();
        let floor = floors.get(name).copied().unwrap_or_default();
        if floor > found && index != journal {
            // Offsets that were given out once never name another record.
            head.send_replace(floor);
            recovery.records_missing += floor.0 - found.0;
            tracing::error!(
                stream = name, first = %found, next = %floor,
                "records that were acknowledged are not on the disk"
            );
            let reason = "acknowledged once, and not on the disk when the log was opened";
            let note = recovery::loss(&catalog, name, (found, floor), reason.to_owned());
            notes.extend(note.map(|note| (index, note)));
        }
        let mut track = Track::new(Arc::clone(stream), head, digests[index], cipher.clone());
        track.remove_below = give_up::tail(&catalog, name);
        stream.raise_floor(track.remove_below);
        tracks.push(track);
    }

    // The catalog may know of changes that the log has lost.
    let incomplete = recovery.torn_bytes + recovery.records_missing > 0
        || damage.iter().any(|damage| !damage.is_empty())
        || synchronised.ahead;
    // A journal that is clear, or sealed with an older key, makes way for one that is not.
    let outdated = keys::is_outdated(&streams[journal].segments(), cipher.as_deref());
    let (poison, poisoned) = watch::channel(None);
    let ages = Ages::load(&catalog, &streams);
    let shared = Shared {
        epoch,
        directory,
        streams,
        journal,
        bytes_max_total: options.bytes_max_total,
        recent_bytes_max: options.recent_bytes_max,
        catalog,
        queue: Queue::new(),
        damaged: Mutex::default(),
        figures: Mutex::default(),
        poison: poisoned,
    };
    let mut writer = Writer {
        disk,
        origin,
        tracks,
        poison,
        company: Company::new(options.commit_delay_max, options.commit_interval_min),
        next_sequence: last_sequence + 1,
        snapshots: Snapshots {
            last: synchronised.snapshot,
            last_change: synchronised.last_change,
            bytes_since: 0,
            journal_bytes_since: 0,
            change_bytes_since: shared.streams[journal].bytes(),
            bytes: synchronised.snapshot_bytes,
            segment_bytes: options.segment_bytes,
            wanted: outdated || incomplete && !synchronised.rebuilt,
        },
        ages,
        reserve,
        reserve_warned: false,
        drawn: false,
        disk_full,
        untold: notes,
        unflushed_bytes: 0,
        packer: Packer::default(),
        rebuild_after: None,
        lock,
        shared: Arc::new(shared),
    };
    writer.shared.streams[journal].renew_reserve();
    if let Some(full) = writer.disk_full.clone() {
        writer.storage_failed(&full, 0);
        writer.reclaim_confirmed()?;
    }
    writer.commit(Vec::new(), Vec::new())?;
    Ok((writer, recovery))
}

/// On a full disk, opening takes what the log kept for the purpose.
fn make_room_to_open(disk: &Disk, reserve: &mut Reserve) -> Option<Error> {
    let error = reserve.probe(disk, reserve.held()).err()?;
    reserve.give_back(disk, u64::MAX);
    let error = Error::storage("reserve space in", reserve.path())(error);
    is_full(&error).then_some(error)
}

/// The configured streams, the journal, and those that are only on disk, in name order.
fn all_streams(options: &Options) -> Result<Vec<StreamOptions>, Error> {
    let unlimited = |name| StreamOptions::new(name, u64::MAX);
    let own = |name| StreamOptions {
        reserve_bytes: options.journal_reserve_bytes,
        ..unlimited(name)
    };
    let mut streams = BTreeMap::new();
    for name in directory::list(&options.directory)? {
        streams.insert(name.clone(), unlimited(name));
    }
    for stream in &options.streams {
        streams.insert(stream.name.clone(), stream.clone());
    }
    let journal = StreamName::catalog();
    streams.insert(journal.clone(), own(journal));
    Ok(streams.into_values().collect())
}

fn raise(floors: &mut BTreeMap<String, Offset>, heads: impl IntoIterator<Item = (String, Offset)>) {
    for (stream, head) in heads {
        let floor = floors.entry(stream).or_default();
        *floor = head.max(*floor);
    }
}
