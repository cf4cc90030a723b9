//! Rows that may be near each row, by the cells that they lie in.
//!
//! The means of some random rows' neighbourhoods are *leaders*, and a row lies in the *cell* of the
//! leader nearest to it. It visits the cells whose leaders come first for it, and is compared there with
//! all rows of the cell, by the products of their codes. In other cells than its own each comparison
//! counts for both: of two near rows that lie at the far ends of their cells, one often visits the
//! other's. Where every row would have to visit most cells, as in random data of many dimensions,
//! comparing all pairs is no slower.
//!
//! For each row the best candidates are kept, by their scores alone, so that the result does not depend
//! on the order in which cells are worked on. Whoever asks judges them.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pairs::Cuts;
use super::sweep::threshold;
use crate::codes::{Codes, Encoder, Scratch};
use crate::corpus::{CHUNK, Corpus};
use crate::error::Result;
use crate::kernels::float::dispatch;
use crate::kernels::int8::{self, COLUMN_LIMIT, GROUP, Group, PANEL, Panel, Passed, Ratios};
use crate::random::Random;
use crate::rows::Rows;
use crate::threads::Stages;

/// Cells for the square root of the number of rows.
const CELLS: f64 = 2.0;
/// Rows of a cell, at least, on average.
const LEAST: usize = 16;
/// Rows that each leader is learned from, about, and how often.
const LESSONS: usize = 16;
const TURNS: usize = 2;
/// Cells whose order is found together, which costs a product with each leader again and again.
pub(super) const KNOWN: usize = 64;
/// Cells that are visited in one go: the lists of visitors take memory. The first goes are short, so
/// that the others begin with good candidates: each goes so many times as far as those before it.
pub(super) const GO: usize = 48;
const FARTHER: usize = 4;
/// What a column collects before it is handed over.
const WAITING: usize = 32;

/// The cells, and which rows lie in them.
#[derive(Debug)]
pub(crate) struct Cells {
    leaders: Leaders,
    /// The first cells of each row, the nearest first.
    nearest: Visits,
    /// The rows of each cell.
    members: Vec<Vec<u32>>,
}

/// Some of the cells that each of some rows would visit, the nearest first.
#[derive(Debug)]
struct Visits {
    cells: Vec<u16>,
    /// How many of each row.
    width: usize,
}

impl Visits {
    fn of(&self, place: usize) -> &[u16] {
        &self.cells[place * self.width..][..self.width]
    }
}

/// The leaders as columns.
#[derive(Debug)]
struct Leaders {
    panels: Vec<Panel>,
    /// From 0 on.
    numbers: Vec<u32>,
}

/// The best candidates of all rows.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// Places of each row.
    most: usize,
    /// `most` entries of each row of a chunk, zeros where there are fewer.
    chunks: Vec<Mutex<Vec<u64>>>,
    /// The worst score of each row's candidates, once it has all it may.
    cuts: Cuts,
}

/// A candidate of a row.
#[derive(Debug, Clone, Copy)]
struct Found {
    row: u32,
    other: u32,
    score: f32,
}

/// A candidate as a number: the higher its score, and of equal scores the lower its row, the larger.
fn entry(score: f32, row: u32) -> u64 {
    let bits = score.to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(!row)
}

/// The score of an entry.
fn score_of(entry: u64) -> f32 {
    let ordered = (entry >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 0 { !ordered } else { ordered & !(1 << 31) })
}

/// The worst of some entries.
#[inline(always)]
fn least(entries: &[u64]) -> u64 {
    entries.iter().copied().fold(u64::MAX, u64::min)
}

/// The row of an entry.
fn row_of(entry: u64) -> u32 {
    !(entry as u32)
}

impl Candidates {
    fn new(corpus: Corpus<'_>, most: usize) -> Self {
        let chunks = corpus.chunks.iter().map(|chunk| Mutex::new(vec![0; chunk.len() * most]));
        Self { most, chunks: chunks.collect(), cuts: Cuts::new(corpus.rows) }
    }

    fn cut(&self, row: u32) -> f32 {
        self.cuts.get(row as usize)
    }

    /// What a row asks for, so low that rounding leaves nothing out. Less than any score, but not −∞,
    /// which empty columns have.
    fn wanted(&self, row: u32) -> f32 {
        threshold(f64::from(self.cut(row))).max(f32::MIN)
    }

