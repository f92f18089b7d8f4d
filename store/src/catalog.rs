//! The catalog: cursors and key-value buckets, materialised in sled.
//!
//! Its truth is in the log: every [`Change`] is journalled in a frame before it gets here, and
//! snapshots of the whole are in the `_catalog` stream. So nothing here is ever synced, and
//! whatever is wrong with the database is mended by wiping it and replaying the log. sled may
//! also panic on damaged files; every call into it is fenced.
//!
//! Keys, all in one tree so that a commit is one atomic batch:
//!
//! ```text
//! "m"                                    Mark (postcard)
//! "h" stream                             head of the stream, u64 LE: a floor, may be behind
//! "s" stream                             newest frame of it that changes came from, u64 LE
//! "c" length cursor, stream              u64 LE
//! "e" length bucket, key                 0, value | 1, chunk count u32 BE
//! "x" length bucket, key, index u32 BE   a chunk of a value too large for one sled entry
//! "k"                                    id of the key that entries are sealed with, if any
//! ```
//!
//! In a log with keys, what is behind "c" and "e" stands there sealed: see [`Form`].

use crate::cipher::Cipher;
use crate::encoding;
use crate::entry::Form;
use crate::{Change, Error, Offset};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// sled writes, when it likes, segments of this size.
const SEGMENT_BYTES: usize = 512 * 1024;
/// What it may put into its file of a sudden: the segment it fills, and one that it moves pages to.
pub(crate) const UNWRITTEN_BYTES: u64 = 2 * SEGMENT_BYTES as u64;
/// sled keeps up to 16 entries on a page; larger ones spill to files of their own.
const VALUE_BYTES_MAX: usize = 4 * 1024;

/// sled lets go of its file a moment after it was closed. The data directory is ours alone, so
/// whoever still has the file is this process, about to.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A value in parts that is replaced while it is read is read again.
const READS_MAX: usize = 5;

type Cursors = BTreeMap<(String, String), Offset>;
type Entries = Vec<(Bytes, Bytes)>;

/// How far the catalog has followed the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) epoch: u64,
    pub(crate) boot: u128,
    /// Every change in frames up to this sequence number is in.
    pub(crate) applied: u64,
}

/// What a batch says of the log besides its changes.
///
/// The mark alone does not tell whether the log still has all that is in here: it counts the
/// frames of all streams, and one stream may lose its end while another went on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached<'a> {
    pub(crate) mark: Mark,
    pub(crate) heads: &'a [(&'a str, Offset)],
    /// The newest frame of a stream, by sequence number, whose changes are in.
    pub(crate) changed: &'a [(&'a str, u64)],
}

#[derive(Debug)]
enum Database {
    OutOfOrder,
    /// It is being rebuilt: what it lacks so far is not missing.
    Unfinished(sled::Db),
    InOrder(sled::Db),
}

#[derive(Debug)]
pub(crate) struct Catalog {
    directory: PathBuf,
    form: Form,
    database: RwLock<Database>,
    /// Small, read at every retention decision, and needed even without the database.
    cursors: RwLock<Cursors>,
}

impl Catalog {
    /// Opens what is there; a database that does not open leaves the catalog out of order.
    pub(crate) fn open(directory: &Path, cipher: Option<Arc<Cipher>>) -> Self {
        let catalog = Self {
            directory: directory.to_owned(),
            form: Form(cipher),
            database: RwLock::new(Database::OutOfOrder),
            cursors: RwLock::default(),
        };
        let opened = catalog.start().and_then(|database| {
            *catalog.slot() = Database::InOrder(database);
            catalog.load_cursors()
        });
        if let Err(error) = opened {
            tracing::warn!(%error, "the catalog does not open");
            catalog.abandon();
        }
        catalog
    }

