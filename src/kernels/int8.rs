//! 8-bit products of rows and queries: a few kernels over one layout of rows.
//!
//! A row is a *record*: its codes (signed bytes, padded to steps of four), then its factor, its
//! bias (float32) and the sum of its codes (int32). Records lie one after another, so that the
//! sweep, the build of a graph and a walk through it all read the same bytes.
//!
//! | kernel | what it multiplies | who asks |
//! |---|---|---|
//! | [`sweep`] | 8 rows × up to 48 queries, and tests every sum | exact search of many queries |
//! | [`products`] | the same, sums kept | the build of a graph |
//! | [`dots`] | 4 rows anywhere × 1 query | pairs that a sweep left |
//! | [`values`] | the same, with what follows from what lies behind their codes | walks through a graph |
//! | [`Block`] | the same, rows that lie together | where walks begin: a query's axes, the heads |
//!
//! Queries of the first two are packed in a [`Panel`]: step `s` holds the bytes `4s..4s+4` of query
//! 0, then of query 1, and so on, so that one 32-bit word of a row, broadcast from where it lies,
//! meets 16 queries in one AVX-512 instruction. 8 rows × 48 queries fill 24 of 32 registers and
//! load 11 words for 24 products. The 32-bit sums are tested where they are, in registers.
//!
//! The instructions want one operand unsigned: there a query's codes have a *zero* of 128, which
//! adds 128 times the sum of the row's codes. AVX2's `vpmaddubsw` adds two products in 16 bits,
//! which holds for 127 · 127 · 2. So in a panel queries keep 7 bits there, with a zero of 64;
//! [`dots`] takes magnitudes and gives the sign to the row, one instruction more.
//!
//! The first two kernels add two such sums before they widen them, those of a step and of the one
//! *opposite*, half of the steps behind. The four products fit 16 bits since the codes of rows keep to
//! [`MOST_OF_FOUR`]: of four such codes, those that have one sign come to no more. Axes that hold much
//! of a row lie before those that hold little, so that few rows need a longer step for it.

use std::slice;
use std::time::Instant;

use super::Isa;
use super::float::dispatch;
use crate::random::Random;
use crate::scratch::{Buffer, One};

/// Rows of a group.
pub(crate) const GROUP: usize = 8;
/// Queries of a panel, at most.
pub(crate) const PANEL: usize = 48;
/// Up to so many queries are swept by [`dots`]: a panel of them would leave most lanes empty.
const FEW: usize = 8;
/// Dimensions of one step.
pub(crate) const STEP: usize = 4;
/// Bytes after the codes of a record: factor, bias, sum.
pub(crate) const META: usize = 12;
/// The largest code of rows, and of queries but for [`sweep_limit`].
pub(crate) const LIMIT: i8 = 127;
/// The largest code of a column of [`products`], on every instruction set, so that all build the same
/// graph.
pub(crate) const COLUMN_LIMIT: i8 = 63;
/// What the codes of one sign come to, at most, among two neighbours in a step of a row, an even one and
/// the next, and the same two of the opposite step: 127 times this fits 16 bits.
pub(crate) const MOST_OF_FOUR: u16 = 258;
/// Queries are packed in multiples of so many.
const LANES: usize = 16;
/// A margin, in whole steps, that is beyond any sum; keeps the conversion to int32 in range.
const MOST_MARGIN: f32 = 1e9;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// A cache line: an AVX-512 load that crosses two costs twice.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// The bytes of lines.
fn bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: a line is so many bytes and nothing else.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

/// What [`dots`] reads for a code of zero of a query.
pub(crate) fn zero(isa: Isa) -> i32 {
    match isa {
        Isa::Avx512 | Isa::AvxVnni => 128,
        Isa::Avx2 | Isa::Neon | Isa::Portable => 0,
    }
}

/// The same in a panel; see the header for AVX2's.
fn panel_zero(isa: Isa) -> i32 {
    if isa == Isa::Avx2 { 64 } else { zero(isa) }
}

/// The largest code of a query for [`sweep`].
pub(crate) fn sweep_limit(isa: Isa) -> i8 {
    if isa == Isa::Avx2 { COLUMN_LIMIT } else { LIMIT }
}

/// How far behind a step the opposite one is. If their number is odd, the last has none.
fn opposite(steps: usize) -> usize {
    steps / 2
}

/// What [`MOST_OF_FOUR`] bounds.
pub(crate) fn most_of_four(codes: &[i8]) -> u16 {
    let apart = opposite(codes.len() / STEP) * STEP;
    let (low, high) = (&codes[..apart], &codes[apart..2 * apart]);
    dispatch(
        #[inline(always)]
        || {
            let mut most = 0;
            for (low, high) in low.as_chunks::<2>().0.iter().zip(high.as_chunks::<2>().0) {
                // Two codes fit a byte, and bytes are many at a time.
                let (mut above, mut below) = ([0; 2], [0; 2]);
                for i in 0..2 {
                    above[i] = low[i].max(0).unsigned_abs() + high[i].max(0).unsigned_abs();
                    below[i] = low[i].min(0).unsigned_abs() + high[i].min(0).unsigned_abs();
                }
                for two in [above, below].map(u16::from_le_bytes) {
                    most = most.max((two & 255) + (two >> 8));
                }
            }
            most
        },
    )
}

/// Codes of a query are padded with zeros to a multiple of this for [`dots`]: a record's last words
/// fill up what its codes leave, so that no row is read beyond its end.
pub(crate) const DOTS_UNIT: usize = 16;

/// Codes of a query as [`dots`] reads them.
pub(crate) fn query_bytes(isa: Isa, codes: impl ExactSizeIterator<Item = u8>, bytes: &mut Vec<u8>) {
    let zero = zero(isa) as u8;
    bytes.clear();
    bytes.resize(codes.len().next_multiple_of(DOTS_UNIT), 0);
    // Not by `extend`, which takes one at a time.
    bytes.iter_mut().zip(codes).for_each(|(byte, code)| *byte = zero.wrapping_add(code));
}

/// Factor, bias and sum of a record.
#[inline(always)]
pub(crate) fn meta(record: &[u8], steps: usize) -> (f32, f32, i32) {
    let meta: [u8; META] = record[steps * STEP..].first_chunk().copied().unwrap_or([0; META]);
    let word = |i: usize| [meta[i], meta[i + 1], meta[i + 2], meta[i + 3]];
    (f32::from_le_bytes(word(0)), f32::from_le_bytes(word(4)), i32::from_le_bytes(word(8)))
}

/// Rows one after another, all of which are multiplied by a query. Codes begin a line of the cache, and
/// what is behind them in a record lies apart, so that both are read by whole vectors.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Codes of whole fours of rows, filled up by zeros.
    codes: Vec<Line>,
    /// Lines of a row.
    lines: usize,
    factors: Vec<f32>,
    biases: Vec<f32>,
    sums: Vec<i32>,
}

impl Block {
    /// Copies records of so many steps.
    pub(crate) fn new<'a>(steps: usize, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let lines = (steps * STEP).div_ceil(LINE);
        let codes = vec![Line([0; LINE]); rows.len().next_multiple_of(4) * lines];
        let mut block = Self { codes, lines, ..Self::default() };
        for (row, record) in rows.enumerate() {
            let (factor, bias, sum) = meta(record, steps);
            let codes = record[..steps * STEP].chunks(LINE);
            for (line, codes) in block.codes[row * lines..].iter_mut().zip(codes) {
                line.0[..codes.len()].copy_from_slice(codes);
            }
            block.factors.push(factor);
            block.biases.push(bias);
            block.sums.push(sum);
        }
        block
    }

    pub(crate) fn nbytes(&self) -> usize {
        size_of_val(&*self.codes) + self.factors.len() * META
    }

    /// What is added to the score of each row.
    pub(crate) fn biases(&self) -> &[f32] {
        &self.biases
    }

    /// `gain · factor · Σ code · query code` of each record, of a query as [`dots`] reads it.
    pub(crate) fn products(&self, isa: Isa, query: &[u8], gain: f32) -> Buffer<f32> {
        let len = self.factors.len();
        let mut padded = Buffer::filled(self.lines * LINE, 0);
        padded[..query.len()].copy_from_slice(query);
        let mut dots = Buffer::filled(len.next_multiple_of(4), 0);
        dots_in_order(isa, &padded, bytes(&self.codes), dots.as_chunks_mut().0);
        let mut products = Buffer::filled(len, 0.0);
        let (out, dots, zero) = (&mut products[..], &dots[..len], zero(isa));
        let (factors, sums) = (&self.factors[..len], &self.sums[..len]);
        dispatch(
            #[inline(always)]
            || {
                for i in 0..len {
                    // A crafted file may hold any sum.
                    let dot = dots[i].wrapping_sub(zero.wrapping_mul(sums[i]));
                    out[i] = gain * factors[i] * dot as f32;
                }
            },
        );
        products
    }
}

