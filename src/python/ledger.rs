//! The table of an index, as Python's side of it holds one.
//!
//! The table is extended before the engine's rows are and cut after they are, so that every label
//! of an answer has its line. All but `editing` are locked for as long as a pointer is copied or by
//! who holds the interpreter's lock and keeps it, so that no fork falls into it.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::table::{Key, Keys, Places, Table, unique};
use crate::threads::{Turn, Turns};

/// How long an edit that waits for another sleeps at a time.
const PATIENCE: Duration = Duration::from_millis(1);

/// Ids in the caller's own type and metadata; empty where ids are the engine's own.
#[derive(Default)]
pub(super) struct Ledger {
    editing: Turns,
    /// Who waits for a turn, or has just come.
    waiting: AtomicUsize,
    table: Mutex<Option<Arc<Table>>>,
    /// Where ids are; made when first asked for.
    places: Mutex<Option<Places>>,
}

/// Rows have come and gone since labels were read: they are to be read once more.
pub(super) struct Stale;

impl Ledger {
    pub(super) fn new(table: Option<Table>) -> Self {
        Self { table: Mutex::new(table.map(Arc::new)), ..Self::default() }
    }

    /// Keeps other edits waiting; waits for theirs, listening for signals.
    pub(super) fn edit(&self, py: Python<'_>) -> PyResult<Turn<'_>> {
        // Who comes again at once would find the lock free before those who sleep.
        let mut wait = self.waiting.fetch_add(1, Ordering::Relaxed) > 0;
        let turn = loop {
            if mem::replace(&mut wait, true) {
                py.detach(|| thread::sleep(PATIENCE));
                if let Err(signal) = py.check_signals() {
                    break Err(signal);
                }
            }
            match self.editing.try_take() {
                Ok(Some(turn)) => break Ok(turn),
                Ok(None) => {}
                Err(again) => break Err(PyRuntimeError::new_err(again.to_string())),
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A table that has a line for each of these labels, which were read after `before` was: that one, or
    /// the present one where rows came meanwhile.
    pub(super) fn holding(
        &self,
        before: Option<Arc<Table>>,
        labels: &[i64],
    ) -> std::result::Result<Option<Arc<Table>>, Stale> {
        let Some(known) = before else {
            // The first rows may have come meanwhile, with a table.
            let now = if labels.is_empty() { None } else { self.table() };
            let holds = now.as_ref().is_none_or(|now| now.holds(labels));
            return if holds { Ok(now) } else { Err(Stale) };
        };
        if known.holds(labels) {
            return Ok(Some(known));
        }
        self.table().filter(|now| now.holds(labels)).map(Some).ok_or(Stale)
    }

    pub(super) fn set(&self, table: Option<Arc<Table>>) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn places<T>(
        &self,
        index: &Index<'_>,
        table: &Table,
        use_them: impl FnOnce(&mut Places) -> T,
    ) -> T {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        use_them(places.get_or_insert_with(|| Places::of(table, &index.ids())))
    }

    /// The label of an id, if a row has it.
    pub(super) fn find(&self, index: &Index<'_>, key: &Key<'_>) -> Option<i64> {
        let table = self.table()?;
        let label = self.places(index, &table, |places| places.find(&table, key));
        label.filter(|&label| index.contains(label))
    }

    /// The labels of ids, each of which must be there.
    pub(super) fn labels(&self, index: &Index<'_>, keys: &Keys, what: &str) -> Result<Vec<i64>> {
        let unknown =
            |i| Error::invalid(format!("id {} of the {what} is not in the index", keys.get(i)));
        let label = |i| self.find(index, &keys.get(i)).ok_or_else(|| unknown(i));
        (0..keys.len()).map(label).collect()
    }

    /// As `labels`, of ids that may not be given twice.
    pub(super) fn labels_once(&self, index: &Index<'_>, keys: &Keys) -> Result<Vec<i64>> {
        unique(keys)?;
        self.labels(index, keys, "argument")
    }

    /// Notes the labels of rows that have come.
    pub(super) fn added(&self, labels: &[i64]) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((places, table)) = places.as_mut().zip(self.table()) {
            labels.iter().for_each(|&label| places.insert(&table, label));
        }
    }

    /// Forgets rows that have gone.
    pub(super) fn removed(&self, index: &Index<'_>, labels: &[i64]) -> Result<()> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = self.table() else { return Ok(()) };
        if let Some(places) = places.as_mut() {
            labels.iter().for_each(|&label| places.remove(&table, label));
        }
        self.set(Some(Arc::new(table.remove(labels.len(), || index.ids())?)));
        Ok(())
    }
}