    fn lock(&self, row: u32) -> MutexGuard<'_, Vec<u64>> {
        self.chunks[row as usize / CHUNK].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places of a row.
    fn places(&self, row: u32) -> Range<usize> {
        let first = row as usize % CHUNK * self.most;
        first..first + self.most
    }

    /// Gives a row its first candidates, each once: the best of some entries.
    fn begin(&self, row: u32, entries: &mut [u64]) {
        let best = match entries.len().checked_sub(self.most) {
            None => entries,
            Some(others) => {
                let (_, worst, _) = entries.select_nth_unstable(others);
                self.cuts.set(row as usize, score_of(*worst));
                &entries[others..]
            }
        };
        self.lock(row)[self.places(row)][..best.len()].copy_from_slice(best);
    }

    /// Adds what was found for rows of one chunk.
    fn add(&self, found: &mut Vec<Found>) {
        let Some(first) = found.first() else { return };
        let mut entries = self.lock(first.row);
        dispatch(
            #[inline(always)]
            || {
                for found in found.iter().filter(|found| found.score >= self.cut(found.row)) {
                    self.push(&mut entries[self.places(found.row)], *found);
                }
            },
        );
        found.clear();
    }

    /// Adds a candidate: once, with the better of its scores, as the codes of each side give one.
    #[inline(always)]
    fn push(&self, entries: &mut [u64], found: Found) {
        let new = entry(found.score, found.other);
        let same = |entry: u64| entry as u32 == new as u32;
        if entries.iter().fold(false, |any, &entry| any | same(entry)) {
            entries
                .iter_mut()
                .filter(|entry| same(**entry))
                .for_each(|entry| *entry = new.max(*entry));
        } else {
            let worst = least(entries);
            let Some(place) = entries.iter().position(|&entry| entry == worst) else { return };
            entries[place] = new.max(worst);
        }
        let worst = least(entries);
        if worst > 0 {
            self.cuts.set(found.row as usize, score_of(worst));
        }
    }

    /// The candidates of a row, the best first.
    pub(crate) fn of(&self, row: u32, out: &mut Vec<u32>) {
        let mut entries = self.lock(row);
        let entries = &mut entries[self.places(row)];
        entries.sort_unstable_by(|a, b| b.cmp(a));
        out.extend(entries.iter().filter(|&&entry| entry > 0).map(|&entry| row_of(entry)));
    }
}

/// The record of a row, which has one.
fn record<'a>(corpus: Corpus<'a>, encoder: &Encoder, row: u32) -> &'a [u8] {
    let codes = corpus.chunks[row as usize / CHUNK].codes(encoder);
    let bytes = int8::record_bytes(encoder.steps());
    codes.map_or(&[], |codes| &codes.record(row as usize % CHUNK)[..bytes])
}

/// Copies the records of a group's rows together.
fn gather(corpus: Corpus<'_>, encoder: &Encoder, rows: &[u32], records: &mut Vec<u8>) {
    records.clear();
    rows.iter().for_each(|&row| records.extend_from_slice(record(corpus, encoder, row)));
    records.resize(GROUP * int8::record_bytes(encoder.steps()), 0);
}

/// Packs rows as columns. Codes that are too large for this panel's kernel become smaller ones.
fn pack<'a>(limit: i8, mut panel: Panel, records: impl Iterator<Item = &'a [u8]>) -> Panel {
    records.enumerate().for_each(|(q, record)| panel.put_row(q, record, limit));
    panel
}

/// Keeps the entries of some rows, at most a group, for each of some columns, which have these numbers.
fn compare(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    rows: &[u32],
    (panels, numbers): (&[Panel], &[u32]),
    records: &mut Vec<u8>,
    entries: &mut [Vec<u64>; GROUP],
) {
    gather(corpus, encoder, rows, records);
    let group = Group { records, ratios: Ratios::default(), thresholds: None };
    let mut sums = [[0; PANEL]; GROUP];
    entries.iter_mut().for_each(Vec::clear);
    for (panel, numbers) in panels.iter().zip(numbers.chunks(PANEL)) {
        int8::products(corpus.isa, group, panel, &mut sums);
        for (r, entries) in entries[..rows.len()].iter_mut().enumerate() {
            let factor = group.factor(r, encoder.steps());
            entries.extend(numbers.iter().enumerate().map(|(q, &number)| {
                let score = sums[r][q] as f32 * (factor * panel.scale[q]) + panel.bias[q];
                entry(score, number)
            }));
        }
    }
}