/// Bytes of a record with so many steps.
pub(crate) fn record_bytes(steps: usize) -> usize {
    steps * STEP + META
}

/// Norms over a step: what rounding lost, and an upper bound for the vector and for its code.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ratios {
    pub(crate) rounding: f32,
    pub(crate) norm: f32,
}

/// Eight records and the largest of their ratios.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) records: &'a [u8],
    pub(crate) ratios: Ratios,
    /// Where rows ask of the panel's columns as these ask of the rows: the score that each wants.
    pub(crate) thresholds: Option<&'a [f32; GROUP]>,
}

impl Group<'_> {
    #[inline(always)]
    fn meta(&self, row: usize, steps: usize) -> (f32, f32, i32) {
        meta(&self.records[row * record_bytes(steps)..], steps)
    }

    /// The step of a row's codes.
    #[inline(always)]
    pub(crate) fn factor(&self, row: usize, steps: usize) -> f32 {
        self.meta(row, steps).0
    }

    /// What is added to a row's score.
    #[inline(always)]
    pub(crate) fn bias(&self, row: usize, steps: usize) -> f32 {
        self.meta(row, steps).1
    }

    /// The product of a row's codes and a query's at the last step.
    pub(crate) fn last_product(&self, row: usize, panel: &Panel, q: usize) -> i32 {
        let last = panel.steps - 1;
        let at = row * record_bytes(panel.steps) + last * STEP;
        let codes = self.records[at..at + STEP].iter().map(|&code| i32::from(code as i8));
        codes.zip(panel.word(q, last)).map(|(code, word)| code * i32::from(word)).sum()
    }
}

/// Up to [`PANEL`] queries, as the kernels read them.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// Number of queries.
    len: usize,
    /// `len` in whole vectors.
    lanes: usize,
    steps: usize,
    zero: i32,
    /// `lanes / 16` lines a step; none for few queries.
    words: Vec<Line>,
    /// Few queries, as [`dots`] reads them.
    few: One<Buffer<u8>>,
    /// Whether rows have biases. If not, thresholds are divided by the query's scale instead,
    /// which saves a multiplication for each sum.
    biased: bool,
    /// What turns a sum into score units.
    pub(crate) scale: [f32; PANEL],
    /// What the ratios of a group are multiplied by to give its margin in whole steps.
    rounding: [f32; PANEL],
    norm: [f32; PANEL],
    /// A row passes if `scale · factor · sum + bias` (`factor · sum` without biases) reaches it.
    pub(crate) threshold: [f32; PANEL],
    /// What is added to the score of a column where rows ask of it; see [`Group::thresholds`].
    pub(crate) bias: [f32; PANEL],
}

impl Panel {
    /// Room for `len` queries of `steps` steps, for [`sweep`].
    pub(crate) fn for_sweep(isa: Isa, len: usize, steps: usize, biased: bool) -> Self {
        if len > FEW {
            return Self::new(isa, len, steps, biased);
        }
        let bytes = (steps * STEP).next_multiple_of(DOTS_UNIT);
        let few = (0..len).map(|_| Buffer::filled(bytes, 0)).collect();
        Self { steps, few, ..Self::new(isa, len, 0, biased) }
    }

    /// Room for `len` rows of `steps` steps in the place of queries, for [`products`] and for [`sweep`]
    /// of rows that have thresholds.
    pub(crate) fn for_rows(isa: Isa, len: usize, steps: usize) -> Self {
        Self::new(isa, len, steps, true)
    }

    fn new(isa: Isa, len: usize, steps: usize, biased: bool) -> Self {
        assert!((1..=PANEL).contains(&len));
        let zero = panel_zero(isa);
        let lanes = len.next_multiple_of(LANES);
        Self {
            len,
            lanes,
            steps,
            zero,
            words: vec![Line([zero as u8; LINE]); steps * lanes / LANES],
            few: One::new(),
            biased,
            scale: [0.0; PANEL],
            rounding: [0.0; PANEL],
            norm: [0.0; PANEL],
            threshold: [f32::INFINITY; PANEL],
            bias: [f32::NEG_INFINITY; PANEL],
        }
    }

    /// Packs the codes of query `q`.
    pub(crate) fn put(&mut self, q: usize, codes: &[i8]) {
        let zero = self.zero as u8;
        if let Some(bytes) = self.few.get_mut(q) {
            for (byte, &code) in bytes.iter_mut().zip(codes) {
                *byte = zero.wrapping_add(code as u8);
            }
            return;
        }
        let lines = self.lanes / LANES;
        let (line, at) = (q / LANES, q % LANES * STEP);
        for (step, word) in codes.as_chunks::<STEP>().0.iter().enumerate() {
            let bytes = &mut self.words[step * lines + line].0[at..at + STEP];
            bytes.copy_from_slice(&word.map(|code| zero.wrapping_add(code as u8)));
        }
    }

    /// Packs a row as column `q`, from its record: its codes, made smaller where `limit` is less than
    /// [`LIMIT`], as its scale their step, and its bias.
    pub(crate) fn put_row(&mut self, q: usize, record: &[u8], limit: i8) {
        let mut codes = Buffer::new();
        codes.extend(record[..self.steps * STEP].iter().map(|&code| code as i8));
        (self.scale[q], self.bias[q], _) = meta(record, self.steps);
        if limit < LIMIT {
            let limit = i16::from(limit);
            codes.iter_mut().for_each(|code| *code = ((i16::from(*code) * limit + 64) >> 7) as i8);
            self.scale[q] *= 128.0 / f32::from(limit);
        }
        self.put(q, &codes);
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Sets what the margins of query `q` are made of.
    pub(crate) fn set_margin(&mut self, q: usize, margin: Ratios) {
        (self.rounding[q], self.norm[q]) = (margin.rounding, margin.norm);
    }

    /// The margin of query `q` in a group, in whole steps, from above.
    pub(crate) fn margin(&self, q: usize, ratios: Ratios) -> i32 {
        let margin = self.rounding[q] * ratios.rounding + self.norm[q] * ratios.norm;
        // 1e-5 covers the arithmetic of these two lines; so does it in the kernels.
        (margin * (1.0 + 1e-5)).min(MOST_MARGIN) as i32 + 1
    }

    /// The codes of query `q` at a step.
    pub(crate) fn word(&self, q: usize, step: usize) -> [i8; STEP] {
        let zero = self.zero as u8;
        let word = if let Some(bytes) = self.few.get(q) {
            &bytes[step * STEP..][..STEP]
        } else {
            let line = &self.words[step * self.lanes / LANES + q / LANES].0;
            &line[q % LANES * STEP..][..STEP]
        };
        [0, 1, 2, 3].map(|i| word[i].wrapping_sub(zero) as i8)
    }
}

/// What [`sweep`] leaves: for each row, which queries it passed, and its sums.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) masks: [u64; GROUP],
    /// `margin + Σ code · query code`.
    pub(crate) sums: Sums,
}

/// A sum for each row and query of a group and a panel.
pub(crate) type Sums = [[i32; PANEL]; GROUP];

impl Passed {
    pub(crate) fn new() -> Self {
        Self { masks: [0; GROUP], sums: [[0; PANEL]; GROUP] }
    }

    /// Calls `body` with each of these rows and each query that it passed.
    #[inline(always)]
    pub(crate) fn each(&self, mut rows: u32, mut body: impl FnMut(usize, usize)) {
        while rows != 0 {
            let row = rows.trailing_zeros() as usize;
            rows &= rows - 1;
            let mut queries = self.masks[row];
            while queries != 0 {
                body(row, queries.trailing_zeros() as usize);
                queries &= queries - 1;
            }
        }
    }
}

