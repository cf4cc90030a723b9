//! The graph: from every row to some rows near it, so that a search need not look at all.
//!
//! One flat directed graph without layers, up to [`DEGREE`] links a row, and some hundred *heads*
//! from which a walk may start. It is a hint and nothing more: a walk scores rows by their 8-bit
//! codes, and the best of them are judged on the caller's numbers, as in an exact search.
//!
//! | file | what it does |
//! |---|---|
//! | `mod.rs` | links and heads; [`Lane`], which scores rows by their codes |
//! | `search.rs` | the walk: a beam of the best rows seen, the nearest expanded first |
//! | `build.rs` | links for all rows at once, by matrix products inside small leaves |
//! | `edit.rs` | links for rows that come, repairs around rows that go |
//!
//! Links lie apart from the rows' records, one cache line and a half of codes being read for each
//! link that is followed, but links only where a row is expanded. They are atomic numbers, written
//! by one small edit at a time while searches read: a search skips a row that its own state does not
//! hold, so half-written links cost it a detour or some copies, never an answer that is not there.

mod build;
mod edit;
mod search;
#[cfg(test)]
mod tests;

use std::cmp;
use std::iter::{empty, repeat, repeat_n};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::codes::{Encoder, QueryCode, QueryFloats};
use crate::corpus::{self, CHUNK, Chunk, Corpus, Store, Together};
use crate::kernels::int8::{self, Block, Records, STEP, Terms};
use crate::kernels::{Isa, prefetch};
use crate::region::join_pages;
use crate::scratch::Buffer;

pub(crate) use build::{build, codes_agree, work};
pub(crate) use edit::Edit;
pub(crate) use search::{Reach, Search, TASK, between};

/// Links of a row, at most.
pub(crate) const DEGREE: usize = 32;
/// Links that pruning leaves, at most: the other places are for links to rows that come, which then
/// cost no comparison.
const PRUNED: usize = DEGREE - 4;
/// The width of the beam until it is tuned.
pub(crate) const DEFAULT_EFFORT: usize = 64;
/// Rows that a walk may start from: enough that one is near, few enough to score all.
const HEADS: usize = 256;
/// Chunks that are looked up beforehand for each walk: it comes to more.
const CHUNKS_OF_A_WALK: usize = 64;
/// Lines of the cache that are asked for before the first score: of more, a core waits rather than computes
/// (measured on a Zen 3). Processors with AVX-512 came later, and a Zen 5 waits for none of a round's.
const LINES: usize = 40;
const LINES_AVX512: usize = 256;
/// Rows that are scored together, at most: enough that the call costs little.
const SOME: usize = 16;
/// What an unused link holds.
pub(crate) const NONE: u32 = u32::MAX;
/// Set in the number of the next copy of a row among its links.
const MARK: u32 = 1 << 31;
/// Rows that can be linked.
const MOST_ROWS: usize = MARK as usize - 1;

/// The links of a row, unused ones behind them, on lines of the cache of their own: a walk asks for two.
///
/// Behind the others one may lead, marked, to the next *copy*: a row of the same codes. A copy has no
/// link but such a one, and only such a one leads to it: many that lie between other rows would take all
/// places among the links of these, and in a beam.
#[derive(Debug)]
#[repr(align(128))]
struct Links([AtomicU32; DEGREE]);

impl Links {
    fn new(links: [u32; DEGREE]) -> Self {
        Self(links.map(AtomicU32::new))
    }
}

/// The links of [`CHUNK`] rows; from the store when first read.
type LinkChunk = OnceLock<LinkSlice>;

/// The links of [`CHUNK`] rows, in one stretch with those that were made with them: the system can hold a
/// long one in pages of 2 MB, as [`crate::region`] has it.
#[derive(Debug, Clone)]
struct LinkSlice {
    stretch: Arc<Vec<Links>>,
    first: usize,
}

