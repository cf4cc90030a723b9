//! The sweep: a bound for every row, a verdict for the few that it cannot rule out.
//!
//! A row whose optimistic score reaches its query's *cut* waits in a short list. Whenever that
//! is full it is settled: rows whose estimate (bound less margin) reaches the cut are judged,
//! which raises the cut, and those that the new cut rules out are dropped. The cut is always the
//! score of a judged distance, so the width of the bound is paid once, not twice.
//!
//! One stretch of 32 rows in sixteen is swept first, evenly over all rows. That gives a good cut early even
//! where rows are sorted so that each is nearer than the last.
//!
//! Under a filter, rows that lie scattered are copied together first, so that no others are swept with
//! them.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Answer, Goal, judge};
use crate::codes::{Encoder, QueryFloats, RowFloats, Scores};
use crate::corpus::{CHUNK, Corpus};
use crate::kernels::float::{self, Judge};
use crate::kernels::int8::{self, GROUP, Group, PANEL, Panel, Passed, Ratios};
use crate::kernels::{matmul, prefetch};
use crate::scratch::{Buffer, One, kept};
use crate::tally::Counts;
use crate::threads::Worker;
use crate::top_k::{Neighbor, TopK};

/// Rows that are swept by all queries of a block before the next: a word of the selection.
const STRETCH: usize = 32;
/// Every so many stretches is swept in the first pass.
const STRIDE: usize = 16;
/// Candidates that wait before they are settled, at least.
const WAITING: usize = 64;
/// Rows that are fetched before their verdict.
const AHEAD: usize = 4;
/// The bound of a candidate that has its verdict.
const JUDGED: f32 = f32::NEG_INFINITY;
/// Rows of a block of float products.
const FLOAT_ROWS: usize = 256;

/// A row that its bound does not rule out.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    optimistic: f32,
    estimate: f32,
    row: u32,
}

kept!(Candidate, Floor);

/// A proven score; the highest sorts first.
#[derive(Debug, Clone, Copy)]
struct Floor(f32);

impl Ord for Floor {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl PartialOrd for Floor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Floor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Floor {}

/// One query on its way through the rows.
struct Query<'a> {
    judge: Judge<'a>,
    scores: Scores,
    answer: Answer,
    /// The k highest scores that rows are proven to reach.
    floor: TopK<Floor>,
    /// Rows below this score cannot answer.
    cut: f64,
    /// Whether bounds are so wide that verdicts must raise the cut.
    eager: bool,
    waiting: Buffer<Candidate>,
    /// How many wait before they are settled.
    room: usize,
    /// Too many rows pass: the codes do not prune here.
    failed: bool,
    /// Verdicts so far.
    judged: u32,
}

impl<'a> Query<'a> {
    fn new(corpus: Corpus<'_>, query: &'a [f64], scores: Scores, goal: Goal, eager: bool) -> Self {
        let answer = Answer::new(goal);
        let room = match goal {
            Goal::Nearest(k) => WAITING.max(2 * k),
            Goal::Within(_) => WAITING,
        };
        let floors = match goal {
            Goal::Nearest(k) => k,
            Goal::Within(_) => 0,
        };
        Self {
            judge: Judge::new(corpus.metric, query),
            cut: scores.at_least(answer.reach()),
            scores,
            answer,
            floor: TopK::new(floors),
            eager,
            waiting: Buffer::new(),
            room,
            failed: false,
            judged: 0,
        }
    }

    /// The cut as a float that no score above the cut is below, after `divisor`.
    fn threshold(&self, divisor: f32) -> f32 {
        if self.failed {
            return f32::INFINITY;
        }
        (lowered(self.cut) / f64::from(divisor)) as f32
    }

    fn verdict(&mut self, corpus: Corpus<'_>, row: u32, wide: &mut [f64]) {
        corpus.read(row, wide);
        self.judged += 1;
        let distance = self.judge.distance(wide);
        if self.answer.push(Neighbor { distance, row }) {
            self.cut = self.cut.max(self.scores.at_least(self.answer.reach()));
        }
    }

    /// So many waiting rows say nothing about how the codes prune.
    fn few(&self) -> usize {
        (4 * self.floor.k()).max(512)
    }