/// Multiplies a group by a panel: `sum = margin + Σ code · query code`, and tests every sum, against
/// the threshold of its column and, where rows have thresholds, of its row.
///
/// Returns a bit for each row that passed some query's threshold.
///
/// # Panics
///
/// If there are no eight records of the panel's steps.
#[inline]
pub(crate) fn sweep(isa: Isa, group: Group<'_>, panel: &Panel, passed: &mut Passed) -> u32 {
    assert!(group.records.len() >= GROUP * record_bytes(panel.steps));
    passed.masks = [0; GROUP];
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::current` offers an instruction set only where the processor has it; the
        // records were measured above, and a panel is made with the words that its steps need.
        Isa::Avx512 => unsafe { x86::sweep_avx512(group, panel, passed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::sweep_avxvnni(group, panel, passed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::sweep_avx2(group, panel, passed) },
        _ => {
            let mut sums = [[0; PANEL]; GROUP];
            if panel.few.is_empty() {
                products(isa, group, panel, &mut sums);
            }
            let row = |r: usize| &group.records[r * record_bytes(panel.steps)..];
            for (q, query) in panel.few.iter().enumerate() {
                let low = dots(isa, query, &[0, 1, 2, 3].map(row));
                let high = dots(isa, query, &[4, 5, 6, 7].map(row));
                low.into_iter().chain(high).zip(&mut sums).for_each(|(sum, sums)| sums[q] = sum);
            }
            test(group, panel, &sums, passed)
        }
    }
}

/// Adds the margins and tests, in plain code.
fn test(group: Group<'_>, panel: &Panel, sums: &Sums, passed: &mut Passed) -> u32 {
    let mut hits = 0;
    for (r, sums) in sums.iter().enumerate() {
        let (factor, bias) = (group.factor(r, panel.steps), group.bias(r, panel.steps));
        for q in 0..panel.len {
            let sum = sums[q] + panel.margin(q, group.ratios);
            passed.sums[r][q] = sum;
            let product = sum as f32 * if panel.biased { factor * panel.scale[q] } else { factor };
            let value = if panel.biased { product + bias } else { product };
            let wanted = group.thresholds.is_some_and(|rows| product + panel.bias[q] >= rows[r]);
            passed.masks[r] |= u64::from(value >= panel.threshold[q] || wanted) << q;
        }
        hits |= u32::from(passed.masks[r] != 0) << r;
    }
    hits
}

/// Multiplies a group by a panel: `out[row][query] = Σ code · query code`.
///
/// # Panics
///
/// If the records are shorter than eight of the panel's steps.
#[inline]
pub(crate) fn products(isa: Isa, group: Group<'_>, panel: &Panel, out: &mut Sums) {
    assert!(group.records.len() >= GROUP * record_bytes(panel.steps));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as for `sweep`.
        Isa::Avx512 => unsafe { x86::products_avx512(group, panel, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as for `sweep`.
        Isa::AvxVnni => unsafe { x86::products_avxvnni(group, panel, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as for `sweep`.
        Isa::Avx2 => unsafe { x86::products_avx2(group, panel, out) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as for `sweep`.
        Isa::Neon => unsafe { arm::products_neon(group, panel, out) },
        _ => products_portable(group, panel, out),
    }
}

/// Plain loops: the reference the other kernels are tested against, and the fallback.
fn products_portable(group: Group<'_>, panel: &Panel, out: &mut Sums) {
    let lines = panel.lanes / LANES;
    for (r, out) in out.iter_mut().enumerate() {
        *out = [0; PANEL];
        let record = &group.records[r * record_bytes(panel.steps)..];
        let words = record.as_chunks::<STEP>().0[..panel.steps].iter();
        for (word, lines) in words.zip(panel.words.chunks_exact(lines)) {
            let word = word.map(|byte| i32::from(byte as i8));
            for (line, out) in lines.iter().zip(out.as_chunks_mut::<LANES>().0) {
                for (codes, out) in line.0.as_chunks::<STEP>().0.iter().zip(out) {
                    for (&code, word) in codes.iter().zip(word) {
                        *out += i32::from(code.wrapping_sub(panel.zero as u8) as i8) * word;
                    }
                }
            }
        }
    }
}

/// `Σ query · code` of four rows, the query's offset included: [`zero`] times the sum of the row's
/// codes.
///
/// `rows` are readable as far as `query` is long; what follows the codes meets zeros.
///
/// # Panics
///
/// If a row is shorter than the query, or the query no multiple of 16.
#[inline(always)]
pub(crate) fn dots(isa: Isa, query: &[u8], rows: &[&[u8]; 4]) -> [i32; 4] {
    let whole = query.len().is_multiple_of(DOTS_UNIT);
    assert!(whole && rows.iter().all(|row| row.len() >= query.len()));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::current` offers an instruction set only where the processor has it; the
        // lengths were asserted above.
        Isa::Avx512 => unsafe { x86::dots_avx512(query, rows) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::dots_avxvnni(query, rows) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::dots_avx2(query, rows) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { arm::dots_neon(query, rows) },
        _ => rows.map(|row| {
            let products =
                query.iter().zip(row).map(|(&q, &x)| i32::from(q as i8) * i32::from(x as i8));
            products.sum()
        }),
    }
}

/// What becomes of the product of a query and a row, see [`values`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    pub(crate) base: f32,
    pub(crate) gain: f32,
    pub(crate) beta: f32,
}

impl Terms {
    #[inline(always)]
    pub(crate) fn value(self, dot: f32, factor: f32, bias: f32) -> f32 {
        self.base - self.gain * factor * dot - self.beta * bias
    }
}

/// `base − gain · factor · Σ code · query code − beta · bias` of some records, four after four; of the
/// last again where there are fewer.
///
/// # Panics
///
/// If a record is not one of so many steps, the query not as [`query_bytes`] makes it, or `out` not as
/// many fours.
#[inline(always)]
pub(crate) fn values(
    isa: Isa,
    query: &[u8],
    records: &[&[u8]],
    steps: usize,
    terms: Terms,
    out: &mut [[f32; 4]],
) {
    assert!(steps > 0 && records.iter().all(|record| record.len() >= record_bytes(steps)));
    assert_eq!(out.len(), records.len().div_ceil(4));
    let four = |i: usize| four(&records[4 * i..]).map(<[u8]>::as_ptr);
    // SAFETY: the lengths were asserted.
    unsafe { values_at(isa, query, four, steps, terms, out) }
}

/// Records of so many steps that lie one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records<'a> {
    all: &'a [u8],
    len: usize,
    steps: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(all: &'a [u8], steps: usize) -> Self {
        Self { all, len: all.len() / record_bytes(steps), steps }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn get(&self, row: u32) -> Option<&'a [u8]> {
        let bytes = record_bytes(self.steps);
        self.all.get(row as usize * bytes..(row as usize + 1) * bytes)
    }

    /// Where a record begins, if it is one of these.
    #[inline(always)]
    pub(crate) fn start(&self, row: u32) -> Option<*const u8> {
        let at = row as usize * record_bytes(self.steps);
        ((row as usize) < self.len).then(|| self.all.as_ptr().wrapping_add(at))
    }

    /// [`values`] of some rows, by their numbers alone; false, and none, if not all are among these.
    ///
    /// # Panics
    ///
    /// As [`values`].
    #[inline(always)]
    pub(crate) fn values(
        &self,
        isa: Isa,
        query: &[u8],
        rows: &[u32],
        terms: Terms,
        out: &mut [[f32; 4]],
    ) -> bool {
        // Counted: `all` would compare them one by one.
        let here = rows.iter().filter(|&&row| (row as usize) < self.len).count();
        if here < rows.len() {
            return false;
        }
        assert!(self.steps > 0);
        assert_eq!(out.len(), rows.len().div_ceil(4));
        let bytes = record_bytes(self.steps);
        let start = |row| self.all.as_ptr().wrapping_add(row as usize * bytes);
        let four = |i: usize| four(&rows[4 * i..]).map(start);
        // SAFETY: all rows are among these, and the other lengths were asserted.
        unsafe { values_at(isa, query, four, self.steps, terms, out) }
        true
    }
}

