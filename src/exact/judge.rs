//! Verdicts: distances in float64, on the caller's own numbers.

use std::ops::Range;

use super::{Answer, Goal};
use crate::corpus::{CHUNK, Corpus};
use crate::error::Result;
use crate::kernels::float::Judge;
use crate::rows::{Rows, check_row};
use crate::selection::Selection;
use crate::threads::Worker;
use crate::top_k::Neighbor;

/// Judges every allowed row of some chunks for every query.
pub(super) fn all(
    corpus: Corpus<'_>,
    queries: &[&[f64]],
    answers: &mut [Answer],
    chunks: Range<usize>,
    worker: &Worker<'_>,
) {
    let judges: Vec<Judge<'_>> =
        queries.iter().map(|query| Judge::new(corpus.metric, query)).collect();
    let mut row = vec![0.0; corpus.dim];
    // Verdicts cost several times what the sweep's multiply-adds do.
    let operations = (queries.len() * corpus.dim) as u64;
    for c in chunks {
        let rows = corpus.chunks[c].rows();
        for i in 0..rows.len() {
            let number = c * CHUNK + i;
            if corpus.allowed.is_some_and(|allowed: &Selection| !allowed.contains(number)) {
                continue;
            }
            rows.read(i, &mut row);
            for (judge, answer) in judges.iter().zip(answers.iter_mut()) {
                let distance = judge.distance(&row);
                answer.push(Neighbor { distance, row: number as u32 });
            }
            if !worker.advance(operations) {
                return;
            }
        }
    }
}

/// Answers a few queries from a few rows, with as little ado as can be.
pub(super) fn brief(corpus: Corpus<'_>, queries: &Rows, goal: Goal) -> Result<Vec<Vec<Neighbor>>> {
    let mut buffer = vec![0.0; 2 * corpus.dim];
    let (query, row) = buffer.split_at_mut(corpus.dim);
    let mut lists = Vec::with_capacity(queries.len());
    for i in 0..queries.len() {
        queries.read(i, query);
        check_row(query, "queries", i)?;
        let judge = Judge::new(corpus.metric, query);
        let mut answer = Answer::new(goal);
        for (c, chunk) in corpus.chunks.iter().enumerate() {
            let rows = chunk.rows();
            for i in 0..rows.len() {
                let number = c * CHUNK + i;
                if corpus.allowed.is_none_or(|allowed| allowed.contains(number)) {
                    rows.read(i, row);
                    answer.push(Neighbor { distance: judge.distance(row), row: number as u32 });
                }
            }
        }
        lists.push(answer.into_sorted());
    }
    Ok(lists)
}
