//! All rows against all: the product of two rows is made once and serves both.
//!
//! Rows are coded alike, so that the score of `j` from `i` is `⟨zᵢ,zⱼ⟩ − ‖zⱼ‖²/2`, and that of `i` from
//! `j` differs in its last term alone. A block of rows lies packed as columns while the codes of all rows
//! up to its own stream past, and the kernel tests each sum twice: for the column and for the row. What
//! passes waits with its row until there is enough of it, and is judged then, which raises the row's
//! cut. Answers do not depend on who comes when: what a cut rules out is no answer in any order.
//!
//! For the cosine, `z` stands for a row of unit length, so that its distance is half a squared euclidean
//! one. A row of zeros is at distance 1 from all, which is never less than what `z` says of it.
//!
//! Rows that too many pass are given up: they are searched for one by one, as other queries are.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::List;
use super::cells::Candidates;
use super::sweep::threshold;
use crate::codes::{Encoder, Scores};
use crate::corpus::{CHUNK, Chunk, Corpus};
use crate::error::Result;
use crate::kernels::float::Judge;
use crate::kernels::int8::{self, GROUP, Group, PANEL, Panel, Passed, STEP};
use crate::threads::{Stages, Worker};
use crate::top_k::{Neighbor, TopK};

/// Columns of a task.
const COLUMNS: usize = 2 * PANEL;
/// Rows that wait before they are looked at again.
const WAITING: usize = 40;
/// Seeds that are judged at first, beyond as many as are asked for.
const AT_FIRST: usize = 4;
/// Rows whose numbers are fetched before their verdict.
const AHEAD: usize = 4;
/// Groups between two looks at whether to stop.
const GROUPS: usize = 4;

/// What a row has found.
struct Near {
    top: TopK<Neighbor>,
    /// Rows that its cut did not rule out.
    waiting: Vec<u32>,
    judged: usize,
    /// In the space of the sweep's codes and of the fine ones; set with the first verdict.
    scores: Option<[Scores; 2]>,
    /// What fine codes must reach; nothing while fewer than k are known.
    cut: Option<f64>,
    /// Too many rows pass: the codes do not prune here.
    failed: bool,
}

/// The score that each row asks for, which tasks read while others raise it.
#[derive(Debug)]
pub(super) struct Cuts(Vec<AtomicU32>);

impl Cuts {
    /// Less than any score for each.
    pub(super) fn new(rows: usize) -> Self {
        Self((0..rows).map(|_| AtomicU32::new(f32::MIN.to_bits())).collect())
    }

    pub(super) fn get(&self, row: usize) -> f32 {
        f32::from_bits(self.0[row].load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, row: usize, cut: f32) {
        self.0[row].store(cut.to_bits(), Ordering::Relaxed);
    }
}

/// What all tasks share.
struct Pairs<'a> {
    corpus: Corpus<'a>,
    encoder: &'a Encoder,
    /// Codes that rule out most of what the sweep leaves, before it is judged.
    fine: &'a Encoder,
    fine_chunks: &'a [Arc<Chunk>],
    /// Verdicts of a row before it is given up.
    limit: usize,
    near: Vec<Mutex<Vec<Near>>>,
    cuts: Cuts,
}

/// Multiply-adds of all pairs.
fn work(rows: usize, encoder: &Encoder) -> u64 {
    (rows as u64 * (rows as u64 + COLUMNS as u64) / 2) * encoder.swept() as u64
}

