//! How wide a beam must be for a recall: measured against exact answers, and reported.

use std::time::Instant;

use super::{Hits, Index, Method, Options, State};
use crate::error::{Error, Result};
use crate::rows::Rows;
use crate::threads::Run;

/// The widest beam that tuning tries.
const WIDEST: usize = 2048;
/// Queries that tuning makes where none are given.
const TUNING_QUERIES: usize = 1000;

/// Recall and speed of one width of the beam.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RecallRow {
    /// The width.
    pub effort: usize,
    /// The mean share of true answers found.
    pub recall: f64,
    /// Of one call with all queries.
    pub queries_per_second: f64,
}

/// What [`Index::tune`] measured.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecallReport {
    /// The recall that was asked for.
    pub target: f64,
    /// The mean recall of the queries that did not choose the effort.
    pub recall: f64,
    /// A bound that the true mean is above, 95 times in 100.
    pub lower_bound: f64,
    /// The width that was chosen.
    pub effort: usize,
    /// Neighbours of each query.
    pub k: usize,
    /// The number of queries.
    pub queries: usize,
    /// Whether the caller gave them.
    pub given: bool,
    /// Recall and speed of each width that was tried, of all queries.
    pub table: Vec<RecallRow>,
}

impl Index<'_> {
    /// Finds the width of the beam that answers with this recall, and makes it the index's own.
    ///
    /// Answers of the graph are compared with exact ones, for `queries` or, if none are given, for
    /// points among some rows and rows near them, which the graph has not seen. Queries of another
    /// kind than the rows are harder: then give some. Half of
    /// the queries choose the width; the recall of the others is reported. Where no width reaches
    /// the recall, the widest that was tried is taken.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if no graph was asked for or there are not two rows, the recall is not between 0 and 1, or there
    /// are fewer than two queries; `DimensionMismatch`, `BadNumber`.
    pub fn tune(&self, recall: f64, k: usize, queries: Option<&Rows<'_>>) -> Result<RecallReport> {
        self.tune_with(recall, k, queries, Run::new())
    }

    /// As [`Index::tune`], on some threads; the speeds reported are those of so many.
    ///
    /// # Errors
    ///
    /// As [`Index::tune`]; `InvalidParameter` if there are no threads, `Interrupted` if the monitor
    /// said so.
    pub fn tune_with(
        &self,
        recall: f64,
        k: usize,
        queries: Option<&Rows<'_>>,
        run: Run<'_>,
    ) -> Result<RecallReport> {
        let (threads, monitor) = run.parts()?;
        if !(recall > 0.0 && recall <= 1.0) {
            return Err(Error::invalid(format!(
                "expected recall above 0 and up to 1, got {recall}"
            )));
        }
        let state = self.state();
        let k = k.min(state.len());
        if state.seed.is_none() || state.len() < 2 {
            return Err(Error::invalid(
                "the index has no graph of two rows or more to tune: call build_graph() first",
            ));
        }
        let made;
        let given = queries.is_some();
        let queries = if let Some(queries) = queries {
            queries
        } else {
            made = self.between_rows(&state)?;
            &made
        };
        if queries.len() < 2 {
            let got = queries.len();
            return Err(Error::invalid(format!(
                "expected at least 2 queries to tune by, got {got}"
            )));
        }
        let truth = Options::new().method(Method::Exact);
        let run = Run::new().threads(threads).monitor(monitor);
        let truth = self.search_with(queries, k, truth, run)?;
        let n = queries.len();
        let (mut table, mut chosen) = (Vec::new(), None);
        let least = (k + k / 2).min(state.rows());
        let mut effort = least;
        loop {
            let options = Options::new().method(Method::Graph).effort(effort);
            let run = Run::new().threads(threads).monitor(monitor);
            let start = Instant::now();
            let hits = self.search_with(queries, k, options, run)?;
            let seconds = start.elapsed().as_secs_f64();
            let recalls: Vec<f64> = (0..n).map(|i| share_found(&hits, &truth, i)).collect();
            // Every second query chooses, so that sorted queries are cut fairly.
            let mean = |from: usize| {
                let part = recalls.iter().skip(from).step_by(2);
                part.clone().sum::<f64>() / part.count() as f64
            };
            let row = RecallRow {
                effort,
                recall: recalls.iter().sum::<f64>() / n as f64,
                queries_per_second: n as f64 / seconds,
            };
            table.push(row);
            let last = effort >= WIDEST.min(state.rows()).max(least);
            if chosen.is_none() && (mean(0) >= recall || last) {
                let m = (n / 2) as f64;
                let found = mean(1);
                let spread = recalls.iter().skip(1).step_by(2).map(|r| (r - found).powi(2));
                let variance = spread.sum::<f64>() / (m - 1.0).max(1.0);
                // One-sided, 95 in 100; the queries are the sample, not their answers.
                let lower = found - 1.645 * (variance / m).sqrt();
                chosen = Some((effort, found, lower.max(0.0)));
            }
            if last || chosen.is_some_and(|(chosen, ..)| effort >= 2 * chosen) {
                break;
            }
            effort = (effort * 5 / 4 + 1).min(WIDEST);
        }
        let (effort, found, lower_bound) = chosen.unwrap_or((effort, 0.0, 0.0));
        let _edit = self.edit(monitor)?;
        let state = self.state();
        let next = State { effort, ..(*state).clone() };
        self.publish(next, state.rows(), &[])?;
        Ok(RecallReport {
            target: recall,
            recall: found,
            lower_bound,
            effort,
            k,
            queries: n,
            given,
            table,
        })
    }

    /// Points about as far from some rows as those are from rows that they are linked to, towards
    /// two of these.
    fn between_rows(&self, state: &State) -> Result<Rows<'static>> {
        let live = state.live_rows();
        let count = live.len().clamp(2, TUNING_QUERIES);
        let corpus = self.corpus(state, None);
        let [mut x, mut y, mut z] = [(); 3].map(|()| vec![0.0; self.dim]);
        let mut values = Vec::with_capacity(count * self.dim);
        for i in 0..count {
            let row = live[i * live.len() / count] as u32;
            // An edit under way may have linked rows that this state has not.
            let there = |&link: &u32| state.is_live(link as usize);
            let links = state.graph.as_ref().map(|graph| graph.links(row).filter(there).collect());
            let links: Vec<u32> = links.unwrap_or_default();
            let other = links.get(i % links.len().max(1)).copied().unwrap_or(row);
            let third = links.get((i + 1 + i / 7) % links.len().max(1));
            let third = third.copied().unwrap_or(row);
            corpus.read(row, &mut x);
            corpus.read(other, &mut y);
            corpus.read(third, &mut z);
            let mixed =
                x.iter().zip(&y).zip(&z).map(|((x, y), z)| x + 0.7 * (y - x) + 0.7 * (z - x));
            values.extend(mixed);
        }
        state.sound()?;
        Rows::from_vec(values, self.dim)
    }
}

/// The share of query `i`'s true answers that were found; equally far ones count.
fn share_found(hits: &Hits, truth: &Hits, i: usize) -> f64 {
    let (_, wanted) = truth.of(i);
    let Some(&last) = wanted.last() else { return 1.0 };
    let found = hits.of(i).1.iter().filter(|&&distance| distance <= last).count();
    found as f64 / wanted.len() as f64
}