impl LinkSlice {
    /// Links of so many chunks.
    fn of_chunks(chunks: usize, links: impl Iterator<Item = Links>) -> impl Iterator<Item = Self> {
        let mut stretch = Vec::with_capacity(chunks * CHUNK);
        join_pages(stretch.spare_capacity_mut());
        stretch.extend(links);
        let stretch = Arc::new(stretch);
        let firsts = (0..chunks).map(|chunk| chunk * CHUNK);
        firsts.map(move |first| Self { stretch: Arc::clone(&stretch), first })
    }

    #[inline(always)]
    fn links(&self) -> &[Links] {
        &self.stretch[self.first..][..CHUNK]
    }
}

/// Links and heads.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    links: Vec<LinkChunk>,
    store: Option<Arc<dyn Store>>,
    heads: Arc<Heads>,
    /// Where the records of the rows lie.
    pub(crate) together: Arc<Together>,
    pub(crate) seed: u64,
    /// For inner products, the largest squared norm at the build: rows are linked by the distance
    /// of `(z, √(lift − ‖z‖²))`, all of one length, whose order from a query is the product's
    /// (Bachrach et al., "Speeding up the Xbox recommender system", 2014). For cosines see
    /// [`Encoder::lift`].
    pub(crate) lift: f32,
    /// Rows edited since it was proven that every row can be reached.
    unproven: usize,
    /// Rows that have come since the build and are longer than the longest of then.
    pub(crate) beyond: usize,
}

/// What [`crate::Index::check`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Check {
    /// Rows that are not removed.
    pub rows: usize,
    /// Rows among them that no walk from a head can come to.
    pub unreachable: usize,
    /// Links to rows that are removed, that do not exist, or to the row itself.
    pub dangling: usize,
    /// All links.
    pub links: usize,
    /// The most links of a row.
    pub degree: usize,
}

/// Rows that walks start from, their records side by side: every walk reads all of them.
#[derive(Debug, Default)]
struct Heads {
    rows: Vec<u32>,
    records: Block,
}

impl Heads {
    fn new(lane: &Lane<'_>, rows: Vec<u32>) -> Self {
        let records = Block::new(lane.steps, rows.iter().map(|&row| lane.record(row)));
        Self { rows, records }
    }
}

impl Graph {
    /// No links yet, and no room for them.
    fn new(lane: &Lane<'_>, heads: Heads, seed: u64) -> Self {
        let (links, heads) = (Vec::new(), Arc::new(heads));
        let together = Arc::clone(lane.together);
        Self { links, store: None, heads, together, seed, lift: lane.lift, unproven: 0, beyond: 0 }
    }

    #[inline(always)]
    fn row(&self, row: u32) -> &[AtomicU32; DEGREE] {
        &self.chunk(row as usize / CHUNK)[row as usize % CHUNK].0
    }

    #[inline(always)]
    fn chunk(&self, chunk: usize) -> &[Links] {
        match self.links[chunk].get() {
            Some(slice) => slice.links(),
            None => self.fetch(chunk),
        }
    }

    #[cold]
    #[inline(never)]
    fn fetch(&self, chunk: usize) -> &[Links] {
        let slice = corpus::once(&self.links[chunk], || {
            let links = self.store.as_ref().and_then(|store| store.links(chunk));
            let links = links.unwrap_or_default();
            let rows = links.as_chunks().0.iter().copied().chain(repeat([NONE; DEGREE]));
            let mut slices = LinkSlice::of_chunks(1, rows.take(CHUNK).map(Links::new));
            slices.next().expect("there is one chunk")
        });
        slice.links()
    }

    /// Makes copies of all links that are in memory, as they are now.
    fn copy_links(&mut self) {
        let chunks = || self.links.iter().filter_map(OnceLock::get);
        let now = |links: &Links| {
            Links(links.0.each_ref().map(|link| link.load(Ordering::Relaxed).into()))
        };
        let links = chunks().flat_map(LinkSlice::links).map(now);
        let copies: Vec<LinkSlice> = LinkSlice::of_chunks(chunks().count(), links).collect();
        let there = self.links.iter_mut().filter(|chunk| chunk.get().is_some());
        there.zip(copies).for_each(|(chunk, copy)| *chunk = copy.into());
    }