/// The `k` nearest others of every row that may answer, fewer than there are: among `all` of them, or
/// among its `seeds`. None for rows that are given up, or have too few seeds. Every row has codes of both
/// kinds.
///
/// The codes of `corpus` are swept; those of `fine`, of the same rows, then look at what is left.
/// The better the seeds, the less is judged.
pub(crate) fn pairs(
    corpus: Corpus<'_>,
    fine: Corpus<'_>,
    k: usize,
    seeds: Candidates,
    all: bool,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<Vec<Option<List>>> {
    let n = corpus.rows;
    let (Some(encoder), Some(fine_encoder)) = (corpus.encoder, fine.encoder) else {
        return Ok((0..n).map(|_| None).collect());
    };
    let chunks = corpus.chunks.len();
    let mut pairs = Pairs {
        corpus,
        encoder,
        fine: fine_encoder,
        fine_chunks: fine.chunks,
        limit: (n / 64).max(8 * k + 512),
        near: Vec::new(),
        cuts: Cuts::new(n),
    };
    let verdicts = (CHUNK * k * corpus.dim) as u64;
    let near = stages.run(threads, chunks, verdicts * chunks as u64, |c, worker| {
        let mut numbers = Numbers::new(corpus.dim);
        let mut near = Vec::with_capacity(corpus.chunks[c].len());
        for row in c * CHUNK..c * CHUNK + corpus.chunks[c].len() {
            let (waiting, top) = (Vec::new(), TopK::new(k));
            let mut own = Near { top, waiting, judged: 0, scores: None, cut: None, failed: false };
            if corpus.is_allowed(row) {
                seeds.of(row as u32, &mut own.waiting);
                // The best of them give a cut, which rules most of the others out.
                let others = own.waiting.split_off(own.waiting.len().min(k + AT_FIRST));
                pairs.settle(row, &mut own, &mut numbers);
                own.waiting = others;
            } else {
                pairs.cuts.set(row, f32::INFINITY);
            }
            near.push(own);
            if !worker.advance(verdicts / CHUNK as u64) {
                break;
            }
        }
        Mutex::new(near)
    })?;
    drop(seeds);
    pairs.near = near;
    if all {
        let blocks = n.div_ceil(COLUMNS);
        // The longest first, so that all threads end together.
        stages.run(threads, blocks, work(n, encoder), |task, worker| {
            pairs.block((blocks - 1 - task) * COLUMNS, worker);
        })?;
    }
    let lists = stages.run(threads, chunks, verdicts * chunks as u64, |c, worker| {
        let mut numbers = Numbers::new(corpus.dim);
        let mut lists = Vec::with_capacity(corpus.chunks[c].len());
        for (i, mut near) in pairs.lock(c).drain(..).enumerate() {
            pairs.settle(c * CHUNK + i, &mut near, &mut numbers);
            let done = !near.failed && near.top.worst().is_some();
            lists.push(done.then(|| near.top.into_sorted()));
            if !worker.advance(verdicts / CHUNK as u64) {
                break;
            }
        }
        lists
    })?;
    Ok(lists.into_iter().flatten().collect())
}

/// Room for the numbers of a row and of one that it is compared with.
struct Numbers {
    row: Vec<f64>,
    other: Vec<f64>,
    /// The fine codes of the row.
    bytes: Vec<u8>,
}

impl Numbers {
    fn new(dim: usize) -> Self {
        Self { row: vec![0.0; dim], other: vec![0.0; dim], bytes: Vec::new() }
    }
}

/// Gives those of some rows that are not known yet their verdicts.
fn judge(
    corpus: Corpus<'_>,
    row: u32,
    others: &[u32],
    top: &mut TopK<Neighbor>,
    numbers: &mut Numbers,
) {
    others.iter().take(AHEAD).for_each(|&other| corpus.prefetch(other));
    corpus.read(row, &mut numbers.row);
    let judge = Judge::new(corpus.metric, &numbers.row);
    for (i, &other) in others.iter().enumerate() {
        others.get(i + AHEAD).into_iter().for_each(|&other| corpus.prefetch(other));
        // What was a seed comes again.
        if top.iter().all(|known| known.row != other) {
            corpus.read(other, &mut numbers.other);
            top.push(Neighbor { distance: judge.distance(&numbers.other), row: other });
        }
    }
}

impl Pairs<'_> {
    fn lock(&self, chunk: usize) -> MutexGuard<'_, Vec<Near>> {
        self.near[chunk].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges what waits for a row and fine codes do not rule out, and raises the row's cut.
    fn settle(&self, row: usize, near: &mut Near, numbers: &mut Numbers) {
        if let Some(cut) = near.cut.filter(|_| !near.failed) {
            self.sift(row, cut, &mut near.waiting, numbers);
        }
        if near.waiting.is_empty() || near.failed {
            near.waiting.clear();
            return;
        }
        let corpus = self.corpus;
        near.judged += near.waiting.len();
        if near.judged > self.limit {
            near.failed = true;
            near.waiting = Vec::new();
            self.cuts.set(row, f32::INFINITY);
            return;
        }
        judge(corpus, row as u32, &near.waiting, &mut near.top, numbers);
        near.waiting.clear();
        if let Some(worst) = near.top.worst() {
            let [coarse, fine] = near.scores.get_or_insert_with(|| {
                [self.encoder, self.fine].map(|encoder| encoder.pair_scores(&numbers.row))
            });
            self.cuts.set(row, threshold(coarse.at_least(worst.distance)));
            near.cut = Some(fine.at_least(worst.distance));
        }
    }

    /// Keeps those of some rows that fine codes do not rule out.
    fn sift(&self, row: usize, cut: f64, others: &mut Vec<u32>, numbers: &mut Numbers) {
        let Some(codes) = self.fine_chunks[row / CHUNK].codes(self.fine) else { return };
        let record = codes.record(row % CHUNK);
        let steps = self.fine.steps();
        let bytes = record[..steps * STEP].iter().copied();
        int8::query_bytes(self.corpus.isa, bytes, &mut numbers.bytes);
        let (factor, ..) = int8::meta(record, steps);
        let margin = self.fine.pair_margin(codes.ratios(row % CHUNK));
        let zero = int8::zero(self.corpus.isa);
        let (mut kept, mut from) = (0, 0);
        while from < others.len() {
            let four = [0, 1, 2, 3].map(|i| others[(from + i).min(others.len() - 1)]);
            let place = four.map(|other| {
                let codes = self.fine_chunks[other as usize / CHUNK].codes(self.fine);
                codes.map(|codes| {
                    let i = other as usize % CHUNK;
                    (codes.record(i), codes.ratios(i))
                })
            });
            let [Some(a), Some(b), Some(c), Some(d)] = place else { return };
            let dots = int8::dots(self.corpus.isa, &numbers.bytes, &[a.0, b.0, c.0, d.0]);
            let count = (others.len() - from).min(4);
            for (i, (record, ratios)) in [a, b, c, d].into_iter().enumerate().take(count) {
                let (other_factor, bias, sum) = int8::meta(record, steps);
                let product = f64::from(dots[i] - zero * sum) + margin.of(ratios);
                let score = product * f64::from(factor) * f64::from(other_factor) + f64::from(bias);
                if score >= cut {
                    others[kept] = four[i];
                    kept += 1;
                }
            }
            from += 4;
        }
        others.truncate(kept);
    }

    /// Compares the rows of a block, which begins with `first`, with all before them and with each
    /// other.
    fn block(&self, first: usize, worker: &Worker<'_>) {
        let corpus = self.corpus;
        let count = COLUMNS.min(corpus.rows - first);
        let cut = |row: usize| self.cuts.get(row);
        let Some(mut columns) = columns(corpus, self.encoder, first, count, cut) else { return };
        let mut numbers = Numbers::new(corpus.dim);
        let mut passed = Passed::new();
        // Rows and what passed them.
        let mut found: Vec<(u32, u32)> = Vec::new();
        let mut waiting: Vec<Vec<u32>> = vec![Vec::new(); count];
        let operations = (GROUPS * GROUP * count * self.encoder.swept()) as u64;
        for c in 0..=(first + count - 1) / CHUNK {
            let Some(codes) = corpus.chunks[c].codes(self.encoder) else { return };
            let end = corpus.chunks[c].len().min(first + count - c * CHUNK);
            for start in (0..end).step_by(GROUP) {
                let row = c * CHUNK + start;
                // Within the block each pair comes twice, once for each of the two.
                let diagonal = row >= first;
                let there = ((1u32 << GROUP.min(end - start)) - 1) & allowed(corpus, row);
                let mut thresholds = [f32::INFINITY; GROUP];
                if !diagonal {
                    for (r, threshold) in thresholds.iter_mut().enumerate() {
                        if there >> r & 1 == 1 {
                            *threshold = self.cuts.get(row + r);
                        }
                    }
                }
                let group = Group { thresholds: Some(&thresholds), ..codes.group(start / GROUP) };
                for (p, panel) in columns.iter_mut().enumerate() {
                    let hits = int8::sweep(corpus.isa, group, panel, &mut passed) & there;
                    passed.each(hits, |r, q| {
                        let column = first + p * PANEL + q;
                        if column == row + r {
                            return;
                        }
                        let steps = panel.steps();
                        let (factor, bias) = (group.factor(r, steps), group.bias(r, steps));
                        let product = passed.sums[r][q] as f32 * (factor * panel.scale[q]);
                        let reaches = |bias: f32, threshold: f32| {
                            let score = product + bias;
                            score + score.abs() * 1e-6 + 1e-36 >= threshold
                        };
                        if reaches(panel.bias[q], thresholds[r]) {
                            found.push(((row + r) as u32, column as u32));
                        }
                        if reaches(bias, panel.threshold[q]) {
                            let own = &mut waiting[column - first];
                            own.push((row + r) as u32);
                            if own.len() == WAITING {
                                panel.threshold[q] = self.hand_over(column, own, &mut numbers);
                            }
                        }
                    });
                }
                if (start / GROUP).is_multiple_of(GROUPS) && !worker.advance(operations) {
                    return;
                }
            }
            self.hand_over_all(c, &mut found, &mut numbers);
        }
        for (q, mut waiting) in waiting.into_iter().enumerate() {
            self.hand_over(first + q, &mut waiting, &mut numbers);
        }
    }

    /// Lets rows wait with their row; its cut after that.
    fn hand_over(&self, row: usize, others: &mut Vec<u32>, numbers: &mut Numbers) -> f32 {
        let mut chunk = self.lock(row / CHUNK);
        let near = &mut chunk[row % CHUNK];
        near.waiting.append(others);
        if near.waiting.len() >= WAITING {
            self.settle(row, near, numbers);
        }
        self.cuts.get(row)
    }

    /// Lets what passed rows of a chunk wait with them.
    fn hand_over_all(&self, chunk: usize, found: &mut Vec<(u32, u32)>, numbers: &mut Numbers) {
        if found.is_empty() {
            return;
        }
        let mut rows = self.lock(chunk);
        for (row, other) in found.drain(..) {
            let near = &mut rows[row as usize % CHUNK];
            near.waiting.push(other);
            if near.waiting.len() >= WAITING {
                self.settle(row as usize, near, numbers);
            }
        }
    }
}

