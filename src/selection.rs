//! Which rows may answer: a bitmap over row numbers.

/// A set of rows, one bit each; bits past the last row are clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    words: Vec<u64>,
    count: usize,
}

impl Selection {
    pub(crate) fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(64)], count: 0 }
    }

    pub(crate) fn all(rows: usize) -> Self {
        let mut selection = Self::none(0);
        selection.extend(rows, 0);
        selection
    }

    /// Adds `added` selected rows after the `rows` there are.
    pub(crate) fn extend(&mut self, added: usize, rows: usize) {
        self.words.resize((rows + added).div_ceil(64), 0);
        for row in rows..rows + added {
            self.insert(row);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn insert(&mut self, row: usize) {
        let bit = 1 << (row % 64);
        self.count += usize::from(self.words[row / 64] & bit == 0);
        self.words[row / 64] |= bit;
    }

    pub(crate) fn remove(&mut self, row: usize) {
        let bit = 1 << (row % 64);
        self.count -= usize::from(self.words[row / 64] & bit != 0);
        self.words[row / 64] &= !bit;
    }

    pub(crate) fn contains(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// The bits of the 32 rows from `row`, a multiple of 32.
    pub(crate) fn bits32(&self, row: usize) -> u32 {
        self.words.get(row / 64).map_or(0, |word| (word >> (row % 64)) as u32)
    }

    /// The selected rows, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(i * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_holds_what_was_inserted_and_not_removed() {
        let mut selection = Selection::all(70);
        assert_eq!(selection.len(), 70);
        selection.remove(3);
        selection.remove(3);
        selection.insert(3);
        selection.remove(69);
        assert_eq!(selection.len(), 69);
        assert_eq!(selection.iter().collect::<Vec<_>>(), (0..69).collect::<Vec<_>>());
        assert_eq!(selection.bits32(64), 0b1_1111);
        assert!(!selection.contains(69) && !selection.contains(1000));
    }
}
