//! Random numbers that are the same on every machine: seeds give graphs, and failures repeat.

/// `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `count` different numbers below `n`, ascending (Floyd's algorithm).
    pub(crate) fn sample(&mut self, count: usize, n: usize) -> Vec<u32> {
        let mut chosen = std::collections::BTreeSet::new();
        for j in n - count.min(n)..n {
            let t = (self.next() % (j as u64 + 1)) as u32;
            if !chosen.insert(t) {
                chosen.insert(j as u32);
            }
        }
        chosen.into_iter().collect()
    }
}
