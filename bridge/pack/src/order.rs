//! The second order that columns can be in: all rows of the first key, then all of the second.
//! What one sensor says changes less from row to row than what many say in turn.

/// Orders are lists of rows.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    all: Vec<u32>,
    /// The same for the rows of each shape, counted within the shape.
    parts: Vec<Vec<u32>>,
    used: usize,
    /// Of each key or shape, how many rows were met.
    met: Vec<u32>,
}

impl Orders {
    /// Finds the order of all rows, whose keys are numbers below `keys`.
    pub(crate) fn sort(&mut self, ids: &[i64], keys: usize) {
        let starts = &mut self.met;
        starts.clear();
        starts.resize(keys + 1, 0);
        for id in ids {
            starts[*id as usize + 1] += 1;
        }
        for key in 1..=keys {
            starts[key] += starts[key - 1];
        }
        self.all.clear();
        self.all.resize(ids.len(), 0);
        for (row, id) in ids.iter().enumerate() {
            let place = &mut starts[*id as usize];
            self.all[*place as usize] = row as u32;
            *place += 1;
        }
    }

    /// Finds the order of the rows of each shape; `ids` are the shapes of all rows.
    pub(crate) fn split(&mut self, ids: &[i64], shapes: usize) {
        if self.parts.len() < shapes {
            self.parts.resize_with(shapes, Vec::new);
        }
        self.used = shapes;
        let parts = &mut self.parts[..shapes];
        parts.iter_mut().for_each(Vec::clear);
        if let [only] = parts {
            only.extend_from_slice(&self.all);
            return;
        }
        // First in the order of rows, what number within its shape each row has; then by keys.
        self.met.clear();
        self.met.resize(shapes, 0);
        let mut numbers = Vec::with_capacity(ids.len());
        for id in ids {
            let met = &mut self.met[*id as usize];
            numbers.push(*met);
            *met += 1;
        }
        for row in &self.all {
            let row = *row as usize;
            parts[ids[row] as usize].push(numbers[row]);
        }
    }

    pub(crate) fn all(&self) -> &[u32] {
        &self.all
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u32]> {
        self.parts[..self.used].iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_key_and_keep_their_order_otherwise() {
        let mut orders = Orders::default();
        orders.sort(&[0, 1, 0, 2, 1], 3);
        assert_eq!(orders.all(), [0, 2, 1, 4, 3]);
        orders.split(&[0, 1, 1, 0, 1], 2);
        let parts: Vec<_> = orders.parts().collect();
        // Shape 0 has rows 0 and 3, shape 1 has rows 1, 2 and 4.
        assert_eq!(parts, [&[0, 1][..], &[1, 0, 2]]);
        orders.split(&[0; 5], 1);
        assert_eq!(orders.parts().next(), Some(&[0, 2, 1, 4, 3][..]));
    }
}
