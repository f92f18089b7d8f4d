//! Where a model's state lies in the catalog, and in which form.
//!
//! ```text
//! bucket        key                             value
//! model         <model> 0 <asset> 0 "s"         version, fingerprint, held values, counters, alert
//! model         <model> 0 <asset> 0 "w" <u16>   consecutive rows of the window, about 1 KiB
//! model-alerts  <model> 0 <asset> 0 <u64>       an alert on its way to its stream, by score number
//! ```
//! Numbers in keys are big-endian, so that keys sort by them. Names have no zero byte.

use crate::alert::Transition;
use crate::asset::{Asset, Saved};
use crate::config::{COLUMNS_MAX, Model, Source};
use crate::encoding;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skerry_store::{Change, Record};
use std::collections::HashMap;

pub(crate) const WINDOW_BUCKET: &str = "model";
pub(crate) const OUTBOX_BUCKET: &str = "model-alerts";

/// Raised when the form of the values changes; a value of another version is not read.
const VERSION: u8 = 1;

/// What the keys end in.
const STATE: &[u8] = b"s";
const CHUNK: u8 = b'w';

/// Most bytes the value under "s" takes: 15 per column, and a dozen varints.
pub(crate) const STATE_BYTES_MAX: usize = 15 * COLUMNS_MAX + 100;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    /// Of the binding: rows gathered under another one mean something else.
    fingerprint: u64,
    saved: Saved,
}

/// Stands for everything that gives a window its meaning.
pub(crate) fn fingerprint(model: &Model) -> u64 {
    let mut hash = Sha256::new();
    hash.update(format!("{} {}", model.rows, model.step));
    for input in &model.inputs {
        let source = match &input.source {
            Source::Opcua { name } => format!("opcua {name}"),
            Source::Mqtt { topic, pointer } => format!("mqtt {topic} {pointer}"),
        };
        hash.update(format!(
            "\n{} {source} {} {}",
            input.stream.as_str(),
            input.scale,
            input.offset
        ));
    }
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// The name under which a model advances in its input streams.
pub(crate) fn cursor(model: &Model) -> String {
    format!("model:{}", model.name)
}

/// The start of all keys of a model.
pub(crate) fn prefix(model: &Model) -> Vec<u8> {
    [model.name.as_bytes(), &[0]].concat()
}

fn key(model: &Model, asset: usize, rest: &[&[u8]]) -> Bytes {
    let asset = model.assets[asset].as_bytes();
    [&prefix(model), asset, &[0], &rest.concat()]
        .concat()
        .into()
}

fn put(bucket: &str, key: Bytes, value: &impl Serialize) -> Change {
    Change::Put {
        bucket: bucket.to_owned(),
        key,
        value: encoding::write(value).into(),
    }
}

/// What keeps this asset as it is now.
pub(crate) fn save(
    model: &Model,
    fingerprint: u64,
    index: usize,
    asset: &mut Asset,
) -> Vec<Change> {
    let (saved, chunks) = asset.save();
    let stored = Stored {
        version: VERSION,
        fingerprint,
        saved,
    };
    let state = put(WINDOW_BUCKET, key(model, index, &[STATE]), &stored);
    let chunks = chunks.iter().map(|(number, rows)| {
        let key = key(model, index, &[&[CHUNK], &number.to_be_bytes()]);
        put(WINDOW_BUCKET, key, rows)
    });
    std::iter::once(state).chain(chunks).collect()
}

/// Sets the assets to what was kept. Returns what is to be deleted: entries of assets that are
/// configured no more, and rows that were gathered under another binding.
pub(crate) fn restore(
    model: &Model,
    fingerprint: u64,
    assets: &mut [Asset],
    entries: &[(Bytes, Bytes)],
) -> Vec<Change> {
    let prefix = prefix(model);
    let mut by_asset: HashMap<&[u8], Vec<Entry>> = HashMap::new();
    for (key, value) in entries {
        let own = key.strip_prefix(&prefix[..]).unwrap_or_default();
        let end = own.iter().position(|byte| *byte == 0);
        let (asset, rest) = end.map_or((own, &[][..]), |end| (&own[..end], &own[end + 1..]));
        let entry = Entry { key, rest, value };
        by_asset.entry(asset).or_default().push(entry);
    }
    let mut obsolete = Vec::new();
    for (name, asset) in model.assets.iter().zip(assets) {
        let entries = by_asset.remove(name.as_bytes()).unwrap_or_default();
        if !restore_one(model, fingerprint, asset, &entries) {
            tracing::warn!(
                model = model.name,
                asset = name,
                "its binding changed, so its window fills anew; its alert stays as it is"
            );
            // Its state stays until the next one replaces it, so that no crash forgets an alert.
            obsolete.extend(entries.into_iter().filter(|entry| entry.rest != STATE));
        }
    }
    obsolete.extend(by_asset.into_values().flatten());
    let delete = |entry: Entry| Change::Delete {
        bucket: WINDOW_BUCKET.to_owned(),
        key: entry.key.clone(),
    };
    obsolete.into_iter().map(delete).collect()
}

/// An entry of the window bucket; `rest` is what its key says besides model and asset.
struct Entry<'a> {
    key: &'a Bytes,
    rest: &'a [u8],
    value: &'a Bytes,
}

