//! The index as a Python class.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, make_array, new_null_array};
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Schema};
use numpy::{PyArray1, PyUntypedArray};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyString, PyTuple};

use super::array::{self, Count, Wanted, numpy_dtype};
use super::frame::{self, Frame, Roles};
use super::hits::{Hits, RadiusHits};
use super::ids::{self, Given};
use super::ledger::Ledger;
use super::monitor;
use super::records::{Records, escaped, free_name, stream};
use super::report::{self, Explanation, HealthReport, RecallReport, WhyNot};
use crate::error::Error;
use crate::index::{self, Filter, Method, Near, Options};
use crate::metric::Metric;
use crate::rows::{DType, Rows};
use crate::table::{self, Key, Keys, Kind, Table, refused};
use crate::threads::default_threads;

/// Nearest neighbours of vectors: exact, at matrix-product speed, without a copy.
///
/// Parameters
/// ----------
/// vectors : array-like of shape (n, dim), optional
///     The rows. A C-contiguous array of float32, float64, float16, bfloat16, int8 or uint8 is
///     used where it lies; it must not be resized, and writing to it makes later answers wrong.
///     Anything else is converted once: strided, Fortran-ordered, misaligned or foreign-endian
///     arrays keep their number type; lists, other integers, booleans and objects become float64.
/// dim : int, optional
///     The numbers of a vector; needed where no vectors are given.
/// metric : str, default="euclidean"
///     ``euclidean`` (alias ``l2``), ``sqeuclidean``, ``cosine``, ``inner_product`` (``ip``,
///     ``dot``; the distance is minus the product), ``manhattan`` (``l1``, ``cityblock``) or
///     ``chebyshev`` (``linf``). A zero vector has cosine distance 1 to everything.
/// ids : array-like of shape (n,), optional
///     Unique ids of the rows: integers, strings or `uuid.UUID`, which come back as such; 0, 1, 2, …
///     by default.
/// copy : bool, default=False
///     Copy the vectors first, so that later writes to the array do not matter.
/// method : {"exact", "graph"}, default="exact"
///     "graph" builds a graph as well (see `build_graph`), for approximate searches.
/// seed : int, default=0
///     Chooses the random rows that the graph's building starts from.
/// threads : int, optional
///     Threads that prepare the index; as many as there are processors by default.
/// progress : bool or callable, default=False
///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
///
/// Raises
/// ------
/// ValueError
///     If the shape, the metric or an id is wrong, or a row holds NaN, an infinity or a number
///     beyond 1e150; the message names the first such row.
/// TypeError
///     If the vectors are not real numbers.
///
/// Notes
/// -----
/// Distances are computed in float64 from the numbers of the array, by direct differences or
/// products; ties go to the lower row. The answers are the same bits at any number of threads, any
/// batch size and any instruction set.
///
/// If another thread writes to a borrowed array during a search, the answers are those of some
/// mixture of old and new numbers; ``copy=True`` avoids it.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> X = np.random.default_rng(0).standard_normal((1000, 64), dtype=np.float32)
/// >>> index = omendb.Index(X, metric="cosine")
/// >>> hits = index.search(X[:2], k=3)
/// >>> hits.ids.shape, hits.distances.dtype
/// ((2, 3), dtype('float32'))
/// >>> hits.ids[:, 0]
/// array([0, 1])
#[pyclass(frozen, weakref, module = "omendb")]
#[allow(clippy::struct_field_names)] // the engine's index
pub(super) struct Index {
    index: index::Index<'static>,
    /// The array whose memory all rows are, until an edit.
    source: Mutex<Option<Py<PyUntypedArray>>>,
    /// Ids in the user's own type, and metadata.
    ledger: Ledger,
}

/// Which rows may answer, as it was given.
#[derive(Default)]
struct Chosen {
    mask: Option<Vec<bool>>,
    ids: Option<Vec<i64>>,
    /// The first label, and a bit for each from there on.
    lines: Option<(i64, BooleanBuffer)>,
}

impl Chosen {
    fn filters(&self) -> Vec<Filter<'_>> {
        let mask = self.mask.iter().map(|mask| Filter::Mask(mask));
        let ids = self.ids.iter().map(|ids| Filter::Ids(ids));
        let lines = self.lines.iter();
        let lines =
            lines.map(|(first, bits)| Filter::IdBits { first: *first, bits: bits.values() });
        mask.chain(ids).chain(lines).collect()
    }
}

/// Whether a method of building wants a graph.
fn linked(method: &str) -> PyResult<bool> {
    match method {
        "exact" => Ok(false),
        "graph" => Ok(true),
        _ => Err(PyValueError::new_err(format!(
            "expected method to be 'exact' or 'graph', got '{method}'"
        ))),
    }
}

/// Bytes in what `repr` counts by.
const MIB: f64 = 1_048_576.0;

fn threads(threads: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    threads.map(|threads| array::count(threads, "threads")).transpose()
}

fn radius(radius: &Bound<'_, PyAny>) -> PyResult<f64> {
    radius.extract().map_err(|error| {
        if !array::is_of_value(radius.py(), &error) {
            return error;
        }
        let name = radius.get_type().name().map_or(String::new(), |name| name.to_string());
        PyTypeError::new_err(format!("expected radius to be a number, got {name}"))
    })
}

/// A seed; 0 where none is given.
fn seed(seed: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
    let Some(seed) = seed else { return Ok(0) };
    if !seed.hasattr("__index__")? {
        let name = seed.get_type().name()?;
        return Err(PyTypeError::new_err(format!("expected seed to be an integer, got {name}")));
    }
    let seed = seed.call_method0("__index__")?;
    seed.extract().map_err(|_| {
        PyValueError::new_err(format!("expected seed to be from 0 to 2**64 - 1, got {seed}"))
    })
}

/// Ids for rows of an index without a table.
enum Own {
    /// What the engine takes.
    Engine(Vec<i64>),
    /// What needs a table.
    Column(Field, ArrayRef),
}

fn own_ids(ids: &Bound<'_, PyAny>) -> PyResult<Own> {
    match ids::given(ids, "ids")? {
        Given::Integers(object) => Ok(Own::Engine(array::ids(&object, "ids")?)),
        Given::Column(field, _) if Kind::of(&field)?.is_integer() => {
            Ok(Own::Engine(array::ids(ids, "ids")?))
        }
        Given::Column(field, ids) => Ok(Own::Column(field.with_name("id"), ids)),
    }
}

/// Lines of ids and nothing else.
fn lines_of(id: Field, ids: ArrayRef) -> PyResult<RecordBatch> {
    let schema = table::schema(id, &Schema::empty());
    Ok(RecordBatch::try_new(schema, vec![ids]).map_err(refused)?)
}

/// Ids for new rows of a table: those given, or the next ones.
fn ids_for(table: &Table, given: Option<Given<'_>>, len: usize) -> PyResult<ArrayRef> {
    let ids = match given {
        None => table.next_ids(len)?,
        Some(given) => {
            let ids = ids::of_kind(given, "ids", table.kind())?;
            table::cast(&ids, table.id().data_type())?
        }
    };
    frame::check_len(&ids, len)?;
    Ok(ids)
}

impl Index {
    fn whole(
        index: index::Index<'static>,
        source: Option<Py<PyUntypedArray>>,
        table: Option<Table>,
    ) -> Self {
        Self { index, source: Mutex::new(source), ledger: Ledger::new(table) }
    }

