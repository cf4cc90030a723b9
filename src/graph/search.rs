//! The walk: a beam of the best rows seen so far, of which the nearest are expanded first.
//!
//! Past the second-level cache the time goes to waiting for memory, so that what matters is how
//! many records are on their way at once. Each round expands the best few rows of the beam
//! together, asks for the records of all their unseen links, then for the links of the rows that
//! the next round will most likely expand, and only then scores.

use std::cell::RefCell;

use super::{Graph, Lane, MOST_ROWS, Target, key};
use crate::codes::Encoder;
use crate::corpus::Corpus;
use crate::kernels::float::Judge;
use crate::top_k::Neighbor;

/// Rows that are expanded in a round.
const WIDTH: usize = 3;
/// Set in the number of a row that was expanded.
const EXPANDED: u64 = MOST_ROWS as u64;
/// Rows that are judged beside the k nearest by codes, at least.
const SPARE: usize = 6;
/// One row of so many in the beam is judged, where that is more.
const JUDGED_SHARE: usize = 8;
/// Rows whose numbers are fetched before their verdict.
const AHEAD: usize = 4;

/// The best rows seen, ascending: a key in the upper half, the row in the lower.
#[derive(Debug, Default)]
pub(crate) struct Beam {
    rows: Vec<u64>,
    width: usize,
    /// No row before this one is unexpanded.
    first: usize,
    /// A byte for each row: of this walk if it equals `epoch`.
    seen: Vec<u8>,
    epoch: u8,
    list: Vec<u32>,
}

impl Beam {
    fn start(&mut self, width: usize, rows: usize) {
        self.rows.clear();
        self.width = width;
        self.first = 0;
        if self.seen.len() < rows {
            self.seen.resize(rows, 0);
        }
        if self.epoch == u8::MAX {
            self.seen.fill(0);
            self.epoch = 0;
        }
        self.epoch += 1;
    }

    /// Whether a row is new to this walk; it is not any more.
    #[inline(always)]
    fn is_new(&mut self, row: u32) -> bool {
        let seen = &mut self.seen[row as usize];
        let new = *seen != self.epoch;
        *seen = self.epoch;
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

    /// Scores the rows of the list.
    fn score(&mut self, lane: &Lane<'_>, target: &Target) {
        let list = std::mem::take(&mut self.list);
        lane.each(target, &list, |row, value| self.push(value, row));
        self.list = list;
        self.list.clear();
    }

    /// Walks through the graph to the `width` rows nearest to the target.
    pub(crate) fn walk(&mut self, lane: &Lane<'_>, graph: &Graph, target: &Target, width: usize) {
        self.start(width, lane.rows);
        self.enter(lane, graph, target);
        let together = if width <= 12 { 2 } else { WIDTH };
        loop {
            for _ in 0..together {
                let Some(row) = self.expand() else { break };
                for link in graph.links(row) {
                    if (link as usize) < lane.rows && self.is_new(link) {
                        lane.prefetch(link);
                        self.list.push(link);
                    }
                }
            }
            // What the next round will expand, unless a nearer row is found now.
            let next = self.rows[self.first.min(self.rows.len())..].iter();
            for &row in next.filter(|&&row| row & EXPANDED == 0).take(together) {
                graph.prefetch(row as u32);
            }
            if self.list.is_empty() {
                if self.rows.len() <= self.first {
                    return;
                }
                continue;
            }
            self.score(lane, target);
        }
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
            self.is_new(nearest.1);
            self.push(nearest.0, nearest.1);
        }
    }
}

thread_local! {
    /// Kept from call to call: marks of all rows are dear to make.
    static BEAM: RefCell<(Beam, Target, Vec<f64>)> = RefCell::default();
}

/// The `k` rows nearest to a query among the `effort` that a walk finds.
///
/// `None` where the walk cannot answer: a query beyond codes, or fewer answers than there are.
pub(crate) fn search(
    corpus: Corpus<'_>,
    encoder: &Encoder,
    lane: &Lane<'_>,
    graph: &Graph,
    query: &[f64],
    k: usize,
    effort: usize,
) -> Option<Vec<Neighbor>> {
    let floats = encoder.query_floats(query)?;
    BEAM.with_borrow_mut(|(beam, target, wide)| {
        lane.aim_at_query(encoder, &floats, target);
        // Codes order rows nearly as the numbers do: a few more than k are enough, and a wider beam,
        // which wants more, can afford more.
        let judged = (k + (k / 2).max(SPARE)).max(effort / JUDGED_SHARE);
        beam.walk(lane, graph, target, effort.max(judged));
        wide.resize(corpus.dim, 0.0);
        let judge = Judge::new(corpus.metric, query);
        let rows: Vec<u32> = beam
            .rows()
            .filter(|&row| corpus.allowed.is_none_or(|a| a.contains(row as usize)))
            .take(judged)
            .collect();
        let mut found = Vec::with_capacity(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            if i == 0 {
                rows.iter().take(AHEAD).for_each(|&row| corpus.prefetch(row));
            }
            if let Some(&row) = rows.get(i + AHEAD) {
                corpus.prefetch(row);
            }
            corpus.read(row, wide);
            found.push(Neighbor { distance: judge.distance(wide), row });
        }
        found.sort_unstable();
        found.truncate(k);
        (found.len() == k).then_some(found)
    })
}