    fn start(&self) -> Result<sled::Db, Error> {
        self.fence(|| {
            let config = sled::Config::new()
                .path(&self.directory)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                .segment_size(SEGMENT_BYTES)
                .flush_every_ms(None)
                .use_compression(false)
                .compression_factor(1)
                .temporary(false)
                .create_new(false)
                .idgen_persist_interval(1_000_000)
                .print_profile_on_drop(false);
            let mut patience = LOCK_PATIENCE;
            loop {
                match config.open() {
                    Err(error) if is_locked(&error) && !patience.is_zero() => {
                        std::thread::sleep(LOCK_PAUSE);
                        patience = patience.saturating_sub(LOCK_PAUSE);
                    }
                    opened => return opened,
                }
            }
        })
    }

    fn load_cursors(&self) -> Result<(), Error> {
        let cursors = self.with(|db| {
            let mut cursors = Cursors::new();
            for entry in db.scan_prefix("c") {
                let (place, stored) = entry?;
                let Some((key, value)) = self.form.unwrap(&place, Bytes::copy_from_slice(&stored))
                else {
                    continue;
                };
                if let (Some(name), Some(next)) = (cursor_name(&key), u64_from(&value)) {
                    cursors.insert(name, Offset(next));
                }
            }
            Ok(cursors)
        })?;
        *self.cursors.write().unwrap_or_else(PoisonError::into_inner) = cursors;
        Ok(())
    }