    /// The engine's id of a row, if the caller's is that of one.
    fn label(&self, id: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
        if let Some(table) = self.ledger.table() {
            let find = |key: &Key<'_>| self.ledger.find(&self.index, key);
            return Ok(ids::with_key(id, table.kind(), find)?.flatten());
        }
        Ok(report::integer(id).filter(|&id| self.index.contains(id)))
    }

    /// A filter and a condition as the engine takes them.
    fn chosen(
        &self,
        py: Python<'_>,
        filter: Option<&Bound<'_, PyAny>>,
        condition: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Chosen> {
        let mut chosen = Chosen::default();
        let table = self.ledger.table();
        let threads = threads.unwrap_or_else(default_threads);
        if let Some(condition) = condition {
            // Here, since PyO3 would name the argument as Rust spells it.
            let Ok(text) = condition.cast::<PyString>() else {
                let kind = condition.get_type().name()?;
                let text = format!("expected where= to be a text like \"size < 500\", got {kind}");
                return Err(PyTypeError::new_err(text));
            };
            let condition = text.to_str()?;
            let table = table.as_ref().ok_or_else(|| {
                PyValueError::new_err(
                    "the index has no columns that where= could name: make it with \
                     Index.from_frame, or use filter=",
                )
            })?;
            chosen.lines = Some(py.detach(|| table.select(condition, threads))?);
        }
        let Some(filter) = filter else { return Ok(chosen) };
        chosen.mask = array::mask(filter)?;
        // A column of pandas means rows by its labels, if these can be ids: ids are dear to list.
        let own = |numbers: bool| match &table {
            Some(table) => numbers == table.kind().is_integer(),
            // Not those that only count rows.
            None => numbers && !self.index.ids().into_iter().eq(0..self.index.len() as i64),
        };
        if chosen.mask.is_some() && ids::are_numbers_of_pandas(filter)?.is_some_and(own) {
            let name = table.as_ref().map_or("id", |table| table.id().name());
            let aligned = py.import("omendb.frames")?.getattr("aligned")?;
            chosen.mask = array::mask(&aligned.call1((filter, self.ids(py)?, name))?)?;
        }
        if chosen.mask.is_none() {
            chosen.ids = Some(match table {
                None => array::ids(filter, "filter")?,
                Some(table) => {
                    let keys = ids::wanted(filter, "filter", table.kind())?;
                    self.ledger.labels(&self.index, &keys, "filter")?
                }
            });
        }
        Ok(chosen)
    }

    /// Answers, and a table that has a line for each of them.
    fn answered(
        &self,
        py: Python<'_>,
        mut search: impl FnMut() -> PyResult<index::Hits>,
    ) -> PyResult<(index::Hits, Option<Arc<Table>>)> {
        loop {
            let before = self.ledger.table();
            let hits = search()?;
            // The table from before the search has all rows but those that came meanwhile.
            let known = |table: &Arc<Table>| hits.ids.iter().all(|&label| label < table.end());
            if let Some(before) = before.filter(known) {
                return Ok((hits, Some(before)));
            }
            let Some(after) = self.ledger.table() else { return Ok((hits, None)) };
            if after.holds(&hits.ids) {
                return Ok((hits, Some(after)));
            }
            // Rows came and went, and their lines with them, while the search ran: once more.
            py.check_signals()?;
        }
    }

    /// What `read` gives with the labels of its rows, and a table that has a line for each of them.
    fn with_lines<T>(
        &self,
        py: Python<'_>,
        read: impl Fn() -> PyResult<(Vec<i64>, T)>,
    ) -> PyResult<(Vec<i64>, T, Option<Arc<Table>>)> {
        loop {
            let before = self.ledger.table();
            let (labels, rest) = read()?;
            if let Ok(table) = self.ledger.holding(before, &labels) {
                return Ok((labels, rest, table));
            }
            py.check_signals()?;
        }
    }

    /// The engine's ids of rows that may be named once only, and whether they are labels.
    fn labels_once(&self, ids: &Bound<'_, PyAny>) -> PyResult<(Vec<i64>, bool)> {
        let Some(table) = self.ledger.table() else { return Ok((array::ids(ids, "ids")?, false)) };
        let keys = ids::wanted(ids, "ids", table.kind())?;
        Ok((self.ledger.labels_once(&self.index, &keys)?, true))
    }

    /// Adds rows whose ids are the engine's own.
    fn add_plain<'py>(
        &self,
        py: Python<'py>,
        (rows, copy): (Rows<'static>, bool),
        ids: Option<&[i64]>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let n = rows.len();
        let ids = monitor::run(py, progress, n, "row", usize::MAX, threads, |run| {
            self.index.add_rows(rows, copy, ids, run)
        })?;
        if !ids.is_empty() {
            *self.source() = None;
        }
        Ok(PyArray1::from_vec(py, ids).into_any())
    }

    /// Adds rows with these lines, the ids first; the caller keeps other edits waiting.
    fn append(
        &self,
        py: Python<'_>,
        (rows, copy): (Rows<'static>, bool),
        table: &Arc<Table>,
        columns: Vec<ArrayRef>,
        threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let before = self.ledger.table();
        let lines = RecordBatch::try_new(Arc::clone(table.schema()), columns).map_err(refused)?;
        let keys = Keys::of(lines.column(0), table.kind())?;
        Table::check_new(&keys, |key| self.ledger.find(&self.index, key).is_some())?;
        let n = rows.len();
        let labels: Vec<i64> = (table.end()..table.end() + n as i64).collect();
        self.ledger.set(Some(Arc::new(table.append(&lines)?)));
        let added = monitor::run(py, progress, n, "row", usize::MAX, threads, |run| {
            self.index.add_rows(rows, copy, Some(&labels), run)
        });
        if let Err(error) = added {
            self.ledger.set(before);
            return Err(error);
        }
        self.ledger.added(&labels);
        if n > 0 {
            *self.source() = None;
        }
        Ok(())
    }

    /// Rows with these labels and vectors: their ids, the vectors, and what the table knows.
    fn lines(
        &self,
        labels: &[i64],
        bytes: Vec<u8>,
        table: Option<&Table>,
    ) -> PyResult<RecordBatch> {
        let data_type = match self.index.dtype() {
            None | Some(DType::F32) => DataType::Float32,
            Some(DType::F64) => DataType::Float64,
            Some(DType::F16) => DataType::Float16,
            Some(DType::BF16) => DataType::UInt16,
            Some(DType::I8) => DataType::Int8,
            Some(DType::U8) => DataType::UInt8,
        };
        let dim = i32::try_from(self.index.dim())
            .map_err(|_| PyValueError::new_err("the vectors are too long for a list of Arrow"))?;
        let values = ArrayData::builder(data_type.clone())
            .len(labels.len() * self.index.dim())
            .add_buffer(Buffer::from_vec(bytes))
            .align_buffers(true)
            .build()
            .map_err(refused)?;
        let item = Arc::new(Field::new_list_field(data_type, false));
        let vectors = FixedSizeListArray::try_new(item, dim, make_array(values), None);
        let vectors: ArrayRef = Arc::new(vectors.map_err(refused)?);
        let lines = if let Some(table) = table {
            table.take(labels)?
        } else {
            let ids: ArrayRef = Arc::new(arrow_array::Int64Array::from(labels.to_vec()));
            lines_of(ids::field("id", Kind::Int), ids)?
        };
        let schema = lines.schema();
        let roles = Roles::noted(&schema);
        let name = roles.as_ref().map_or("vector", |roles| frame::vector_name(&roles.vector));
        let taken = |name: &str| schema.fields().iter().any(|field| field.name() == name);
        let field = Field::new(free_name(name, taken), vectors.data_type().clone(), false);
        let mut fields = schema.fields().to_vec();
        fields.insert(1, Arc::new(field));
        let mut columns = lines.columns().to_vec();
        columns.insert(1, vectors);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(refused)?)
    }

    /// The bytes of rows as an array.
    fn vector_array<'py>(&self, py: Python<'py>, bytes: Vec<u8>) -> PyResult<Bound<'py, PyAny>> {
        let dtype = numpy_dtype(py, self.index.dtype().unwrap_or(DType::F32))?;
        let bytes = PyArray1::from_vec(py, bytes);
        let rows = if bytes.is_empty()? { 0 } else { -1 };
        bytes.call_method1("view", (dtype,))?.call_method1("reshape", (rows, self.index.dim()))
    }

    /// Multiply-adds of a search for these queries.
    fn operations(&self, queries: &Rows) -> usize {
        queries.len().saturating_mul(self.index.dim()).saturating_mul(self.index.len())
    }

    fn double(&self) -> bool {
        self.index.dtype() == Some(DType::F64)
    }

    fn source(&self) -> std::sync::MutexGuard<'_, Option<Py<PyUntypedArray>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queries<'py>(object: &Bound<'py, PyAny>) -> PyResult<array::Vectors<'py>> {
        array::vectors(object, Wanted { what: "queries", dtype: None, single: true, copy: false })
    }

    /// Rows of the number type of those there are, and whether they must be copied to be kept.
    fn new_rows(&self, object: &Bound<'_, PyAny>) -> PyResult<(Rows<'static>, bool)> {
        let wanted =
            Wanted { what: "vectors", dtype: self.index.dtype(), single: false, copy: false };
        let array::Vectors { rows, own, .. } = array::vectors(object, wanted)?;
        Ok((rows, !own))
    }

    fn dtype_name(&self) -> &'static str {
        match self.index.dtype() {
            None | Some(DType::F32) => "float32",
            Some(DType::F64) => "float64",
            Some(DType::F16) => "float16",
            Some(DType::BF16) => "bfloat16",
            Some(DType::I8) => "int8",
            Some(DType::U8) => "uint8",
        }
    }

    fn facts(&self) -> [(&'static str, String); 9] {
        let mib = self.nbytes() as f64 / MIB;
        let width = self.index.code_width().map_or_else(
            || "none: every row is judged in float64".into(),
            |width| format!("8 bits, {width} of {} dimensions", self.index.dim()),
        );
        let table = self.ledger.table();
        let ids = table.as_ref().map_or("integers".into(), |table| table.kind().to_string());
        let columns = table.as_ref().map_or_else(Vec::new, |table| {
            table.schema().fields()[1..].iter().map(|field| field.name().clone()).collect()
        });
        [
            ("rows", self.index.len().to_string()),
            ("ids", ids),
            ("metadata", if columns.is_empty() { "none".into() } else { columns.join(", ") }),
            ("dim", self.index.dim().to_string()),
            ("metric", self.index.metric().to_string()),
            ("numbers", self.dtype_name().to_string()),
            ("codes", width),
            ("graph", if self.index.has_graph() { "yes".into() } else { "no".into() }),
            ("beside the vectors", format!("{mib:.1} MiB")),
        ]
    }
}

