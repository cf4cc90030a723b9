//! The table of an index: ids in the caller's own type, and metadata columns.
//!
//! The engine knows a row by an int64. Where an index has a table, that is the row's *label*: 0, 1, 2
//! and so on, in the order in which rows ever came. The table has a line for each label, the id
//! first; it is immutable, as the states of an index are, and an edit makes the next one beside it.
//!
//! Lines lie in a few parts, each at least twice as long as the one after it, so that many small
//! additions take linear time. Lines of removed rows stay until they are more than half.
//!
//! Columns are copied when they come: whoever made them may write to their memory, and a view into a
//! larger block would keep all of it. Strings and bytes get 64-bit offsets and dictionaries 32-bit
//! keys, so that parts can always be put together.

mod column;
mod ids;
mod predicate;

use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;
use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, UInt64Array, new_empty_array};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use arrow_select::concat::{concat, concat_batches};
use arrow_select::interleave::interleave;
use arrow_select::take::take;

use crate::error::{Error, Result};
use crate::threads::{Silent, default_threads, run};

pub(crate) use column::{adapt, cast, keep, kept, null_row};
use column::{dictionary, extended, is_dictionary, joined, with_values};
pub(crate) use ids::{Key, Keys, Kind, Places, UUID};
pub(crate) use predicate::Predicate;

/// The entry of a schema's metadata that names the column of the ids.
pub(crate) const ID: &str = "omendb.id";
/// The entry that holds the id that the next line gets, where ids are integers.
const NEXT_ID: &str = "omendb.next_line";
/// Lines for which another thread pays.
const WORTH_A_THREAD: usize = 1 << 12;
/// Lines that are gone are kept up to this number, whatever their share.
const SPARED: usize = 1024;

/// What a kernel of Arrow refused.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(crate) fn refused(error: ArrowError) -> Error {
    Error::invalid(error.to_string())
}

/// Lines of ids and metadata, by label.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    schema: SchemaRef,
    kind: Kind,
    parts: Vec<Part>,
    /// The next label.
    end: i64,
    /// One more than the largest integer id so far.
    next_id: i128,
    /// Lines whose rows are removed.
    gone: usize,
}

/// Lines that lie together, by ascending label.
#[derive(Debug, Clone)]
struct Part {
    labels: Arc<Vec<i64>>,
    lines: RecordBatch,
    keys: Keys,
}

impl Part {
    fn new(labels: Vec<i64>, lines: RecordBatch, kind: Kind) -> Result<Self> {
        let keys = Keys::of(lines.column(0), kind)?;
        Ok(Self { labels: Arc::new(labels), lines, keys })
    }

    /// The first label, where labels follow one another without a gap.
    fn dense(&self) -> Option<i64> {
        let (first, last) = (*self.labels.first()?, *self.labels.last()?);
        (last - first + 1 == self.labels.len() as i64).then_some(first)
    }

    fn line(&self, label: i64) -> Option<usize> {
        if let Some(first) = self.dense() {
            let line = usize::try_from(label - first).ok()?;
            return (line < self.labels.len()).then_some(line);
        }
        self.labels.binary_search(&label).ok()
    }
}

impl Table {
    /// A table of no lines, whose first column is the ids.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the ids are of no type that ids may have.
    pub(crate) fn new(schema: SchemaRef) -> Result<Self> {
        let kind = Kind::of(schema.field(0))?;
        Ok(Self { schema, kind, parts: Vec::new(), end: 0, next_id: 0, gone: 0 })
    }

    /// The columns, the ids first.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the ids are.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The column of the ids.
    pub(crate) fn id(&self) -> &Field {
        self.schema.field(0)
    }

    /// The label of the next line.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Bytes that the lines take.
    pub(crate) fn nbytes(&self) -> usize {
        let part = |part: &Part| part.lines.get_array_memory_size() + 8 * part.labels.len();
        self.parts.iter().map(part).sum()
    }

    /// The ids that follow the largest integer so far, in the type of the ids.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if ids are no integers, or none are left.
    pub(crate) fn next_ids(&self, len: usize) -> Result<ArrayRef> {
        if !self.kind.is_integer() {
            return Err(Error::invalid(format!(
                "expected ids for the new rows, since those of the index are {}; give them, \
                 by ids= or in the frame's column of ids",
                self.kind
            )));
        }
        let ids =
            ids::integers(self.next_id, len).and_then(|ids| cast(&ids, self.id().data_type()));
        ids.map_err(|_| {
            let (id, data_type) = (self.next_id, self.id().data_type());
            Error::invalid(format!(
                "no {data_type} integers are left for ids after {id}: give them"
            ))
        })
    }

