//! Verdicts: distances in float64, on the caller's own numbers.

use std::cell::RefCell;
use std::ops::Range;

use super::{Answer, Goal};
use crate::corpus::{CHUNK, Corpus};
use crate::error::Result;
use crate::kernels::float::{self, Judge};
use crate::rows::{LARGEST, Rows, check_row};
use crate::scratch::{Buffer, One};
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
    let judges: One<Judge<'_>> =
        queries.iter().map(|query| Judge::new(corpus.metric, query)).collect();
    let mut row = Buffer::filled(corpus.dim, 0.0);
    corpus.count(|counts| {
        let allowed = |row: &usize| corpus.allowed.is_none_or(|allowed| allowed.contains(*row));
        let end = corpus.rows().min(chunks.end * CHUNK);
        counts.by_judge += queries.len();
        counts.judged +=
            (queries.len() * (chunks.start * CHUNK..end).filter(allowed).count()) as u64;
    });
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

thread_local! {
    /// The numbers of a query and of a row, and what was found: kept from call to call.
    static BRIEF: RefCell<(Vec<f64>, Vec<Neighbor>)> = const { RefCell::new((vec![], vec![])) };
}

/// Answers a few queries from a few rows with as little ado as can be, by `found(neighbors)` for one
/// after another; by nothing if a query is refused.
pub(super) fn brief(
    corpus: Corpus<'_>,
    queries: &Rows<'_>,
    goal: Goal,
    mut found: impl FnMut(&[Neighbor]),
) -> Result<()> {
    BRIEF.with_borrow_mut(|(numbers, near)| {
        // On lines of the cache: what was just written is read again at once, which takes longer where
        // it lies across two.
        let room = corpus.dim.next_multiple_of(8);
        numbers.resize(2 * room + 8, 0.0);
        let start = numbers.as_ptr().align_offset(64).min(8);
        let (query, row) = numbers[start..].split_at_mut(room);
        let (query, row) = (&mut query[..corpus.dim], &mut row[..corpus.dim]);
        // Loops, not iterators' methods, which would not be inlined into the instruction set.
        let bad = float::dispatch(
            #[inline(always)]
            || {
                for i in 0..queries.len() {
                    queries.read_here(i, query);
                    let mut fine = true;
                    for x in &*query {
                        fine &= x.abs() <= LARGEST;
                    }
                    if !fine {
                        return Some(i);
                    }
                }
                None
            },
        );
        if let Some(i) = bad {
            return check_row(query, "queries", i);
        }
        for i in 0..queries.len() {
            if queries.len() > 1 {
                queries.read(i, query);
            }
            let judge = Judge::new(corpus.metric, query);
            near.clear();
            for (c, chunk) in corpus.chunks.iter().enumerate() {
                let rows = chunk.rows();
                let allowed = |i: usize| corpus.allowed.is_none_or(|a| a.contains(c * CHUNK + i));
                // One way into the instruction set for all rows.
                float::dispatch(
                    #[inline(always)]
                    || {
                        for i in 0..rows.len() {
                            if allowed(i) {
                                rows.read_here(i, row);
                                let distance = judge.distance_here(row);
                                near.push(Neighbor { distance, row: (c * CHUNK + i) as u32 });
                            }
                        }
                    },
                );
            }
            near.sort_unstable();
            match goal {
                Goal::Nearest(k) => near.truncate(k),
                Goal::Within(radius) => near.retain(|near| near.distance <= radius),
            }
            found(near);
        }
        Ok(())
    })
}