    /// Takes all links into memory that are not yet there.
    pub(crate) fn fetch_all(&self) {
        (0..self.links.len()).for_each(|chunk| {
            self.chunk(chunk);
        });
    }

    /// Whether links were lost to damage, so that it is to be built again.
    pub(crate) fn is_damaged(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.misses_links())
    }

    /// The links of a row, but for that to its next copy.
    pub(crate) fn links(&self, row: u32) -> impl Iterator<Item = u32> + '_ {
        self.row(row).iter().map(|link| link.load(Ordering::Relaxed)).take_while(|&l| l < MARK)
    }

    /// The next copy of a row.
    pub(crate) fn copy(&self, row: u32) -> Option<u32> {
        let mut links = self.row(row).iter().map(|link| link.load(Ordering::Relaxed));
        links.find(|&l| l >= MARK).filter(|&l| l != NONE).map(|l| l & !MARK)
    }

    /// How many links a row has room for.
    fn room(&self, row: u32) -> usize {
        DEGREE - usize::from(self.copy(row).is_some())
    }

    fn set(&self, row: u32, links: [u32; DEGREE]) {
        let slots = self.row(row).iter().zip(links);
        slots.for_each(|(slot, link)| slot.store(link, Ordering::Relaxed));
    }

    /// Sets the links of a row, but for that to its next copy.
    fn set_links(&self, row: u32, links: impl Iterator<Item = u32>) {
        self.set(row, pack(links, self.copy(row)));
    }

    /// Makes a row the next copy of another.
    fn add_copy(&self, copy: u32, original: u32) {
        self.set(copy, pack(empty(), self.copy(original)));
        self.set(original, pack(self.links(original), Some(copy)));
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        let links = self.row(row).as_ptr().cast::<u8>();
        prefetch(links);
        prefetch(links.wrapping_add(64));
    }

    pub(crate) fn heads(&self) -> &[u32] {
        &self.heads.rows
    }

    /// The graph of all rows of a store, with these heads.
    ///
    /// `None` if it cannot be one: a head that is no row, or no head.
    pub(crate) fn stored(
        corpus: Corpus<'_>,
        store: &Arc<dyn Store>,
        heads: Vec<u32>,
        seed: u64,
        lift: f32,
    ) -> Option<Self> {
        let together = Arc::new(Together::new(corpus.chunks));
        let lane = Lane::new(corpus, lift, &together, 1)?;
        let bad = |&head: &u32| head as usize >= lane.rows;
        if heads.is_empty() || heads.iter().any(bad) || !lift.is_finite() {
            return None;
        }
        let links = vec![OnceLock::new(); lane.rows.div_ceil(CHUNK)];
        let heads = Heads::new(&lane, heads);
        Some(Self { links, store: Some(Arc::clone(store)), ..Self::new(&lane, heads, seed) })
    }

    /// Walks through the graph and counts what should not be.
    ///
    /// `step` is asked at each row whether to go on; the counts mean nothing if it says no.
    pub(crate) fn check(
        &self,
        rows: usize,
        live: impl Fn(u32) -> bool,
        mut step: impl FnMut() -> bool,
    ) -> Check {
        let mut check = Check::default();
        let mut reached = vec![false; rows];
        let mut queue: Vec<u32> = Vec::new();
        for &head in self.heads() {
            if head as usize >= rows || !live(head) {
                check.dangling += 1;
            } else if !std::mem::replace(&mut reached[head as usize], true) {
                queue.push(head);
            }
        }
        self.spread(&mut queue, &mut reached, &mut step);
        for row in 0..rows as u32 {
            if !step() {
                break;
            }
            let links: Vec<u32> = self.links(row).chain(self.copy(row)).collect();
            let wrong = |&&link: &&u32| link as usize >= rows || !live(link) || link == row;
            check.dangling += links.iter().filter(wrong).count();
            check.links += links.len();
            check.degree = check.degree.max(links.len());
            if live(row) {
                check.rows += 1;
                check.unreachable += usize::from(!reached[row as usize]);
            }
        }
        check
    }

    /// Marks all rows that can be reached from those of the queue, which are marked already, as long
    /// as `step` says so.
    fn spread(&self, queue: &mut Vec<u32>, reached: &mut [bool], mut step: impl FnMut() -> bool) {
        let rows = reached.len();
        while let Some(row) = queue.pop() {
            if !step() {
                return;
            }
            for link in self.links(row).chain(self.copy(row)).filter(|&link| (link as usize) < rows)
            {
                if !std::mem::replace(&mut reached[link as usize], true) {
                    queue.push(link);
                }
            }
        }
    }

    pub(crate) fn nbytes(&self) -> usize {
        let links = self.links.iter().filter_map(OnceLock::get);
        links.map(|slice| size_of_val(slice.links())).sum::<usize>() + self.heads.records.nbytes()
    }

    /// Room for `rows` rows, the new ones without links.
    fn grow(&mut self, rows: usize) {
        let chunks = rows.div_ceil(CHUNK).saturating_sub(self.links.len());
        let none = repeat_n([NONE; DEGREE], chunks * CHUNK).map(Links::new);
        self.links.extend(LinkSlice::of_chunks(chunks, none).map(LinkChunk::from));
    }
}