    /// The same table with more lines.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if they are too many for memory.
    pub(crate) fn append(&self, lines: &RecordBatch) -> Result<Self> {
        let mut next = self.clone();
        let labels = self.end..self.end + lines.num_rows() as i64;
        next.end = labels.end;
        let lines = next.share_dictionaries(lines)?;
        let part = Part::new(labels.collect(), lines, self.kind)?;
        next.next_id = (0..part.keys.len()).fold(self.next_id, |next, i| match part.keys.get(i) {
            Key::Int(id) => next.max(id + 1),
            _ => next,
        });
        next.parts.push(part);
        while let [.., before, last] = next.parts.as_slice()
            && before.labels.len() < 2 * last.labels.len()
        {
            let labels = [before.labels.as_slice(), last.labels.as_slice()].concat();
            let columns = before.lines.columns().iter().zip(last.lines.columns());
            let columns = columns.map(|(before, last)| joined(&[before, last], concat));
            let lines = self.lines(columns.collect::<Result<_>>()?)?;
            next.parts.truncate(next.parts.len() - 2);
            next.parts.push(Part::new(labels, lines, self.kind)?);
        }
        Ok(next)
    }

    /// The same table where so many more rows are removed; `live` gives the labels of the others.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if memory is short.
    pub(crate) fn remove(&self, count: usize, live: impl FnOnce() -> Vec<i64>) -> Result<Self> {
        let mut next = Self { gone: self.gone + count, ..self.clone() };
        let lines: usize = self.parts.iter().map(|part| part.labels.len()).sum();
        if next.gone > SPARED && next.gone > lines / 2 || next.gone == lines {
            let mut live = live();
            live.sort_unstable();
            next.gone = 0;
            next.parts.clear();
            if !live.is_empty() {
                let lines = self.take(&live)?;
                next.parts.push(Part::new(live, lines, self.kind)?);
            }
        }
        Ok(next)
    }

    /// The part and the line in it of a label.
    fn place(&self, label: i64) -> Option<(usize, usize)> {
        let after = |part: &Part| part.labels.first().is_some_and(|&first| first <= label);
        let part = self.parts.partition_point(after).checked_sub(1)?;
        Some((part, self.parts[part].line(label)?))
    }

    /// Whether every label has a line.
    pub(crate) fn holds(&self, labels: &[i64]) -> bool {
        labels.iter().all(|&label| self.place(label).is_some())
    }

