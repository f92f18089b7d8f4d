//! Where a model's state lies in the catalog, and in which form.
//!
//! ```text
//! bucket        key                             value
//! model         <model> 0 <asset> 0 "s"         version, fingerprint, held values, counters, alert
//! model         <model> 0 <asset> 0 "w" <u16>   consecutive rows of the window, about 1 KiB
//! model         <model> 0 <asset> 0 "g" <u16>   on a grid, values of a column that wait for it
//! model         <model> 0 <asset> 0 "d"         what is counted to notice drift
//! model-alerts  <model> 0 <asset> 0 <u64> <u8>  an event on its way to its stream, by the number of
//!                                               the score or row that led to it, and what it is
//! ```
//! Numbers in keys are big-endian, so that keys sort by them. Names have no zero byte.

use crate::alert::ALERT_BYTES_MAX;
use crate::asset::{Asset, Parts, Saved};
use crate::config::{ASSET, Model, Pace};
use crate::derived::{self, EventKind};
use crate::drift::{Drift, drift_bytes_max};
use crate::encoding;
use crate::input::{Scaling, Source};
use crate::resample::{SavedSeries, series_bytes_max};
use crate::window::{CHUNK_BYTES_MAX, Chunk};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skerry_store::{Change, Record};
use std::collections::HashMap;

pub(crate) const WINDOW_BUCKET: &str = "model";
pub(crate) const OUTBOX_BUCKET: &str = "model-alerts";

/// Raised when the form of the values changes; a value of another version is not read.
const VERSION: u8 = 2;

/// What the keys end in.
const STATE: &[u8] = b"s";
const DRIFT: &[u8] = b"d";
const CHUNK: u8 = b'w';
const SERIES: u8 = b'g';

/// Values taken in between two appends, at most: so that what a crash undoes is little.
const TOUCHES_MAX: usize = 500;

/// Most bytes of the value under "s", but for its 15 per column: varints, and the alert.
const STATE_BYTES_MAX: usize = 160 + ALERT_BYTES_MAX;

/// Bytes at most that an asset's part of one record, or one row, leads to in an append: its state,
/// a chunk of its window, its series, a score, and the events that are posted with it.
fn touch_bytes(model: &Model) -> usize {
    let columns = model.columns();
    let series = match model.pace {
        Pace::Clock => 0,
        Pace::Grid(grid) => columns * (series_bytes_max(grid) + KEY_BYTES_MAX),
    };
    let drift = model.drift.map_or(0, |_| {
        drift_bytes_max(columns) + derived::DRIFT_BYTES_MAX + 2 * KEY_BYTES_MAX
    });
    let late = derived::LATE_BYTES_MAX + KEY_BYTES_MAX;
    let late = model
        .grid()
        .filter(|grid| grid.report_late)
        .map_or(0, |_| late);
    let rows = STATE_BYTES_MAX + 15 * columns + CHUNK_BYTES_MAX + 2 * KEY_BYTES_MAX;
    rows + series + drift + late + derived::SCORE_BYTES_MAX + derived::ALERT_BYTES_MAX
}

/// Two names, two zero bytes, and what else is in a key and around it.
const KEY_BYTES_MAX: usize = 180;

