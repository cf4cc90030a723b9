//! What can go wrong, as one small enum.
//!
//! There are three callers (Rust, Python, C) and each needs a total mapping, so a new variant
//! must not compile until every caller has decided what it means. Messages say what was
//! expected, what came and, where it helps, what to do.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};

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
    /// A file that the system does not read or write.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's number for the reason, where it gave one.
        code: Option<i32>,
        /// The reason, in the system's words.
        reason: String,
    },
    /// A file that is not as it was written, or was never written by this crate.
    #[error("cannot read {} as an index: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The column, where the rest of the file may be sound.
        column: Option<String>,
        /// What is wrong.
        what: String,
    },
    /// The caller's monitor asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a caller is told of a panic that was caught at a boundary, which would be a fault of ours.
pub(crate) fn fault(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("a fault of omendb, please report it (nothing was changed): {text}")
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidParameter(message.into())
    }

    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        let code = error.raw_os_error();
        let mut reason = error.to_string();
        if let Some(code) = code {
            // Rust's text ends with the number, which has a place of its own here.
            let end = format!(" (os error {code})");
            reason.truncate(reason.strip_suffix(&end).map_or(reason.len(), str::len));
        }
        Self::File { path: path.to_path_buf(), code, reason }
    }

    pub(crate) fn not_a_file(path: &Path) -> Self {
        let reason = "it is not a regular file".to_owned();
        Self::File { path: path.to_path_buf(), code: None, reason }
    }

    pub(crate) fn damaged(path: &Path, column: Option<&str>, what: String) -> Self {
        Self::Damaged { path: path.to_path_buf(), column: column.map(str::to_owned), what }
    }
}
