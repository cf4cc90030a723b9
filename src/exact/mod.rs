//! Exact search: sweep, keep what the certificate cannot rule out, judge that in float64.
//!
//! Three ways lead to the same answers, each wider than the one before:
//!
//! 1. **Codes** (`sweep.rs`): 8-bit products over every row, a bound for each.
//! 2. **Floats** (`sweep.rs`): where codes rule out too little, float32 products, a finer bound.
//! 3. **Judge** (`judge.rs`): float64 on every allowed row; for few rows, and for metrics and
//!    numbers that have no codes.
//!
//! Many queries are cut into blocks, one thread a block; few queries cut the rows instead, and
//! the parts' answers are merged. Neither changes a bit of the result.

mod cells;
mod judge;
mod pairs;
mod sweep;
#[cfg(test)]
mod tests;

use crate::codes::Encoder;
use crate::corpus::Corpus;
use crate::error::Result;
use crate::kernels::Isa;
use crate::kernels::int8::PANEL;
use crate::rows::Rows;
use crate::scratch::{Buffer, One};
use crate::threads::{Monitor, Worker, alone, run, single};
use crate::top_k::{Neighbor, TopK};

pub(crate) use cells::Cells;
pub(crate) use pairs::{groups, pairs};

/// Queries of a block: their codes stay in a core's second-level cache.
const BLOCK: usize = 2 * PANEL;
/// Queries of a block of float products: rows are turned into floats once for each block.
const FLOAT_BLOCK: usize = 512;
/// Queries for which it pays to try the codes on the first few before the batch is cut.
const PROBE_BATCH: usize = 256;
/// How many those are.
const PROBE: usize = 16;
/// Multiply-adds that are worth waking another thread for.
const WORTH_A_THREAD: u64 = 1 << 22;

/// What copying a row takes, and the verdicts of a query, about, in nanoseconds.
const COPY_NS: f64 = 40.0;
const VERDICTS_NS: f64 = 10_000.0;
/// Numbers, and so many more for each row, below which making ready would take longer than judging every
/// row at once: a microsecond or two.
const BRIEF: usize = 1 << 12;
const BRIEF_ROW: usize = 32;

/// The neighbours of a query, nearest first.
pub(crate) type List = Buffer<Neighbor>;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The k nearest rows.
    Nearest(usize),
    /// Every row at most this far away.
    Within(f64),
}

impl Goal {
    /// Answers of each query, where that is the same for all; or else 0.
    pub(crate) fn answers(self, corpus: &Corpus<'_>) -> usize {
        match self {
            Self::Nearest(k) => k.min(corpus.candidates()),
            Self::Within(_) => 0,
        }
    }
}

/// The answer of one query while it is found: exact distances only.
#[derive(Debug)]
enum Answer {
    Nearest(TopK<Neighbor>),
    Within(f64, List),
}

impl Answer {
    fn new(goal: Goal) -> Self {
        match goal {
            Goal::Nearest(k) => Self::Nearest(TopK::new(k)),
            Goal::Within(radius) => Self::Within(radius, List::new()),
        }
    }

    fn push(&mut self, neighbor: Neighbor) -> bool {
        match self {
            Self::Nearest(top) => top.push(neighbor),
            Self::Within(radius, all) => {
                if neighbor.distance <= *radius {
                    all.push(neighbor);
                }
                false
            }
        }
    }

    /// No row farther than this can still answer.
    fn reach(&self) -> f64 {
        match self {
            Self::Nearest(top) => top.worst().map_or(f64::INFINITY, |worst| worst.distance),
            Self::Within(radius, _) => *radius,
        }
    }

    fn merge(&mut self, other: &Self) {
        match other {
            Self::Nearest(top) => top.iter().for_each(|neighbor| {
                self.push(neighbor);
            }),
            Self::Within(_, all) => all.iter().for_each(|&neighbor| {
                self.push(neighbor);
            }),
        }
    }

    fn into_sorted(self) -> List {
        match self {
            Self::Nearest(top) => top.into_sorted(),
            Self::Within(_, mut all) => {
                all.sort_unstable();
                all
            }
        }
    }
}

