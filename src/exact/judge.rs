//! Verdicts: distances in float64, on the caller's own numbers.

use std::cell::Cell;
use std::ops::Range;

use super::{Answer, BRIEF, BRIEF_ROW, Goal};
use crate::corpus::{CHUNK, Corpus};
use crate::kernels::float::{Judge, UNIT};
use crate::rows::Rows;
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

/// The numbers of a few queries and rows, and what was found. On the heap, since what lies in a thread's
/// own memory is taken from the stacks of all threads of the host.
struct Kept {
    numbers: Vec<f64>,
    /// Where a line of the cache begins: what was just written is read again at once, which takes
    /// longer where it lies across two.
    start: usize,
    near: Vec<Neighbor>,
}

impl Kept {
    #[cold]
    fn new() -> Self {
        let numbers = vec![0.0; BRIEF + UNIT];
        let start = numbers.as_ptr().align_offset(64).min(UNIT);
        let near = vec![Neighbor { distance: 0.0, row: 0 }; BRIEF / BRIEF_ROW];
        Self { numbers, start, near }
    }
}

thread_local! {
    /// Kept from call to call.
    static KEPT: Cell<Option<Box<Kept>>> = const { Cell::new(None) };
}

/// Answers a few queries from so few rows with as little ado as can be, by `found(neighbors)` for one
/// after another; by nothing if a query holds a number beyond all: tells which.
#[inline(always)]
pub(super) fn brief(
    corpus: &Corpus<'_>,
    queries: &Rows<'_>,
    goal: Goal,
    mut found: impl FnMut(&[Neighbor]),
) -> Option<usize> {
    // A thread that is ending keeps nothing.
    let kept = KEPT.try_with(Cell::take).ok().flatten();
    let mut kept = kept.unwrap_or_else(|| Box::new(Kept::new()));
    let Kept { numbers, start, near } = &mut *kept;
    // Vectors are short here as a rule, and quicker judged with zeros behind them.
    let room = corpus.dim.next_multiple_of(UNIT);
    let (asked, rest) = numbers[*start..].split_at_mut(queries.len() * room);
    let there = &mut rest[..corpus.rows * room];
    // Cutting into equal parts would divide, which takes as long as a short distance.
    let part = |i: usize| i * room..(i + 1) * room;
    let bad = (0..queries.len()).find(|&i| !queries.read_padded::<true>(i, &mut asked[part(i)]));
    if bad.is_none() {
        // There is one, or none.
        if let Some(chunk) = corpus.chunks.first() {
            let rows = chunk.rows();
            for i in 0..corpus.rows {
                rows.read_padded::<false>(i, &mut there[part(i)]);
            }
        }
        for i in 0..queries.len() {
            let query = &asked[part(i)];
            let mut count = 0;
            Judge::new(corpus.metric, query).distances(
                there,
                #[inline(always)]
                |row, distance| {
                    if corpus.is_allowed(row) {
                        near[count] = Neighbor { distance, row: row as u32 };
                        count += 1;
                    }
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
    }
    let _ = KEPT.try_with(|place| place.set(Some(kept)));
    bad
}
