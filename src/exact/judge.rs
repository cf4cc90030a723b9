//! Verdicts: distances in float64, on the caller's own numbers.

use std::ops::Range;

use super::{Answer, CHUNK, Corpus};
use crate::kernels::float::Judge;
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
        let rows = &corpus.chunks[c].rows;
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
