//! A column of texts, each kept once, and a hash that is quick on short ones.

use crate::coding::NUMBER_BYTES_MAX;

/// How many places a text may be away from where its hash puts it. Beyond that it is kept again:
/// whoever chooses the texts must not choose how long packing takes.
const PROBES_MAX: usize = 12;

const SLOTS_MIN: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct TextColumn {
    /// Of every row, the number of its text.
    pub(crate) ids: Vec<i64>,
    /// The texts, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u32>,
    hashes: Vec<u32>,
    /// Numbers of texts plus one, by hash; a power of two, or none while one text is enough.
    slots: Vec<u32>,
}

impl TextColumn {
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.bytes.clear();
        self.ends.clear();
        self.hashes.clear();
        self.slots.clear();
    }

    pub(crate) const fn count(&self) -> usize {
        self.ends.len()
    }

    /// More than it takes in a block.
    pub(crate) fn bytes_max(&self) -> usize {
        let ids = if self.count() > 1 { self.ids.len() } else { 0 };
        self.bytes.len() + (self.count() + ids + 1) * NUMBER_BYTES_MAX
    }

    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(s, e)| (e - s) as usize)
    }

    fn get(&self, id: usize) -> &[u8] {
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[id] as usize]
    }

    /// Adds a row, and says how its text is numbered.
    pub(crate) fn push(&mut self, text: &[u8]) -> usize {
        let id = match self.ids.last() {
            Some(&last) if self.get(last as usize) == text => last as usize,
            Some(_) => self.number(text),
            None => self.keep(text, hash(text)),
        };
        self.ids.push(id as i64);
        id
    }

    fn number(&mut self, text: &[u8]) -> usize {
        if self.count() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = hash(text);
        let mask = self.slots.len() - 1;
        for probe in 0..PROBES_MAX {
            let slot = (hash as usize + probe) & mask;
            match self.slots[slot] {
                0 => {
                    let id = self.keep(text, hash);
                    self.slots[slot] = id as u32 + 1;
                    return id;
                }
                taken => {
                    let id = taken as usize - 1;
                    if self.hashes[id] == hash && self.get(id) == text {
                        return id;
                    }
                }
            }
        }
        self.keep(text, hash)
    }

    fn keep(&mut self, text: &[u8], hash: u32) -> usize {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
        self.hashes.push(hash);
        self.ends.len() - 1
    }

    fn grow(&mut self) {
        let slots = (self.count() * 4).next_power_of_two().max(SLOTS_MIN);
        self.slots.clear();
        self.slots.resize(slots, 0);
        for (id, hash) in self.hashes.iter().enumerate() {
            let places = (0..PROBES_MAX).map(|probe| (*hash as usize + probe) & (slots - 1));
            if let Some(free) = places.into_iter().find(|slot| self.slots[*slot] == 0) {
                self.slots[free] = id as u32 + 1;
            }
        }
    }
}

/// Folded multiplication of eight bytes at a time. Good enough for tables of texts; who wants
/// texts to collide can have that, see [`PROBES_MAX`].
pub(crate) fn hash(bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(FACTOR);
        (product as u64) ^ (product >> 64) as u64
    };
    let mut state = bytes.len() as u64 ^ 0x51_7C_C1_B7_27_22_0A_95;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        state = fold(state, word);
    }
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    state = fold(state, u64::from_le_bytes(rest));
    (state >> 32) as u32 ^ state as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_has_its_text(texts in prop::collection::vec("[a-c]{0,3}|[a-z]{9}", 0..300)) {
            let mut column = TextColumn::default();
            // The second time after something else.
            for _ in 0..2 {
                column.clear();
                for text in &texts {
                    column.push(text.as_bytes());
                }
                let rows = column.ids.iter().map(|id| column.get(*id as usize));
                prop_assert!(rows.eq(texts.iter().map(String::as_bytes)));
                let different: std::collections::BTreeSet<_> = texts.iter().collect();
                // Where a table is crowded a text may be kept again, see `PROBES_MAX`.
                prop_assert!((different.len()..=texts.len()).contains(&column.count()));
                prop_assert_eq!(column.lengths().sum::<usize>(), column.bytes.len());
            }
        }
    }

    #[test]
    fn nearly_every_text_is_kept_once() {
        let mut column = TextColumn::default();
        for _ in 0..3 {
            (0..1_000).for_each(|number| _ = column.push(format!("sensor-{number}").as_bytes()));
        }
        assert!(
            (1_000..1_020).contains(&column.count()),
            "{}",
            column.count()
        );
    }

    #[test]
    fn texts_of_one_hash_take_no_longer_than_others() {
        // States that differ only above the bits that the tables use would do; so does lying.
        let mut column = TextColumn::default();
        for number in 0..2_000_u32 {
            let text = number.to_le_bytes();
            column.push(&text);
            *column.hashes.last_mut().unwrap() = 7;
        }
        assert_eq!(column.count(), 2_000);
    }
}