/// # Safety
///
/// The four records for each of `out` are readable, of so many steps, one or more.
///
/// # Panics
///
/// If the query is not as [`query_bytes`] makes it.
#[inline(always)]
unsafe fn values_at(
    isa: Isa,
    query: &[u8],
    four: impl Fn(usize) -> [*const u8; 4],
    steps: usize,
    terms: Terms,
    out: &mut [[f32; 4]],
) {
    assert_eq!(query.len(), (steps * STEP).next_multiple_of(DOTS_UNIT));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as for `dots`; the contract, and the length asserted above.
        Isa::Avx512 => unsafe { x86::values_avx512(query, four, steps, terms, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::values_avxvnni(query, four, steps, terms, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::values_avx2(query, four, steps, terms, out) },
        _ => {
            for (i, out) in out.iter_mut().enumerate() {
                // SAFETY: the contract.
                let record = |at| unsafe { slice::from_raw_parts(at, record_bytes(steps)) };
                let records = four(i).map(record);
                let dots = dots(isa, query, &records);
                for i in 0..4 {
                    let (factor, bias, sum) = meta(records[i], steps);
                    let dot = dots[i].wrapping_sub(zero(isa).wrapping_mul(sum)) as f32;
                    out[i] = terms.value(dot, factor, bias);
                }
            }
        }
    }
}

/// The first four of some items, of which there is one at least; the last again where there are
/// fewer.
#[inline(always)]
pub(crate) fn four<T: Copy>(items: &[T]) -> [T; 4] {
    let last = items.len() - 1;
    [items[0], items[last.min(1)], items[last.min(2)], items[last.min(3)]]
}

/// [`dots`] of four rows after another, each as long as the query.
///
/// # Panics
///
/// If there are no four rows for each of `out`, or the query is no multiple of 16 bytes.
fn dots_in_order(isa: Isa, query: &[u8], rows: &[u8], out: &mut [[i32; 4]]) {
    let whole = query.len().is_multiple_of(DOTS_UNIT);
    assert!(whole && rows.len() >= 4 * out.len() * query.len());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as for `dots`; the lengths were asserted above.
        Isa::Avx512 => unsafe { x86::in_order_avx512(query, rows, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::in_order_avxvnni(query, rows, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::in_order_avx2(query, rows, out) },
        _ => {
            for (i, out) in out.iter_mut().enumerate() {
                let row = |r: usize| &rows[(4 * i + r) * query.len()..];
                *out = dots(isa, query, &[row(0), row(1), row(2), row(3)]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)] // intrinsics
mod x86 {
    use std::arch::x86_64::*;

    use super::{GROUP, Group, META, MOST_MARGIN, PANEL, Panel, Passed, STEP, Sums, Terms};
    use crate::kernels::prefetch;

    /// A word behind the codes of a row: 0 is its factor, 1 its bias, 2 the sum of its codes.
    ///
    /// # Safety
    ///
    /// `group` has a record of so many steps for that row.
    #[inline(always)]
    unsafe fn behind(group: Group<'_>, row: usize, steps: usize, word: usize) -> i32 {
        let at = row * (steps * STEP + META) + (steps + word) * STEP;
        // SAFETY: a record has three words behind its codes, by the contract.
        unsafe { group.records.as_ptr().add(at).cast::<i32>().read_unaligned() }
    }

    /// Vectors of 16 numbers, under names that [`kernels`] can share.
    mod zmm {
        use std::arch::x86_64::*;

        pub(super) type Ints = __m512i;
        pub(super) type Floats = __m512;
        pub(super) const LANES: usize = 16;

        macro_rules! shared {
            ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {
                $(
                    #[inline]
                    #[target_feature(enable = "avx512f,avx512bw")]
                    pub(in super::super) fn $name($($argument: $type),*) -> $result { $body }
                )*
            };
        }
        shared! {
            ints(value: i32) -> Ints = _mm512_set1_epi32(value);
            floats(value: f32) -> Floats = _mm512_set1_ps(value);
            add(a: Ints, b: Ints) -> Ints = _mm512_add_epi32(a, b);
            sub(a: Ints, b: Ints) -> Ints = _mm512_sub_epi32(a, b);
            mul_floats(a: Floats, b: Floats) -> Floats = _mm512_mul_ps(a, b);
            fma(a: Floats, b: Floats, c: Floats) -> Floats = _mm512_fmadd_ps(a, b, c);
            min(a: Floats, b: Floats) -> Floats = _mm512_min_ps(a, b);
            shift(a: Ints, by: __m128i) -> Ints = _mm512_sll_epi32(a, by);
            to_floats(a: Ints) -> Floats = _mm512_cvtepi32_ps(a);
            to_ints(a: Floats) -> Ints = _mm512_cvttps_epi32(a);
            reaches(a: Floats, b: Floats) -> u64 =
                u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b));
        }

        /// # Safety
        ///
        /// 64 bytes are readable at `from`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        pub(super) unsafe fn load(from: *const u8) -> Ints {
            // SAFETY: the contract.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        /// The first bytes of a vector, then zeros.
        ///
        /// Not by a mask: then the processor waits for all 64 bytes, also for a line of the cache of
        /// which none is read and for which nobody has asked (measured on a Zen 5).
        ///
        /// # Safety
        ///
        /// `bytes`, which are 16, 32 or 48, are readable at `from`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        pub(super) unsafe fn load_part(from: *const u8, bytes: usize) -> Ints {
            // SAFETY: the contract.
            unsafe {
                if bytes == 16 {
                    return _mm512_zextsi128_si512(_mm_loadu_si128(from.cast()));
                }
                let low = _mm512_zextsi256_si512(_mm256_loadu_si256(from.cast()));
                if bytes == 32 {
                    return low;
                }
                _mm512_inserti32x4::<2>(low, _mm_loadu_si128(from.add(32).cast()))
            }
        }

        /// # Safety
        ///
        /// 16 floats are readable at `from`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        pub(super) unsafe fn load_floats(from: *const f32) -> Floats {
            // SAFETY: the contract.
            unsafe { _mm512_loadu_ps(from) }
        }

        /// # Safety
        ///
        /// 16 numbers are writable at `to`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        pub(super) unsafe fn store(to: *mut i32, value: Ints) {
            // SAFETY: the contract.
            unsafe { _mm512_storeu_si512(to.cast(), value) }
        }

        /// The sum of the halves, as a 256-bit vector.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        pub(super) fn halve(a: Ints) -> __m256i {
            _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a))
        }
    }

    /// Vectors of 8 numbers.
    mod ymm {
        use std::arch::x86_64::*;

        pub(super) type Ints = __m256i;
        pub(super) type Floats = __m256;
        pub(super) const LANES: usize = 8;

        macro_rules! shared {
            ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {
                $(
                    #[inline]
                    #[target_feature(enable = "avx2,fma")]
                    pub(in super::super) fn $name($($argument: $type),*) -> $result { $body }
                )*
            };
        }
        shared! {
            ints(value: i32) -> Ints = _mm256_set1_epi32(value);
            floats(value: f32) -> Floats = _mm256_set1_ps(value);
            add(a: Ints, b: Ints) -> Ints = _mm256_add_epi32(a, b);
            sub(a: Ints, b: Ints) -> Ints = _mm256_sub_epi32(a, b);
            mul_floats(a: Floats, b: Floats) -> Floats = _mm256_mul_ps(a, b);
            fma(a: Floats, b: Floats, c: Floats) -> Floats = _mm256_fmadd_ps(a, b, c);
            min(a: Floats, b: Floats) -> Floats = _mm256_min_ps(a, b);
            shift(a: Ints, by: __m128i) -> Ints = _mm256_sll_epi32(a, by);
            to_floats(a: Ints) -> Floats = _mm256_cvtepi32_ps(a);
            to_ints(a: Floats) -> Ints = _mm256_cvttps_epi32(a);
            reaches(a: Floats, b: Floats) -> u64 =
                u64::from(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b)) as u32);
            halve(a: Ints) -> __m256i = a;
        }

        /// # Safety
        ///
        /// 32 bytes are readable at `from`.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub(super) unsafe fn load(from: *const u8) -> Ints {
            // SAFETY: the contract.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        /// Half a vector, the only part there is of it in multiples of 16 bytes, then zeros.
        ///
        /// # Safety
        ///
        /// 16 bytes are readable at `from`.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub(super) unsafe fn load_part(from: *const u8, _bytes: usize) -> Ints {
            // SAFETY: the contract.
            unsafe { _mm256_zextsi128_si256(_mm_loadu_si128(from.cast())) }
        }

        /// # Safety
        ///
        /// 8 floats are readable at `from`.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub(super) unsafe fn load_floats(from: *const f32) -> Floats {
            // SAFETY: the contract.
            unsafe { _mm256_loadu_ps(from) }
        }

        /// # Safety
        ///
        /// 8 numbers are writable at `to`.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub(super) unsafe fn store(to: *mut i32, value: Ints) {
            // SAFETY: the contract.
            unsafe { _mm256_storeu_si256(to.cast(), value) }
        }
    }

    /// Adds the products of some rows and vectors of a panel at one step, and at those that follow it
    /// `$apart` steps behind each other: as many as `$dots` takes.
    macro_rules! add {
        ($ops:ident, [$sums:ident, $record:expr, $stride:expr, $words:expr, $lanes:expr],
         $together:literal, $apart:expr, $dots:expr) => {
            let mut queries = [[$ops::ints(0); $together]; V];
            for (v, queries) in queries.iter_mut().enumerate() {
                for (s, query) in queries.iter_mut().enumerate() {
                    let at = (s * $apart * $lanes + v * $ops::LANES) * STEP;
                    *query = $ops::load($words.add(at));
                }
            }
            for (r, sums) in $sums.iter_mut().enumerate() {
                let mut row = [$ops::ints(0); $together];
                for (s, row) in row.iter_mut().enumerate() {
                    let at = r * $stride + s * $apart * STEP;
                    *row = $ops::ints($record.add(at).cast::<i32>().read_unaligned());
                }
                for (sum, queries) in sums.iter_mut().zip(queries) {
                    *sum = $dots(*sum, queries, row);
                }
            }
        };
    }

    /// The sums of `$rows` rows × `V` vectors of a panel, after what they start with.
    ///
    /// `$dots` multiplies `$together` steps, one of each part of the record, and `$dot` one of those
    /// that the parts leave.
    macro_rules! sums {
        ($features:literal, $ops:ident, $rows:literal, $sums:ident, $together:literal,
         $dots:expr, $dot:expr) => {
            /// # Safety
            ///
            /// As above.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn $sums<const V: usize, const FETCH: bool>(
                group: Group<'_>,
                panel: &Panel,
                vector: usize,
                row: usize,
                start: [$ops::Ints; V],
            ) -> [[$ops::Ints; V]; $rows] {
                let (stride, lanes) = (panel.steps * STEP + META, panel.lanes);
                let mut sums = [start; $rows];
                // Zeros are powers of two.
                let zero = _mm_cvtsi32_si128(panel.zero.trailing_zeros() as i32);
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the contract.
                    let sum = unsafe { behind(group, row + r, panel.steps, 2) };
                    let offset = $ops::shift($ops::ints(sum), zero);
                    for sum in sums {
                        *sum = $ops::sub(*sum, offset);
                    }
                }
                let mut record = group.records.as_ptr().wrapping_add(row * stride);
                let mut words = panel.words.as_ptr().cast::<u8>();
                words = words.wrapping_add(vector * $ops::LANES * STEP);
                let part = panel.steps / $together;
                // Processors do not see in time how eight rows go on, each by one word a step: the
                // next group is asked for while this one is multiplied, a little more than a word of
                // each row at a time, so that the words behind the codes come too. What lies behind
                // the last group is fetched in vain.
                let mut next = record.wrapping_add(GROUP * stride);
                for _ in 0..part {
                    if FETCH {
                        prefetch(next);
                    }
                    next = next.wrapping_add($rows * (STEP + 1) * $together);
                    // SAFETY: a step has `lanes` words, of which these vectors are some, and a
                    // record four bytes, by the contract.
                    unsafe {
                        add!($ops, [sums, record, stride, words, lanes], $together, part, $dots);
                    }
                    record = record.wrapping_add(STEP);
                    words = words.wrapping_add(lanes * STEP);
                }
                record = record.wrapping_add(($together - 1) * part * STEP);
                words = words.wrapping_add(($together - 1) * part * lanes * STEP);
                for _ in $together * part..panel.steps {
                    // SAFETY: as above.
                    unsafe {
                        add!(
                            $ops,
                            [sums, record, stride, words, lanes],
                            1,
                            0,
                            |sum, [query]: [_; 1], [row]: [_; 1]| $dot(sum, query, row)
                        );
                    }
                    record = record.wrapping_add(STEP);
                    words = words.wrapping_add(lanes * STEP);
                }
                sums
            }
        };
    }

    /// The sums of four rows × one query.
    macro_rules! four {
        ($features:literal, $ops:ident, $four:ident, $ready:expr, $dot:expr) => {
            /// # Safety
            ///
            /// As [`dots`]: rows are readable for the length of the query, a multiple of 16.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn $four(query: &[u8], rows: [*const u8; 4]) -> __m128i {
                const VECTOR: usize = $ops::LANES * STEP;
                let mut sums = [$ops::ints(0); 4];
                let whole = query.len() / VECTOR * VECTOR;
                for at in (0..whole).step_by(VECTOR) {
                    // SAFETY: the vector ends inside the query, and so inside each row.
                    unsafe {
                        let query = $ready($ops::load(query.as_ptr().add(at)));
                        for (sum, row) in sums.iter_mut().zip(rows) {
                            *sum = $dot(*sum, query, $ops::load(row.add(at)));
                        }
                    }
                }
                let rest = query.len() - whole;
                if rest > 0 {
                    // SAFETY: as above; the rest is a multiple of 16, less than a vector.
                    unsafe {
                        let query = $ready($ops::load_part(query.as_ptr().add(whole), rest));
                        for (sum, row) in sums.iter_mut().zip(rows) {
                            *sum = $dot(*sum, query, $ops::load_part(row.add(whole), rest));
                        }
                    }
                }
                let [a, b, c, d] = sums.map(|sum| $ops::halve(sum));
                let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
                let high = _mm256_extracti128_si256::<1>(pairs);
                _mm_add_epi32(_mm256_castsi256_si128(pairs), high)
            }
        };
    }

    /// Keeps the sums of some rows, each at its number in a list, and notes which pass a test.
    ///
    /// Rows are written out one by one: a loop over them has the sums in memory, not in registers.
    /// Whether one passes can hardly be foreseen, so that nothing branches by it.
    macro_rules! keep {
        ($ops:ident, [$($r:literal)*], $vectors:ident, $sums:ident, $out:ident,
         |$row:ident, $v:ident, $sum:ident| $passes:expr) => {{
            let (passed, hits, top, first) = $out;
            $({
                let $row = top + $r;
                let mut mask = 0;
                for $v in 0..$vectors {
                    let out = passed.sums[$row].as_mut_ptr();
                    // SAFETY: a row of sums has a word for every lane of the panel.
                    unsafe { $ops::store(out.add(first + $v * $ops::LANES), $sums[$r][$v]) };
                    let $sum = $ops::to_floats($sums[$r][$v]);
                    mask |= $passes << ($v * $ops::LANES);
                }
                passed.masks[$row] |= mask << first;
                *hits |= u32::from(mask != 0) << $row;
            })*
        }};
    }

    /// The kernels of one instruction set.
    ///
    /// `$rows` rows × `$vectors` vectors of queries are in registers at a time. `$ready` makes of a
    /// vector of query bytes what `$dot` multiplies by a vector of row bytes, to add the four
    /// products of each 32-bit lane to a sum.
    macro_rules! kernels {
        ($features:literal, $ops:ident, $rows:literal, $each:tt, $vectors:literal, $sweep:ident,
         $products:ident, $dots:ident, $part:ident, $part_sums:ident, $test:ident, $test_sums:ident,
         $few:ident, $four:ident, $sweep_four:ident, $in_order:ident, $values:ident, $zero:literal,
         $ready:expr, $dot:expr, $panel_dot:expr, $together:literal, $panel_dots:expr) => {
            /// # Safety
            ///
            /// The processor has the features named; `group` has eight records of the panel's
            /// steps.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $sweep(
                group: Group<'_>,
                panel: &Panel,
                passed: &mut Passed,
            ) -> u32 {
                let mut hits = 0;
                if !panel.few.is_empty() {
                    for q in 0..panel.few.len() {
                        // SAFETY: this function's contract.
                        hits |= unsafe { $few(group, panel, q, passed) };
                    }
                    return hits;
                }
                let vectors = panel.lanes / $ops::LANES;
                for vector in (0..vectors).step_by($vectors) {
                    // SAFETY: this function's contract; the vectors are the panel's.
                    hits |= unsafe {
                        // The first vectors that meet a group have the next one fetched.
                        match ((vectors - vector).min($vectors), vector) {
                            (1, 0) => $test::<1, true>(group, panel, 0, passed),
                            (2, 0) => $test::<2, true>(group, panel, 0, passed),
                            (_, 0) => $test::<$vectors, true>(group, panel, 0, passed),
                            (1, _) => $test::<1, false>(group, panel, vector, passed),
                            (2, _) => $test::<2, false>(group, panel, vector, passed),
                            _ => $test::<$vectors, false>(group, panel, vector, passed),
                        }
                    };
                }
                hits
            }

            /// # Safety
            ///
            /// As above.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $products(group: Group<'_>, panel: &Panel, out: &mut Sums) {
                let vectors = panel.lanes / $ops::LANES;
                for vector in (0..vectors).step_by($vectors) {
                    for row in (0..GROUP).step_by($rows) {
                        // SAFETY: this function's contract; the vectors are the panel's.
                        unsafe {
                            match (vectors - vector).min($vectors) {
                                1 => $part::<1>(group, panel, vector, row, out),
                                2 => $part::<2>(group, panel, vector, row, out),
                                _ => $part::<$vectors>(group, panel, vector, row, out),
                            }
                        }
                    }
                }
            }

            /// # Safety
            ///
            /// As above; `vector..vector + V` are vectors of the panel.
            #[target_feature(enable = $features)]
            unsafe fn $part<const V: usize>(
                group: Group<'_>,
                panel: &Panel,
                vector: usize,
                row: usize,
                out: &mut Sums,
            ) {
                // SAFETY: the contract; a row of `out` has a word for every lane of the panel.
                unsafe {
                    let sums =
                        $part_sums::<V, false>(group, panel, vector, row, [$ops::ints(0); V]);
                    for (out, sums) in out[row..].iter_mut().zip(sums) {
                        for (v, sum) in sums.into_iter().enumerate() {
                            $ops::store(out.as_mut_ptr().add((vector + v) * $ops::LANES), sum);
                        }
                    }
                }
            }

            /// # Safety
            ///
            /// As above.
            #[target_feature(enable = $features)]
            unsafe fn $test<const V: usize, const FETCH: bool>(
                group: Group<'_>,
                panel: &Panel,
                vector: usize,
                passed: &mut Passed,
            ) -> u32 {
                let first = vector * $ops::LANES;
                let rounding = $ops::floats(group.ratios.rounding);
                let norm = $ops::floats(group.ratios.norm);
                let mut start = [$ops::ints(1); V];
                // SAFETY: a panel's arrays have a float for every lane.
                let load = |array: &[f32; PANEL], v: usize| unsafe {
                    $ops::load_floats(array.as_ptr().add(first + v * $ops::LANES))
                };
                for (v, start) in start.iter_mut().enumerate() {
                    let margin = $ops::mul_floats(load(&panel.norm, v), norm);
                    let margin = $ops::fma(load(&panel.rounding, v), rounding, margin);
                    let margin = $ops::mul_floats(margin, $ops::floats(1.0 + 1e-5));
                    let margin = $ops::min(margin, $ops::floats(MOST_MARGIN));
                    *start = $ops::add(*start, $ops::to_ints(margin));
                }
                let number = |row: usize, word: usize| {
                    // SAFETY: the contract.
                    let bits = unsafe { behind(group, row, panel.steps, word) };
                    $ops::floats(f32::from_bits(bits as u32))
                };
                let mut hits = 0;
                for top in (0..GROUP).step_by($rows) {
                    // SAFETY: the contract.
                    let sums = unsafe { $test_sums::<V, FETCH>(group, panel, vector, top, start) };
                    let scaled = |row, v| $ops::mul_floats(number(row, 0), load(&panel.scale, v));
                    let reaches = |value, v| $ops::reaches(value, load(&panel.threshold, v));
                    let out = (&mut *passed, &mut hits, top, first);
                    match group.thresholds {
                        Some(rows) => keep!($ops, $each, V, sums, out, |row, v, sum| {
                            let factor = scaled(row, v);
                            let wanted = $ops::fma(sum, factor, load(&panel.bias, v));
                            reaches($ops::fma(sum, factor, number(row, 1)), v)
                                | $ops::reaches(wanted, $ops::floats(rows[row]))
                        }),
                        None if panel.biased => keep!($ops, $each, V, sums, out, |row, v, sum| {
                            reaches($ops::fma(sum, scaled(row, v), number(row, 1)), v)
                        }),
                        None => keep!($ops, $each, V, sums, out, |row, v, sum| {
                            reaches($ops::mul_floats(sum, number(row, 0)), v)
                        }),
                    }
                }
                hits
            }

            /// One query of few.
            ///
            /// # Safety
            ///
            /// As above.
            #[target_feature(enable = $features)]
            unsafe fn $few(group: Group<'_>, panel: &Panel, q: usize, passed: &mut Passed) -> u32 {
                let stride = panel.steps * STEP + META;
                let query = &panel.few[q][..];
                let row = |r: usize| group.records.as_ptr().wrapping_add(r * stride);
                // Where memory is slow the processor alone does not ask early enough; measured with AVX-512
                // alone. What lies behind the last group is fetched in vain.
                if $ops::LANES == 16 && q == 0 {
                    for line in (0..GROUP * stride).step_by(64) {
                        prefetch(row(2 * GROUP).wrapping_add(line));
                    }
                }
                // SAFETY: the contract.
                let (low, high) = unsafe {
                    (
                        $sweep_four(query, [0, 1, 2, 3].map(row)),
                        $sweep_four(query, [4, 5, 6, 7].map(row)),
                    )
                };
                let mut sums = _mm256_set_m128i(high, low);
                sums = ymm::add(sums, ymm::ints(panel.margin(q, group.ratios)));
                let gather = |word: usize| {
                    // SAFETY: the contract.
                    let gathered = |r| unsafe { behind(group, r, panel.steps, word) as u32 };
                    [0, 1, 2, 3, 4, 5, 6, 7].map(|r| f32::from_bits(gathered(r)))
                };
                let factors = gather(0);
                let biases = if panel.biased { gather(1) } else { [0.0; GROUP] };
                let offsets = if panel.zero != 0 { gather(2) } else { [0.0; GROUP] };
                // SAFETY: eight floats each; the last are whole numbers in truth.
                let (factors, biases, offsets) = unsafe {
                    (
                        ymm::load_floats(factors.as_ptr()),
                        ymm::load_floats(biases.as_ptr()),
                        ymm::load(offsets.as_ptr().cast()),
                    )
                };
                let offsets = _mm256_mullo_epi32(offsets, ymm::ints(panel.zero));
                sums = ymm::sub(sums, offsets);
                let value = ymm::to_floats(sums);
                let value = if panel.biased {
                    let scale = ymm::floats(panel.scale[q]);
                    ymm::fma(value, ymm::mul_floats(factors, scale), biases)
                } else {
                    ymm::mul_floats(value, factors)
                };
                let mask = ymm::reaches(value, ymm::floats(panel.threshold[q]));
                if mask != 0 {
                    let mut out = [0; GROUP];
                    // SAFETY: `out` has eight words.
                    unsafe { ymm::store(out.as_mut_ptr(), sums) };
                    for (r, sum) in out.into_iter().enumerate() {
                        passed.sums[r][q] = sum;
                        passed.masks[r] |= (mask >> r & 1) << q;
                    }
                }
                mask as u32
            }

            // One for each caller: a function that two call is not inlined, and its sums go through
            // memory, which takes half as long again.
            sums!($features, $ops, $rows, $part_sums, $together, $panel_dots, $panel_dot);
            sums!($features, $ops, $rows, $test_sums, $together, $panel_dots, $panel_dot);

            /// # Safety
            ///
            /// The processor has the features named; rows are as long as the query, which is a
            /// multiple of 16.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $dots(query: &[u8], rows: &[&[u8]; 4]) -> [i32; 4] {
                let mut out = [0; 4];
                // SAFETY: this function's contract; `out` is 16 bytes.
                unsafe {
                    let sums = $four(query, rows.map(<[u8]>::as_ptr));
                    _mm_storeu_si128(out.as_mut_ptr().cast(), sums);
                }
                out
            }

            /// # Safety
            ///
            /// The processor has the features named; records are of so many steps, one or more, for each of
            /// `out`, and the query is as long as their codes, filled up to a multiple of 16.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $values(
                query: &[u8],
                four: impl Fn(usize) -> [*const u8; 4],
                steps: usize,
                terms: Terms,
                out: &mut [[f32; 4]],
            ) {
                let zero = _mm_set1_epi32($zero);
                let [base, gain, beta] =
                    [terms.base, terms.gain, terms.beta].map(|x| _mm_set1_ps(x));
                for (i, out) in out.iter_mut().enumerate() {
                    let records = four(i);
                    // SAFETY: this function's contract: a record, whose last 16 bytes these are, is as
                    // long as the query or longer; `out` is 16 bytes.
                    unsafe {
                        let dots = $four(query, records);
                        let end = (steps - 1) * STEP;
                        let [a, b, c, d] =
                            records.map(|record| _mm_loadu_ps(record.add(end).cast()));
                        // Of the last codes, which are not wanted, factor, bias and sum.
                        let (low, other_low) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
                        let (high, other_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
                        let factors = _mm_movehl_ps(other_low, low);
                        let biases = _mm_movelh_ps(high, other_high);
                        let sums = _mm_castps_si128(_mm_movehl_ps(other_high, high));
                        let dots = _mm_sub_epi32(dots, _mm_mullo_epi32(zero, sums));
                        // In the order of `Terms::value`: every instruction set gives the same.
                        let product = _mm_mul_ps(_mm_mul_ps(gain, factors), _mm_cvtepi32_ps(dots));
                        let value = _mm_sub_ps(_mm_sub_ps(base, product), _mm_mul_ps(beta, biases));
                        _mm_storeu_ps(out.as_mut_ptr(), value);
                    }
                }
            }

            /// # Safety
            ///
            /// The processor has the features named; there are four rows for each of `out`, and each is
            /// as long as the query, which is a multiple of 16.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $in_order(query: &[u8], rows: &[u8], out: &mut [[i32; 4]]) {
                for (i, out) in out.iter_mut().enumerate() {
                    // SAFETY: this function's contract; `out` is 16 bytes.
                    unsafe {
                        let row = |r: usize| rows.as_ptr().add((4 * i + r) * query.len());
                        let sums = $four(query, [row(0), row(1), row(2), row(3)]);
                        _mm_storeu_si128(out.as_mut_ptr().cast(), sums);
                    }
                }
            }

            four!($features, $ops, $four, $ready, $dot);
            four!($features, $ops, $sweep_four, |query| query, $panel_dot);
        };
    }

    kernels!(
        "avx512f,avx512bw,avx512vnni",
        zmm,
        8,
        [0 1 2 3 4 5 6 7],
        3,
        sweep_avx512,
        products_avx512,
        dots_avx512,
        part_avx512,
        part_sums_avx512,
        test_avx512,
        test_sums_avx512,
        few_avx512,
        four_avx512,
        sweep_four_avx512,
        in_order_avx512,
        values_avx512,
        128,
        |query| query,
        |sum, query, row| _mm512_dpbusd_epi32(sum, query, row),
        |sum, query, row| _mm512_dpbusd_epi32(sum, query, row),
        1,
        |sum, [query]: [_; 1], [row]: [_; 1]| _mm512_dpbusd_epi32(sum, query, row)
    );

    kernels!(
        "avx2,fma,avxvnni",
        ymm,
        4,
        [0 1 2 3],
        2,
        sweep_avxvnni,
        products_avxvnni,
        dots_avxvnni,
        part_avxvnni,
        part_sums_avxvnni,
        test_avxvnni,
        test_sums_avxvnni,
        few_avxvnni,
        four_avxvnni,
        sweep_four_avxvnni,
        in_order_avxvnni,
        values_avxvnni,
        128,
        |query| query,
        |sum, query, row| _mm256_dpbusd_avx_epi32(sum, query, row),
        |sum, query, row| _mm256_dpbusd_avx_epi32(sum, query, row),
        1,
        |sum, [query]: [_; 1], [row]: [_; 1]| _mm256_dpbusd_avx_epi32(sum, query, row)
    );

    kernels!(
        "avx2,fma",
        ymm,
        4,
        [0 1 2 3],
        2,
        sweep_avx2,
        products_avx2,
        dots_avx2,
        part_avx2,
        part_sums_avx2,
        test_avx2,
        test_sums_avx2,
        few_avx2,
        four_avx2,
        sweep_four_avx2,
        in_order_avx2,
        values_avx2,
        0,
        |query| (_mm256_abs_epi8(query), query),
        |sum, (magnitude, query): (__m256i, __m256i), row| {
            // 127 · 127 · 2 fits 16 bits, so `vpmaddubsw` does not saturate.
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(row, query));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        },
        |sum, query, row| {
            // So does (63 + 64) · 127 · 2.
            let pairs = _mm256_maddubs_epi16(query, row);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        },
        2,
        |sum, [query, other]: [_; 2], [row, opposite]: [_; 2]| {
            // So do both sums of two, by `MOST_OF_FOUR`.
            let [a, b] = [_mm256_maddubs_epi16(query, row), _mm256_maddubs_epi16(other, opposite)];
            let fours = _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1));
            _mm256_add_epi32(sum, fours)
        }
    );
}