/// The places of visits after the first, go by go. None reaches beyond places that are found together.
pub(super) fn goes(visits: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = 1;
    std::iter::from_fn(move || {
        let known = at / KNOWN * KNOWN + KNOWN;
        let go = at..visits.min(known).min(at * FARTHER).min(at + GO);
        at = go.end;
        (!go.is_empty()).then_some(go)
    })
}

impl Cells {
    /// Chooses the leaders and finds the nearest of each row that may answer.
    ///
    /// `None` where there are no codes, or no rows.
    pub(crate) fn new(
        corpus: Corpus<'_>,
        seed: u64,
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<Option<Self>> {
        let Some(encoder) = corpus.encoder.filter(|_| corpus.candidates() > 0) else {
            return Ok(None);
        };
        let all: Vec<u32> = (0..corpus.rows as u32).collect();
        let rows: Vec<u32> =
            all.iter().copied().filter(|&row| corpus.is_allowed(row as usize)).collect();
        let count = ((rows.len() as f64).sqrt() * CELLS) as usize;
        let count = count.min(rows.len() / LEAST).clamp(1, usize::from(u16::MAX));
        let mut random = Random(seed);
        let mut some = |count: usize| -> Vec<u32> {
            random.sample(count, rows.len()).into_iter().map(|i| rows[i as usize]).collect()
        };
        let mut leaders = Vec::new();
        let mut row = vec![0.0; corpus.dim];
        for leader in some(count) {
            corpus.read(leader, &mut row);
            leaders.extend_from_slice(&row);
        }
        for _ in 0..TURNS {
            let Some(told) = Leaders::new(corpus, encoder, &leaders)? else { return Ok(None) };
            let lessons = some(count * LESSONS);
            let nearest = told.nearest(corpus, &lessons, 0..1, threads, stages)?;
            learn(corpus, encoder, &lessons, &nearest.cells, &mut leaders);
        }
        let Some(leaders) = Leaders::new(corpus, encoder, &leaders)? else { return Ok(None) };
        let nearest = leaders.nearest(corpus, &all, 0..KNOWN.min(count), threads, stages)?;
        let mut members = vec![Vec::new(); count];
        for row in rows {
            members[usize::from(nearest.of(row as usize)[0])].push(row);
        }
        Ok(Some(Self { leaders, nearest, members }))
    }

    /// The cell that a row lies in.
    fn cell(&self, row: u32) -> u16 {
        self.nearest.of(row as usize)[0]
    }

    /// For each of some pairs of rows, how many cells rows must visit for the two to be compared: until one
    /// of them comes to the other's.
    pub(crate) fn visits(
        &self,
        corpus: Corpus<'_>,
        pairs: &[(u32, u32)],
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<Vec<usize>> {
        let mut rows: Vec<u32> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
        rows.sort_unstable();
        rows.dedup();
        let order = self.leaders.nearest(corpus, &rows, 0..self.len(), threads, stages)?;
        let place = |row: u32, other: u32| {
            let cell = self.cell(other);
            let cells = order.of(rows.binary_search(&row).unwrap_or(0));
            cells.iter().position(|&visited| visited == cell).unwrap_or(self.len())
        };
        Ok(pairs.iter().map(|&(a, b)| place(a, b).min(place(b, a)) + 1).collect())
    }

    /// How many cells there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The `most` best candidates of each row after visits to `visits` cells.
    pub(crate) fn candidates(
        &self,
        corpus: Corpus<'_>,
        visits: usize,
        most: usize,
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<Candidates> {
        let candidates = Candidates::new(corpus, most);
        self.own(corpus, &candidates, threads, stages)?;
        let visits = visits.min(self.len());
        let all: Vec<u32> = (0..corpus.rows as u32).collect();
        let mut later = None;
        for go in goes(visits) {
            let from = go.start / KNOWN * KNOWN;
            if go.start == from {
                let range = from..visits.min(from + KNOWN);
                later = Some(self.leaders.nearest(corpus, &all, range, threads, stages)?);
            }
            let known = later.as_ref().unwrap_or(&self.nearest);
            let range = go.start - from..go.end - from;
            self.go(corpus, known, range, &candidates, threads, stages)?;
        }
        Ok(candidates)
    }

    /// The members of a cell as columns.
    fn columns(&self, corpus: Corpus<'_>, encoder: &Encoder, cell: usize) -> Vec<Panel> {
        let limit = int8::sweep_limit(corpus.isa);
        let panels = self.members[cell].chunks(PANEL).map(|members| {
            let panel = Panel::for_rows(corpus.isa, members.len(), encoder.steps());
            pack(limit, panel, members.iter().map(|&row| record(corpus, encoder, row)))
        });
        panels.collect()
    }

    /// Lets every row visit its own cell, where it finds so many that they need not come one by one.
    fn own(
        &self,
        corpus: Corpus<'_>,
        candidates: &Candidates,
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<()> {
        let Some(encoder) = corpus.encoder else { return Ok(()) };
        let work = |members: &[u32]| (members.len().pow(2) * encoder.swept()) as u64;
        let total = self.members.iter().map(|members| work(members)).sum();
        stages.run(threads, self.members.len(), total, |cell, worker| {
            let members = &self.members[cell];
            let panels = self.columns(corpus, encoder, cell);
            let mut records = Vec::new();
            let mut entries: [Vec<u64>; GROUP] = Default::default();
            for (g, rows) in members.chunks(GROUP).enumerate() {
                let columns = (&panels[..], &members[..]);
                compare(corpus, encoder, rows, columns, &mut records, &mut entries);
                for (r, (&row, entries)) in rows.iter().zip(&mut entries).enumerate() {
                    entries.swap_remove(g * GROUP + r); // itself
                    candidates.begin(row, entries);
                }
                if !worker.advance((rows.len() * members.len() * encoder.swept()) as u64) {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Lets every row visit some of its cells.
    fn go(
        &self,
        corpus: Corpus<'_>,
        visits: &Visits,
        range: Range<usize>,
        candidates: &Candidates,
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<()> {
        let Some(encoder) = corpus.encoder.filter(|_| !range.is_empty()) else { return Ok(()) };
        let mut visitors = vec![Vec::new(); self.len()];
        for row in (0..corpus.rows).filter(|&row| corpus.is_allowed(row)) {
            for &cell in &visits.of(row)[range.clone()] {
                visitors[usize::from(cell)].push(row as u32);
            }
        }
        let steps = encoder.steps();
        let work = |cell: usize| {
            (self.members[cell].len() * visitors[cell].len() * encoder.swept()) as u64
        };
        let total = (0..self.members.len()).map(work).sum();
        stages.run(threads, self.members.len(), total, |cell, worker| {
            let (members, visitors) = (&self.members[cell], &visitors[cell]);
            let mut panels = self.columns(corpus, encoder, cell);
            for (members, panel) in members.chunks(PANEL).zip(&mut panels) {
                for (&row, wanted) in members.iter().zip(&mut panel.threshold) {
                    *wanted = candidates.wanted(row);
                }
            }
            let mut passed = Passed::new();
            let mut found = Vec::new();
            let mut waiting = vec![Vec::new(); members.len()];
            let mut records = Vec::new();
            for rows in visitors.chunks(GROUP) {
                gather(corpus, encoder, rows, &mut records);
                let mut thresholds = [f32::INFINITY; GROUP];
                for (&row, wanted) in rows.iter().zip(&mut thresholds) {
                    *wanted = candidates.wanted(row);
                }
                let ratios = Ratios::default();
                let group = Group { records: &records, ratios, thresholds: Some(&thresholds) };
                let there = (1u32 << rows.len()) - 1;
                for (p, panel) in panels.iter_mut().enumerate() {
                    let hits = int8::sweep(corpus.isa, group, panel, &mut passed) & there;
                    passed.each(hits, |r, q| {
                        let column = p * PANEL + q;
                        let (row, member) = (rows[r], members[column]);
                        let scale = group.factor(r, steps) * panel.scale[q];
                        // As `compare` has it: cuts are of scores of both.
                        let sum = passed.sums[r][q] - panel.margin(q, ratios);
                        let product = sum as f32 * scale;
                        let score = product + panel.bias[q];
                        if score >= candidates.cut(row) {
                            let chunk = |row: u32| row as usize / CHUNK;
                            if found.last().is_some_and(|f: &Found| chunk(f.row) != chunk(row)) {
                                candidates.add(&mut found);
                            }
                            found.push(Found { row, other: member, score });
                        }
                        let score = product + group.bias(r, steps);
                        if score >= candidates.cut(member) {
                            let own: &mut Vec<Found> = &mut waiting[column];
                            own.push(Found { row: member, other: row, score });
                            if own.len() == WAITING {
                                candidates.add(own);
                                panel.threshold[q] = candidates.wanted(member);
                            }
                        }
                    });
                }
                if !worker.advance((GROUP * members.len() * encoder.swept()) as u64) {
                    return;
                }
            }
            candidates.add(&mut found);
            waiting.iter_mut().for_each(|own| candidates.add(own));
        })?;
        Ok(())
    }
}

/// Makes each leader the mean of the rows that it is the nearest of.
fn learn(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    rows: &[u32],
    nearest: &[u16],
    leaders: &mut [f64],
) {
    let dim = corpus.dim;
    let mut sums = vec![0.0; leaders.len()];
    let mut counts = vec![0u32; leaders.len() / dim];
    let mut wide = vec![0.0; dim];
    for (&row, &leader) in rows.iter().zip(nearest) {
        corpus.read(row, &mut wide);
        let leader = usize::from(leader);
        let factor = encoder.factor(&wide).unwrap_or(0.0);
        counts[leader] += 1;
        sums[leader * dim..][..dim].iter_mut().zip(&wide).for_each(|(sum, x)| *sum += x * factor);
    }
    for (leader, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let range = leader * dim..(leader + 1) * dim;
        let mean = sums[range.clone()].iter().map(|sum| sum / f64::from(count));
        leaders[range].iter_mut().zip(mean).for_each(|(leader, mean)| *leader = mean);
    }
}

impl Leaders {
    /// `None` if some leader has no codes.
    fn new(corpus: Corpus<'_>, encoder: &Encoder, leaders: &[f64]) -> Result<Option<Self>> {
        let rows = Rows::from_vec(leaders.to_vec(), corpus.dim)?;
        let codes = encoder.encode(&rows, None, &mut Scratch::default());
        let panel = |first: usize, codes: &Codes| {
            let last = rows.len().min(first + PANEL);
            let panel = Panel::for_rows(corpus.isa, last - first, encoder.steps());
            let records = (first..last).map(|leader| codes.record(leader));
            pack(COLUMN_LIMIT, panel, records)
        };
        Ok(codes.map(|codes| {
            let panels = (0..rows.len()).step_by(PANEL).map(|first| panel(first, &codes));
            Self { panels: panels.collect(), numbers: (0..rows.len() as u32).collect() }
        }))
    }

    /// Of the leaders of each of some rows, in order, those in a range of places.
    fn nearest(
        &self,
        corpus: Corpus<'_>,
        rows: &[u32],
        range: Range<usize>,
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<Visits> {
        let width = range.len();
        let Some(encoder) = corpus.encoder else { return Ok(Visits { cells: Vec::new(), width }) };
        let Self { panels, numbers } = self;
        let count = numbers.len();
        let operations = (CHUNK * count * encoder.swept()) as u64;
        let tasks = rows.len().div_ceil(CHUNK);
        let parts = stages.run(threads, tasks, operations * tasks as u64, |task, worker| {
            let mut entries: [Vec<u64>; GROUP] = Default::default();
            let mut records = Vec::new();
            let mut out = Vec::with_capacity(CHUNK * width);
            for rows in rows[task * CHUNK..rows.len().min((task + 1) * CHUNK)].chunks(GROUP) {
                compare(corpus, encoder, rows, (panels, numbers), &mut records, &mut entries);
                for entries in &mut entries[..rows.len()] {
                    let descending = |a: &u64, b: &u64| b.cmp(a);
                    if range.start > 0 {
                        entries.select_nth_unstable_by(range.start, descending);
                    }
                    let entries = &mut entries[range.start..];
                    if width < entries.len() {
                        entries.select_nth_unstable_by(width, descending);
                    }
                    entries[..width].sort_unstable_by(descending);
                    out.extend(entries[..width].iter().map(|&entry| row_of(entry) as u16));
                }
                if !worker.advance((GROUP * count * encoder.swept()) as u64) {
                    break;
                }
            }
            out
        })?;
        Ok(Visits { cells: parts.concat(), width })
    }
}
