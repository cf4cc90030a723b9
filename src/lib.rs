//! Exact nearest neighbours at matrix-product speed.
//!
//! **Codes for the sweep, originals for the verdict.** Every row has a small 8-bit code. Codes are
//! swept by 8-bit matrix products; the few rows that a proven bound cannot rule out are judged
//! again on the caller's own numbers, in float64. Speed does not depend on the caller's number
//! type, answers do not depend on the codes, and the caller's array is never copied.
//!
//! ```
//! use omendb::{Index, Metric, Rows};
//!
//! let x = vec![0.0f32, 0.0, 3.0, 4.0, 6.0, 8.0]; // three rows of two numbers, used where they lie
//! let index = Index::new(Rows::borrow(&x, 2)?, Metric::Euclidean)?;
//! let hits = index.search(&Rows::borrow(&[0.0f32, 0.0], 2)?, 2)?;
//! assert_eq!(hits.ids, [0, 1]);
//! assert_eq!(hits.distances, [0.0, 5.0]);
//! # Ok::<(), omendb::Error>(())
//! ```
//!
//! The modules in reading order; each may use only what stands above it:

#[cfg(target_pointer_width = "64")]
#[doc(hidden)] // its face is include/omendb.h
pub mod capi;
mod codes;
mod corpus;
mod error;
mod exact;
mod file;
mod graph;
mod index;
mod kernels;
mod metric;
#[cfg(feature = "python")]
mod python;
mod random;
mod region;
mod rows;
mod scratch;
mod selection;
#[cfg(feature = "table")]
#[cfg_attr(not(feature = "python"), allow(dead_code, unused_imports))]
mod table;
mod tally;
mod threads;
mod top_k;

pub use error::{Error, Result};
pub use graph::Check;
pub use index::{
    Explanation, FileColumn, Filter, HealthReport, Hits, Index, Method, Near, Options, Reason,
    RecallReport, RecallRow, WhyNot, file_columns,
};
pub use kernels::Isa;
pub use metric::Metric;
pub use rows::{DType, Element, Rows};
pub use threads::{Monitor, Run, Silent};

/// Not part of the interface: what `benches/` measures beside whole searches.
#[doc(hidden)]
pub mod measure {
    /// Operations a second of the 8-bit sweep alone, on one core.
    pub fn sweep(isa: crate::Isa, rows: usize, dim: usize, queries: usize) -> f64 {
        crate::kernels::int8::rate(isa, rows, dim, queries)
    }

    /// A verdict and nothing else: the distance of two vectors.
    pub fn verdict(metric: crate::Metric, query: &[f64], row: &[f64]) -> f64 {
        crate::kernels::float::Judge::new(metric, query).distance(row)
    }

    /// A predicate, read and evaluated: how many rows pass.
    #[cfg(feature = "table")]
    pub fn predicate(text: &str, batch: &arrow_array::RecordBatch) -> crate::Result<usize> {
        let predicate = crate::table::Predicate::parse(text, batch.schema_ref())?;
        Ok(predicate.evaluate(batch, 1)?.count_set_bits())
    }
}

/// The examples of the README and of docs/ that are Rust run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/how-to/c-and-rust.md")]
struct Pages;

/// Not part of the interface: what `fuzz/` calls.
#[doc(hidden)]
pub mod fuzzing {
    /// Takes bytes for a file and touches all that a loader may touch.
    ///
    /// # Errors
    ///
    /// `Damaged` if they are none.
    pub fn file(bytes: &[u8]) -> crate::Result<()> {
        crate::file::explore(bytes)
    }
}