    /// Drops what the cut rules out; judges the rows that look good if bounds are wide, or all
    /// that may answer if `last`.
    fn settle(&mut self, corpus: Corpus<'_>, wide: &mut [f64], last: bool) {
        let mut waiting = std::mem::take(&mut *self.waiting);
        let everything = last || matches!(self.answer, Answer::Within(..));
        let mut good = 0;
        if everything || self.eager {
            for i in 0..waiting.len() {
                let hope = if everything { waiting[i].optimistic } else { waiting[i].estimate };
                if f64::from(hope) >= self.cut {
                    waiting.swap(i, good);
                    good += 1;
                }
            }
        }
        // Best first, so that the cut rises at once.
        waiting[..good].sort_unstable_by(|a, b| b.estimate.total_cmp(&a.estimate));
        let prefetch = |candidate: Option<&Candidate>| {
            if let Some(candidate) = candidate {
                corpus.prefetch(candidate.row);
            }
        };
        waiting[..good].iter().take(AHEAD).for_each(|candidate| prefetch(Some(candidate)));
        for i in 0..good {
            let candidate = waiting[i];
            let hope = if everything { candidate.optimistic } else { candidate.estimate };
            if f64::from(hope) >= self.cut {
                prefetch(waiting[..good].get(i + AHEAD));
                self.verdict(corpus, candidate.row, wide);
                waiting[i].optimistic = JUDGED;
            }
        }
        let cut = self.cut;
        waiting.retain(|candidate| {
            candidate.optimistic.to_bits() != JUDGED.to_bits()
                && f64::from(candidate.optimistic) >= cut
        });
        *self.waiting = waiting;
        self.room = self.room.max(2 * self.waiting.len());
    }

    /// Adds a candidate whose score is at least `floor`; settles when there are too many.
    fn push(
        &mut self,
        corpus: Corpus<'_>,
        candidate: Candidate,
        floor: f32,
        limit: usize,
        wide: &mut [f64],
    ) {
        self.waiting.push(candidate);
        if self.floor.push(Floor(floor))
            && let Some(Floor(worst)) = self.floor.worst()
        {
            self.cut = self.cut.max(self.scores.below(f64::from(worst)));
        }
        if self.waiting.len() >= self.room {
            self.settle(corpus, wide, false);
            self.failed |= self.waiting.len() > limit;
        }
    }
}

/// 4e-7 > 3 · 2⁻²⁴ for the rounding to float32, of a quotient and of the kernel's own last step; 1e-36
/// where that, or a step of a row, would be a subnormal.
fn lowered(cut: f64) -> f64 {
    cut - cut.abs() * 4e-7 - 1e-36
}

/// A cut as a float that no score above it is below.
pub(super) fn threshold(cut: f64) -> f32 {
    lowered(cut) as f32
}

/// Queries on their way, those of the numbers given.
fn block_of<'a>(
    corpus: Corpus<'_>,
    queries: &[&'a [f64]],
    floats: &'a [Option<QueryFloats>],
    numbers: &[usize],
    goal: Goal,
    eager: bool,
) -> One<(Query<'a>, &'a QueryFloats)> {
    numbers
        .iter()
        .filter_map(|&i| {
            let floats = floats[i].as_ref()?;
            Some((Query::new(corpus, queries[i], floats.scores, goal, eager), floats))
        })
        .collect()
}

/// Whether codes prune for most of some queries, as far as a sixteenth of the rows can tell.
pub(super) fn codes_prune(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    queries: &[&[f64]],
    goal: Goal,
    worker: &Worker<'_>,
) -> bool {
    let floats: One<Option<QueryFloats>> =
        queries.iter().map(|query| encoder.query_floats(query)).collect();
    let numbers: One<usize> = (0..queries.len()).collect();
    let mut block = block_of(corpus, queries, &floats, &numbers, goal, encoder.has_rest());
    sweep_codes(corpus, encoder, &mut block, 0..corpus.chunks.len(), worker, 1);
    corpus.count(|counts| counts.judged += judged(&block));
    2 * block.iter().filter(|(query, _)| query.failed).count() <= block.len()
}