#[cfg(target_arch = "aarch64")]
#[allow(clippy::wildcard_imports)] // intrinsics
mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::{GROUP, Group, LANES, Panel, STEP, Sums, record_bytes};

    /// `sdot` by hand: its intrinsic is not stable.
    ///
    /// # Safety
    ///
    /// The processor has the 8-bit dot product.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sdot(mut sum: int32x4_t, queries: int8x16_t, word: int8x16_t) -> int32x4_t {
        // SAFETY: registers only.
        unsafe {
            asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) queries,
                 in(vreg) word, options(pure, nomem, nostack));
        }
        sum
    }

    /// Four rows × 16 queries at a time: 16 of 32 registers hold sums.
    ///
    /// # Safety
    ///
    /// The processor has NEON and the 8-bit dot product; `group` has eight records of the panel's
    /// steps.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn products_neon(group: Group<'_>, panel: &Panel, out: &mut Sums) {
        let stride = record_bytes(panel.steps);
        for first in (0..panel.lanes).step_by(LANES) {
            for row in (0..GROUP).step_by(4) {
                let mut sums = [[vdupq_n_s32(0); 4]; 4];
                for s in 0..panel.steps {
                    // SAFETY: a step has `lanes` words of which these are 16, and a record four
                    // bytes, by the contract.
                    unsafe {
                        let words = panel.words.as_ptr().cast::<i8>();
                        let words = words.add((s * panel.lanes + first) * STEP);
                        let queries = [0, 16, 32, 48].map(|at| vld1q_s8(words.add(at)));
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let word = group.records.as_ptr().add((row + r) * stride + s * STEP);
                            let word = vdupq_n_s32(word.cast::<i32>().read_unaligned());
                            for (sum, query) in sums.iter_mut().zip(queries) {
                                *sum = sdot(*sum, query, vreinterpretq_s8_s32(word));
                            }
                        }
                    }
                }
                for (out, sums) in out[row..].iter_mut().zip(sums) {
                    for (block, sum) in sums.into_iter().enumerate() {
                        // SAFETY: a row of sums has a word for every lane of the panel.
                        unsafe { vst1q_s32(out.as_mut_ptr().add(first + 4 * block), sum) };
                    }
                }
            }
        }
    }

    /// # Safety
    ///
    /// The processor has NEON and the 8-bit dot product; rows are as long as the query, which is
    /// a multiple of 16.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dots_neon(query: &[u8], rows: &[&[u8]; 4]) -> [i32; 4] {
        let mut sums = [vdupq_n_s32(0); 4];
        for at in (0..query.len()).step_by(16) {
            // SAFETY: the vector ends inside the query, and so inside each row.
            unsafe {
                let query = vld1q_s8(query.as_ptr().add(at).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = sdot(*sum, query, vld1q_s8(row.as_ptr().add(at).cast()));
                }
            }
        }
        sums.map(|sum| vaddvq_s32(sum))
    }
}