/// About how many nanoseconds a query of so many takes, one thread: for the choice between an exact
/// search and a walk, which need only be right within a factor.
pub(crate) fn costs(corpus: Corpus<'_>, encoder: &Encoder, queries: usize) -> f64 {
    // Multiply-adds a nanosecond: few queries wait for memory, many for arithmetic.
    let rate = match corpus.isa {
        Isa::Avx512 => 170.0,
        Isa::AvxVnni => 110.0,
        Isa::Avx2 => 75.0,
        Isa::Neon => 60.0,
        Isa::Portable => 6.0,
    };
    let rate = if queries < 16 { f64::min(rate, 28.0) } else { rate };
    let swept = encoder.swept() as f64 / rate;
    let (rows, candidates) = (corpus.rows as f64, corpus.candidates() as f64);
    let sweep = rows * swept;
    // Few rows that may answer are copied together once for each block.
    let packed = candidates * (swept + COPY_NS / queries.min(BLOCK) as f64);
    VERDICTS_NS + if candidates < rows { sweep.min(packed) } else { sweep }
}

/// Whether so little is asked that making ready would take longer than judging every row.
#[inline(always)]
pub(crate) fn is_brief(corpus: &Corpus<'_>, queries: &Rows<'_>) -> bool {
    // Rows are read also where there is no query.
    let read = queries.len().max(1).saturating_mul(1 + corpus.rows);
    read.saturating_mul(BRIEF_ROW + corpus.dim) < BRIEF
}

/// Answers what [`is_brief`], by `found(neighbors)` for one query after another.
///
/// # Errors
///
/// `BadNumber` if a query is not finite; then nothing was found.
#[inline(always)] // and by reference: a copy waits for what was just written
pub(crate) fn brief(
    corpus: &Corpus<'_>,
    queries: &Rows<'_>,
    goal: Goal,
    found: impl FnMut(&[Neighbor]),
) -> Result<()> {
    if let Some(bad) = judge::brief(corpus, queries, goal, found) {
        return Err(queries.bad("queries", bad));
    }
    corpus.count(|counts| {
        counts.brief += queries.len();
        counts.by_judge += queries.len();
        counts.judged += (queries.len() * corpus.candidates()) as u64;
    });
    Ok(())
}

/// Whether codes prune for most rows, as far as some of these can tell.
pub(crate) fn codes_prune(corpus: Corpus<'_>, rows: &[u32], k: usize) -> bool {
    let Some(encoder) = corpus.encoder else { return false };
    let probes = rows.iter().step_by(rows.len().div_ceil(PROBE).max(1));
    let mut wide = vec![0.0; PROBE * corpus.dim];
    let wide: Vec<&[f64]> = probes
        .zip(wide.chunks_exact_mut(corpus.dim))
        .map(|(&row, wide)| {
            corpus.read(row, wide);
            &*wide
        })
        .collect();
    alone(|worker| sweep::codes_prune(corpus, encoder, &wide, Goal::Nearest(k + 1), worker))
}

