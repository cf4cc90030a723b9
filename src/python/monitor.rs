//! Signals and progress, between the engine and the interpreter.

#![allow(unsafe_code)] // one call of the interpreter that pyo3 does not wrap

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::error::{Error, Result, fault};
use crate::threads::{Monitor, Run};

/// Who hears of progress.
enum Listener {
    Nobody,
    /// A `tqdm` bar.
    Bar(Py<PyAny>),
    Callback(Py<PyAny>),
}

/// Looks for signals, tells of progress, and keeps the exception that either raised.
struct PyMonitor {
    listener: Listener,
    /// What progress is counted in: queries, or rows.
    units: u64,
    /// How many were told of. Never fewer after that, also where the work turns out to be more than
    /// was thought, or is done again in another way.
    done: u64,
    error: Option<PyErr>,
}

impl PyMonitor {
    fn new(progress: Option<&Bound<'_, PyAny>>, units: usize, unit: &str) -> PyResult<Self> {
        let listener = match progress {
            None => Listener::Nobody,
            Some(progress) => match progress.cast::<PyBool>() {
                Ok(flag) if !flag.is_true() => Listener::Nobody,
                // tqdm is used when it is there; without it, progress is silent.
                Ok(_) => match progress.py().import("tqdm.auto") {
                    Err(error) if error.is_instance_of::<PyException>(progress.py()) => {
                        Listener::Nobody
                    }
                    Err(interrupt) => return Err(interrupt),
                    Ok(tqdm) => {
                        let options = PyDict::new(progress.py());
                        options.set_item("total", units)?;
                        options.set_item("unit", unit)?;
                        options.set_item("leave", false)?;
                        let bar = tqdm.getattr("tqdm")?.call((), Some(&options))?;
                        Listener::Bar(bar.unbind())
                    }
                },
                Err(_) if progress.is_callable() => Listener::Callback(progress.clone().unbind()),
                Err(_) => {
                    return Err(PyTypeError::new_err(format!(
                        "expected progress to be True, False or a callable (done, total), got {}",
                        progress.get_type().name()?
                    )));
                }
            },
        };
        Ok(Self { listener, units: units as u64, done: 0, error: None })
    }

    fn tell(&mut self, py: Python<'_>, done: u64) -> PyResult<()> {
        let more = done.saturating_sub(self.done);
        self.done += more;
        match &self.listener {
            Listener::Nobody => {}
            Listener::Bar(bar) => {
                bar.call_method1(py, "update", (more,))?;
            }
            Listener::Callback(callback) => {
                callback.call1(py, (self.done, self.units))?;
            }
        }
        Ok(())
    }
}

impl Monitor for PyMonitor {
    fn poll(&mut self, done: u64, total: u64) -> bool {
        let done = (u128::from(done) * u128::from(self.units) / u128::from(total.max(1))) as u64;
        let told = Python::attach(|py| py.check_signals().and_then(|()| self.tell(py, done)));
        told.map_err(|error| self.error = Some(error)).is_ok()
    }

    fn finish(&mut self) -> bool {
        if matches!(self.listener, Listener::Nobody) {
            return true;
        }
        let told = Python::attach(|py| self.tell(py, self.units));
        told.map_err(|error| self.error = Some(error)).is_ok()
    }
}

/// Work below this many multiply-adds is over sooner than the interpreter's lock changes hands.
const BRIEF: usize = 1 << 14;

/// Runs `work`, of this many multiply-adds, on so many threads, without the interpreter's lock.
///
/// A panic, which would be a fault of ours, becomes a `RuntimeError`: pyo3's own exception for it
/// passes by `except Exception`.
pub(super) fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    units: usize,
    unit: &str,
    operations: usize,
    threads: Option<usize>,
    work: impl FnOnce(Run<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let mut monitor = PyMonitor::new(progress, units, unit)?;
    let caught = || {
        let run = Run::new().monitor(&mut monitor);
        let run = threads.into_iter().fold(run, Run::threads);
        catch_unwind(AssertUnwindSafe(|| work(run)))
    };
    let result = if operations < BRIEF { caught() } else { py.detach(caught) };
    let result = match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::Interrupted)) => {
            Err(monitor.error.take().unwrap_or_else(|| Error::Interrupted.into()))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(panic) => Err(PyRuntimeError::new_err(fault(&*panic))),
    };
    if let Listener::Bar(bar) = monitor.listener {
        let closed = bar.call_method0(py, "close");
        let interrupted = closed.is_err_and(|error| {
            let interrupted = error.is_instance_of::<PyKeyboardInterrupt>(py);
            if !interrupted {
                error.write_unraisable(py, Some(bar.bind(py)));
            }
            interrupted
        });
        // What was done is done, and the caller has yet to note it: Ctrl-C comes again after that, and
        // not while the bar is deleted, where it would be lost.
        drop(bar);
        if interrupted {
            // SAFETY: it notes a signal, which needs nothing.
            unsafe { pyo3::ffi::PyErr_SetInterrupt() };
        }
    }
    result
}