/// Links as they are kept.
pub(crate) fn pack(links: impl Iterator<Item = u32>, copy: Option<u32>) -> [u32; DEGREE] {
    let mut slots = [NONE; DEGREE];
    let links = links.take(DEGREE - copy.iter().len()).chain(copy.map(|copy| copy | MARK));
    slots.iter_mut().zip(links).for_each(|(slot, link)| *slot = link);
    slots
}

/// Whether links, which may be crafted, can be those of a row among so many.
pub(crate) fn can_be_links(links: &[u32], row: u32, rows: u32) -> bool {
    let is_row = |&link: &u32| link < rows && link != row;
    let (links, rest) = links.split_at(links.iter().position(|&l| l >= MARK).unwrap_or(DEGREE));
    let copy = rest.first().filter(|&&last| last != NONE).map(|last| last & !MARK);
    // A walk reads on behind the end.
    links.iter().chain(&copy).all(is_row) && rest.iter().skip(1).all(|&unused| unused == NONE)
}

/// The records of all rows, and what scores them.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    isa: Isa,
    /// The records of the first rows.
    head: Records<'a>,
    together: &'a Arc<Together>,
    chunks: &'a [Arc<Chunk>],
    /// The records of each chunk; none where those of all lie together or some in a store, or few are
    /// asked for.
    records: Vec<&'a [u8]>,
    encoder: &'a Encoder,
    /// Whether there is one walk: then nothing is computed while the first record of a round comes.
    alone: bool,
    steps: usize,
    stride: usize,
    /// Bytes of a query: codes in units of [`int8::DOTS_UNIT`], no more than a record.
    padded: usize,
    /// Rows that are asked for ahead of their score, in fours.
    ahead: usize,
    rows: usize,
    pub(crate) lift: f32,
    /// Where rows of zeros are lifted and no others, their bias.
    zero_bias: Option<f32>,
}

/// What rows are scored against: a query, or another row. Smaller values are nearer:
///
/// `base − gain · factor · Σ code · query code − beta · bias (+ (height − its height)²)`
#[derive(Debug, Default)]
pub(crate) struct Target {
    bytes: Buffer<u8>,
    terms: Terms,
    /// For rows that are lifted.
    height: Option<f32>,
    /// For a query, what a value lacks of a number in proportion to the distance or its square. Not
    /// part of the values, whose order it would drown where a query is far from all rows.
    apart: f32,
}

impl Target {
    fn copy(&mut self, other: &Self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clone_from(&other.bytes);
        *self = Self { bytes, ..*other };
    }
}

