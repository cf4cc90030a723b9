//! Verdicts: distances in float64, on the caller's own numbers.

use std::cell::RefCell;
use std::ops::Range;

use super::{Answer, BRIEF, BRIEF_ROW, Goal};
use crate::corpus::{CHUNK, Corpus};
use crate::error::Result;
use crate::kernels::float::{Judge, UNIT};
use crate::rows::{Rows, bad_row};
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
        let end = corpus.rows.min(chunks.end * CHUNK);
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

const _: () = assert!(BRIEF / BRIEF_ROW <= CHUNK);

thread_local! {
    /// The numbers of a few queries and rows, and what was found: kept from call to call. On the heap,
    /// since what lies in a thread's own memory is taken from the stacks of all threads of the host.
    static KEPT: RefCell<(Vec<f64>, Vec<Neighbor>)> = const { RefCell::new((vec![], vec![])) };
}

/// Answers a few queries from so few rows with as little ado as can be, by `found(neighbors)` for one
/// after another; by nothing if a query is refused.
#[inline(always)]
pub(super) fn brief(
    corpus: &Corpus<'_>,
    queries: &Rows<'_>,
    goal: Goal,
    mut found: impl FnMut(&[Neighbor]),
) -> Result<()> {
    // Vectors are short here as a rule, and quicker judged with zeros behind them.
    let room = corpus.dim.next_multiple_of(UNIT);
    let mut outcome = Ok(());
    KEPT.with_borrow_mut(|(numbers, near)| {
        if numbers.is_empty() {
            *numbers = vec![0.0; BRIEF + UNIT];
            *near = vec![Neighbor { distance: 0.0, row: 0 }; BRIEF / BRIEF_ROW];
        }
        // On lines of the cache: what was just written is read again at once, which takes longer where
        // it lies across two.
        let start = numbers.as_ptr().align_offset(64).min(UNIT);
        let (asked, rest) = numbers[start..].split_at_mut(queries.len() * room);
        let there = &mut rest[..corpus.rows * room];
        if let Some(bad) = queries.read_apart::<true>(0..queries.len(), asked, room) {
            outcome = Err(bad_row(&asked[bad * room..][..corpus.dim], "queries", bad));
            return;
        }
        // There is one, or none.
        if let Some(chunk) = corpus.chunks.first() {
            chunk.rows().read_apart::<false>(0..corpus.rows, there, room);
        }
        for i in 0..queries.len() {
            let query = &asked[i * room..][..room];
            let (mut row, mut count) = (0, 0);
            Judge::new(corpus.metric, query).distances(
                there,
                #[inline(always)]
                |distance| {
                    if corpus.is_allowed(row as usize) {
                        near[count] = Neighbor { distance, row };
                        count += 1;
                    }
                    row += 1;
                },
            );
            let near = &mut near[..count];
            near.sort_unstable();
            let answers = match goal {
                Goal::Nearest(k) => k.min(count),
                Goal::Within(radius) => near.partition_point(|near| near.distance <= radius),
            };
            found(&near[..answers]);
        }
    });
    outcome
}