    /// The id of a label.
    pub(crate) fn key(&self, label: i64) -> Option<Key<'_>> {
        let (part, line) = self.place(label)?;
        Some(self.parts[part].keys.get(line))
    }

    /// The lines of some labels, in their order.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if a label has none, or memory is short.
    pub(crate) fn take(&self, labels: &[i64]) -> Result<RecordBatch> {
        self.lines(self.taken(labels, 0..self.schema.fields().len())?)
    }

    fn lines(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(refused)
    }

    /// New lines, and those there are, with dictionaries that hold the categories of both.
    fn share_dictionaries(&mut self, lines: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = lines.columns().to_vec();
        for (i, column) in columns.iter_mut().enumerate().filter(|(_, c)| is_dictionary(c)) {
            let before =
                self.parts.first().map(|part| Arc::clone(dictionary(part.lines.column(i))));
            let Some(before) = before else { continue };
            *column = extended(Some(&before), column)?;
            if Arc::ptr_eq(dictionary(column), &before) {
                continue;
            }
            let lines = self.parts.iter().map(|part| {
                let mut columns = part.lines.columns().to_vec();
                columns[i] =
                    with_values(columns[i].as_any_dictionary().keys(), dictionary(column))?;
                self.lines(columns)
            });
            let lines = lines.collect::<Result<Vec<_>>>()?;
            self.parts.iter_mut().zip(lines).for_each(|(part, lines)| part.lines = lines);
        }
        self.lines(columns)
    }

    /// The ids of some labels, in their order.
    ///
    /// # Errors
    ///
    /// As [`Table::take`].
    pub(crate) fn ids(&self, labels: &[i64]) -> Result<ArrayRef> {
        Ok(self.taken(labels, 0..1)?.swap_remove(0))
    }

    fn taken(&self, labels: &[i64], columns: std::ops::Range<usize>) -> Result<Vec<ArrayRef>> {
        let lost = |label: i64| Error::invalid(format!("the table has no line {label}"));
        let place = |&label: &i64| self.place(label).ok_or_else(|| lost(label));
        let places = labels.iter().map(place).collect::<Result<Vec<_>>>()?;
        let lines = UInt64Array::from_iter_values(places.iter().map(|&(_, line)| line as u64));
        let one = |column: usize| match self.parts.as_slice() {
            [part] => take(part.lines.column(column), &lines, None).map_err(refused),
            _ if places.is_empty() => Ok(new_empty_array(self.schema.field(column).data_type())),
            parts => {
                let parts: Vec<_> = parts.iter().map(|part| part.lines.column(column)).collect();
                joined(&parts, |parts| interleave(parts, &places))
            }
        };
        let (first, count) = (columns.start, columns.len());
        let threads = if places.len() < WORTH_A_THREAD { 1 } else { default_threads() };
        let taken = run(threads, count, 0, &mut Silent, |i, _| one(first + i))?;
        taken.into_iter().collect()
    }

    /// One bit for each label from a first one on: whether a predicate is true of its line, asked on up
    /// to so many threads.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the text is no predicate on these columns.
    pub(crate) fn select(&self, predicate: &str, threads: usize) -> Result<(i64, BooleanBuffer)> {
        let predicate = Predicate::parse(predicate, &self.schema)?;
        let first = self.parts.first().and_then(|part| part.labels.first().copied());
        let first = first.unwrap_or(self.end);
        let mut bits = BooleanBufferBuilder::new((self.end - first) as usize);
        for part in &self.parts {
            let chosen = predicate.evaluate(&part.lines, threads)?;
            if let Some(begin) = part.dense() {
                bits.append_n((begin - first) as usize - bits.len(), false);
                bits.append_buffer(&chosen);
            } else {
                let last = part.labels.last().copied().unwrap_or(first);
                bits.resize((last - first) as usize + 1);
                chosen.set_indices().for_each(|line| {
                    bits.set_bit((part.labels[line] - first) as usize, true);
                });
            }
        }
        Ok((first, bits.build()))
    }

    /// Fails if an id is given twice, or `taken` says that there is one already.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` with the id.
    pub(crate) fn check_new(keys: &Keys, taken: impl Fn(&Key<'_>) -> bool) -> Result<()> {
        unique(keys)?;
        let taken = (0..keys.len()).map(|i| keys.get(i)).find(taken);
        taken.map_or(Ok(()), |id| {
            Err(Error::invalid(format!(
                "id {id} is in the index already; use update() to replace its vector"
            )))
        })
    }

    /// The lines of these labels, of which [`Table::of`] makes a table that gives no id twice.
    ///
    /// # Errors
    ///
    /// As [`Table::take`].
    pub(crate) fn whole(&self, labels: &[i64]) -> Result<RecordBatch> {
        let columns = self.taken(labels, 0..self.schema.fields().len())?;
        let mut notes = self.schema.metadata().clone();
        notes.insert(NEXT_ID.to_owned(), self.next_id.to_string());
        let schema = self.schema.as_ref().clone().with_metadata(notes);
        RecordBatch::try_new(Arc::new(schema), columns).map_err(refused)
    }

    /// The same as an Arrow stream.
    ///
    /// # Errors
    ///
    /// As [`Table::take`].
    pub(crate) fn to_bytes(&self, labels: &[i64]) -> Result<Vec<u8>> {
        let lines = self.whole(labels)?;
        let mut writer = StreamWriter::try_new(Vec::new(), lines.schema_ref()).map_err(refused)?;
        writer.write(&lines).map_err(refused)?;
        writer.into_inner().map_err(refused)
    }

    /// The table of an Arrow stream, with labels from 0 on.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if there is no table in it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let reader = StreamReader::try_new(bytes, None).map_err(refused)?;
        let schema = reader.schema();
        let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(refused)?;
        Self::of(&concat_batches(&schema, &batches).map_err(refused)?)
    }

    /// The table of these lines, with labels from 0 on.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the first column does not hold the ids, or a column is of a type that is
    /// not kept.
    pub(crate) fn of(lines: &RecordBatch) -> Result<Self> {
        let schema = lines.schema();
        let id = schema.fields().first().map(|field| field.name());
        if id.is_none() || id != schema.metadata().get(ID) {
            return Err(Error::invalid("expected a column of ids, and a note of its name"));
        }
        for field in schema.fields() {
            if kept(field)?.data_type() != field.data_type() {
                return Err(Error::invalid(format!("the column '{}' was not kept", field.name())));
            }
        }
        let mut notes = schema.metadata().clone();
        let next_id = notes.remove(NEXT_ID);
        let schema = Arc::new(schema.as_ref().clone().with_metadata(notes));
        let columns = lines.columns().to_vec();
        let lines = &RecordBatch::try_new(Arc::clone(&schema), columns).map_err(refused)?;
        let mut table = Self::new(schema)?;
        if let Some(next_id) = next_id {
            table.next_id = next_id
                .parse()
                .ok()
                .filter(|next_id| (0..=1 << 64).contains(next_id))
                .ok_or_else(|| Error::invalid(format!("{next_id} is no id of a next line")))?;
        }
        if let Some(row) = null_row(lines.column(0).as_ref()) {
            return Err(Error::invalid(format!("the id of row {row} is null")));
        }
        unique(&Keys::of(lines.column(0), table.kind)?)?;
        table.append(lines)
    }
}

/// Fails if an id is given twice.
pub(crate) fn unique(keys: &Keys) -> Result<()> {
    let mut seen = HashSet::with_capacity_and_hasher(keys.len(), RandomState::default());
    let again = (0..keys.len()).map(|i| keys.get(i)).find(|key| !seen.insert(*key));
    again.map_or(Ok(()), |id| {
        Err(Error::invalid(format!("id {id} is given twice; ids must be unique")))
    })
}

/// The schema of a table: the ids, and the other columns with their notes.
pub(crate) fn schema(id: Field, columns: &Schema) -> SchemaRef {
    let id_name = id.name().clone();
    let id = Arc::new(id.with_nullable(false));
    let fields: Vec<_> = std::iter::once(id).chain(columns.fields().iter().cloned()).collect();
    let mut notes = columns.metadata().clone();
    notes.insert(ID.to_owned(), id_name);
    notes.remove(NEXT_ID);
    Arc::new(Schema::new_with_metadata(fields, notes))
}