impl<'a> Lane<'a> {
    /// A lane for so many walks. `None` where rows have no codes, or there are more rows than can be
    /// linked.
    pub(crate) fn new(
        corpus: Corpus<'a>,
        lift: f32,
        together: &'a Arc<Together>,
        walks: usize,
    ) -> Option<Self> {
        let encoder = corpus.encoder.filter(|_| corpus.rows <= MOST_ROWS)?;
        let chunks = corpus.chunks;
        let steps = encoder.steps();
        let stride = int8::record_bytes(steps);
        let head = Records::new(together.head(stride), steps);
        // One query after another takes nothing from the heap.
        let pays = walks > 1
            && chunks.len() <= walks.saturating_mul(CHUNKS_OF_A_WALK)
            && head.len() < corpus.rows;
        let records = pays.then(|| chunks.iter().map(|chunk| chunk.records()));
        let records: Option<Vec<&[u8]>> = records.and_then(Iterator::collect);
        let lines = if corpus.isa == Isa::Avx512 { LINES_AVX512 } else { LINES };
        Some(Self {
            isa: corpus.isa,
            head,
            together,
            chunks: corpus.chunks,
            records: records.unwrap_or_default(),
            encoder,
            alone: walks == 1,
            steps,
            stride,
            padded: (steps * STEP).next_multiple_of(int8::DOTS_UNIT),
            ahead: (lines / (stride / 64 + 2) / 4 * 4).max(4),
            rows: corpus.rows,
            lift,
            zero_bias: if lift > 0.0 { encoder.zero_bias() } else { None },
        })
    }

    /// How many of some rows are longer than what rows are lifted to.
    pub(crate) fn beyond(&self, rows: &[u32]) -> usize {
        if self.lift <= 0.0 || self.zero_bias.is_some() {
            return 0;
        }
        let is_beyond = |&&row: &&u32| -2.0 * self.meta(self.record(row)).1 > self.lift;
        rows.iter().filter(is_beyond).count()
    }