    /// Forgets the cursors; the database does not.
    pub(crate) fn forget_cursors(&self) {
        let cursors = self.cursors.write();
        cursors.unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Starts with an empty database, out of which nothing is read before it is [finished]. The
    /// cursors stay, for whoever reads them meanwhile.
    ///
    /// [finished]: Self::finish
    pub(crate) fn wipe(&self) -> Result<(), Error> {
        self.abandon();
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)
                .map_err(Error::storage("remove", &self.directory))?;
        }
        *self.slot() = Database::Unfinished(self.start()?);
        Ok(())
    }

    /// Everything that the log has to tell is in.
    pub(crate) fn finish(&self) {
        let mut slot = self.slot();
        *slot = match std::mem::replace(&mut *slot, Database::OutOfOrder) {
            Database::Unfinished(database) => Database::InOrder(database),
            other => other,
        };
    }

    /// Takes the database out of order, until it is rebuilt.
    pub(crate) fn abandon(&self) {
        *self.slot() = Database::OutOfOrder;
    }

    pub(crate) fn in_order(&self) -> bool {
        let slot = self.database.read();
        let slot = slot.unwrap_or_else(PoisonError::into_inner);
        matches!(*slot, Database::InOrder(_))
    }

    /// Whether it is sealed with the key there is, or clear where there is none.
    pub(crate) fn opens(&self) -> Result<bool, Error> {
        let cipher = self.form.0.as_ref();
        let id = cipher.map(|cipher| cipher.id());
        let found = self.with(|db| db.get("k"))?;
        Ok(found.as_deref() == id.as_ref().map(|id| &id.0[..]))
    }

    pub(crate) fn mark(&self) -> Result<Option<Mark>, Error> {
        let bytes = self.with(|db| db.get("m"))?;
        Ok(bytes.and_then(|bytes| encoding::decode(&bytes)))
    }

    /// Heads of streams as of some moment not long ago.
    pub(crate) fn heads(&self) -> Result<BTreeMap<String, Offset>, Error> {
        let heads = self.by_stream("h")?.into_iter();
        Ok(heads.map(|(name, head)| (name, Offset(head))).collect())
    }

    /// The newest frame of each stream whose changes are in, by sequence number.
    pub(crate) fn changed(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.by_stream("s")
    }

    fn by_stream(&self, kind: &str) -> Result<BTreeMap<String, u64>, Error> {
        self.with(|db| {
            let mut found = BTreeMap::new();
            for entry in db.scan_prefix(kind) {
                let (key, value) = entry?;
                let stream = String::from_utf8_lossy(&key[1..]).into_owned();
                found.extend(u64_from(&value).map(|value| (stream, value)));
            }
            Ok(found)
        })
    }

    /// Applies changes in order, and how far the log had come with them, as one batch.
    pub(crate) fn apply<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
        reached: Reached<'_>,
    ) -> Result<(), Error> {
        let mut entries: BTreeMap<Vec<u8>, Option<&Bytes>> = BTreeMap::new();
        let mut advances = Cursors::new();
        for change in changes {
            match change {
                Change::Advance {
                    cursor,
                    stream,
                    next,
                } => {
                    advances.insert((cursor.clone(), stream.clone()), *next);
                }
                Change::Put { bucket, key, value } => {
                    entries.insert(entry_key(b'e', bucket, key), Some(value));
                }
                Change::Delete { bucket, key } => {
                    entries.insert(entry_key(b'e', bucket, key), None);
                }
            }
        }
        self.cursors
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(advances.iter().map(|(name, next)| (name.clone(), *next)));
        self.with(|db| {
            let mut batch = sled::Batch::default();
            for ((cursor, stream), next) in &advances {
                let key = entry_key(b'c', cursor, stream.as_bytes());
                let place = self.form.place(&key);
                let value = self.form.wrap(&place, &key, &next.0.to_le_bytes()).to_vec();
                batch.insert(&*place, value);
            }
            for (key, value) in &entries {
                let place = self.form.place(key);
                let value = value.map(|value| self.form.wrap(&place, key, value));
                replace(db, &mut batch, &place, value.as_deref())?;
            }
            if let Some(cipher) = &self.form.0 {
                batch.insert("k", &cipher.id().0);
            }
            for (stream, head) in reached.heads {
                let key = [b"h", stream.as_bytes()].concat();
                batch.insert(key, &head.0.to_le_bytes());
            }
            for (stream, sequence) in reached.changed {
                let key = [b"s", stream.as_bytes()].concat();
                batch.insert(key, &sequence.to_le_bytes());
            }
            let mark = encoding::encode(&reached.mark);
            batch.insert("m", mark);
            db.apply_batch(batch)
        })
    }

    /// Hands what sled holds in memory to the operating system, so that a replay after a crash
    /// of the process is short.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.with(|db| db.flush().map(|_| ()))
    }

    pub(crate) fn cursor(&self, cursor: &str, stream: &str) -> Option<Offset> {
        let cursors = self.cursors.read().unwrap_or_else(PoisonError::into_inner);
        cursors.get(&(cursor.into(), stream.into())).copied()
    }

    pub(crate) fn cursors(&self) -> Cursors {
        let cursors = self.cursors.read().unwrap_or_else(PoisonError::into_inner);
        cursors.clone()
    }

    pub(crate) fn get(&self, bucket: &str, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let key = entry_key(b'e', bucket, key);
        let found = self.read(&self.form.place(&key))?;
        Ok(found.map(|(_, value)| value))
    }

    /// Key and value of the entry at a place.
    fn read(&self, place: &[u8]) -> Result<Option<(Bytes, Bytes)>, Error> {
        for _ in 0..READS_MAX {
            let stored = self.with_whole(|db| match db.get(place)? {
                Some(stored) => load(db, place, &stored),
                None => Ok(None),
            })?;
            let Some(stored) = stored else {
                return Ok(None);
            };
            if let Some(entry) = self.form.unwrap(place, stored) {
                return Ok(Some(entry));
            }
        }
        // Nothing of ours: to be made anew.
        self.abandon();
        Err(self.failed("an entry is not what was encrypted"))
    }

    pub(crate) fn scan(&self, bucket: &str, prefix: &[u8]) -> Result<Entries, Error> {
        let full = entry_key(b'e', bucket, prefix);
        let name_bytes = full.len() - prefix.len();
        let found = self.with_whole(|db| {
            let mut found = Vec::new();
            for entry in db.scan_prefix(self.form.shelf(&full)) {
                let (place, stored) = entry?;
                found.push((load(db, &place, &stored)?, place));
            }
            Ok(found)
        })?;
        let mut entries = Vec::new();
        for (stored, place) in found {
            let opened = stored.and_then(|stored| self.form.unwrap(&place, stored));
            let Some((key, value)) = opened.map_or_else(|| self.read(&place), |it| Ok(Some(it)))?
            else {
                continue;
            };
            if key.starts_with(&full) {
                entries.push((key.slice(name_bytes..), value));
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Everything in the catalog, as the changes that would make it, one after the other.
    pub(crate) fn export(
        &self,
        mut each: impl FnMut(Change) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for ((cursor, stream), next) in self.cursors() {
            each(Change::Advance {
                cursor,
                stream,
                next,
            })?;
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let found = self.with_whole(|db| {
                let start = after.clone().map_or(vec![b'e'], |mut key| {
                    key.push(0);
                    key
                });
                let Some(entry) = db.range(start..vec![b'e' + 1]).next() else {
                    return Ok(None);
                };
                Ok(Some(entry?.0.to_vec()))
            })?;
            let Some(place) = found else {
                return Ok(());
            };
            let entry = self.read(&place)?;
            let named = entry.and_then(|(key, value)| Some((entry_name(&key)?, value)));
            if let Some(((bucket, key), value)) = named {
                each(Change::Put { bucket, key, value })?;
            }
            after = Some(place);
        }
    }

    fn slot(&self) -> std::sync::RwLockWriteGuard<'_, Database> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Database::Unfinished(database) | Database::InOrder(database) => {
                self.fence(|| call(database))
            }
            Database::OutOfOrder => Err(self.out_of_order()),
        }
    }

    /// For whoever takes what is not there for missing.
    fn with_whole<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Database::InOrder(database) => self.fence(|| call(database)),
            Database::Unfinished(_) | Database::OutOfOrder => Err(self.out_of_order()),
        }
    }

    fn out_of_order(&self) -> Error {
        self.failed("it is out of order until the next commit succeeds")
    }

    fn fence<T>(&self, call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed("sled panicked on what it found there")),
        }
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Catalog {
            path: self.directory.clone(),
            reason: reason.to_owned(),
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

/// Puts or deletes one entry, chunks and all.
fn replace(
    db: &sled::Db,
    batch: &mut sled::Batch,
    key: &[u8],
    value: Option<&[u8]>,
) -> sled::Result<()> {
    let before = db.get(key)?.and_then(|stored| chunk_count(&stored));
    let chunks = match value {
        None => {
            batch.remove(key);
            0
        }
        Some(value) if value.len() <= VALUE_BYTES_MAX => {
            batch.insert(key, [&[0], value].concat());
            0
        }
        Some(value) => {
            let mut count = 0_u32;
            for chunk in value.chunks(VALUE_BYTES_MAX) {
                batch.insert(chunk_key(key, count), chunk);
                count += 1;
            }
            batch.insert(key, [&[1], &count.to_be_bytes()[..]].concat());
            count
        }
    };
    for index in chunks..before.unwrap_or(0) {
        batch.remove(chunk_key(key, index));
    }
    Ok(())
}

fn load(db: &sled::Db, key: &[u8], stored: &[u8]) -> sled::Result<Option<Bytes>> {
    let Some(count) = chunk_count(stored) else {
        return Ok(stored.get(1..).map(Bytes::copy_from_slice));
    };
    let mut value = Vec::new();
    for index in 0..count {
        match db.get(chunk_key(key, index))? {
            Some(chunk) => value.extend_from_slice(&chunk),
            // Replaced by a writer between our two reads: as if read after that.
            None => return Ok(None),
        }
    }
    Ok(Some(value.into()))
}

fn chunk_count(stored: &[u8]) -> Option<u32> {
    match stored {
        [1, count @ ..] => count.try_into().ok().map(u32::from_be_bytes),
        _ => None,
    }
}

fn chunk_key(entry: &[u8], index: u32) -> Vec<u8> {
    [b"x", &entry[1..], &index.to_be_bytes()].concat()
}

fn entry_key(kind: u8, name: &str, rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    [&[kind, length], name.as_bytes(), rest].concat()
}

fn entry_name(key: &[u8]) -> Option<(String, Bytes)> {
    let length = usize::from(*key.get(1)?);
    let name = std::str::from_utf8(key.get(2..2 + length)?).ok()?;
    Some((name.to_owned(), Bytes::copy_from_slice(&key[2 + length..])))
}

fn cursor_name(key: &[u8]) -> Option<(String, String)> {
    let (cursor, stream) = entry_name(key)?;
    Some((cursor, String::from_utf8(stream.to_vec()).ok()?))
}

fn u64_from(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
