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

    /// The rows of a chunk after another whose ids have a set bit, bit `i` being that of the id
    /// `first + i`; each chunk but the last has a multiple of 64 rows.
    pub(crate) fn of_id_bits<'a>(
        chunks: impl Iterator<Item = &'a [i64]>,
        first: i64,
        bits: &[u8],
    ) -> Self {
        let place = |id: i64| i128::from(id) - i128::from(first);
        let bit = |place: i128| {
            let byte = usize::try_from(place.div_euclid(8)).ok().and_then(|i| bits.get(i));
            byte.is_some_and(|byte| byte >> place.rem_euclid(8) & 1 == 1)
        };
        // The bits of 64 ids that follow one another, at once.
        let run = |place: i128| -> Option<u64> {
            let (byte, shift) = (usize::try_from(place).ok()? / 8, place % 8);
            let bytes = bits.get(byte..byte.checked_add(9)?)?;
            let low = u64::from_le_bytes(*bytes.first_chunk()?);
            let high = u64::from(bytes[8]);
            Some(if shift == 0 { low } else { low >> shift | high << (64 - shift) })
        };
        let word = |ids: &[i64]| {
            // Rows that are removed keep ids that others may have by now: none twice.
            let dense = ids.len() == 64
                && place(ids[63]) - place(ids[0]) == 63
                && ids.is_sorted_by(|a, b| a < b);
            let whole = if dense { run(place(ids[0])) } else { None };
            let one = |word, &id: &i64| word << 1 | u64::from(bit(place(id)));
            whole.unwrap_or_else(|| ids.iter().rev().fold(0, one))
        };
        let words: Vec<u64> = chunks.flat_map(|ids| ids.chunks(64)).map(word).collect();
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, count }
    }

    /// Leaves out what is not in `other`, of as many rows.
    pub(crate) fn intersect(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
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
    fn bits_of_ids_select_the_rows_that_have_these_ids() {
        // Runs of ids with a gap, one that is there twice, ids in no order, before and beyond the bits.
        let ids: [Vec<i64>; 4] = [
            (100..228).collect(),
            (500..531).chain([530]).chain(532..564).collect(),
            (0..64).map(|i| 400 + i * 37 % 64).chain(-40..24).collect(),
            vec![i64::MAX, 5, i64::MIN],
        ];
        for (first, count) in
            [(0, 300), (-17, 1000), (101, 90), (450, 300), (530, 24), (i64::MAX - 2, 24)]
        {
            let bits: Vec<u8> = (0..count / 8).map(|i| (i * 89 + 31) as u8).collect();
            let wanted = |id: i64| {
                let place = i128::from(id) - i128::from(first);
                let byte = bits.get(usize::try_from(place / 8).unwrap_or(usize::MAX));
                place >= 0 && byte.is_some_and(|byte| byte >> (place % 8) & 1 == 1)
            };
            let mut expected = Selection::none(323);
            let rows = ids.iter().flatten().enumerate();
            rows.filter(|&(_, &id)| wanted(id)).for_each(|(row, _)| expected.insert(row));
            assert_eq!(
                Selection::of_id_bits(ids.iter().map(Vec::as_slice), first, &bits),
                expected
            );
            let mut some = Selection::of_flags(&[true, false].repeat(161));
            some.words.resize(6, 0);
            let both = expected.iter().filter(|&row| some.contains(row)).collect::<Vec<_>>();
            expected.intersect(&some);
            assert_eq!(
                (expected.iter().collect::<Vec<_>>(), expected.len()),
                (both.clone(), both.len())
            );
        }
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