/// False if there is something that does not fit. The alert outlives that: somebody was told.
fn restore_one(model: &Model, fingerprint: u64, asset: &mut Asset, entries: &[Entry]) -> bool {
    if entries.is_empty() {
        return true;
    }
    let state = entries.iter().find(|entry| entry.rest == STATE);
    let stored = state.and_then(|entry| encoding::read::<Stored>(entry.value));
    let Some(Stored { saved, .. }) = stored.as_ref().filter(|stored| stored.version == VERSION)
    else {
        return false;
    };
    let rows = entries.iter().filter(|entry| entry.rest != STATE);
    let rows = rows.map(|entry| match *entry.rest {
        [CHUNK, high, low] => Some((
            u16::from_be_bytes([high, low]),
            encoding::read(entry.value)?,
        )),
        _ => None,
    });
    let same_binding = stored
        .as_ref()
        .is_some_and(|stored| stored.fingerprint == fingerprint);
    let rows = rows.collect::<Option<Vec<_>>>().filter(|_| same_binding);
    if rows.is_some_and(|rows| asset.restore(saved, &rows)) {
        return true;
    }
    *asset = Asset::new(model);
    asset.alert = saved.alert;
    asset.sequence = saved.sequence;
    false
}

/// An alert on its way to its stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Posted {
    pub(crate) transition: Transition,
    pub(crate) record: Record,
    key: Bytes,
}

impl Posted {
    pub(crate) fn new(
        model: &Model,
        asset: usize,
        sequence: u64,
        transition: Transition,
        record: Record,
    ) -> Self {
        let key = key(model, asset, &[&sequence.to_be_bytes()]);
        Self {
            transition,
            record,
            key,
        }
    }

    /// `None` if the entry cannot be read.
    pub(crate) fn read(key: Bytes, value: &[u8]) -> Option<Self> {
        let (transition, record) = encoding::read(value)?;
        Some(Self {
            transition,
            record,
            key,
        })
    }

    /// Puts it where a crash cannot lose it.
    pub(crate) fn post(&self) -> Change {
        put(
            OUTBOX_BUCKET,
            self.key.clone(),
            &(self.transition, &self.record),
        )
    }

    /// Takes it out again; belongs into the append that delivers it.
    pub(crate) fn delivered(&self) -> Change {
        Change::Delete {
            bucket: OUTBOX_BUCKET.to_owned(),
            key: self.key.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{CHUNK_BYTES_MAX, Mark, Window};
    use skerry_store::{Offset, WallNanos};

    /// The bound that an append's size rests on, with the longest numbers there are.
    #[test]
    fn a_part_of_a_window_stays_small() {
        for columns in 1..=COLUMNS_MAX {
            let mut window = Window::new(100, columns);
            for _ in 0..100 {
                let mark = Mark {
                    offset: Offset(u64::MAX),
                    time: WallNanos(i64::MIN),
                };
                window.push(mark, (0..columns).map(|_| f32::MAX));
            }
            for (_, rows) in window.take_changed() {
                let Change::Put { value, .. } = put(WINDOW_BUCKET, Bytes::new(), &rows) else {
                    unreachable!("put puts");
                };
                assert!(value.len() <= CHUNK_BYTES_MAX, "{columns}: {}", value.len());
            }
        }
    }
}
