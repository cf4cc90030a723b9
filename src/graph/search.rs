//! The walk: a beam of the best rows seen so far, of which the nearest are expanded first.
//!
//! Past the second-level cache the time goes to waiting for memory, so that what matters is how
//! many records are on their way at once. Each round expands the best few rows of the beam
//! together, asks for the records of all their unseen links, then for the links of the rows that
//! the next round will most likely expand, and only then scores. Where there are several targets, as
//! in a batch of queries or in a build, their walks take turns: one computes while the memory works
//! for the others.

use std::cell::RefCell;

use super::{Graph, Lane, MOST_ROWS, Target, key};
use crate::corpus::Corpus;
use crate::exact::List;
use crate::kernels::float::Judge;
use crate::kernels::int8;
use crate::scratch::{Buffer, One};
use crate::top_k::Neighbor;

/// Rows that are expanded in a round, and a width of the beam up to which it is one less.
const WIDTH: usize = 3;
const NARROW: usize = 12;
/// Walks that take turns.
const TOGETHER: usize = 3;
/// Set in the number of a row that was expanded.
const EXPANDED: u64 = MOST_ROWS as u64;
/// Rows that are judged beside the k nearest by codes, at least.
const SPARE: usize = 6;
/// One row of so many in the beam is judged, where that is more.
const JUDGED_SHARE: usize = 4;
/// Rows whose numbers are fetched before their verdict.
const AHEAD: usize = 4;

/// The best rows seen, ascending: a key in the upper half, the row in the lower.
#[derive(Debug, Default)]
pub(crate) struct Beam {
    rows: Vec<u64>,
    width: usize,
    /// No row before this one is unexpanded.
    first: usize,
    /// A bit for each row that was seen: few enough to stay in the second-level cache for millions.
    seen: Vec<u64>,
    /// The rows that were seen, in that order, of which those from `scored` are not scored yet.
    met: Vec<u32>,
    scored: usize,
}

impl Beam {
    fn start(&mut self, width: usize, rows: usize) {
        self.rows.clear();
        self.width = width;
        self.first = 0;
        self.met.drain(..).for_each(|row| self.seen[row as usize / 64] = 0);
        self.scored = 0;
        if self.seen.len() < rows.div_ceil(64) {
            self.seen.resize(rows.div_ceil(64), 0);
        }
    }

    /// Notes a row to be scored, if it is new to this walk.
    #[inline(always)]
    fn meet(&mut self, row: u32) -> bool {
        let (seen, bit) = (&mut self.seen[row as usize / 64], 1 << (row % 64));
        let new = *seen & bit == 0;
        if new {
            *seen |= bit;
            self.met.push(row);
        }
        new
    }

    #[inline(always)]
    fn push(&mut self, value: f32, row: u32) {
        let item = u64::from(key(value)) << 32 | u64::from(row);
        if self.rows.len() == self.width {
            if self.rows.last().is_none_or(|&worst| item >= worst & !EXPANDED) {
                return;
            }
            self.rows.pop();
        }
        let at = self.rows.partition_point(|&other| other & !EXPANDED < item);
        self.rows.insert(at, item);
        self.first = self.first.min(at);
    }

    /// Marks the nearest unexpanded row, and gives it.
    #[inline(always)]
    fn expand(&mut self) -> Option<u32> {
        while let Some(row) = self.rows.get_mut(self.first) {
            self.first += 1;
            if *row & EXPANDED == 0 {
                *row |= EXPANDED;
                return Some(*row as u32 & !(EXPANDED as u32));
            }
        }
        None
    }

    /// The rows, nearest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.rows.iter().map(|&row| row as u32 & !(EXPANDED as u32))
    }

    /// Asks the memory for the links of the rows that are expanded next.
    #[inline(always)]
    fn prefetch_links(&self, graph: &Graph) {
        let next = self.rows[self.first.min(self.rows.len())..].iter();
        for &row in next.filter(|&&row| row & EXPANDED == 0).take(WIDTH) {
            graph.prefetch(row as u32);
        }
    }

    /// Expands the nearest few rows and asks the memory for the records of what they link to.
    #[inline(always)]
    fn expand_some(&mut self, lane: &Lane<'_>, graph: &Graph) {
        for _ in 0..if self.width <= NARROW { 2 } else { WIDTH } {
            let Some(row) = self.expand() else { break };
            for link in graph.links(row) {
                if (link as usize) < lane.rows && self.meet(link) {
                    lane.prefetch(link);
                }
            }
        }
        // A guess, which scores may change.
        self.prefetch_links(graph);
    }

    /// Scores what was met; whether there is anything left to expand.
    #[inline(always)]
    fn score(&mut self, lane: &Lane<'_>, graph: &Graph, target: &Target) -> bool {
        let met = std::mem::take(&mut self.met);
        lane.each(target, &met[self.scored..], |row, value| self.push(value, row));
        self.scored = met.len();
        self.met = met;
        self.prefetch_links(graph);
        self.first < self.rows.len()
    }

    /// Starts from the nearest head.
    fn enter(&mut self, lane: &Lane<'_>, graph: &Graph, target: &Target) {
        let mut nearest = (f32::INFINITY, u32::MAX);
        let record =
            |i: usize| &graph.heads.records[i.min(graph.heads.rows.len() - 1) * lane.stride..];
        for (c, rows) in graph.heads.rows.chunks(4).enumerate() {
            let four = [0, 1, 2, 3].map(|i| record(c * 4 + i));
            for (&row, value) in rows.iter().zip(lane.values_of(target, four)) {
                if value < nearest.0 {
                    nearest = (value, row);
                }
            }
        }
        if (nearest.1 as usize) < lane.rows {
            self.meet(nearest.1);
            self.scored = 1;
            self.push(nearest.0, nearest.1);
        }
    }
}