/// Writes a record.
pub(crate) fn write_record(record: &mut [u8], codes: &[i8], factor: f32, bias: f32) {
    let (out, meta) = record.split_at_mut(codes.len());
    out.iter_mut().zip(codes).for_each(|(out, &code)| *out = code as u8);
    let sum = dispatch(
        #[inline(always)]
        || codes.iter().map(|&code| i32::from(code)).sum::<i32>(),
    );
    meta[..4].copy_from_slice(&factor.to_le_bytes());
    meta[4..8].copy_from_slice(&bias.to_le_bytes());
    meta[8..].copy_from_slice(&sum.to_le_bytes());
}

/// Appends a record.
fn push_record(records: &mut Vec<u8>, codes: &[i8], factor: f32, bias: f32) {
    let start = records.len();
    records.resize(start + codes.len() + META, 0);
    write_record(&mut records[start..], codes, factor, bias);
}

/// Multiply-adds a second, both operations counted, of the sweep alone: random codes, thresholds
/// that let about one sum in ten thousand pass, no verdicts. For `benches/sweep.rs`.
pub(crate) fn rate(isa: Isa, rows: usize, dim: usize, queries: usize) -> f64 {
    let mut random = Random(1);
    let steps = dim.div_ceil(STEP);
    let mut codes = |limit: i8| -> Vec<i8> {
        let code = |any: u64| (any % (2 * limit as u64 + 1)) as i32 - i32::from(limit);
        (0..steps * STEP).map(|_| code(random.next()) as i8).collect()
    };
    let mut records = Vec::new();
    let most = (MOST_OF_FOUR / 4) as i8;
    for _ in 0..rows.next_multiple_of(GROUP) {
        push_record(&mut records, &codes(most), 1.0, 0.0);
    }
    // A sum of products of uniform numbers is nearly normal; 3.7 deviations leave one in 10⁴.
    let limit = sweep_limit(isa);
    let deviation = f32::from(most) * f32::from(limit) / 3.0 * (dim as f32).sqrt();
    let mut panels: Vec<Panel> = (0..queries.div_ceil(PANEL))
        .map(|_| {
            let mut panel = Panel::for_sweep(isa, PANEL, steps, false);
            for q in 0..PANEL {
                panel.put(q, &codes(limit));
                panel.set_margin(q, Ratios { rounding: 0.02 * deviation, norm: 0.0 });
                panel.threshold[q] = 3.7 * deviation;
            }
            panel
        })
        .collect();
    let mut passed = Passed::new();
    let mut hits = 0;
    let ratios = Ratios { rounding: 1.0, norm: 1.0 };
    let start = Instant::now();
    for records in records.chunks_exact(GROUP * record_bytes(steps)) {
        for panel in &mut panels {
            let group = Group { records, ratios, thresholds: None };
            hits += sweep(isa, group, panel, &mut passed);
        }
    }
    std::hint::black_box(hits);
    let products = panels.len() * PANEL * rows.next_multiple_of(GROUP) * steps * STEP;
    2.0 * products as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extremes are the rule here, since they are what saturates.
    fn codes(random: &mut Random, steps: usize, limit: i8) -> Vec<i8> {
        (0..steps * STEP)
            .map(|_| {
                let any = ((random.next() % 255) as i32 - 127) as i8 / (LIMIT / limit);
                [limit, -limit, any][random.next() as usize % 3]
            })
            .collect()
    }

    /// Lessens what passes [`MOST_OF_FOUR`], to just that.
    fn keep_to_fours(codes: &mut [i8], steps: usize) {
        let apart = opposite(steps) * STEP;
        for i in (0..apart).step_by(2) {
            for sign in [1, -1] {
                let mut left = MOST_OF_FOUR as i16;
                for at in [i, i + 1, i + apart, i + apart + 1] {
                    let most = (i16::from(codes[at]) * sign).max(0).min(left);
                    if i16::from(codes[at]) * sign > most {
                        codes[at] = (most * sign) as i8;
                    }
                    left -= most;
                }
            }
        }
    }

    fn dot(x: &[i8], y: &[i8]) -> i32 {
        x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
    }

    #[test]
    fn every_kernel_gives_the_sums_of_plain_loops() {
        let mut random = Random(7);
        for isa in Isa::available() {
            for (len, steps) in (1..=PANEL).flat_map(|len| [1, 2, 7, 96].map(|s| (len, s))) {
                let mut rows: Vec<_> =
                    (0..GROUP).map(|_| codes(&mut random, steps, LIMIT)).collect();
                rows.iter_mut().for_each(|row| keep_to_fours(row, steps));
                assert!(rows.iter().all(|row| most_of_four(row) <= MOST_OF_FOUR));
                let queries: Vec<_> =
                    (0..len).map(|_| codes(&mut random, steps, sweep_limit(isa))).collect();
                let mut records = Vec::new();
                for (r, row) in rows.iter().enumerate() {
                    push_record(&mut records, row, 1.0 + r as f32, r as f32 * 1e5);
                }
                let ratios = Ratios { rounding: 3.0, norm: 0.5 };
                let group = Group { records: &records, ratios, thresholds: None };
                let mut panel = Panel::for_rows(isa, len, steps);
                queries.iter().enumerate().for_each(|(q, query)| panel.put(q, query));
                let mut sums = [[0; PANEL]; GROUP];
                products(isa, group, &panel, &mut sums);
                for (row, sums) in rows.iter().zip(&sums) {
                    for (query, &sum) in queries.iter().zip(sums) {
                        assert_eq!(sum, dot(row, query), "{isa:?} {len} {steps}");
                    }
                }
                let wanted: [f32; GROUP] =
                    std::array::from_fn(|_| (random.next() >> 33) as f32 - 1e9);
                for (biased, pairs) in [(false, false), (true, false), (true, true)] {
                    let mut panel = if pairs {
                        Panel::for_rows(isa, len, steps)
                    } else {
                        Panel::for_sweep(isa, len, steps, biased)
                    };
                    let group = Group { thresholds: pairs.then_some(&wanted), ..group };
                    let mut sums = [[0; PANEL]; GROUP];
                    for (q, query) in queries.iter().enumerate() {
                        panel.put(q, query);
                        panel.scale[q] = 1.0 + q as f32;
                        let margin = Ratios { rounding: q as f32 * 1000.0, norm: 77.0 };
                        panel.set_margin(q, margin);
                        panel.threshold[q] = (random.next() >> 33) as f32 - 1e9;
                        panel.bias[q] = (random.next() >> 33) as f32 - 1e9;
                        (0..GROUP).for_each(|r| sums[r][q] = dot(&rows[r], query));
                    }
                    let (mut expected, mut got) = (Passed::new(), Passed::new());
                    let hits = test(group, &panel, &sums, &mut expected);
                    assert_eq!(sweep(isa, group, &panel, &mut got), hits, "{isa:?}");
                    assert_eq!(got.masks, expected.masks, "{isa:?} {len} {steps}");
                    for r in (0..GROUP).filter(|r| hits >> r & 1 == 1) {
                        for q in (0..len).filter(|q| got.masks[r] >> q & 1 == 1) {
                            assert_eq!(got.sums[r][q], expected.sums[r][q], "{isa:?} {r} {q}");
                        }
                        let q = len / 2;
                        let last = (steps - 1) * STEP;
                        let product = dot(&rows[r][last..], &queries[q][last..]);
                        assert_eq!(group.last_product(r, &panel, q), product);
                    }
                }
            }
        }
    }

    #[test]
    fn codes_of_rows_in_the_place_of_queries_are_nearest_within_the_limit() {
        for (isa, limit) in Isa::available().into_iter().zip([COLUMN_LIMIT, LIMIT].repeat(2)) {
            let mut panel = Panel::for_rows(isa, 1, 64);
            let codes: Vec<i8> = (-127..=127).chain([0]).collect();
            let mut record = Vec::new();
            push_record(&mut record, &codes, 3.0, 0.0);
            panel.put_row(0, &record, limit);
            let longer = panel.scale[0] / 3.0;
            let packed = (0..64).flat_map(|step| panel.word(0, step));
            for (code, packed) in codes.iter().zip(packed) {
                assert!(packed.abs() <= limit, "{packed} of {code}");
                let off = f32::from(packed) * longer - f32::from(*code);
                assert!(off.abs() <= longer / 2.0 * f32::from(u8::from(limit < LIMIT)) + 1e-5);
            }
        }
    }

    #[test]
    fn dots_of_rows_with_anything_behind_them_are_those_of_plain_loops() {
        let mut random = Random(9);
        for isa in Isa::available() {
            for steps in [1, 2, 7, 16, 17, 96] {
                let query = codes(&mut random, steps, LIMIT);
                let rows: Vec<_> = (0..4).map(|_| codes(&mut random, steps, LIMIT)).collect();
                let mut records = Vec::new();
                rows.iter().for_each(|row| push_record(&mut records, row, f32::MAX, -1.0));
                let mut bytes = Vec::new();
                query_bytes(isa, query.iter().map(|&code| code as u8), &mut bytes);
                let record = |r: usize| &records[r * record_bytes(steps)..];
                let got = dots(isa, &bytes, &[0, 1, 2, 3].map(record));
                for (row, got) in rows.iter().zip(got) {
                    let sum: i32 = row.iter().map(|&code| i32::from(code)).sum();
                    assert_eq!(got - zero(isa) * sum, dot(row, &query), "{isa:?} {steps}");
                }
            }
        }
    }

    #[test]
    fn values_of_records_are_those_of_plain_loops_bit_by_bit() {
        let mut random = Random(11);
        for isa in Isa::available() {
            for (steps, len) in [(1, 1_usize), (2, 2), (7, 3), (9, 4), (16, 5), (57, 16), (60, 7)] {
                let query = codes(&mut random, steps, LIMIT);
                let rows: Vec<_> = (0..len).map(|_| codes(&mut random, steps, LIMIT)).collect();
                let (factor, bias) = (|i: usize| 0.3 + i as f32, |i: usize| i as f32 / 7.0 - 1.0);
                let mut all = Vec::new();
                for (i, row) in rows.iter().enumerate() {
                    push_record(&mut all, row, factor(i), bias(i));
                }
                let records: Vec<&[u8]> = all.chunks_exact(record_bytes(steps)).collect();
                let mut bytes = Vec::new();
                query_bytes(isa, query.iter().map(|&code| code as u8), &mut bytes);
                let terms = Terms { base: 0.7, gain: 1.1, beta: 2.0 };
                let mut out = vec![[f32::NAN; 4]; len.div_ceil(4)];
                values(isa, &bytes, &records, steps, terms, &mut out);
                let mut again = out.clone();
                let ids: Vec<u32> = (0..len as u32).rev().collect();
                let all = Records::new(&all, steps);
                assert!(all.values(isa, &bytes, &ids, terms, &mut again));
                assert!(!all.values(isa, &bytes, &[len as u32], terms, &mut again[..1]));
                again.as_flattened_mut()[..len].reverse();
                assert_eq!(again.as_flattened()[..len], out.as_flattened()[..len]);
                for (i, &got) in out.as_flattened().iter().enumerate() {
                    let i = i.min(len - 1);
                    let wanted = terms.value(dot(&rows[i], &query) as f32, factor(i), bias(i));
                    assert_eq!(got.to_bits(), wanted.to_bits(), "{isa:?} {steps} {i}");
                }
            }
        }
    }

    #[test]
    fn products_of_a_block_are_those_of_its_records() {
        let mut random = Random(10);
        for isa in Isa::available() {
            for (steps, len) in [(1, 1), (7, 3), (16, 4), (56, 257)] {
                let rows: Vec<_> = (0..len).map(|_| codes(&mut random, steps, LIMIT)).collect();
                let mut records = Vec::new();
                let factor = |i: usize| 0.25 + i as f32;
                let each = rows.iter().enumerate();
                each.for_each(|(i, row)| push_record(&mut records, row, factor(i), -factor(i)));
                let block = Block::new(steps, records.chunks_exact(record_bytes(steps)));
                let query = codes(&mut random, steps, LIMIT);
                let mut bytes = Vec::new();
                query_bytes(isa, query.iter().map(|&code| code as u8), &mut bytes);
                let got = block.products(isa, &bytes, 0.5);
                assert_eq!((got.len(), block.biases().len()), (len, len));
                for (i, row) in rows.iter().enumerate() {
                    let wanted = 0.5 * factor(i) * dot(row, &query) as f32;
                    assert_eq!(
                        (got[i], block.biases()[i]),
                        (wanted, -factor(i)),
                        "{isa:?} {steps}"
                    );
                }
            }
        }
    }
}