/// The bits of the rows of a group that may answer.
fn allowed(corpus: Corpus<'_>, row: usize) -> u32 {
    corpus.allowed.map_or(u32::MAX, |allowed| allowed.bits32(row / 32 * 32) >> (row % 32))
}

/// Rows from `first` as columns that ask for the score `cut(row)`; none if some row is beyond codes.
fn columns(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    first: usize,
    count: usize,
    mut cut: impl FnMut(usize) -> f32,
) -> Option<Vec<Panel>> {
    let mut wide = Vec::new();
    let floats = (first..first + count)
        .map(|row| encoder.row_floats(corpus.chunks[row / CHUNK].rows(), row % CHUNK, &mut wide));
    let floats = floats.collect::<Option<Vec<_>>>()?;
    let queries: Vec<_> = floats.iter().map(|(floats, _)| floats).collect();
    let codes = encoder.query_codes(&queries, corpus.isa);
    let panels = codes.chunks(PANEL).zip(floats.chunks(PANEL)).enumerate();
    let panels = panels.map(|(p, (codes, floats))| {
        let mut panel = Panel::for_rows(corpus.isa, codes.len(), encoder.steps());
        for (q, (code, (_, bias))) in codes.iter().zip(floats).enumerate() {
            let row = first + p * PANEL + q;
            panel.put(q, &code.codes);
            panel.set_margin(q, code.margin);
            panel.scale[q] = code.scale;
            panel.threshold[q] = cut(row);
            if corpus.is_allowed(row) {
                panel.bias[q] = *bias;
            }
        }
        panel
    });
    Some(panels.collect())
}

