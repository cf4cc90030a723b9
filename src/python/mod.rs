//! The Python module `omendb._core`: arguments in, arrays out, nothing else.
//!
//! Only files of this folder name pyo3 or numpy. They turn Python objects into [`crate::Rows`]
//! and ids, call the engine without the interpreter's lock, and turn answers into arrays;
//! everything is validated there, once for all callers.

#![allow(clippy::doc_markdown, clippy::doc_link_with_quotes)] // docstrings are numpydoc

mod array;
mod frame;
mod hits;
mod ids;
mod index;
mod ledger;
mod monitor;
mod records;
mod report;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Error;
use crate::kernels::Isa;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::DimensionMismatch { .. }
            | Error::InvalidParameter(_)
            | Error::BadNumber { .. }
            | Error::Damaged { .. } => PyValueError::new_err(error.to_string()),
            // With the system's number, Python itself chooses FileNotFoundError and its like.
            Error::File { path, code: Some(code), reason } => {
                PyOSError::new_err((code, reason, path.into_os_string()))
            }
            Error::File { code: None, .. } => PyOSError::new_err(error.to_string()),
            // Only a monitor stops a call, and it keeps the exception that made it do so.
            Error::Interrupted => PyRuntimeError::new_err("interrupted"),
        }
    }
}

/// The instruction sets: which is in use, and which this processor has.
///
/// Returns
/// -------
/// dict
///     ``isa``, the name of the one in use; ``available``, the names that the environment
///     variable ``OMENDB_ISA`` takes on this machine, slowest first.
///
/// Raises
/// ------
/// ValueError
///     If ``OMENDB_ISA`` names none of them.
///
/// Examples
/// --------
/// >>> from omendb import _core
/// >>> "portable" in _core.kernels()["available"]
/// True
#[pyfunction]
fn kernels(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let kernels = PyDict::new(py);
    kernels.set_item("isa", Isa::current()?.name())?;
    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    kernels.set_item("available", names)?;
    Ok(kernels)
}

/// The engine of omendb.
#[pymodule]
mod _core {
    use numpy::{PyArray1, PyArrayMethods};
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::hits::{Hits, RadiusHits, unpickled_hits, unpickled_radius_hits};
    #[pymodule_export]
    use super::index::Index;
    #[pymodule_export]
    use super::kernels;
    #[pymodule_export]
    use super::records::Records;
    #[pymodule_export]
    use super::report::{Explanation, HealthReport, RecallReport, WhyNot, file_columns};
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The first borrow of an array in a process takes any exception for a sign that nobody has
    /// counted borrows yet (numpy 0.30, `borrow/shared.rs`), also that of Ctrl-C, to which Python
    /// 3.13 and later listen there. It is had here, where no long call can lose it.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        PyArray1::<u8>::zeros(module.py(), 0, false).try_readonly()?;
        Ok(())
    }
}
