//! A table beside an index in its file.
//!
//! Each column of the table is an Arrow column of the file under its own name, so that other programs
//! see what the user saw. A name that the file needs itself, or that comes twice, is stored as
//! another that is free, and the true one is kept in the field's metadata, as `omendb.name`. Keys of
//! the user's metadata that begin with `omendb.` (a file that was read by others and is saved again
//! has such) are stored behind `omendb.user.`, and come back. The rows are then known by their
//! places: `ids` holds 0 to n - 1, and what the user calls them is a column like others.
//!
//! Columns are copied and checked when the file is loaded, each by one thread: what could be read
//! lazily would still be text in memory that another program may change. Unlike codes and links they
//! cannot be made again, so damage is an error.

#![allow(dead_code)] // what is here is for Python alone, and tests

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};

use super::Index;
use super::saved::{OWN, Others};
use crate::error::{Error, Result};
use crate::file::{Column, Mapped};
use crate::threads::{self, Monitor, Run};

/// What begins the keys of metadata that are not the user's.
const OURS: &str = "omendb.";
/// What is put before a key of the user's that begins so too.
const THEIRS: &str = "omendb.user.";
/// The true name of a column that is stored under another.
const NAME: &str = "omendb.name";

impl Index<'_> {
    /// As [`Index::save_with`], with other columns beside the index's own.
    ///
    /// `columns` gets the ids of the rows that are saved, in the order of the file, and gives the
    /// columns for just these. Where it gives any, the ids in the file are 0 to n - 1.
    ///
    /// # Errors
    ///
    /// As [`Index::save_with`], and those of `columns`; `InvalidParameter` if it gives another number
    /// of rows, a column of a type that a file does not hold, or one that is not what its field says.
    pub(crate) fn save_columns(
        &self,
        path: impl AsRef<Path>,
        columns: impl FnOnce(&[i64]) -> Result<RecordBatch>,
        run: Run<'_>,
    ) -> Result<()> {
        self.save_beside(path.as_ref(), |ids| to_others(&columns(ids)?, ids.len()), run)
    }

    /// As [`Index::load_with`], with the other columns of the file, which are read at once.
    ///
    /// # Errors
    ///
    /// As [`Index::load_with`]; `Damaged`, naming the column, if one of these is damaged.
    pub(crate) fn load_columns(
        path: impl AsRef<Path>,
        verify: bool,
        run: Run<'_>,
    ) -> Result<(Self, RecordBatch)> {
        let (threads, monitor) = run.parts()?;
        let path = path.as_ref();
        let mapped = Arc::new(Mapped::open(path)?);
        let index = Self::load_mapped(&mapped, path, verify, threads, monitor)?;
        Ok((index, from_others(&mapped, path, threads, monitor)?))
    }
}

/// The columns of a table as those of a file.
fn to_others(table: &RecordBatch, rows: usize) -> Result<Others> {
    if table.num_rows() != rows {
        let got = table.num_rows();
        return Err(Error::invalid(format!("expected columns of {rows} rows, got {got}")));
    }
    let guard = |metadata: &HashMap<String, String>| -> HashMap<String, String> {
        let guarded = |key: &str| if key.starts_with(OURS) { THEIRS } else { "" }.to_owned() + key;
        metadata.iter().map(|(key, value)| (guarded(key), value.clone())).collect()
    };
    let schema = table.schema_ref();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let wanted: HashSet<&str> = names.chain(OWN).collect();
    let mut taken: HashSet<String> = OWN.map(str::to_owned).into();
    let mut columns = Vec::with_capacity(table.num_columns());
    for (field, array) in schema.fields().iter().zip(table.columns()) {
        let (name, mut metadata) = (field.name(), guard(field.metadata()));
        let mut stored = name.clone();
        if taken.contains(name) {
            let mut names = (1..).map(|number| format!("{name}_{number}"));
            let free = |stored: &String| !wanted.contains(&**stored) && !taken.contains(stored);
            stored = names.find(free).unwrap_or_default();
            metadata.insert(NAME.to_owned(), name.clone());
        }
        taken.insert(stored.clone());
        let field = renamed(field, stored, metadata);
        columns.push(Column::of_array(field, array)?);
    }
    Ok((columns, guard(schema.metadata())))
}

/// The table that the columns of a file were, without the index's own.
fn from_others(
    mapped: &Mapped,
    path: &Path,
    threads: usize,
    monitor: &mut dyn Monitor,
) -> Result<RecordBatch> {
    let theirs = |(key, value): (&str, &str)| {
        let key = key.strip_prefix(THEIRS).or((!key.starts_with(OURS)).then_some(key));
        key.map(|key| (key.to_owned(), value.to_owned()))
    };
    let columns = mapped.others(&OWN);
    let total = columns.iter().map(|&column| mapped.size(column) as u64).sum();
    let arrays = threads::run(threads, columns.len(), total, monitor, |number, worker| {
        mapped.array(columns[number], worker)
    })?;
    let fields = columns.iter().map(|&column| {
        let field = mapped.field(column);
        let name = field.metadata().get(NAME).unwrap_or(field.name()).clone();
        let metadata = field.metadata().iter();
        let metadata = metadata.filter_map(|(key, value)| theirs((key, value))).collect();
        renamed(field, name, metadata)
    });
    let fields: Vec<Field> = fields.collect();
    // A file without a table has no metadata of one.
    let metadata = mapped.all_metadata().filter_map(theirs).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let options = RecordBatchOptions::new().with_row_count(Some(mapped.rows()));
    RecordBatch::try_new_with_options(schema, arrays.into_iter().collect::<Result<_>>()?, &options)
        .map_err(|error| Error::damaged(path, None, error.to_string()))
}

/// A field of the same type.
fn renamed(field: &Field, name: String, metadata: HashMap<String, String>) -> Field {
    Field::new(name, field.data_type().clone(), field.is_nullable())
        .with_metadata(metadata)
        .with_dict_is_ordered(field.dict_is_ordered().unwrap_or(false))
}
