//! A window of rows in memory that is set aside once and never grows.

use heapless::VecView;
use serde::{Deserialize, Serialize};
use skerry_store::{Offset, WallNanos};

use crate::config::{COLUMNS_MAX, ROWS_MAX, WINDOW_VALUES_MAX};

/// Where a row came from: the clock record that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) offset: Offset,
    /// The clock record's event time.
    pub(crate) time: WallNanos,
}

/// What one persisted part of a window is meant to take, in bytes: the catalog likes its values
/// small, and a row that changes should not rewrite a window of 64 KiB.
const CHUNK_BYTES_AIM: usize = 1024;

/// A mark is two varints of at most ten bytes.
const MARK_BYTES_MAX: usize = 20;
/// A chunk has at least one row, and two counts of at most four bytes besides its rows.
pub(crate) const CHUNK_BYTES_MAX: usize = CHUNK_BYTES_AIM + 8;
const _: () = assert!(MARK_BYTES_MAX + size_of::<f32>() * COLUMNS_MAX <= CHUNK_BYTES_AIM);

/// The last `rows` rows, in a ring.
///
/// Capacities come in a few sizes, so that [`heapless`] can set them aside as plain arrays:
/// what an asset costs is known from the configuration alone.
#[derive(Debug)]
pub(crate) struct Window {
    rows: usize,
    columns: usize,
    /// Row-major, by slot.
    values: Box<VecView<f32>>,
    marks: Box<VecView<Mark>>,
    /// Rows ever pushed; the next one's slot is this modulo `rows`.
    total: u64,
    rows_per_chunk: usize,
    changed: Box<[bool]>,
}

/// One persisted part of a window: consecutive slots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    marks: Vec<Mark>,
    values: Vec<f32>,
}

impl Window {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        debug_assert!((1..=ROWS_MAX).contains(&rows) && (1..=COLUMNS_MAX).contains(&columns));
        let row_bytes = MARK_BYTES_MAX + size_of::<f32>() * columns;
        let rows_per_chunk = (CHUNK_BYTES_AIM / row_bytes).clamp(1, rows);
        let mut window = Self {
            rows,
            columns,
            values: set_aside(rows * columns),
            marks: set_aside(rows),
            total: 0,
            rows_per_chunk,
            changed: vec![false; rows.div_ceil(rows_per_chunk)].into(),
        };
        window.clear();
        window
    }

    /// Adds a row, which replaces the oldest once the window is full.
    pub(crate) fn push(&mut self, mark: Mark, row: impl Iterator<Item = f32>) {
        let slot = self.slot();
        self.marks[slot] = mark;
        let into = &mut self.values[slot * self.columns..][..self.columns];
        for (value, new) in into.iter_mut().zip(row) {
            *value = new;
        }
        self.total += 1;
        self.changed[slot / self.rows_per_chunk] = true;
    }

    /// The rows, oldest first. Only a full window has them all.
    pub(crate) fn tensor(&self) -> Vec<f32> {
        let (newer, older) = self.values.split_at(self.slot() * self.columns);
        [older, newer].concat()
    }

    /// The values of one column in the last `rows` rows, oldest first.
    pub(crate) fn column(&self, column: usize, rows: usize) -> impl Iterator<Item = f32> {
        let slots = (1..=rows).rev().map(|back| self.slot_of(back));
        slots.map(move |slot| self.values[slot * self.columns + column])
    }

    /// What made the row that is so many back: 1 for the newest, at most the window's rows.
    pub(crate) fn mark(&self, back: usize) -> Mark {
        self.marks[self.slot_of(back)]
    }

    /// The newest row.
    pub(crate) fn newest(&self) -> &[f32] {
        &self.values[self.slot_of(1) * self.columns..][..self.columns]
    }

    fn slot_of(&self, back: usize) -> usize {
        debug_assert!((1..=self.rows).contains(&back));
        (self.slot() + self.rows - back) % self.rows
    }

    /// Bytes set aside, whether used or not.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values) + size_of_val(&*self.marks) + self.changed.len()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The parts that changed since the last call, with their index.
    pub(crate) fn take_changed(&mut self) -> Vec<(u16, Chunk)> {
        let mut parts = Vec::new();
        for index in 0..self.changed.len() {
            if !std::mem::take(&mut self.changed[index]) {
                continue;
            }
            let slots = self.slots(index);
            let chunk = Chunk {
                marks: self.marks[slots.clone()].to_vec(),
                values: self.values[self.cells(slots)].to_vec(),
            };
            let index = u16::try_from(index).expect("at most ROWS_MAX chunks");
            parts.push((index, chunk));
        }
        parts
    }

    /// Sets the rows that were saved; false if they do not fit this window.
    #[must_use]
    pub(crate) fn restore(&mut self, total: u64, parts: &[(u16, Chunk)]) -> bool {
        self.clear();
        self.total = total;
        let used = total.min(self.rows as u64) as usize;
        let has = |wanted: usize| parts.iter().any(|(index, _)| usize::from(*index) == wanted);
        if !(0..used.div_ceil(self.rows_per_chunk)).all(has) {
            return false;
        }
        for (index, chunk) in parts {
            let index = usize::from(*index);
            if index >= self.changed.len() {
                return false;
            }
            let slots = self.slots(index);
            let cells = self.cells(slots.clone());
            if chunk.marks.len() != slots.len() || chunk.values.len() != cells.len() {
                return false;
            }
            self.marks[slots].copy_from_slice(&chunk.marks);
            self.values[cells].copy_from_slice(&chunk.values);
        }
        true
    }

    fn clear(&mut self) {
        let nowhere = Mark {
            offset: Offset::ZERO,
            time: WallNanos(0),
        };
        let fits = "the size class is at least what was asked for";
        self.values
            .resize(self.rows * self.columns, 0.0)
            .expect(fits);
        self.marks.resize(self.rows, nowhere).expect(fits);
        self.total = 0;
    }

    /// Where the next row goes, which is where the oldest one is.
    fn slot(&self) -> usize {
        (self.total % self.rows as u64) as usize
    }

    fn slots(&self, chunk: usize) -> std::ops::Range<usize> {
        let first = chunk * self.rows_per_chunk;
        first..(first + self.rows_per_chunk).min(self.rows)
    }

    fn cells(&self, slots: std::ops::Range<usize>) -> std::ops::Range<usize> {
        slots.start * self.columns..slots.end * self.columns
    }
}

