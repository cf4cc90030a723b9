//! What a search did, counted where somebody asks.
//!
//! An explained search is the same code as any other: a [`Tally`] rides along with the corpus and hears of
//! whole blocks of queries and whole walks, never of single rows. Without one, that is a test of a pointer
//! for each block.

use std::sync::{Mutex, PoisonError};

/// Which way was thought cheaper, by the estimated nanoseconds of a query.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) walk_ns: f64,
    pub(crate) exact_ns: f64,
    pub(crate) effort: usize,
    /// What was then done.
    pub(crate) walks: bool,
}

/// Queries answered each way, and what that took.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// None where there was nothing to choose.
    pub(crate) plan: Option<Plan>,
    /// Answered at once: so little was asked.
    pub(crate) brief: usize,
    pub(crate) walked: usize,
    /// Walks that found no answer, so that the exact search did.
    pub(crate) discarded: usize,
    pub(crate) by_codes: usize,
    pub(crate) by_floats: usize,
    /// By float64 distances of all rows that may answer, the brief ones included.
    pub(crate) by_judge: usize,
    /// So few rows may answer that codes are not used.
    pub(crate) few: bool,
    /// The first queries of a batch were tried, and codes did not prune.
    pub(crate) probe_failed: bool,
    /// Rows, summed over queries, scored by codes or float32.
    pub(crate) scored: u64,
    /// The same for float64 distances.
    pub(crate) judged: u64,
    pub(crate) walk_ns: u64,
    pub(crate) exact_ns: u64,
}

/// Counts of one call, whatever its threads.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn into_counts(self) -> Counts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