/// Finds the neighbours of every query, each list nearest first; equal distances by row.
///
/// # Errors
///
/// `BadNumber` if a query is not finite, `Interrupted` if the monitor said so.
pub(crate) fn search(
    corpus: Corpus<'_>,
    queries: &Rows,
    goal: Goal,
    threads: usize,
    monitor: &mut dyn Monitor,
) -> Result<One<List>> {
    let n = queries.len();
    let goal = match goal {
        Goal::Nearest(k) => Goal::Nearest(k.min(corpus.candidates())),
        within @ Goal::Within(_) => within,
    };
    let width = corpus.encoder.map_or(corpus.dim, Encoder::swept);
    let total = (n * width) as u64 * corpus.rows as u64;
    queries.check("queries")?;
    if n == 0 || corpus.candidates() == 0 {
        return Ok((0..n).map(|_| List::new()).collect());
    }
    let threads = threads.min((total / WORTH_A_THREAD) as usize).max(1);
    let way = way(corpus, queries, goal);
    // Blocks are of equal size, whole tiles where there are enough queries for that.
    let most = if matches!(way, Way::Floats(_)) { FLOAT_BLOCK } else { BLOCK };
    let parts = n.div_ceil(most).max(threads);
    let block = n
        .div_ceil(parts)
        .next_multiple_of(PANEL / 3)
        .min(n.div_ceil(n.div_ceil(most)).max(PANEL / 3));
    let blocks = n.div_ceil(block);
    let sorted = |answers: One<Answer>| answers.into_iter().map(Answer::into_sorted).collect();
    if blocks == 1 && threads == 1 {
        let all = 0..corpus.chunks.len();
        return single(total, monitor, |worker| {
            sorted(answer(corpus, queries, goal, way, all, worker))
        });
    }
    if blocks >= threads {
        let answers = run(threads, blocks, total, monitor, |task, worker| {
            let block = queries.slice(task * block, block.min(n - task * block));
            sorted(answer(corpus, &block, goal, way, 0..corpus.chunks.len(), worker))
        })?;
        return Ok(answers.into_iter().flatten().collect());
    }
    // Fewer blocks than threads: cut the rows as well.
    let parts = (threads * 2).div_ceil(blocks).min(corpus.chunks.len());
    let cut = |part: usize| part * corpus.chunks.len() / parts;
    let answers = run(threads, blocks * parts, total, monitor, |task, worker| {
        let (task, part) = (task / parts, task % parts);
        let block = queries.slice(task * block, block.min(n - task * block));
        answer(corpus, &block, goal, way, cut(part)..cut(part + 1), worker)
    })?;
    let mut found = One::with_capacity(n);
    let mut answers = answers.into_iter();
    while let Some(mut block) = answers.next() {
        for part in answers.by_ref().take(parts - 1) {
            block.iter_mut().zip(&part).for_each(|(whole, part)| whole.merge(part));
        }
        found.extend(block.into_iter().map(Answer::into_sorted));
    }
    Ok(found)
}

/// The first of the three ways that a search tries.
#[derive(Clone, Copy)]
enum Way<'a> {
    Codes(&'a Encoder),
    Floats(&'a Encoder),
    Judge,
}

/// Chooses by the rows that may answer and, for a large batch, by its first queries.
fn way<'a>(corpus: Corpus<'a>, queries: &Rows, goal: Goal) -> Way<'a> {
    let Some(encoder) = corpus.encoder else { return Way::Judge };
    // A verdict costs as much as the sweep of some dozens of rows.
    let enough = match goal {
        Goal::Nearest(k) => (4 * k).max(corpus.rows / 32).max(128),
        Goal::Within(_) => (corpus.rows / 32).max(128),
    };
    if corpus.candidates() < enough {
        corpus.count(|counts| counts.few = true);
        return Way::Judge;
    }
    if queries.len() >= PROBE_BATCH && matches!(goal, Goal::Nearest(_)) {
        let wide = widen(&queries.slice(0, PROBE));
        let wide: One<&[f64]> = wide.chunks_exact(corpus.dim).collect();
        if !alone(|worker| sweep::codes_prune(corpus, encoder, &wide, goal, worker)) {
            corpus.count(|counts| counts.probe_failed = true);
            return Way::Floats(encoder);
        }
    }
    Way::Codes(encoder)
}

/// Queries in float64, one after another.
pub(crate) fn widen(queries: &Rows) -> Buffer<f64> {
    let mut wide = Buffer::filled(queries.len() * queries.dim(), 0.0);
    for (i, query) in wide.chunks_exact_mut(queries.dim()).enumerate() {
        queries.read(i, query);
    }
    wide
}

/// Answers one block of queries from some chunks.
fn answer(
    corpus: Corpus<'_>,
    queries: &Rows,
    goal: Goal,
    way: Way<'_>,
    chunks: std::ops::Range<usize>,
    worker: &Worker<'_>,
) -> One<Answer> {
    let wide = widen(queries);
    let wide: One<&[f64]> = wide.chunks_exact(corpus.dim).collect();
    match way {
        Way::Codes(encoder) => sweep::answer(corpus, encoder, &wide, goal, chunks, true, worker),
        Way::Floats(encoder) => sweep::answer(corpus, encoder, &wide, goal, chunks, false, worker),
        Way::Judge => {
            let mut answers: One<Answer> = wide.iter().map(|_| Answer::new(goal)).collect();
            judge::all(corpus, &wide, &mut answers, chunks, worker);
            answers
        }
    }
}