/// An empty buffer of the smallest size class that holds `count`.
pub(crate) fn set_aside<T: 'static>(count: usize) -> Box<VecView<T>> {
    const _: () = assert!(WINDOW_VALUES_MAX == 16_384 && ROWS_MAX <= WINDOW_VALUES_MAX);
    match count {
        0..=8 => Box::new(heapless::Vec::<T, 8>::new()),
        9..=64 => Box::new(heapless::Vec::<T, 64>::new()),
        65..=256 => Box::new(heapless::Vec::<T, 256>::new()),
        257..=1_024 => Box::new(heapless::Vec::<T, 1_024>::new()),
        1_025..=4_096 => Box::new(heapless::Vec::<T, 4_096>::new()),
        _ => Box::new(heapless::Vec::<T, 16_384>::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: u64) -> Mark {
        Mark {
            offset: Offset(n),
            time: WallNanos(n as i64 * 1_000),
        }
    }

    fn filled(rows: usize, columns: usize, count: u64) -> Window {
        let mut window = Window::new(rows, columns);
        for n in 0..count {
            window.push(
                mark(n),
                (0..columns).map(|column| (n * 100) as f32 + column as f32),
            );
        }
        window
    }

    #[test]
    fn keeps_the_last_rows_oldest_first() {
        let window = filled(3, 2, 5);
        assert_eq!(window.tensor(), [200.0, 201.0, 300.0, 301.0, 400.0, 401.0]);
        assert_eq!((window.mark(3), window.mark(1)), (mark(2), mark(4)));
        assert_eq!(window.newest(), [400.0, 401.0]);
        let last: Vec<f32> = window.column(1, 2).collect();
        assert_eq!(last, [301.0, 401.0]);
    }

    #[test]
    fn what_it_costs_does_not_depend_on_what_it_holds() {
        let empty = Window::new(32, 4).bytes();
        assert_eq!(empty, filled(32, 4, 1_000).bytes());
        // 256 values of 4 bytes, 64 marks of 16 bytes, one chunk, and the two lengths.
        assert!((2_048..2_200).contains(&empty), "{empty}");
    }

    #[test]
    fn saved_in_parts_and_restored_whole() {
        for (rows, columns) in [(1, 1), (32, 4), (100, 7), (4_096, 4), (16, 64)] {
            let mut window = filled(rows, columns, rows as u64 + 5);
            let mut saved = std::collections::BTreeMap::new();
            saved.extend(window.take_changed());
            window.push(mark(9_999), (0..columns).map(|_| 9.0));
            let changed = window.take_changed();
            assert_eq!(changed.len(), 1, "one row changes one part");
            saved.extend(changed);

            let mut again = Window::new(rows, columns);
            let parts: Vec<_> = saved.into_iter().collect();
            assert!(again.restore(window.total(), &parts));
            assert_eq!(again.tensor(), window.tensor());
            assert_eq!(again.mark(rows), window.mark(rows));
        }
    }

    #[test]
    fn a_part_of_another_shape_is_refused() {
        let parts = filled(32, 4, 40).take_changed();
        assert!(!Window::new(16, 4).restore(40, &parts));
        assert!(!Window::new(32, 4).restore(40, &[]), "rows are missing");
        assert!(!Window::new(32, 5).restore(40, &parts));
        assert!(!Window::new(32, 4).restore(40, &[(9, parts[0].1.clone())]));
    }
}