/// Verdicts of a block.
fn judged(block: &[(Query<'_>, &QueryFloats)]) -> u64 {
    block.iter().map(|(query, _)| u64::from(query.judged)).sum()
}

/// Where the queries that a sweep answers are counted.
type Answered = fn(&mut Counts) -> &mut usize;

/// One of the two sweeps.
type Way = fn(Corpus<'_>, &Encoder, &mut [(Query<'_>, &QueryFloats)], Range<usize>, &Worker<'_>);

/// Answers a block of queries from some chunks.
pub(super) fn answer(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    queries: &[&[f64]],
    goal: Goal,
    chunks: Range<usize>,
    codes_prune: bool,
    worker: &Worker<'_>,
) -> One<Answer> {
    let floats: One<Option<QueryFloats>> =
        queries.iter().map(|query| encoder.query_floats(query)).collect();
    let mut answers: One<Option<Answer>> = queries.iter().map(|_| None).collect();
    // Queries beyond float32 are judged; the others try codes, then floats.
    let mut numbers: One<usize> = (0..queries.len()).filter(|&i| floats[i].is_some()).collect();
    let ways: [(Way, bool, Answered); 2] = [
        (by_codes, encoder.has_rest(), |counts| &mut counts.by_codes),
        (by_floats, false, |counts| &mut counts.by_floats),
    ];
    for (way, eager, answered) in ways.into_iter().skip(usize::from(!codes_prune)) {
        let mut block = block_of(corpus, queries, &floats, &numbers, goal, eager);
        way(corpus, encoder, &mut block, chunks.clone(), worker);
        corpus.count(|counts| {
            let done = block.iter().filter(|(query, _)| !query.failed).count();
            *answered(counts) += done;
            counts.judged += judged(&block);
        });
        let done = numbers.iter().zip(block);
        numbers = done
            .filter_map(|(&i, (query, _))| {
                if query.failed {
                    return Some(i);
                }
                answers[i] = Some(query.answer);
                None
            })
            .collect();
        if numbers.is_empty() {
            break;
        }
    }
    queries
        .iter()
        .zip(answers)
        .map(|(query, answer)| {
            answer.unwrap_or_else(|| {
                let mut answer = [Answer::new(goal)];
                judge::all(corpus, &[query], &mut answer, chunks.clone(), worker);
                let [answer] = answer;
                answer
            })
        })
        .collect()
}

/// The bits of the allowed rows of a stretch.
fn allowed(corpus: Corpus<'_>, chunk: usize, stretch: usize) -> u32 {
    let left = corpus.chunks[chunk].len() - stretch * STRETCH;
    let there = if left >= STRETCH { u32::MAX } else { (1 << left) - 1 };
    let row = chunk * CHUNK + stretch * STRETCH;
    there & corpus.allowed.map_or(u32::MAX, |allowed| allowed.bits32(row))
}

/// Sweeps codes and judges what is left. A query that too many rows pass is marked failed.
fn by_codes(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    block: &mut [(Query<'_>, &QueryFloats)],
    chunks: Range<usize>,
    worker: &Worker<'_>,
) {
    sweep_codes(corpus, encoder, block, chunks, worker, 2);
    let mut wide = Buffer::filled(corpus.dim, 0.0);
    for (query, _) in block.iter_mut().filter(|(query, _)| !query.failed) {
        query.settle(corpus, &mut wide, true);
    }
}

/// Sweeps codes, in the first pass only or in both.
fn sweep_codes(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    block: &mut [(Query<'_>, &QueryFloats)],
    chunks: Range<usize>,
    worker: &Worker<'_>,
    passes: usize,
) {
    if block.is_empty() {
        return;
    }
    let rows: usize = corpus.chunks[chunks.clone()].iter().map(|chunk| chunk.len()).sum();
    // More waiting rows than a twentieth of all cost more in verdicts than float products for all
    // rows do. How many wait hardly depends on how many were swept, if codes prune at all; where a
    // quarter of those waits, they do not.
    let few = block.iter().map(|(query, _)| query.few()).max().unwrap_or(0);
    let mut swept = 0;
    let biased = corpus.metric.is_euclidean();
    let rest = encoder.has_rest();
    let floats: One<&QueryFloats> = block.iter().map(|(_, floats)| *floats).collect();
    let codes = encoder.query_codes(&floats, corpus.isa);
    let panels: One<Panel> = codes
        .chunks(PANEL)
        .zip(block.chunks(PANEL))
        .map(|(codes, queries)| {
            let mut panel = Panel::for_sweep(corpus.isa, codes.len(), encoder.steps(), biased);
            for (q, (code, (query, _))) in codes.iter().zip(queries).enumerate() {
                panel.put(q, &code.codes);
                panel.set_margin(q, code.margin);
                panel.scale[q] = code.scale;
                panel.threshold[q] = query.threshold(if biased { 1.0 } else { code.scale });
            }
            panel
        })
        .collect();
    let operations = (block.len() * STRETCH * encoder.swept()) as u64;
    let strides = if rows > STRIDE * STRIDE * STRETCH { STRIDE } else { 1 };
    let mut sweep = Sweep {
        corpus,
        panels,
        passed: std::array::from_fn(|_| Passed::new()),
        wide: Buffer::filled(corpus.dim, 0.0),
        rest,
        biased,
    };
    let mut packed = Packed::new(encoder);
    for pass in 0..if strides == 1 { 1 } else { passes } {
        let limit = |swept: usize| (few + swept / 4).min((rows / 20).max(2 * few));
        for c in chunks.clone() {
            let chunk = &corpus.chunks[c];
            let stretches = chunk.len().div_ceil(STRETCH);
            let Some(codes) = chunk.codes(encoder) else {
                // Rows beyond codes: every one of them is a candidate.
                if pass == 0 {
                    for p in 0..stretches {
                        let first = (c * CHUNK + p * STRETCH) as u32;
                        for row in bits(allowed(corpus, c, p)).map(|bit| first + bit) {
                            block.iter_mut().for_each(|(query, _)| {
                                query.verdict(corpus, row, &mut sweep.wide);
                            });
                        }
                        if !worker.advance(operations) {
                            return;
                        }
                    }
                }
                continue;
            };
            for p in (0..stretches).filter(|p| (p % strides == 0) == (pass == 0)) {
                let allowed = allowed(corpus, c, p);
                if allowed == 0 {
                    continue;
                }
                swept += allowed.count_ones() as usize;
                let first = (c * CHUNK + p * STRETCH) as u32;
                let group = |g: usize| codes.group(p * (STRETCH / GROUP) + g);
                if is_scattered(allowed) {
                    for bit in bits(allowed) {
                        let (g, r) = (bit as usize / GROUP, bit as usize % GROUP);
                        if packed.push(group(g), r, first + bit) {
                            packed.sweep(&mut sweep, block, limit(swept));
                        }
                    }
                } else {
                    let row = |i: usize| first + i as u32;
                    sweep.stretch(block, allowed, group, row, limit(swept));
                }
                if !worker.advance(operations) {
                    return;
                }
            }
        }
        packed.sweep(&mut sweep, block, limit(swept));
    }
    corpus.count(|counts| counts.scored += (swept * block.len()) as u64);
}

/// The bits that are set, ascending.
fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < u32::BITS).then_some(bit)
    })
}

/// Whether fewer than three of the eight rows of a stretch's groups are allowed: those are better
/// copied together than swept with the others.
fn is_scattered(allowed: u32) -> bool {
    let groups = allowed.to_le_bytes().iter().filter(|&&group| group != 0).count();
    (allowed.count_ones() as usize) < 3 * groups
}

/// Allowed rows of several stretches, to be swept together.
struct Packed<'a> {
    /// Their records, and the ratios of the groups that they come from.
    found: [Group<'a>; STRETCH],
    rows: Buffer<u32>,
    /// Room for copies of the records, of so many bytes each.
    records: Buffer<u8>,
    bytes: usize,
}

impl<'a> Packed<'a> {
    fn new(encoder: &Encoder) -> Self {
        let nothing = Group { records: &[], ratios: Ratios::default(), thresholds: None };
        let bytes = int8::record_bytes(encoder.steps());
        Self { found: [nothing; STRETCH], rows: Buffer::new(), records: Buffer::new(), bytes }
    }

    /// Adds row `r` of a group, which is `row` of all, and asks the memory for its record; whether
    /// there is no room for more.
    fn push(&mut self, group: Group<'a>, r: usize, row: u32) -> bool {
        let records = &group.records[r * self.bytes..];
        for line in (0..self.bytes).step_by(64) {
            prefetch(records[line..].as_ptr());
        }
        self.found[self.rows.len()] = Group { records, ..group };
        self.rows.push(row);
        self.rows.len() == STRETCH
    }

    /// Sweeps what there is.
    fn sweep(
        &mut self,
        sweep: &mut Sweep<'_>,
        block: &mut [(Query<'_>, &QueryFloats)],
        limit: usize,
    ) {
        if self.rows.is_empty() {
            return;
        }
        self.records.resize(STRETCH * self.bytes, 0);
        let mut ratios = [Ratios::default(); STRETCH / GROUP];
        let found = &self.found[..self.rows.len()];
        let records = self.records.chunks_exact_mut(self.bytes);
        for (i, (group, record)) in found.iter().zip(records).enumerate() {
            record.copy_from_slice(&group.records[..self.bytes]);
            let most = &mut ratios[i / GROUP];
            most.rounding = most.rounding.max(group.ratios.rounding);
            most.norm = most.norm.max(group.ratios.norm);
        }
        let there = ((1u64 << self.rows.len()) - 1) as u32;
        let bytes = GROUP * self.bytes;
        let group = |g: usize| Group {
            records: &self.records[g * bytes..],
            ratios: ratios[g],
            thresholds: None,
        };
        // Beyond the rows that are there, none is asked for.
        let row = |i: usize| self.rows.get(i).copied().unwrap_or(0);
        sweep.stretch(block, there, group, row, limit);
        self.rows.clear();
    }
}

/// What sweeps.
struct Sweep<'a> {
    corpus: Corpus<'a>,
    panels: One<Panel>,
    passed: [Passed; STRETCH / GROUP],
    wide: Buffer<f64>,
    /// Whether the last step holds the rests.
    rest: bool,
    biased: bool,
}

impl Sweep<'_> {
    /// Sweeps the allowed rows of a stretch, whose groups and numbers are given.
    fn stretch<'g>(
        &mut self,
        block: &mut [(Query<'_>, &QueryFloats)],
        allowed: u32,
        group: impl Fn(usize) -> Group<'g>,
        row: impl Fn(usize) -> u32,
        limit: usize,
    ) {
        let Self { corpus, panels, passed, wide, rest, biased } = self;
        for (panel, queries) in panels.iter_mut().zip(block.chunks_mut(PANEL)) {
            // What passed is looked at when the whole stretch is multiplied: each look has branches that
            // cannot be foreseen, and the products of the next group wait for them.
            let mut hits = [0; STRETCH / GROUP];
            for (g, hits) in hits.iter_mut().enumerate() {
                let allowed = allowed >> (g * GROUP) & 0xff;
                if allowed != 0 {
                    *hits = int8::sweep(corpus.isa, group(g), panel, &mut passed[g]) & allowed;
                }
            }
            for (g, hits) in hits.into_iter().enumerate() {
                if hits == 0 {
                    continue;
                }
                let (group, passed) = (group(g), &passed[g]);
                let rows = std::array::from_fn(|r| row(g * GROUP + r));
                let hit = Hit { corpus: *corpus, group, rows, limit, rest: *rest, biased: *biased };
                hit.push(hits, queries, panel, passed, wide);
            }
        }
    }
}

/// A group of which some rows passed some thresholds.
struct Hit<'a> {
    corpus: Corpus<'a>,
    group: Group<'a>,
    /// The numbers of its rows.
    rows: [u32; GROUP],
    /// See [`Query::push`].
    limit: usize,
    /// Whether the last step holds the rests.
    rest: bool,
    biased: bool,
}

impl Hit<'_> {
    /// Makes candidates of the rows.
    fn push(
        &self,
        hits: u32,
        queries: &mut [(Query<'_>, &QueryFloats)],
        panel: &mut Panel,
        passed: &Passed,
        wide: &mut [f64],
    ) {
        let steps = panel.steps();
        passed.each(hits, |r, q| {
            let factor = self.group.factor(r, steps);
            let bias = if self.biased { self.group.bias(r, steps) } else { 0.0 };
            let query = &mut queries[q].0;
            let scale = panel.scale[q];
            let score = |sum: i32| sum as f32 * (factor * scale) + bias;
            let sum = passed.sums[r][q];
            let optimistic = score(sum);
            let optimistic = optimistic + optimistic.abs() * 1e-6 + 1e-36;
            if f64::from(optimistic) < query.cut {
                return; // the cut has risen since the group was tested
            }
            let wide_part = panel.margin(q, self.group.ratios)
                + if self.rest { self.group.last_product(r, panel, q) } else { 0 };
            let estimate = score(sum - wide_part);
            let floor = score(sum - 2 * wide_part) + bias * 5e-6;
            let floor = floor - floor.abs() * 1e-6 - 1e-36;
            let candidate = Candidate { optimistic, estimate, row: self.rows[r] };
            query.push(self.corpus, candidate, floor, self.limit, wide);
            panel.threshold[q] = query.threshold(if self.biased { 1.0 } else { scale });
        });
    }
}

/// Sweeps float32 products of whole rows.
fn by_floats(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    block: &mut [(Query<'_>, &QueryFloats)],
    chunks: Range<usize>,
    worker: &Worker<'_>,
) {
    let dim = corpus.dim;
    let lhs = block.iter().flat_map(|(_, floats)| floats.floats.iter().copied());
    let lhs: Vec<f32> = lhs.collect();
    let mut products = vec![0.0; block.len() * FLOAT_ROWS];
    let mut rows_as_floats = RowFloats::default();
    let mut masks = [0u32; FLOAT_ROWS / STRETCH];
    let mut wide = vec![0.0; dim];
    let operations = (block.len() * FLOAT_ROWS * dim) as u64;
    let swept = chunks.clone();
    for c in chunks {
        let rows = corpus.chunks[c].rows();
        for first in (0..rows.len()).step_by(FLOAT_ROWS) {
            let count = FLOAT_ROWS.min(rows.len() - first);
            if !worker.advance(operations) {
                return;
            }
            let row = |i: usize| (c * CHUNK + first + i) as u32;
            if encoder.floats(rows, first, count, &mut wide, &mut rows_as_floats).is_none() {
                for row in (0..count).map(row) {
                    if corpus.is_allowed(row as usize) {
                        block.iter_mut().for_each(|(query, _)| {
                            query.verdict(corpus, row, &mut wide);
                        });
                    }
                }
                continue;
            }
            let RowFloats { floats, norms, biases } = &rows_as_floats;
            let products = &mut products[..block.len() * count];
            matmul::products(products, &lhs, floats, dim);
            for ((query, floats), products) in block.iter_mut().zip(products.chunks_exact(count)) {
                let margin = floats.margin as f32 * (1.0 + 1e-6);
                let threshold = query.threshold(1.0);
                if !float::passes(products, margin, norms, biases, threshold, &mut masks) {
                    continue;
                }
                for (group, &mask) in masks.iter().enumerate() {
                    if mask == 0 {
                        continue;
                    }
                    let mut mask = mask & allowed(corpus, c, first / STRETCH + group);
                    while mask != 0 {
                        let i = group * STRETCH + mask.trailing_zeros() as usize;
                        mask &= mask - 1;
                        let estimate = products[i] + biases[i];
                        let optimistic = estimate + margin * norms[i];
                        let optimistic = optimistic + optimistic.abs() * 1e-6 + 1e-36;
                        let floor = estimate - margin * norms[i] + biases[i] * 5e-6;
                        let floor = floor - floor.abs() * 1e-6 - 1e-36;
                        let candidate = Candidate { optimistic, estimate, row: row(i) };
                        query.push(corpus, candidate, floor, usize::MAX, &mut wide);
                    }
                }
            }
        }
    }
    for (query, _) in block.iter_mut() {
        query.settle(corpus, &mut wide, true);
    }
    corpus.count(|counts| {
        let rows: usize = swept.map(|c| corpus.chunks[c].len()).sum();
        counts.scored += (rows * block.len()) as u64;
    });
}