    #[inline(always)]
    fn record(&self, row: u32) -> &'a [u8] {
        if let Some(record) = self.head.get(row) {
            return record;
        }
        self.record_apart(row)
    }

    /// The record of a row that is not among the first.
    #[inline(never)]
    fn record_apart(&self, row: u32) -> &'a [u8] {
        if let Some(record) = self.together.record(row as usize, self.stride) {
            return record;
        }
        let (chunk, row) = (row as usize / CHUNK, row as usize % CHUNK);
        match self.records.get(chunk) {
            Some(records) => &records[row * self.stride..],
            None => self.chunks[chunk].record(row, self.stride, self.encoder),
        }
    }

    /// The order of two rows by their records, the same for copies.
    fn compare(&self, a: u32, b: u32) -> cmp::Ordering {
        self.record(a)[..self.stride].cmp(&self.record(b)[..self.stride])
    }

    /// Factor, bias and sum of a record.
    #[inline(always)]
    fn meta(&self, record: &[u8]) -> (f32, f32, i32) {
        int8::meta(record, self.steps)
    }

    #[inline(always)]
    fn prefetch(&self, row: u32) {
        let record = self.head.start(row).unwrap_or_else(|| self.record_apart(row).as_ptr());
        for line in (0..self.stride).step_by(64) {
            prefetch(record.wrapping_add(line));
        }
        prefetch(record.wrapping_add(self.stride - 1));
    }

    fn height(&self, bias: f32) -> f32 {
        match self.zero_bias {
            None => (self.lift + 2.0 * bias).max(0.0).sqrt(),
            Some(zero) if bias.to_bits() == zero.to_bits() => self.lift.sqrt(),
            Some(_) => 0.0,
        }
    }

    /// Makes row `row` the target.
    fn aim_at_row(&self, row: u32, target: &mut Target) {
        let record = self.record(row);
        let (factor, bias, _) = self.meta(record);
        let codes = record[..self.steps * STEP].iter().copied();
        int8::query_bytes(self.isa, codes, &mut target.bytes);
        target.terms = Terms { base: -2.0 * bias, gain: 2.0 * factor, beta: 2.0 };
        target.height = (self.lift > 0.0).then(|| self.height(bias));
        target.apart = 0.0;
    }

    /// Makes a query the target.
    pub(crate) fn aim_at_query(
        &self,
        query: &QueryCode,
        floats: &QueryFloats,
        target: &mut Target,
    ) {
        let codes = query.codes.iter().map(|&code| code as u8);
        int8::query_bytes(self.isa, codes, &mut target.bytes);
        let beta = if self.encoder.is_euclidean() { 1.0 } else { 0.0 };
        target.terms = Terms { base: 0.0, gain: query.scale, beta };
        target.height = None;
        target.apart = floats.scores.base();
    }

    /// Asks the memory for the first of some rows, of which [`Lane::each`] asks for the others, and some
    /// were asked for before.
    #[inline(never)]
    fn ask(&self, rows: &[u32], asked: usize) {
        let end = rows.len().min(self.ahead);
        rows[asked.min(end)..end].iter().for_each(|&row| self.prefetch(row));
    }

    /// The value of each of some rows, by `found(row, value)`.
    #[inline(always)]
    fn each(&self, target: &Target, rows: &[u32], mut found: impl FnMut(u32, f32)) {
        let mut ahead = rows.get(self.ahead..).unwrap_or_default();
        // While some are computed, half as many as were asked for come besides.
        let some = (self.ahead / 8 * 4).clamp(4, SOME);
        for rows in rows.chunks(some) {
            let (asked, later) = ahead.split_at(rows.len().min(ahead.len()));
            asked.iter().for_each(|&row| self.prefetch(row));
            ahead = later;
            let values = self.values::<SOME>(target, rows);
            rows.iter().zip(values).for_each(|(&row, value)| found(row, value));
        }
    }

    /// The values of up to `N` rows. What is behind them means nothing.
    #[inline(always)]
    fn values<const N: usize>(&self, target: &Target, rows: &[u32]) -> [f32; N] {
        const { assert!(N <= SOME) };
        let mut values = [0.0; N];
        let fours = &mut values.as_chunks_mut().0[..rows.len().div_ceil(4)];
        if !self.head.values(self.isa, &target.bytes, rows, target.terms, fours) {
            self.values_apart(target, rows, fours);
        }
        // As in `values_of_block`: one function for both took 1.03 to 1.05 of a walk's time.
        if let Some(height) = target.height {
            for (value, &row) in values.iter_mut().zip(rows) {
                let apart = height - self.height(self.meta(self.record(row)).1);
                *value += apart * apart;
            }
        }
        values
    }

    /// The values of some rows, of which not all are among the first.
    #[inline(never)]
    fn values_apart(&self, target: &Target, rows: &[u32], fours: &mut [[f32; 4]]) {
        let mut records: [&[u8]; SOME] = [&[]; SOME];
        records.iter_mut().zip(rows).for_each(|(record, &row)| *record = self.record(row));
        let records = &records[..rows.len()];
        int8::values(self.isa, &target.bytes, records, self.steps, target.terms, fours);
    }

    /// The value of each record of a block.
    fn values_of_block(&self, target: &Target, block: &Block) -> Buffer<f32> {
        let Terms { base, gain, beta } = target.terms;
        let mut values = block.products(self.isa, &target.bytes, gain);
        let biases = block.biases();
        for (value, &bias) in values.iter_mut().zip(biases) {
            *value = base - *value - beta * bias;
        }
        if let Some(height) = target.height {
            for (value, &bias) in values.iter_mut().zip(biases) {
                let apart = height - self.height(bias);
                *value += apart * apart;
            }
        }
        values
    }
}

/// About how many nanoseconds a walk takes: some 13 rows are scored for each that is expanded.
pub(crate) fn walk_costs(corpus: Corpus<'_>, encoder: &Encoder, expanded: usize) -> f64 {
    let compute = if corpus.isa == Isa::Portable { 1.0 } else { 1.0 / 12.0 };
    10_000.0 + 13.0 * expanded as f64 * (45.0 + encoder.swept() as f64 * compute)
}

/// A number whose order is that of the value.
#[inline(always)]
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The value of which this is the [`key`].
#[inline(always)]
fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}
