//! What can go wrong, as one small enum.
//!
//! There are three callers (Rust, Python, C) and each needs a total mapping, so a new variant
//! must not compile until every caller has decided what it means. Messages say what was
//! expected, what came and, where it helps, what to do.

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Vectors of another width than the index holds.
    #[error("expected {what} of {expected} dimensions, got {got}")]
    DimensionMismatch {
        /// Which argument it was: `"vectors"` or `"queries"`.
        what: &'static str,
        /// The width of the index.
        expected: usize,
        /// The width that came.
        got: usize,
    },
    /// A parameter outside its range, in a sentence.
    #[error("{0}")]
    InvalidParameter(String),
    /// NaN, an infinity, or a number whose square would overflow.
    #[error("row {row} of the {what} holds {value}; {advice}")]
    BadNumber {
        /// Which argument it was: `"vectors"` or `"queries"`.
        what: &'static str,
        /// The first row that holds such a number.
        row: usize,
        /// The number, as text.
        value: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The caller's monitor asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidParameter(message.into())
    }
}