/// Sets of rows that grow together. The first row of a set stands for it, so that the sets do not
/// depend on the order in which they grew.
struct Sets {
    /// A row of the same set before each row; itself for the first.
    parents: Vec<AtomicU32>,
}

impl Sets {
    fn new(rows: usize) -> Self {
        Self { parents: (0..rows as u32).map(AtomicU32::new).collect() }
    }

    /// The first row of a row's set.
    fn first(&self, mut row: u32) -> u32 {
        loop {
            let parent = self.parents[row as usize].load(Ordering::Relaxed);
            if parent == row {
                return row;
            }
            // Halving the path: what is written is as true as what was there, whoever comes between.
            let before = self.parents[parent as usize].load(Ordering::Relaxed);
            self.parents[row as usize].fetch_min(before, Ordering::Relaxed);
            row = before;
        }
    }

    /// Makes one set of two.
    fn join(&self, a: u32, b: u32) {
        let (mut a, mut b) = (self.first(a), self.first(b));
        while a != b {
            let (low, high) = (a.min(b), a.max(b));
            let parent = &self.parents[high as usize];
            if parent.compare_exchange(high, low, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
            (a, b) = (self.first(low), self.first(high));
        }
    }
}

/// For each row the first row of its group: rows that may answer are in one group if steps of at
/// most `radius` from one to another lead between them.
///
/// Pairs are never held: one whose rows are in one group already is passed over, the others are judged
/// and make one group of two, so that few are judged however many there are. `known` are pairs of equal
/// rows, which need no look.
pub(crate) fn groups(
    corpus: Corpus<'_>,
    radius: f64,
    known: impl Iterator<Item = (u32, u32)>,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<Vec<u32>> {
    let n = corpus.rows;
    let sets = Sets::new(n);
    let mut repeated = vec![false; n];
    for (row, first) in known {
        sets.join(row, first);
        repeated[row as usize] = true;
    }
    let wanted = |row: usize| !repeated[row] && corpus.is_allowed(row);
    let coded = corpus.encoder.filter(|_| corpus.metric.is_of_differences() && corpus.is_coded());
    let blocks = n.div_ceil(COLUMNS);
    let width = coded.map_or(8 * corpus.dim, Encoder::swept) as u64;
    let total = n as u64 * (n as u64 + COLUMNS as u64) / 2 * width;
    stages.run(threads, blocks, total, |task, worker| {
        let first = (blocks - 1 - task) * COLUMNS;
        let count = COLUMNS.min(n - first);
        let mut numbers = Numbers::new(corpus.dim);
        let mut judge = |a: usize, b: usize| {
            if sets.first(a as u32) != sets.first(b as u32) {
                corpus.read(a as u32, &mut numbers.row);
                corpus.read(b as u32, &mut numbers.other);
                if Judge::new(corpus.metric, &numbers.row).distance(&numbers.other) <= radius {
                    sets.join(a as u32, b as u32);
                }
            }
        };
        let Some(encoder) = coded else {
            for column in (first..first + count).filter(|&column| wanted(column)) {
                for row in (0..column).filter(|&row| wanted(row)) {
                    judge(row, column);
                    if !worker.advance(width) {
                        return;
                    }
                }
            }
            return;
        };
        let mut wide = vec![0.0; corpus.dim];
        let cut = |row: usize| {
            if !wanted(row) {
                return f32::INFINITY;
            }
            corpus.read(row as u32, &mut wide);
            threshold(encoder.pair_scores(&wide).at_least(radius))
        };
        let Some(mut panels) = columns(corpus, encoder, first, count, cut) else { return };
        let mut passed = Passed::new();
        let operations = (GROUPS * GROUP * count * encoder.swept()) as u64;
        for c in 0..=(first + count - 1) / CHUNK {
            let Some(codes) = corpus.chunks[c].codes(encoder) else { return };
            let end = corpus.chunks[c].len().min(first + count - c * CHUNK);
            for start in (0..end).step_by(GROUP) {
                let row = c * CHUNK + start;
                let group = codes.group(start / GROUP);
                for (p, panel) in panels.iter_mut().enumerate() {
                    let hits = int8::sweep(corpus.isa, group, panel, &mut passed);
                    passed.each(hits, |r, q| {
                        let column = first + p * PANEL + q;
                        if row + r < column && wanted(row + r) {
                            judge(row + r, column);
                        }
                    });
                }
                if (start / GROUP).is_multiple_of(GROUPS) && !worker.advance(operations) {
                    return;
                }
            }
        }
    })?;
    Ok((0..n as u32).map(|row| sets.first(row)).collect())
}