/// Beams of walks that take turns, so that the memory works for one while another computes.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    walks: [Walk; TOGETHER],
}

#[derive(Debug, Default)]
struct Walk {
    beam: Beam,
    target: Target,
    /// Which of the walks it is; none where it is done.
    number: Option<usize>,
    /// Whether rows are to be scored, rather than expanded.
    met: bool,
}

impl Walks {
    /// Walks `n` times to the `width` rows nearest to a target. `aim` sets the target of a walk, and
    /// `found` gets what it came to, until it says that it is enough.
    pub(crate) fn run(
        &mut self,
        lane: &Lane<'_>,
        graph: &Graph,
        n: usize,
        width: usize,
        mut aim: impl FnMut(usize, &mut Target),
        mut found: impl FnMut(usize, &Beam, &Target) -> bool,
    ) {
        self.walks.iter_mut().for_each(|walk| walk.number = None);
        let (mut begun, mut done) = (0, 0);
        while done < n {
            for walk in &mut self.walks {
                let Walk { beam, target, number, met } = walk;
                match *number {
                    None if begun < n => {
                        aim(begun, target);
                        beam.start(width, lane.rows);
                        beam.enter(lane, graph, target);
                        (*number, *met) = (Some(begun), false);
                        begun += 1;
                    }
                    None => {}
                    Some(i) if *met => {
                        *met = false;
                        if !beam.score(lane, graph, target) {
                            (*number, done) = (None, done + 1);
                            if !found(i, beam, target) {
                                return;
                            }
                        }
                    }
                    Some(_) => {
                        beam.expand_some(lane, graph);
                        *met = true;
                    }
                }
            }
        }
    }
}

thread_local! {
    /// Kept from call to call: marks of all rows are dear to make.
    static WALKS: RefCell<(Walks, Vec<f64>)> = RefCell::default();
}

/// The `k` rows nearest to each query among the `effort` that a walk finds, by
/// `found(query, answers)`, until it says that it is enough.
///
/// The answers are none where the walk cannot answer: a query beyond codes, or fewer than there are.
pub(crate) fn search(
    corpus: Corpus<'_>,
    lane: &Lane<'_>,
    graph: &Graph,
    queries: &[&[f64]],
    k: usize,
    effort: usize,
    mut found: impl FnMut(usize, Option<List>) -> bool,
) {
    // Codes order rows nearly as the numbers do: a few more than k are enough, and a wider beam,
    // which wants more, can afford more.
    let judged = (k + (k / 2).max(SPARE)).max(effort / JUDGED_SHARE);
    let (mut floats, mut walked) = (One::new(), One::new());
    for (i, query) in queries.iter().enumerate() {
        match lane.encoder.query_floats(query) {
            Some(query) => {
                floats.push(query);
                walked.push(i);
            }
            None if found(i, None) => {}
            None => return,
        }
    }
    // Together, so that the axes are read once for all.
    let codes = lane.encoder.query_codes(&floats.iter().collect::<One<_>>(), int8::LIMIT);
    WALKS.with_borrow_mut(|(walks, wide)| {
        wide.resize(corpus.dim, 0.0);
        let aim = |i: usize, target: &mut Target| lane.aim_at_query(&codes[i], target);
        walks.run(lane, graph, walked.len(), effort.max(judged), aim, |i, beam, _| {
            let allowed = |&row: &u32| corpus.allowed.is_none_or(|a| a.contains(row as usize));
            let mut rows = Buffer::new();
            rows.extend(beam.rows().filter(allowed).take(judged));
            let judge = Judge::new(corpus.metric, queries[walked[i]]);
            let mut nearest = List::new();
            rows.iter().take(AHEAD).for_each(|&row| corpus.prefetch(row));
            for (i, &row) in rows.iter().enumerate() {
                rows.get(i + AHEAD).into_iter().for_each(|&row| corpus.prefetch(row));
                corpus.read(row, wide);
                nearest.push(Neighbor { distance: judge.distance(wide), row });
            }
            nearest.sort_unstable();
            nearest.truncate(k);
            found(walked[i], (nearest.len() == k).then_some(nearest))
        });
    });
}
