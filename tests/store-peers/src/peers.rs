//! What else could hold the records. Each takes a batch and returns once it is on disk.

use anyhow::Result;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub(crate) trait Peer {
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<()>;
}

pub(crate) type Open = fn(&Path) -> Result<Box<dyn Peer>>;

/// By name. sled and the others get one sync for a batch as large as ours gets.
pub(crate) const PEERS: [(&str, Open); 5] = [
    ("raw_fdatasync", Raw::open),
    ("sqlite_wal", Sqlite::open),
    ("fjall", Fjall::open),
    ("redb", Redb::open),
    ("sled", Sled::open),
];

/// The same bytes, one write and one fdatasync a batch, into a file that grows.
struct Raw {
    file: File,
    bytes: Vec<u8>,
}

impl Raw {
    fn open(folder: &Path) -> Result<Box<dyn Peer>> {
        std::fs::create_dir_all(folder)?;
        Ok(Box::new(Self {
            file: File::create(folder.join("raw"))?,
            bytes: Vec::new(),
        }))
    }
}

impl Peer for Raw {
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<()> {
        self.bytes.clear();
        for payload in batch {
            self.bytes.extend_from_slice(payload);
        }
        self.file.write_all(&self.bytes)?;
        Ok(self.file.sync_data()?)
    }
}

/// WAL mode, synchronous=FULL, one transaction a batch.
struct Sqlite(rusqlite::Connection);

impl Sqlite {
    fn open(folder: &Path) -> Result<Box<dyn Peer>> {
        std::fs::create_dir_all(folder)?;
        let connection = rusqlite::Connection::open(folder.join("log.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, payload BLOB);",
        )?;
        Ok(Box::new(Self(connection)))
    }
}

impl Peer for Sqlite {
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<()> {
        let transaction = self.0.transaction()?;
        let mut insert = transaction.prepare_cached("INSERT INTO log (payload) VALUES (?1)")?;
        for payload in batch {
            insert.execute([payload])?;
        }
        drop(insert);
        Ok(transaction.commit()?)
    }
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
    number: u64,
}

impl Fjall {
    fn open(folder: &Path) -> Result<Box<dyn Peer>> {
        let database = fjall::Database::builder(folder).open()?;
        let keyspace = database.keyspace("log", fjall::KeyspaceCreateOptions::default)?;
        Ok(Box::new(Self {
            database,
            keyspace,
            number: 0,
        }))
    }
}

impl Peer for Fjall {
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<()> {
        let mut writes = self.database.batch();
        for payload in batch {
            writes.insert(
                &self.keyspace,
                self.number.to_be_bytes(),
                payload.as_slice(),
            );
            self.number += 1;
        }
        writes.commit()?;
        Ok(self.database.persist(fjall::PersistMode::SyncData)?)
    }
}

struct Redb {
    database: redb::Database,
    number: u64,
}

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("log");

impl Redb {
    fn open(folder: &Path) -> Result<Box<dyn Peer>> {
        std::fs::create_dir_all(folder)?;
        let database = redb::Database::create(folder.join("log.redb"))?;
        Ok(Box::new(Self {
            database,
            number: 0,
        }))
    }
}

impl Peer for Redb {
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<()> {
        let transaction = self.database.begin_write()?;
        let mut table = transaction.open_table(TABLE)?;
        for payload in batch {
            table.insert(self.number, payload.as_slice())?;
            self.number += 1;
        }
        drop(table);
        Ok(transaction.commit()?)
    }
}

/// Its flush does not reach the device; the sync of its one file behind it does.
struct Sled {
    database: sled::Db,
    file: PathBuf,
    number: u64,
}

impl Sled {
    fn open(folder: &Path) -> Result<Box<dyn Peer>> {
        let database = sled::Config::new()
            .path(folder)
            .cache_capacity(16 << 20)
            .flush_every_ms(None)
            .open()?;
        Ok(Box::new(Self {
            database,
            file: folder.join("db"),
            number: 0,
        }))
    }
}

impl Peer for Sled {
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<()> {
        let mut writes = sled::Batch::default();
        for payload in batch {
            writes.insert(&self.number.to_be_bytes(), payload.as_slice());
            self.number += 1;
        }
        self.database.apply_batch(writes)?;
        self.database.flush()?;
        Ok(File::open(&self.file)?.sync_data()?)
    }
}