/// How often assets may be touched between two appends, for what that leads to to fit one. `None`
/// if a single record may lead to more.
pub(crate) fn touches_max(model: &Model) -> Option<usize> {
    let fits = skerry_store::APPEND_BYTES_MAX / touch_bytes(model);
    let shared = |source: &Source| !source.template().contains(ASSET);
    let feeds_all = model.inputs.iter().any(|input| shared(&input.source));
    // The last record of a round comes on top.
    let fed = if feeds_all { model.assets.len() } else { 1 };
    let touches = fits.checked_sub(fed)?.min(TOUCHES_MAX);
    (touches > 0).then_some(touches)
}

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
    hash.update(format!("{} {} {:?}", model.rows, model.step, model.span));
    if let Some(grid) = model.grid() {
        hash.update(format!(" {:?} {:?}", grid.period, grid.late));
    }
    for input in &model.inputs {
        let source = match &input.source {
            Source::Opcua { name } => format!("opcua {name}"),
            Source::Mqtt { topic, pointer } => format!("mqtt {topic} {pointer}"),
            Source::Model { model, asset } => format!("model {model} {asset}"),
        };
        let scaling = match input.scaling {
            Scaling::Linear { scale, offset } => format!("{scale} {offset}"),
            Scaling::Standard { mean, std } => format!("standard {mean} {std}"),
        };
        hash.update(format!(
            "\n{} {source} {scaling} {:?}",
            input.stream.as_str(),
            input.fill
        ));
        // Of a window, features are computed anew each time; of a burst, they are what is kept.
        if input.burst.is_some() {
            hash.update(format!(" {:?} {:?}", input.features, input.rate_hz));
        }
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
    let parts = asset.save();
    let stored = Stored {
        version: VERSION,
        fingerprint,
        saved: parts.saved,
    };
    let part = |kind: u8, number: u16| key(model, index, &[&[kind], &number.to_be_bytes()]);
    let mut changes = vec![put(WINDOW_BUCKET, key(model, index, &[STATE]), &stored)];
    let rows = parts.rows.iter();
    changes.extend(rows.map(|(number, rows)| put(WINDOW_BUCKET, part(CHUNK, *number), rows)));
    let series = parts.series.iter();
    changes.extend(series.map(|(number, kept)| put(WINDOW_BUCKET, part(SERIES, *number), kept)));
    if let Some(drift) = &parts.drift {
        changes.push(put(WINDOW_BUCKET, key(model, index, &[DRIFT]), drift));
    }
    changes
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
    let Some(stored) = stored.filter(|stored| stored.version == VERSION) else {
        return false;
    };
    let same_binding = stored.fingerprint == fingerprint;
    let (alert, sequence) = (stored.saved.alert, stored.saved.sequence);
    let fresh_drift = asset.drift.clone();
    let parts = parts(stored.saved, entries).filter(|_| same_binding);
    if parts.is_some_and(|parts| asset.restore(parts)) {
        return true;
    }
    *asset = Asset::new(model);
    (asset.alert, asset.sequence, asset.drift) = (alert, sequence, fresh_drift);
    false
}

/// `None` if one of them cannot be read.
fn parts(saved: Saved, entries: &[Entry]) -> Option<Parts> {
    let (mut rows, mut series) = (Vec::<(u16, Chunk)>::new(), Vec::<(u16, SavedSeries)>::new());
    let mut drift = None::<Drift>;
    for entry in entries.iter().filter(|entry| entry.rest != STATE) {
        let number = |high: &u8, low: &u8| u16::from_be_bytes([*high, *low]);
        match entry.rest {
            [CHUNK, high, low] => rows.push((number(high, low), encoding::read(entry.value)?)),
            [SERIES, high, low] => series.push((number(high, low), encoding::read(entry.value)?)),
            rest if rest == DRIFT => drift = Some(encoding::read(entry.value)?),
            _ => return None,
        }
    }
    Some(Parts {
        saved,
        rows,
        series,
        drift,
    })
}

/// An event on its way to its stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Posted {
    pub(crate) kind: EventKind,
    pub(crate) record: Record,
    key: Bytes,
}

impl Posted {
    /// `number` is that of the score or the row that led to it.
    pub(crate) fn new(
        model: &Model,
        asset: usize,
        number: u64,
        kind: EventKind,
        record: Record,
    ) -> Self {
        let key = key(model, asset, &[&number.to_be_bytes(), &[kind.key()]]);
        Self { kind, record, key }
    }

    /// `None` if the entry cannot be read.
    pub(crate) fn read(key: Bytes, value: &[u8]) -> Option<Self> {
        let (kind, record) = encoding::read(value)?;
        Some(Self { kind, record, key })
    }

    /// Puts it where a crash cannot lose it.
    pub(crate) fn post(&self) -> Change {
        put(OUTBOX_BUCKET, self.key.clone(), &(self.kind, &self.record))
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
    use crate::config::COLUMNS_MAX;
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
