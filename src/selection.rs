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

    /// The rows whose flags are set.
    pub(crate) fn of_flags(flags: &[bool]) -> Self {
        // Without a branch for each flag: a search under a filter may take less than those.
        let word = |flags: &[bool]| flags.iter().rev().fold(0, |w, &flag| w << 1 | u64::from(flag));
        let words: Vec<u64> = flags.chunks(64).map(word).collect();
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, count }
    }

    /// The rows whose bits are set, the lowest bit of a byte first.
    pub(crate) fn of_bits(bits: &[u8], rows: usize) -> Self {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let mut words: Vec<u64> = bits.chunks(8).map(word).collect();
        if let Some(last) = words.last_mut().filter(|_| !rows.is_multiple_of(64)) {
            *last &= (1 << (rows % 64)) - 1;
        }
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, count }
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

    #[test]
    fn flags_select_the_rows_that_have_them() {
        for rows in [0, 1, 63, 64, 200] {
            let flags: Vec<bool> = (0..rows).map(|row| row % 3 == 1).collect();
            let mut expected = Selection::none(rows);
            (0..rows).filter(|&row| flags[row]).for_each(|row| expected.insert(row));
            assert_eq!(Selection::of_flags(&flags), expected);
            let byte = |flags: &[bool]| flags.iter().rev().fold(0, |b, &f| b << 1 | u8::from(f));
            let mut bits: Vec<u8> = flags.chunks(8).map(byte).collect();
            if rows % 8 != 0 {
                *bits.last_mut().unwrap() |= 0x80; // beyond the rows: not one of them
            }
            assert_eq!(Selection::of_bits(&bits, rows), expected);
        }
    }
}
