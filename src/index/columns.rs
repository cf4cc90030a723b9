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

#[cfg(test)]
#[cfg_attr(miri, allow(unused))]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};

    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int8Type, Int64Type};
    use arrow_array::{ArrayRef, DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow_ipc::reader::FileReader;
    use arrow_schema::DataType;

    use super::*;
    use crate::metric::Metric;
    use crate::rows::Rows;

    const IDS: [i64; 6] = [40, 7, 1 << 40, 0, 3, 12];

    /// Row i lies at (i, 0).
    fn index(seed: Option<u64>) -> Index<'static> {
        let x: Vec<f32> = (0..IDS.len()).flat_map(|i| [i as f32, 0.0]).collect();
        let rows = Rows::from_bytes(
            x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            2,
            crate::rows::DType::F32,
        );
        Index::new_with(rows, Metric::Euclidean, Some(&IDS), seed, Run::new()).unwrap()
    }

    fn pairs(all: &[(&str, &str)]) -> HashMap<String, String> {
        all.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// For each id, columns of every difficult name.
    fn table(ids: &[i64]) -> RecordBatch {
        let numbers = |by: i64| -> ArrayRef {
            Arc::new(ids.iter().map(|&id| (id != 3).then_some(id * by)).collect::<Int64Array>())
        };
        let text: ArrayRef =
            Arc::new(ids.iter().map(|id| Some(format!("№ {id}"))).collect::<StringArray>());
        let levels = Arc::new(StringArray::from(vec!["low", "high", "unused"]));
        let level = ids.iter().map(|id| (id % 2) as i8).collect::<Vec<_>>();
        let level: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(level.into(), levels));
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let columns = [
            (Field::new("name", DataType::Utf8, false), text),
            (number("ids"), numbers(1)),
            (number("vectors"), numbers(2)),
            (number("codes"), numbers(3)),
            (number("links"), numbers(4)),
            (number(""), numbers(5)),
            (number("größe\n\0"), numbers(6)),
            (number("twice"), numbers(7)),
            (number("twice").with_metadata(pairs(&[("unit", "m")])), numbers(8)),
            (number("twice_1"), numbers(9)),
            (number(""), numbers(10)),
            (
                number("marked").with_metadata(pairs(&[
                    ("omendb.name", "a name of before"),
                    ("omendb.user.omendb.name", "and before that"),
                ])),
                numbers(11),
            ),
            (
                Field::new("level", level.data_type().clone(), false).with_dict_is_ordered(true),
                level,
            ),
        ];
        let metadata = [("pandas", "{\"index\": []}"), ("omendb.metric", "theirs"), ("", "")];
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let schema = Schema::new_with_metadata(fields, pairs(&metadata));
        RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
    }

    /// Discards what was done.
    struct Never;

    impl Monitor for Never {
        fn poll(&mut self, _done: u64, _total: u64) -> bool {
            true
        }

        fn finish(&mut self) -> bool {
            false
        }
    }

    fn nearest(index: &Index<'_>, x: f32) -> i64 {
        index.search(&Rows::borrow(&[x, 0.0], 2).unwrap(), 1).unwrap().ids[0]
    }

    #[test]
    #[cfg_attr(miri, ignore = "it writes files")]
    fn a_table_of_the_saved_rows_comes_back_whatever_its_names_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.omen");
        for seed in [None, Some(0)] {
            let index = index(seed);
            index.remove(&[7]).unwrap();
            let left = [40, 1 << 40, 0, 3, 12];
            let columns = |ids: &[i64]| {
                assert_eq!(ids, left);
                Ok(table(ids))
            };
            index.save_columns(&path, columns, Run::new()).unwrap();
            assert_eq!(index.ids(), left);
            for verify in [false, true] {
                let (loaded, read) = Index::load_columns(&path, verify, Run::new()).unwrap();
                assert_eq!(read, table(&left)); // the schema and all metadata too
                assert_eq!(read.schema_ref().field(12).dict_is_ordered(), Some(true));
                assert_eq!(loaded.ids(), [0, 1, 2, 3, 4]);
                assert_eq!(loaded.has_graph(), index.has_graph());
                assert_eq!((nearest(&loaded, 2.1), nearest(&loaded, 5.0)), (1, 4));
                let more = Rows::borrow(&[9.0f32, 0.0], 2).unwrap();
                assert_eq!(loaded.add(more).unwrap(), [5]);
            }
            // Others see each column under a name of its own.
            let mut reader = FileReader::try_new(File::open(&path).unwrap(), None).unwrap();
            let batch = reader.next().unwrap().unwrap();
            let schema = batch.schema();
            let names: BTreeSet<_> = schema.fields().iter().map(|field| field.name()).collect();
            assert_eq!(names.len(), batch.num_columns());
            assert_eq!(schema.metadata()["pandas"], "{\"index\": []}");
            assert_eq!(schema.metadata()["omendb.metric"], "euclidean");
            let own = |name: &str| batch[name].as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(own("ids"), [0, 1, 2, 3, 4]);
            assert_eq!(own("ids_1"), left.map(|id| if id == 3 { 0 } else { id }));
            for (name, by) in [("größe\n\0", 6), ("twice", 7), ("twice_2", 8), ("twice_1", 9)] {
                assert_eq!(own(name)[0], 40 * by);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it writes files")]
    fn a_load_that_wants_no_table_reads_none_and_one_that_finds_none_gives_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.omen");
        let index = index(None);
        index.save_columns(&path, |ids| Ok(table(ids)), Run::new()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(5).position(|w| w == "№ 40".as_bytes()[..5].as_ref()).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(nearest(&Index::load(&path).unwrap(), 2.0), 2);
        for result in [
            Index::load_with(&path, true, Run::new()).map(drop),
            Index::load_columns(&path, false, Run::new()).map(drop),
            Index::load_columns(&path, true, Run::new()).map(drop),
        ] {
            let error = result.unwrap_err();
            assert!(error.to_string().contains("column name (bytes "), "{error}");
            assert!(matches!(error, Error::Damaged { column: Some(name), .. } if name == "name"));
        }
        index.save_columns(&path, |ids| Ok(table(ids)), Run::new()).unwrap();
        let refused = Index::load_columns(&path, false, Run::new().monitor(&mut Never));
        assert_eq!(refused.map(drop), Err(Error::Interrupted));
        // No columns: the ids are the user's.
        let none = |ids: &[i64]| {
            let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
            let schema = Schema::new_with_metadata(Vec::<Field>::new(), pairs(&[("note", "1")]));
            Ok(RecordBatch::try_new_with_options(Arc::new(schema), vec![], &options).unwrap())
        };
        index.save_columns(&path, none, Run::new()).unwrap();
        let (loaded, read) = Index::load_columns(&path, true, Run::new()).unwrap();
        assert_eq!((loaded.ids(), read), (IDS.to_vec(), none(&IDS).unwrap()));
        index.save(&path).unwrap();
        let (loaded, read) = Index::load_columns(&path, true, Run::new()).unwrap();
        assert_eq!(loaded.ids(), IDS);
        assert_eq!((read.num_columns(), read.num_rows()), (0, IDS.len()));
        assert!(read.schema_ref().metadata().is_empty());
        // No rows.
        let empty = Index::empty(2, Metric::Cosine).unwrap();
        empty.save_columns(&path, |ids| Ok(table(ids)), Run::new()).unwrap();
        let (loaded, read) = Index::load_columns(&path, true, Run::new()).unwrap();
        assert_eq!((loaded.len(), read), (0, table(&[])));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it writes files")]
    fn a_table_that_cannot_be_saved_leaves_the_file_that_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.omen");
        let index = index(None);
        fs::write(&path, "before").unwrap();
        let refused = |columns: &dyn Fn(&[i64]) -> Result<RecordBatch>| {
            let error = index.save_columns(&path, columns, Run::new()).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), b"before");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
            error
        };
        let error = refused(&|ids| Ok(table(&ids[1..])));
        assert_eq!(error, Error::invalid("expected columns of 6 rows, got 5"));
        let error = refused(&|_| Err(Error::Interrupted));
        assert_eq!(error, Error::Interrupted);
        let error = refused(&|ids| {
            let views: ArrayRef =
                Arc::new(StringViewArray::from_iter_values(ids.iter().map(|_| "")));
            Ok(RecordBatch::try_from_iter([("views", views)]).unwrap())
        });
        assert!(error.to_string().starts_with("column views is of type Utf8View, which a file"));
    }
}