#[pymethods]
impl Index {
    #[new]
    #[pyo3(signature = (vectors=None, *, dim=None, metric="euclidean", ids=None, copy=false,
                        method="exact", seed=None, threads=None, progress=None),
           text_signature = "(vectors=None, *, dim=None, metric='euclidean', ids=None, copy=False, \
                             method='exact', seed=0, threads=None, progress=False)")]
    #[allow(clippy::too_many_arguments)] // keywords, all of the public signature
    fn new(
        py: Python<'_>,
        vectors: Option<&Bound<'_, PyAny>>,
        dim: Option<&Bound<'_, PyAny>>,
        metric: &str,
        ids: Option<&Bound<'_, PyAny>>,
        copy: bool,
        method: &str,
        seed: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let metric: Metric = metric.parse()?;
        let seed = self::seed(seed)?;
        let linked = linked(method)?;
        let dim = dim.map(|dim| array::count(dim, "dim")).transpose()?;
        let threads = self::threads(threads)?;
        let Some(vectors) = vectors else {
            let dim = dim.ok_or_else(|| {
                PyTypeError::new_err("expected vectors, or dim= for an empty index, got neither")
            })?;
            if ids.is_some() {
                return Err(PyValueError::new_err("ids= needs vectors; give ids to add() instead"));
            }
            let index = index::Index::empty(dim, metric)?;
            if linked {
                index.build_graph(seed)?;
            }
            return Ok(Self::whole(index, None, None));
        };
        let wanted = Wanted { what: "vectors", dtype: None, single: false, copy };
        let array::Vectors { rows, array, .. } = array::vectors(vectors, wanted)?;
        if let Some(expected) = dim.filter(|&dim| dim != rows.dim()) {
            let got = rows.dim();
            return Err(Error::DimensionMismatch { what: "vectors", expected, got }.into());
        }
        let ids = ids.map(own_ids).transpose()?;
        let (ids, table) = match ids {
            None => (None, None),
            Some(Own::Engine(ids)) => (Some(ids), None),
            Some(Own::Column(field, ids)) => {
                frame::check_len(&ids, rows.len())?;
                (None, Some(Table::of(&lines_of(field, ids)?)?))
            }
        };
        let ids = ids.as_deref();
        let seed = linked.then_some(seed);
        let n = rows.len();
        let index = monitor::run(py, progress, n, "row", usize::MAX, threads, |run| {
            index::Index::new_with(rows, metric, ids, seed, run)
        })?;
        Ok(Self::whole(index, Some(array.unbind()), table))
    }

    /// Index the vectors of a frame, with its ids and its other columns as metadata.
    ///
    /// Parameters
    /// ----------
    /// frame : pandas.DataFrame, polars.DataFrame, pyarrow.Table or alike
    ///     Whatever exports Arrow's C stream (``__arrow_c_stream__``) will do.
    /// vector : str or list of str
    ///     The column of vectors: arrays or lists of one length, Arrow's or Polars' lists and arrays.
    ///     Or the columns that hold one number each.
    /// id : str, optional
    ///     The column of unique ids: integers, strings or UUIDs. By default the index of a pandas
    ///     frame, so that ``frame.loc[hits.ids[0]]`` works, and 0, 1, 2, … for other frames.
    /// metric : str, default="euclidean"
    ///     As for `Index`.
    /// copy : bool, default=False
    ///     Copy the vectors. They are used where they lie only where they are one chunk of Arrow lists
    ///     of float32, float64, float16, int8 or uint8; several chunks, and pandas' columns of arrays,
    ///     are put together once.
    /// method : {"exact", "graph"}, default="exact"
    ///     "graph" builds a graph as well (see `build_graph`).
    /// seed : int, default=0
    ///     Chooses the random rows that the graph's building starts from.
    /// threads : int, optional
    ///     Threads that prepare the index; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
    ///
    /// Returns
    /// -------
    /// Index
    ///     Its searches name rows by these ids, and their answers have the metadata of the rows.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If a column is not there; if vectors differ in length; if a vector, a number of one, or an
    ///     id is null; if an id is there twice; if a column is of a type that is not kept. Messages
    ///     name the column, and the first such row.
    /// TypeError
    ///     If the frame is none, or a column does not hold what it is said to.
    ///
    /// Notes
    /// -----
    /// Kept are columns of numbers, booleans, strings, bytes, dates, times (with their zones),
    /// durations, decimals and categories; they are copied. Lists and structs are refused. pandas'
    /// metadata columns need pyarrow.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb, pandas
    /// >>> frame = pandas.DataFrame({"name": ["a", "b"], "size": [3, 5], "v": [[0.0, 1.0], [1.0, 0.0]]})
    /// >>> index = omendb.Index.from_frame(frame, vector="v", id="name")
    /// >>> index.search([0.0, 2.0], k=1).to_pandas()
    ///    query  rank name  distance  size
    /// 0      0     0    a       1.0     3
    #[staticmethod]
    #[pyo3(signature = (frame, *, vector, id=None, metric="euclidean", copy=false, method="exact",
                        seed=None, threads=None, progress=None),
           text_signature = "(frame, *, vector, id=None, metric='euclidean', copy=False, \
                             method='exact', seed=0, threads=None, progress=False)")]
    #[allow(clippy::too_many_arguments)] // keywords, all of the public signature
    fn from_frame(
        py: Python<'_>,
        frame: &Bound<'_, PyAny>,
        vector: &Bound<'_, PyAny>,
        id: Option<&Bound<'_, PyAny>>,
        metric: &str,
        copy: bool,
        method: &str,
        seed: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let metric: Metric = metric.parse()?;
        let seed = self::seed(seed)?;
        let seed = linked(method)?.then_some(seed);
        let threads = self::threads(threads)?;
        let frame = Frame::read(frame, Roles::of(vector, id)?)?;
        let wanted = Wanted { what: "vectors", dtype: None, single: false, copy };
        let array::Vectors { rows, array, .. } = array::vectors(&frame.vectors, wanted)?;
        let n = rows.len();
        let table = Table::of(&frame.lines(n)?)?;
        let index = monitor::run(py, progress, n, "row", usize::MAX, threads, |run| {
            index::Index::new_with(rows, metric, None, seed, run)
        })?;
        Ok(Self::whole(index, Some(array.unbind()), Some(table)))
    }

    /// Find the rows nearest to each query.
    ///
    /// Parameters
    /// ----------
    /// queries : array-like of shape (n_queries, dim) or (dim,)
    ///     Of any number type, which need not be the index's.
    /// k : int, default=10
    ///     Neighbours per query, at least 1; all rows if there are fewer.
    /// method : {"auto", "exact", "graph"}, default="auto"
    ///     "graph" walks through the graph, which must have been built, and may miss neighbours
    ///     (with a filter that few enough rows pass, those are looked at one by one instead);
    ///     "auto" does so where there is a graph and a walk costs less than looking at every row,
    ///     as it does not for small data, large batches and filters that few rows pass.
    /// effort : int, optional
    ///     About the width of the walk's beam: wider finds more and takes longer. A walk expands half of
    ///     so many rows at least, and up to three times as many where they are hardly farther than the
    ///     k-th. By default ``index.effort``, which `tune` sets, and 1.5 `k` at least.
    /// filter : array-like, optional
    ///     Which rows may answer: booleans aligned with ``index.ids``, or ids in their own type.
    /// where : str, optional
    ///     A condition on the ids and the metadata, in SQL's or pandas' spelling, that rows must meet to
    ///     answer, beside `filter`: ``"section == 'games' and size < 500"``. Comparisons, ``and``,
    ///     ``or``, ``not``, ``in``, ``between``, ``like``, ``startswith``, ``is null``; names that are
    ///     no words stand in `` `backticks` `` or double quotes.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(done, n_queries)``.
    ///
    /// Returns
    /// -------
    /// Hits
    ///     ``ids`` and ``distances`` of shape (n_queries, min(k, rows allowed)), nearest first;
    ///     ``exact`` says of each query whether its answers are proven.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If a width, ``k``, the filter, the condition or a number is wrong.
    /// TypeError
    ///     If the queries are not real numbers or ``k`` is no integer.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
    /// >>> index.search([0.0, 0.0], k=2).distances
    /// array([0., 5.])
    /// >>> index.search([0.0, 0.0], k=2, filter=[False, True, True]).ids
    /// array([1, 2])
    #[pyo3(signature = (queries, k=Count(10), *, method="auto", effort=None, filter=None,
                        r#where=None, threads=None, progress=None),
           text_signature = "($self, queries, k=10, *, method='auto', effort=None, filter=None, \
                             where=None, threads=None, progress=False)")]
    #[allow(clippy::too_many_arguments)] // keywords, all of the public signature
    fn search(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        k: Count,
        method: &str,
        effort: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let queries = Self::queries(queries)?;
        let threads = self::threads(threads)?;
        let chosen = self.chosen(py, filter, r#where, threads)?;
        let filters = chosen.filters();
        let options = options(method, effort, &filters)?;
        let rows = &queries.rows;
        let operations = self.operations(rows);
        let (hits, table) = self.answered(py, || {
            monitor::run(py, progress, rows.len(), "query", operations, threads, |run| {
                self.index.search_with(rows, k.0, options, run)
            })
        })?;
        Ok(Hits::new(py, hits, table, self.double(), queries.single))
    }

    /// Find the rows nearest to each row, itself left out, as their numbers; see `omendb.knn_graph`.
    ///
    /// With a ``recall`` some may be missed, and the share that was found comes as well; without, or
    /// where all pairs were compared after all, None.
    #[pyo3(signature = (k, *, recall=None, seed=None, threads=None, progress=None),
           text_signature = "($self, k, *, recall=None, seed=0, threads=None, progress=False)")]
    fn _neighbors(
        &self,
        py: Python<'_>,
        k: Count,
        recall: Option<f64>,
        seed: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Hits, Option<f64>)> {
        let threads = self::threads(threads)?;
        let n = self.index.len();
        let seed = self::seed(seed)?;
        let near = recall.map(|recall| Near { recall, seed });
        let (hits, recall) = monitor::run(py, progress, n, "row", usize::MAX, threads, |run| {
            self.index.neighbor_places(k.0, near, run)
        })?;
        Ok((Hits::new(py, hits, None, self.double(), false), recall))
    }

    /// Find groups of rows that lie near each other; see `omendb.duplicates`.
    #[pyo3(signature = (radius, *, threads=None, progress=None),
           text_signature = "($self, radius, *, threads=None, progress=False)")]
    fn _groups<'py>(
        &self,
        py: Python<'py>,
        radius: &Bound<'py, PyAny>,
        threads: Option<&Bound<'py, PyAny>>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let radius = self::radius(radius)?;
        let threads = self::threads(threads)?;
        let n = self.index.len();
        let groups = monitor::run(py, progress, n, "row", usize::MAX, threads, |run| {
            self.index.groups(radius, run)
        })?;
        Ok(PyArray1::from_iter(py, groups.into_iter().map(i64::from)))
    }

    /// Find all rows within a radius of each query.
    ///
    /// Parameters
    /// ----------
    /// queries : array-like of shape (n_queries, dim) or (dim,)
    ///     Of any number type, which need not be the index's.
    /// radius : float
    ///     The largest distance that answers, itself included.
    /// filter : array-like, optional
    ///     Which rows may answer: booleans aligned with ``index.ids``, or ids in their own type.
    /// where : str, optional
    ///     A condition on the ids and the metadata, in SQL's or pandas' spelling, that rows must meet to
    ///     answer, beside `filter`: ``"section == 'games' and size < 500"``. Comparisons, ``and``,
    ///     ``or``, ``not``, ``in``, ``between``, ``like``, ``startswith``, ``is null``; names that are
    ///     no words stand in `` `backticks` `` or double quotes.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(done, n_queries)``.
    ///
    /// Returns
    /// -------
    /// RadiusHits
    ///     Ragged: query ``i`` has ``ids[offsets[i]:offsets[i + 1]]``, nearest first.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If a width, the radius, the filter, the condition or a number is wrong.
    /// TypeError
    ///     If the queries or the radius are not real numbers.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
    /// >>> index.search_radius([0.0, 0.0], radius=5).ids
    /// array([0, 1])
    #[pyo3(signature = (queries, radius, *, filter=None, r#where=None, threads=None, progress=None),
           text_signature = "($self, queries, radius, *, filter=None, where=None, threads=None, \
                             progress=False)")]
    #[allow(clippy::too_many_arguments)] // keywords, all of the public signature
    fn search_radius(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        radius: &Bound<'_, PyAny>,
        filter: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<RadiusHits> {
        let radius = self::radius(radius)?;
        let queries = Self::queries(queries)?;
        let threads = self::threads(threads)?;
        let chosen = self.chosen(py, filter, r#where, threads)?;
        let filters = chosen.filters();
        let filter = all(&filters);
        let rows = &queries.rows;
        let operations = self.operations(rows);
        let (hits, table) = self.answered(py, || {
            monitor::run(py, progress, rows.len(), "query", operations, threads, |run| {
                self.index.search_radius_with(rows, radius, filter, run)
            })
        })?;
        Ok(RadiusHits::new(py, hits, table, self.double(), queries.single))
    }

    /// Link near rows, so that searches need not look at all of them.
    ///
    /// From now on ``method="auto"`` walks through the graph where that costs less, and edits keep
    /// the links up to date. The same rows and seed give the same graph at any number of threads.
    ///
    /// Parameters
    /// ----------
    /// seed : int, default=0
    ///     Chooses the random rows that the building starts from.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the metric is ``manhattan`` or ``chebyshev``, which are searched exactly.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> X = np.random.default_rng(0).standard_normal((5000, 16), dtype=np.float32)
    /// >>> index = omendb.Index(X)
    /// >>> index.build_graph()
    /// >>> index.search(X[:2], k=3, method="graph").ids[:, 0]
    /// array([0, 1])
    #[pyo3(signature = (*, seed=None, threads=None, progress=None),
           text_signature = "($self, *, seed=0, threads=None, progress=False)")]
    fn build_graph(
        &self,
        py: Python<'_>,
        seed: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let seed = self::seed(seed)?;
        let threads = self::threads(threads)?;
        let _edit = self.ledger.edit(py)?;
        monitor::run(py, progress, self.index.len(), "row", usize::MAX, threads, |run| {
            self.index.build_graph_with(seed, run)
        })
    }

    /// Find the effort that answers with this recall, and make it the index's own.
    ///
    /// Parameters
    /// ----------
    /// recall : float, default=0.95
    ///     The mean share of the true neighbours that searches are to find, above 0 and up to 1.
    /// k : int, default=10
    ///     Neighbours per query.
    /// queries : array-like of shape (n_queries, dim), optional
    ///     What searches will ask for, at least 2; a thousand points among rows and rows
    ///     near them by default, which are easier than queries of another kind.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    ///
    /// Returns
    /// -------
    /// RecallReport
    ///     The recall on half of the queries, which did not choose the effort, with a lower bound,
    ///     and a table of recall and speed. Where no effort reaches the recall, the widest tried
    ///     is taken: compare ``recall`` with ``target``.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If there is no graph, or a parameter is out of range.
    /// TypeError
    ///     If the queries are not real numbers.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> X = np.random.default_rng(0).standard_normal((5000, 16), dtype=np.float32)
    /// >>> index = omendb.Index(X, method="graph")
    /// >>> report = index.tune(recall=0.9)
    /// >>> report.effort == index.effort
    /// True
    #[pyo3(signature = (recall=0.95, k=Count(10), *, queries=None, threads=None),
           text_signature = "($self, recall=0.95, k=10, *, queries=None, threads=None)")]
    fn tune(
        &self,
        py: Python<'_>,
        recall: f64,
        k: Count,
        queries: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<RecallReport> {
        let queries = queries.map(Self::queries).transpose()?;
        let rows = queries.as_ref().map(|queries| queries.rows.clone());
        let threads = self::threads(threads)?;
        let report = monitor::run(py, None, 1, "query", usize::MAX, threads, |run| {
            self.index.tune_with(recall, k.0, rows.as_ref(), run)
        })?;
        Ok(RecallReport { report })
    }

    /// Write the index to a file, which replaces one that is there.
    ///
    /// The file is an Arrow IPC file with checksums: pyarrow, pandas, Polars and DuckDB read its
    /// columns ``ids``, ``vectors`` (bfloat16 as its bits in uint16) and, where there is a graph,
    /// ``codes`` and ``links``. Ids that are no integers, and metadata, are columns of their own names;
    /// ``ids`` then counts the rows. Removed rows are left out. The file is written beside the old one
    /// and takes its place when it is complete.
    ///
    /// Parameters
    /// ----------
    /// path : str or os.PathLike
    ///     By convention ``something.omen``.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     If the file cannot be written. An old one is untouched then.
    /// ValueError
    ///     If the index was loaded from a file and some of its rows are damaged there.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb, tempfile, pathlib
    /// >>> path = pathlib.Path(tempfile.mkdtemp()) / "eye.omen"
    /// >>> omendb.Index(np.eye(3)).save(path)
    /// >>> omendb.Index.load(path).search([1.0, 0.0, 0.0], k=1).ids
    /// array([0])
    #[pyo3(signature = (path, *, progress=None), text_signature = "($self, path, *, progress=False)")]
    #[allow(clippy::needless_pass_by_value)] // pyo3 makes it of an os.PathLike
    fn save(
        &self,
        py: Python<'_>,
        path: PathBuf,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // Rows, links and table of one moment.
        let _edit = self.ledger.edit(py)?;
        let table = self.ledger.table();
        let n = self.index.len();
        monitor::run(py, progress, n, "row", usize::MAX, None, |run| match &table {
            None => self.index.save_with(&path, run),
            Some(table) => self.index.save_columns(&path, |labels| table.whole(labels), run),
        })
    }

    /// Load an index from a file that `save` wrote. The vectors stay in the mapped file.
    ///
    /// Loading reads the ids alone, so that the first answer takes milliseconds. Rows, codes and links
    /// are checked against the file's checksums when a search first comes to them: damaged rows make
    /// that search fail, damaged codes are made again, and so is the graph where links are damaged.
    /// The first exact search makes the codes of all rows again, whatever the file says.
    ///
    /// Do not write to the file while it is in use: `save` replaces it, which is safe.
    ///
    /// Parameters
    /// ----------
    /// path : str or os.PathLike
    ///     The file.
    /// verify : bool, default=False
    ///     Check all of the file now, which takes as long as reading it.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(done, 1)``.
    ///
    /// Returns
    /// -------
    /// Index
    ///
    /// Raises
    /// ------
    /// OSError
    ///     If there is no such file or it cannot be read.
    /// ValueError
    ///     If the file is damaged, or no file of omendb.
    #[staticmethod]
    #[pyo3(signature = (path, *, verify=false, threads=None, progress=None),
           text_signature = "(path, *, verify=False, threads=None, progress=False)")]
    #[allow(clippy::needless_pass_by_value)] // as for save
    fn load(
        py: Python<'_>,
        path: PathBuf,
        verify: bool,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let threads = self::threads(threads)?;
        let (index, table) = monitor::run(py, progress, 1, "file", usize::MAX, threads, |run| {
            let (index, columns) = index::Index::load_columns(&path, verify, run)?;
            let has_table = columns.num_columns() > 0;
            let damaged = |what: String| Error::damaged(&path, None, what);
            let table = has_table.then(|| Table::of(&columns)).transpose();
            let table = table.map_err(|error| damaged(error.to_string()))?;
            if table.is_some() && index.ids().into_iter().ne(0..index.len() as i64) {
                return Err(damaged("its ids are not the places of its columns".into()));
            }
            Ok((index, table))
        })?;
        Ok(Self::whole(index, None, table))
    }

    /// Walk through the graph and count what should not be.
    ///
    /// Returns
    /// -------
    /// dict or None
    ///     ``rows`` of the index; ``unreachable``, those that no walk can come to; ``dangling``,
    ///     links to rows that are not there; ``links`` in all; ``degree``, the most of a row.
    ///     None where there is no graph.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.eye(8), method="graph")
    /// >>> index.check()["unreachable"]
    /// 0
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        // An edit under way ends first, but one that this call was made from.
        let _edit = match self.ledger.edit(py) {
            Err(error) if !error.is_instance_of::<PyRuntimeError>(py) => return Err(error),
            edit => edit.ok(),
        };
        let Some(check) = py.detach(|| self.index.check()) else { return Ok(None) };
        report::counts(py, check).map(Some)
    }

    /// Look for what is wrong with the rows, or slows searches down, and say what to do about it.
    ///
    /// Every row is read once, to find equal rows, zeros and lengths. What takes neighbours is measured
    /// on a sample of the rows that differ, all of them against each other.
    ///
    /// Parameters
    /// ----------
    /// sample : int, optional
    ///     Rows of the sample; 10,000 by default, or as many as take no more than some seconds.
    /// seed : int, default=0
    ///     Chooses the sample.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    ///
    /// Returns
    /// -------
    /// HealthReport
    ///     Duplicates, zero rows, lengths, intrinsic dimension, hubness, the graph's state, removed
    ///     rows, how codes prune, and advice.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the sample is 0, or the index was loaded from a file and some of its rows are damaged.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> omendb.Index(np.eye(3)[[0, 1, 2, 2]], metric="cosine").health().duplicate_rows
    /// 1
    #[pyo3(signature = (*, sample=None, seed=None, threads=None),
           text_signature = "($self, *, sample=None, seed=0, threads=None)")]
    fn health(
        &self,
        py: Python<'_>,
        sample: Option<&Bound<'_, PyAny>>,
        seed: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<HealthReport> {
        let sample = sample.map(|sample| array::count(sample, "sample")).transpose()?;
        let seed = self::seed(seed)?;
        let threads = self::threads(threads)?;
        let report = monitor::run(py, None, 1, "row", usize::MAX, threads, |run| {
            self.index.health(sample, seed, run)
        })?;
        Ok(HealthReport { report })
    }

    /// Search, and tell which way the search went, why, and what it took.
    ///
    /// Parameters
    /// ----------
    /// queries : array-like of shape (n_queries, dim) or (dim,)
    ///     As for `search`. A batch is told of together: ways and costs depend on its size.
    /// k : int, default=10
    ///     Neighbours per query.
    /// method, effort, filter, where
    ///     As for `search`.
    ///
    /// Returns
    /// -------
    /// Explanation
    ///     Of a search on one thread.
    ///
    /// Raises
    /// ------
    /// ValueError, TypeError
    ///     As `search`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> X = np.random.default_rng(0).standard_normal((3000, 8))
    /// >>> index = omendb.Index(X, method="graph")
    /// >>> index.explain(X[0], method="graph", effort=20).way
    /// 'a walk through the graph'
    #[pyo3(signature = (queries, k=Count(10), *, method="auto", effort=None, filter=None,
                        r#where=None),
           text_signature = "($self, queries, k=10, *, method='auto', effort=None, filter=None, \
                             where=None)")]
    #[allow(clippy::too_many_arguments)] // keywords, all of the public signature
    fn explain(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        k: Count,
        method: &str,
        effort: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Explanation> {
        let queries = Self::queries(queries)?;
        let chosen = self.chosen(py, filter, r#where, None)?;
        let filters = chosen.filters();
        let options = options(method, effort, &filters)?;
        let rows = &queries.rows;
        let explanation = monitor::run(py, None, 1, "query", usize::MAX, None, |run| {
            self.index.explain(rows, k.0, options, run)
        })?;
        Ok(Explanation { explanation, single: queries.single })
    }

    /// Tell why a row is not among a query's answers, or that it is.
    ///
    /// Makes the same search, an exact one, and, where a walk missed the row, wider ones.
    ///
    /// Parameters
    /// ----------
    /// query : array-like of shape (dim,) or (1, dim)
    ///     One query.
    /// id : int, str or uuid.UUID
    ///     The id of the row, of the index's type.
    /// k : int, default=10
    ///     Neighbours that are asked for.
    /// method, effort, filter, where
    ///     As for `search`.
    ///
    /// Returns
    /// -------
    /// WhyNot
    ///     Prints as a sentence; has the exact rank and distance.
    ///
    /// Raises
    /// ------
    /// ValueError, TypeError
    ///     As `search`; also if there is not one query. An id that is not there is an answer.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.arange(5.0).reshape(5, 1))
    /// >>> index.why_not([0.0], 3, k=2, filter=[0, 1, 2])
    /// the filter excludes id 3: at distance 3.000000 it would come 4th among the 3 rows that may
    /// answer, and so would not be one of the 2 nearest
    #[pyo3(signature = (query, id, *, k=Count(10), method="auto", effort=None, filter=None,
                        r#where=None),
           text_signature = "($self, query, id, *, k=10, method='auto', effort=None, filter=None, \
                             where=None)")]
    #[allow(clippy::too_many_arguments)] // keywords, all of the public signature
    fn why_not(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        id: &Bound<'_, PyAny>,
        k: Count,
        method: &str,
        effort: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<WhyNot> {
        let query = Self::queries(query)?;
        let chosen = self.chosen(py, filter, r#where, None)?;
        let filters = chosen.filters();
        let options = options(method, effort, &filters)?;
        // Whatever the id is, the rest is validated.
        let number = self.label(id)?;
        let why = monitor::run(py, None, 1, "query", usize::MAX, None, |run| {
            self.index.why_not(&query.rows, number.unwrap_or(i64::MIN), k.0, options, run)
        })?;
        Ok(WhyNot { id: id.clone().unbind(), why: number.map(|_| why) })
    }

    /// Add rows after those there are. They are copied.
    ///
    /// Parameters
    /// ----------
    /// vectors : array-like of shape (n, dim)
    ///     The new rows, converted to the number type of the index.
    /// ids : array-like of shape (n,), optional
    ///     Their ids, none of them in the index: integers, or strings or `uuid.UUID` where the others
    ///     are such or there are none. By default the integers that follow the largest so far.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
    ///
    /// Returns
    /// -------
    /// ndarray of shape (n,)
    ///     The ids of the new rows.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If a width, an id or a number is wrong. Nothing is added then.
    /// TypeError
    ///     If the vectors are not real numbers or the ids no integers.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(dim=2)
    /// >>> index.add([[0.0, 1.0], [1.0, 0.0]])
    /// array([0, 1])
    #[pyo3(signature = (vectors, ids=None, *, threads=None, progress=None),
           text_signature = "($self, vectors, ids=None, *, threads=None, progress=False)")]
    fn add<'py>(
        &self,
        py: Python<'py>,
        vectors: &Bound<'py, PyAny>,
        ids: Option<&Bound<'py, PyAny>>,
        threads: Option<&Bound<'py, PyAny>>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (rows, copy) = self.new_rows(vectors)?;
        let threads = self::threads(threads)?;
        let _edit = self.ledger.edit(py)?;
        let table = match (self.ledger.table(), ids) {
            (Some(table), _) => table,
            (None, None) => return self.add_plain(py, (rows, copy), None, threads, progress),
            (None, Some(ids)) => match own_ids(ids)? {
                Own::Engine(ids) => {
                    return self.add_plain(py, (rows, copy), Some(&ids), threads, progress);
                }
                Own::Column(_, none) if none.is_empty() && rows.is_empty() => {
                    return self.add_plain(py, (rows, copy), None, threads, progress);
                }
                Own::Column(field, ids) if self.index.is_empty() => {
                    let table = Table::new(lines_of(field, ids)?.schema())?;
                    Arc::new(table)
                }
                Own::Column(field, _) => {
                    let kind = Kind::of(&field)?;
                    return Err(PyTypeError::new_err(format!(
                        "expected ids to be integers, as in the index, got {kind}"
                    )));
                }
            },
        };
        let given = ids.map(|ids| ids::given(ids, "ids")).transpose()?;
        let ids = ids_for(&table, given, rows.len())?;
        let metadata = &table.schema().fields()[1..];
        let nulls = metadata.iter().map(|field| new_null_array(field.data_type(), rows.len()));
        let columns: Vec<ArrayRef> = std::iter::once(Arc::clone(&ids)).chain(nulls).collect();
        self.append(py, (rows, copy), &table, columns, threads, progress)?;
        let len = ids.len();
        ids::to_numpy(py, &ids, &[len])
    }

    /// Add the rows of a frame, with their ids and metadata.
    ///
    /// Parameters
    /// ----------
    /// frame : pandas.DataFrame, polars.DataFrame, pyarrow.Table or alike
    ///     With the columns of the frame that the index was made from (see `from_frame`). A metadata
    ///     column that is not there is null; numbers, times and categories are converted where nothing
    ///     is lost. Without a column of ids, the default index of a pandas frame and any other frame
    ///     get the integers that follow the largest so far.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
    ///
    /// Returns
    /// -------
    /// ndarray of shape (n,)
    ///     The ids of the new rows.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the index was not made from a frame, a column is unknown or of another type, or for the
    ///     reasons of `from_frame` and `add`. Nothing is added then.
    /// TypeError
    ///     As for `from_frame`.
    ///
    /// Examples
    /// --------
    /// >>> import omendb, pandas
    /// >>> frame = pandas.DataFrame({"name": ["a", "b"], "v": [[0.0, 1.0], [1.0, 0.0]]})
    /// >>> index = omendb.Index.from_frame(frame[:1], vector="v", id="name")
    /// >>> index.add_frame(frame[1:])
    /// array(['b'], dtype=object)
    #[pyo3(signature = (frame, *, threads=None, progress=None),
           text_signature = "($self, frame, *, threads=None, progress=False)")]
    fn add_frame<'py>(
        &self,
        py: Python<'py>,
        frame: &Bound<'py, PyAny>,
        threads: Option<&Bound<'py, PyAny>>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let roles = self.ledger.table().and_then(|table| Roles::noted(table.schema()));
        let roles = roles.ok_or_else(|| {
            PyValueError::new_err(
                "the index was not made from a frame, so its columns have no names: use \
                 add(vectors, ids)",
            )
        })?;
        let frame = Frame::read(frame, roles)?;
        let (rows, copy) = self.new_rows(&frame.vectors)?;
        let threads = self::threads(threads)?;
        let _edit = self.ledger.edit(py)?;
        let Some(table) = self.ledger.table() else {
            return Err(PyValueError::new_err("the index has no columns"));
        };
        let metadata = frame.columns_as(table.schema(), rows.len())?;
        let ids = ids_for(&table, frame.ids, rows.len())?;
        let columns = std::iter::once(Arc::clone(&ids)).chain(metadata).collect();
        self.append(py, (rows, copy), &table, columns, threads, progress)?;
        let len = ids.len();
        ids::to_numpy(py, &ids, &[len])
    }

    /// The rows of some ids: ids, vectors and metadata.
    ///
    /// Parameters
    /// ----------
    /// ids : array-like of shape (n,)
    ///     Ids of rows in the index, in any order; one may be there twice.
    ///
    /// Returns
    /// -------
    /// Records
    ///     One row for each id, in their order: ``to_pandas()``, ``to_polars()`` and ``to_arrow()`` make
    ///     frames of them. Vectors are called as in the frame that the index was made from, or
    ///     ``vector``, and are lists of Arrow; bfloat16 comes as its bits in uint16.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an id is not in the index.
    /// TypeError
    ///     If the ids are of another type.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.eye(2), ids=["left", "right"])
    /// >>> index.get(["right"]).to_polars()["vector"].to_list()
    /// [[0.0, 1.0]]
    #[pyo3(signature = (ids))]
    fn get(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Records> {
        let (labels, table) = match self.ledger.table() {
            None => (array::ids(ids, "ids")?, None),
            Some(table) => {
                let keys = ids::wanted(ids, "ids", table.kind())?;
                (self.ledger.labels(&self.index, &keys, "argument")?, Some(table))
            }
        };
        let bytes = py.detach(|| self.index.vector_bytes_of(&labels))?;
        Ok(Records::new(self.lines(&labels, bytes, table.as_deref())?))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let (labels, bytes, table) =
            self.with_lines(py, || Ok(py.detach(|| self.index.ids_and_vector_bytes())?))?;
        let lines = self.lines(&labels, bytes, table.as_deref())?;
        stream(py, lines, requested_schema)
    }

    /// Remove rows.
    ///
    /// Their space is given back once half of all rows are removed.
    ///
    /// Parameters
    /// ----------
    /// ids : array-like of shape (n,)
    ///     Ids of rows in the index, each once, in their own type.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an id is not in the index or given twice.
    /// TypeError
    ///     If the ids are of another type.
    /// RuntimeError
    ///     If it is called by the progress callback of another edit. Nothing is removed where it fails.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.eye(3))
    /// >>> index.remove([1])
    /// >>> index.ids
    /// array([0, 2])
    fn remove(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let _edit = self.ledger.edit(py)?;
        let (ids, has_table) = self.labels_once(ids)?;
        monitor::run(py, None, ids.len(), "row", usize::MAX, None, |run| {
            self.index.remove_with(&ids, run)
        })?;
        if !ids.is_empty() {
            *self.source() = None;
        }
        if has_table {
            self.ledger.removed(&self.index, &ids)?;
        }
        Ok(())
    }

    /// Give rows new vectors. The rows keep their ids and places; your arrays are not written to.
    ///
    /// Parameters
    /// ----------
    /// ids : array-like of shape (n,)
    ///     Ids of rows in the index, each once, in their own type.
    /// vectors : array-like of shape (n, dim)
    ///     Their new vectors, converted to the number type of the index.
    /// threads : int, optional
    ///     Threads to use; as many as there are processors by default.
    /// progress : bool or callable, default=False
    ///     True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, rows)``.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If a width, an id or a number is wrong.
    /// TypeError
    ///     If the vectors are not real numbers or the ids of another type.
    /// RuntimeError
    ///     If it is called by the progress callback of another edit. Nothing is updated where it fails.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, omendb
    /// >>> index = omendb.Index(np.eye(2))
    /// >>> index.update([1], [[0.0, 5.0]])
    /// >>> index.vectors
    /// array([[1., 0.],
    ///        [0., 5.]])
    #[pyo3(signature = (ids, vectors, *, threads=None, progress=None),
           text_signature = "($self, ids, vectors, *, threads=None, progress=False)")]
    fn update(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        vectors: &Bound<'_, PyAny>,
        threads: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (rows, _) = self.new_rows(vectors)?; // copied into their chunks
        let threads = self::threads(threads)?;
        let _edit = self.ledger.edit(py)?;
        let (ids, _) = self.labels_once(ids)?;
        monitor::run(py, progress, rows.len(), "row", usize::MAX, threads, |run| {
            self.index.update_with(&ids, &rows, run)
        })?;
        if !ids.is_empty() {
            *self.source() = None;
        }
        Ok(())
    }

    /// The numbers of a vector.
    #[getter]
    fn dim(&self) -> usize {
        self.index.dim()
    }

    /// The canonical name of the metric.
    #[getter]
    fn metric(&self) -> &'static str {
        self.index.metric().name()
    }

    /// The width of the beam where a search names none: 64 until it is tuned.
    #[getter]
    fn effort(&self) -> usize {
        self.index.effort()
    }

    /// Whether a graph is wanted. None is made where codes do not tell near rows apart; `check` says.
    #[getter]
    fn has_graph(&self) -> bool {
        self.index.has_graph()
    }

    /// Bytes that the index holds beside the vectors.
    #[getter]
    fn nbytes(&self) -> usize {
        self.index.nbytes() + self.ledger.table().map_or(0, |table| table.nbytes())
    }

    /// The ids of the rows, in the order of the rows, of shape (n,): int64, or what was given.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let labels = self.index.ids();
        match self.ledger.table() {
            None => Ok(PyArray1::from_vec(py, labels).into_any()),
            Some(table) => ids::to_numpy(py, &table.ids(&labels)?, &[labels.len()]),
        }
    }

    /// The rows, of shape (n, dim): the array itself until an edit, a copy after one.
    #[getter]
    fn vectors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(source) = self.source().as_ref() {
            return Ok(source.bind(py).clone().into_any());
        }
        let bytes = py.detach(|| self.index.vector_bytes())?;
        self.vector_array(py, bytes)
    }

    fn __len__(&self) -> usize {
        self.index.len()
    }

    /// Whether a row has this id.
    fn __contains__(&self, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.label(id)?.is_some())
    }

    /// Pickles as plain arrays: the vectors, their ids, the metric and the effort; what else is known of
    /// rows as an Arrow stream. Codes and links are made again.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let options = PyDict::new(py);
        options.set_item("metric", self.metric())?;
        if let Some(seed) = self.index.seed() {
            options.set_item("method", "graph")?;
            options.set_item("seed", seed)?;
        }
        // Vectors, ids and lines of one moment, whatever other threads do.
        let (labels, vectors, table) = self.with_lines(py, || {
            let labels = self.index.ids();
            let source = self.source().as_ref().map(|source| source.bind(py).clone());
            let whole = source.filter(|source| source.len().is_ok_and(|n| n == labels.len()));
            if let Some(source) = whole {
                return Ok((labels, source.into_any()));
            }
            let (labels, bytes) = py.detach(|| self.index.ids_and_vector_bytes())?;
            Ok((labels, self.vector_array(py, bytes)?))
        })?;
        let vectors = if self.index.dtype().is_some() {
            PyTuple::new(py, [vectors])?
        } else {
            options.set_item("dim", self.dim())?; // the first rows will tell the number type
            PyTuple::empty(py)
        };
        let lines = match table {
            Some(table) => Some(PyBytes::new(py, &table.to_bytes(&labels)?)),
            None if vectors.is_empty() => None,
            None => {
                options.set_item("ids", PyArray1::from_vec(py, labels))?;
                None
            }
        };
        let (effort, next_id) = self.index.kept();
        let next_id = if lines.is_some() { None } else { Some(next_id) };
        let make = py.import("copyreg")?.getattr("__newobj_ex__")?;
        let arguments = (py.get_type::<Self>(), vectors, &options).into_pyobject(py)?;
        (make, arguments, (lines, effort, next_id)).into_pyobject(py)
    }

    /// Takes of an index that was pickled what its arguments do not say: the table, the effort and the
    /// next free id.
    fn __setstate__(
        &self,
        state: (Option<Bound<'_, PyBytes>>, usize, Option<i128>),
    ) -> PyResult<()> {
        let (lines, effort, next_id) = state;
        let n = self.index.len();
        if let Some(lines) = lines {
            let table = Table::from_bytes(lines.as_bytes())?;
            if self.ledger.table().is_some() || table.end() != n as i64 {
                return Err(PyValueError::new_err("expected the state of a pickled index"));
            }
            self.ledger.set(Some(Arc::new(table)));
        }
        Ok(self.index.keep(effort, next_id.unwrap_or(n as i128))?)
    }

    fn __repr__(&self) -> String {
        let mib = self.nbytes() as f64 / MIB;
        format!(
            "Index({} x {} {}, metric='{}', {mib:.1} MiB beside the vectors)",
            self.index.len(),
            self.index.dim(),
            self.dtype_name(),
            self.metric(),
        )
    }

    fn _repr_html_(&self) -> String {
        let row = |(name, value): (_, String)| {
            format!("<tr><th>{name}</th><td>{}</td></tr>", escaped(&value))
        };
        let rows = self.facts().map(row).concat();
        format!("<table><caption>omendb.Index</caption><tbody>{rows}</tbody></table>")
    }
}

/// What all of some filters allow; none where there are none.
fn all<'a>(filters: &'a [Filter<'a>]) -> Option<Filter<'a>> {
    (!filters.is_empty()).then_some(Filter::All(filters))
}

/// How a search is to be made.
fn options<'a>(
    method: &str,
    effort: Option<&Bound<'_, PyAny>>,
    filters: &'a [Filter<'a>],
) -> PyResult<Options<'a>> {
    let method = match method {
        "auto" => Method::Auto,
        "exact" => Method::Exact,
        "graph" => Method::Graph,
        _ => {
            return Err(PyValueError::new_err(format!(
                "expected method to be 'auto', 'exact' or 'graph', got '{method}'"
            )));
        }
    };
    let effort = effort.map(|effort| array::count(effort, "effort")).transpose()?;
    let options = effort.into_iter().fold(Options::new().method(method), Options::effort);
    Ok(all(filters).into_iter().fold(options, Options::filter))
}
