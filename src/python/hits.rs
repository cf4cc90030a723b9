//! Answers as arrays.

#![allow(unsafe_code)] // arrays are made uninitialised and filled at once

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use numpy::{Element, PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCapsule, PyTuple};

use super::ids;
use super::records::{self, SHOWN, convert, free_name, stream};
use crate::index;
use crate::table::{Kind, Table, refused};

/// An array of this shape with these values.
pub(super) fn array<'py, T: Element + Copy>(
    py: Python<'py>,
    shape: &[usize],
    values: impl ExactSizeIterator<Item = T>,
) -> Bound<'py, PyAny> {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    // SAFETY: every element is written below before anyone sees the array, which is C-contiguous
    // and has as many elements as there are values (asserted).
    unsafe {
        let array = PyArrayDyn::<T>::new(py, shape, false);
        let data = array.data();
        for (i, value) in values.enumerate() {
            data.add(i).write(value);
        }
        array.into_any()
    }
}

/// Distances as the index's number type gives them.
fn distances<'py>(
    py: Python<'py>,
    shape: &[usize],
    distances: &[f64],
    double: bool,
) -> Bound<'py, PyAny> {
    if double {
        array(py, shape, distances.iter().copied())
    } else {
        array(py, shape, distances.iter().map(|&distance| distance as f32))
    }
}

fn flags(py: Python<'_>, exact: &[bool], single: bool) -> PyResult<Py<PyAny>> {
    match exact {
        [exact] if single => exact.into_py_any(py),
        _ => array(py, &[exact.len()], exact.iter().copied()).into_py_any(py),
    }
}

/// Ids of answers.
enum Ids {
    /// The engine's own, as an array.
    Plain(Py<PyAny>),
    /// Labels, the table that knows their ids, and the array of those once it was asked for.
    Labels(Vec<i64>, Arc<Table>, PyOnceLock<Py<PyAny>>),
}

/// Ids, which are labels of lines where there are such; distances; those lines as an Arrow stream.
type Pickled<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Option<Bound<'py, PyBytes>>);

/// Answers in a flat list, the lines of which are those of their arrays.
struct Answers {
    ids: Ids,
    /// The shape of the arrays.
    shape: Vec<usize>,
    distances: Py<PyAny>,
    /// Where each query's answers begin, and the last one's end.
    offsets: Vec<usize>,
}

impl Answers {
    fn new(
        py: Python<'_>,
        hits: index::Hits,
        table: Option<Arc<Table>>,
        shape: Vec<usize>,
        double: bool,
    ) -> Self {
        let distances = distances(py, &shape, &hits.distances, double).unbind();
        let ids = match table {
            None => Ids::Plain(array(py, &shape, hits.ids.into_iter()).unbind()),
            Some(table) => Ids::Labels(hits.ids, table, PyOnceLock::new()),
        };
        Self { ids, shape, distances, offsets: hits.offsets }
    }

    fn ids(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.ids {
            Ids::Plain(array) => Ok(array.clone_ref(py)),
            Ids::Labels(labels, table, array) => {
                let make = || {
                    let ids = table.ids(labels)?;
                    Ok::<_, PyErr>(ids::to_numpy(py, &ids, &self.shape)?.unbind())
                };
                Ok(array.get_or_try_init(py, make)?.clone_ref(py))
            }
        }
    }

    fn pickled<'py>(&self, py: Python<'py>) -> PyResult<Pickled<'py>> {
        let (ids, lines) = match &self.ids {
            Ids::Plain(ids) => (ids.bind(py).clone(), None),
            Ids::Labels(labels, table, _) => {
                // The lines of these answers alone, which get labels from 0 on.
                let mut lines = labels.clone();
                lines.sort_unstable();
                lines.dedup();
                let place = |label: &i64| lines.partition_point(|other| other < label) as i64;
                let places = array(py, &self.shape, labels.iter().map(place));
                (places, Some(PyBytes::new(py, &table.to_bytes(&lines)?)))
            }
        };
        Ok((ids, self.distances.bind(py).clone(), lines))
    }

    fn unpickled((ids, distances, lines): Pickled<'_>, offsets: Vec<usize>) -> PyResult<Self> {
        let array = ids.cast::<PyArrayDyn<i64>>()?;
        let shape = array.shape().to_vec();
        let same = if let Ok(distances) = distances.cast::<PyArrayDyn<f64>>() {
            distances.shape() == shape
        } else {
            distances.cast::<PyArrayDyn<f32>>()?.shape() == shape
        };
        let whole = offsets.first() == Some(&0)
            && offsets.is_sorted()
            && offsets.last() == Some(&array.len());
        let aligned = |array: &Bound<'_, PyAny>| -> PyResult<bool> {
            array.getattr("flags")?.getattr("aligned")?.extract()
        };
        if !(same && whole && aligned(&ids)? && aligned(&distances)?) {
            return Err(no_state());
        }
        let ids = match lines {
            None => Ids::Plain(ids.unbind()),
            Some(lines) => {
                let table = Table::from_bytes(lines.as_bytes())?;
                let labels: Vec<i64> = array.readonly().as_array().iter().copied().collect();
                if !table.holds(&labels) {
                    return Err(no_state());
                }
                Ids::Labels(labels, Arc::new(table), PyOnceLock::new())
            }
        };
        Ok(Self { ids, shape, distances: distances.unbind(), offsets })
    }

    fn len(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Names of the ids' column and of the metadata.
    fn columns(&self) -> Vec<String> {
        match &self.ids {
            Ids::Plain(_) => vec!["id".to_owned()],
            Ids::Labels(_, table, _) => {
                table.schema().fields().iter().map(|field| field.name().clone()).collect()
            }
        }
    }

    /// The first so many answers, a line for each: query, rank, id, distance, and what the table
    /// knows of the row.
    ///
    /// Columns of the table that are called as one of the first four get a number behind their names.
    fn lines(&self, py: Python<'_>, most: usize) -> PyResult<RecordBatch> {
        let len = self.len().min(most);
        let places = || {
            let ranges = self.offsets.windows(2).zip(0..);
            let places = ranges.flat_map(|(range, query)| {
                (0..(range[1] - range[0]) as i64).map(move |rank| (query, rank))
            });
            places.take(len)
        };
        let queries = Int64Array::from_iter_values(places().map(|(query, _)| query));
        let ranks = Int64Array::from_iter_values(places().map(|(_, rank)| rank));
        let flat = self.distances.bind(py).call_method0("ravel")?;
        let (float, distances): (_, ArrayRef) = if let Ok(far) = flat.cast::<PyArray1<f64>>() {
            let far = far.readonly();
            let far = far.as_array().iter().copied().take(len).collect::<Vec<_>>();
            (DataType::Float64, Arc::new(Float64Array::from(far)))
        } else {
            let far = flat.cast::<PyArray1<f32>>()?.readonly();
            let far = far.as_array().iter().copied().take(len).collect::<Vec<_>>();
            (DataType::Float32, Arc::new(Float32Array::from(far)))
        };
        let (id, ids, metadata) = match &self.ids {
            Ids::Plain(array) => {
                let flat = array.bind(py).call_method0("ravel")?;
                let flat = flat.cast::<PyArray1<i64>>()?.readonly();
                let ids = flat.as_array().iter().copied().take(len).collect::<Vec<_>>();
                let ids: ArrayRef = Arc::new(Int64Array::from(ids));
                (ids::field("id", Kind::Int), ids, None)
            }
            Ids::Labels(labels, table, _) => {
                let lines = table.take(&labels[..len]).map_err(PyErr::from)?;
                (table.id().clone(), Arc::clone(lines.column(0)), Some(lines))
            }
        };
        let own = ["query", "rank", id.name().as_str(), "distance"].map(str::to_owned);
        let id = if ["query", "rank", "distance"].contains(&id.name().as_str()) {
            let name = free_name("id", |name| own.iter().any(|own| own == name));
            id.with_name(name)
        } else {
            id
        };
        let mut taken: HashSet<String> = own.into_iter().chain([id.name().clone()]).collect();
        let mut fields = vec![
            Field::new("query", DataType::Int64, false),
            Field::new("rank", DataType::Int64, false),
            id,
            Field::new("distance", float, false),
        ];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(queries), Arc::new(ranks), ids, distances];
        if let Some(lines) = metadata {
            let schema = lines.schema();
            let others = &schema.fields()[1..];
            taken.extend(others.iter().map(|field| field.name().clone()));
            for (field, column) in others.iter().zip(&lines.columns()[1..]) {
                let mut field = (**field).clone();
                if fields[..4].iter().any(|own| own.name() == field.name()) {
                    let name = free_name(field.name(), |name| taken.contains(name));
                    taken.insert(name.clone());
                    field = field.with_name(name);
                }
                fields.push(field);
                arrays.push(Arc::clone(column));
            }
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .map_err(|error| refused(error).into())
    }

    fn tables(&self, py: Python<'_>, title: &str) -> PyResult<[String; 2]> {
        Ok(records::tables(title, &self.lines(py, SHOWN)?, self.len() > SHOWN)?)
    }
}

fn no_state() -> PyErr {
    PyValueError::new_err("expected the state of pickled answers")
}

/// The nearest rows of each query, nearest first.
///
/// Attributes
/// ----------
/// ids : ndarray of shape (n_queries, k)
///     Ids of the rows, int64 or what the index was given; of shape (k,) for a single query.
/// distances : ndarray of shape (n_queries, k), float32 or float64
///     Their distances, ascending; equal distances in the order of the rows. float64 where the
///     index holds float64, otherwise the float64 distance rounded once.
/// exact : ndarray of shape (n_queries,), bool
///     Whether the answer is proven to be the exact one; a bool for a single query.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> hits = omendb.Index(np.eye(3)).search([[1.0, 0.1, 0.0]], k=2)
/// >>> hits.ids
/// array([[0, 1]])
/// >>> hits.exact
/// array([ True])
#[pyclass(frozen, module = "omendb")]
pub(super) struct Hits {
    answers: Answers,
    exact: Vec<bool>,
    k: usize,
    single: bool,
}

impl Hits {
    pub(super) fn new(
        py: Python<'_>,
        hits: index::Hits,
        table: Option<Arc<Table>>,
        double: bool,
        single: bool,
    ) -> Self {
        let (exact, k) = (hits.exact.clone(), hits.k);
        let shape = if single { vec![k] } else { vec![exact.len(), k] };
        Self { answers: Answers::new(py, hits, table, shape, double), exact, k, single }
    }

    fn queries(&self) -> usize {
        self.exact.len()
    }

    fn tables(&self, py: Python<'_>) -> PyResult<[String; 2]> {
        let exact = self.exact.iter().filter(|&&exact| exact).count();
        let how = if exact == self.queries() {
            "exact".into()
        } else if exact == 0 {
            "by the graph".into()
        } else {
            format!("{exact} exact, the others by the graph")
        };
        let queries = counted(self.queries());
        let title = format!("Hits: {queries}, {} nearest, {how}", self.k);
        self.answers.tables(py, &title)
    }
}

#[pymethods]
impl Hits {
    /// Ids of the rows, nearest first, of shape (n_queries, k), or (k,) for one query: int64, or
    /// what the index was given.
    #[getter]
    fn ids(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.answers.ids(py)
    }

    /// Distances of the rows, ascending: float32 or float64, of the shape of ``ids``.
    #[getter]
    fn distances(&self, py: Python<'_>) -> Py<PyAny> {
        self.answers.distances.clone_ref(py)
    }

    /// Whether each answer is proven exact: bool of shape (n_queries,), or one bool.
    #[getter]
    fn exact(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        flags(py, &self.exact, self.single)
    }

    /// The answers as a pandas frame, one row each: ``query``, ``rank`` from 0, the id, ``distance``,
    /// and the metadata of the row.
    ///
    /// The id's column is called as in the frame that the index was made from, or ``id``. Metadata
    /// columns called ``query``, ``rank`` or ``distance`` become ``query_1`` and so on. Missing
    /// integers and booleans come in pandas' nullable types. Metadata needs pyarrow.
    ///
    /// Returns
    /// -------
    /// pandas.DataFrame
    fn to_pandas(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_pandas")
    }

    /// The answers as a Polars frame, with the columns of `to_pandas`.
    ///
    /// Returns
    /// -------
    /// polars.DataFrame
    fn to_polars(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_polars")
    }

    /// The answers as an Arrow table, with the columns of `to_pandas`.
    ///
    /// Returns
    /// -------
    /// pyarrow.Table
    fn to_arrow(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_arrow")
    }

    /// The two arrays.
    ///
    /// Returns
    /// -------
    /// (ndarray, ndarray)
    ///     ``ids`` and ``distances``.
    fn to_numpy(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        Ok((self.ids(py)?, self.distances(py)))
    }

    /// Names of the ids' column and of the metadata.
    #[getter]
    fn _columns(&self) -> Vec<String> {
        self.answers.columns()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        stream(py, self.answers.lines(py, usize::MAX)?, requested_schema)
    }

    /// Draw the distances by rank; needs matplotlib.
    ///
    /// Parameters
    /// ----------
    /// ax : matplotlib.axes.Axes, optional
    ///     Where to draw; a new figure by default.
    ///
    /// Returns
    /// -------
    /// matplotlib.axes.Axes
    #[pyo3(signature = (ax=None))]
    fn plot(slf: &Bound<'_, Self>, ax: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        super::report::plot(slf.as_any(), "distances", ax)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let make = py.import("omendb._core")?.getattr("_hits")?;
        let exact: Vec<u8> = self.exact.iter().map(|&exact| exact.into()).collect();
        (make, (self.answers.pickled(py)?, PyBytes::new(py, &exact))).into_pyobject(py)
    }

    fn __len__(&self) -> usize {
        self.queries()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let [text, _] = self.tables(py)?;
        Ok(text)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let [_, html] = self.tables(py)?;
        Ok(html)
    }
}

/// The answers that `Hits` were pickled as.
#[pyfunction]
#[pyo3(name = "_hits")]
pub(super) fn unpickled_hits(answers: Pickled<'_>, exact: &[u8]) -> PyResult<Hits> {
    let shape: Vec<usize> = answers.0.getattr("shape")?.extract()?;
    let (single, k) = match shape[..] {
        [k] if exact.len() == 1 => (true, k),
        [queries, k] if exact.len() == queries => (false, k),
        _ => return Err(no_state()),
    };
    let offsets = (0..=exact.len()).map(|query| query * k).collect();
    let exact = exact.iter().map(|&exact| exact != 0).collect();
    Ok(Hits { answers: Answers::unpickled(answers, offsets)?, exact, k, single })
}

/// All rows within a radius of each query, nearest first.
///
/// Attributes
/// ----------
/// offsets : ndarray of shape (n_queries + 1,), int64
///     Query ``i`` has the answers ``offsets[i]:offsets[i + 1]``.
/// ids : ndarray of shape (offsets[-1],)
///     Ids of the rows, query after query: int64, or what the index was given.
/// distances : ndarray of shape (offsets[-1],), float32 or float64
///     Their distances, ascending within a query; equal distances in the order of the rows.
/// exact : ndarray of shape (n_queries,), bool
///     Whether the answer is proven to be complete; a bool for a single query.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> hits = omendb.Index(np.array([[0.0], [1.0], [3.0]])).search_radius([[0.2], [9.0]], radius=1)
/// >>> hits.offsets
/// array([0, 2, 2])
/// >>> hits.ids
/// array([0, 1])
#[pyclass(frozen, module = "omendb")]
pub(super) struct RadiusHits {
    answers: Answers,
    single: bool,
}

impl RadiusHits {
    pub(super) fn new(
        py: Python<'_>,
        hits: index::Hits,
        table: Option<Arc<Table>>,
        double: bool,
        single: bool,
    ) -> Self {
        let shape = vec![hits.ids.len()];
        Self { answers: Answers::new(py, hits, table, shape, double), single }
    }

    fn queries(&self) -> usize {
        self.answers.offsets.len() - 1
    }

    fn tables(&self, py: Python<'_>) -> PyResult<[String; 2]> {
        let (queries, answers) = (counted(self.queries()), self.answers.len());
        self.answers.tables(py, &format!("RadiusHits: {queries}, {answers} answers, exact"))
    }
}

fn counted(queries: usize) -> String {
    if queries == 1 { "1 query".to_owned() } else { format!("{queries} queries") }
}

#[pymethods]
impl RadiusHits {
    /// Where each query's answers begin and end: int64 of shape (n_queries + 1,).
    #[getter]
    fn offsets<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        let offsets = &self.answers.offsets;
        array(py, &[offsets.len()], offsets.iter().map(|&offset| offset as i64))
    }

    /// Ids of the rows, query after query, of shape (offsets[-1],): int64, or what the index was
    /// given.
    #[getter]
    fn ids(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.answers.ids(py)
    }

    /// Distances of the rows, ascending within a query: float32 or float64, as long as ``ids``.
    #[getter]
    fn distances(&self, py: Python<'_>) -> Py<PyAny> {
        self.answers.distances.clone_ref(py)
    }

    /// Whether each answer is proven complete: bool of shape (n_queries,), or one bool.
    #[getter]
    fn exact(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        flags(py, &vec![true; self.queries()], self.single)
    }

    /// The answers as a pandas frame, one row each: ``query``, ``rank`` from 0, the id, ``distance``,
    /// and the metadata of the row.
    ///
    /// The id's column is called as in the frame that the index was made from, or ``id``. Metadata
    /// columns called ``query``, ``rank`` or ``distance`` become ``query_1`` and so on. Missing
    /// integers and booleans come in pandas' nullable types. Metadata needs pyarrow.
    ///
    /// Returns
    /// -------
    /// pandas.DataFrame
    fn to_pandas(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_pandas")
    }

    /// The answers as a Polars frame, with the columns of `to_pandas`.
    ///
    /// Returns
    /// -------
    /// polars.DataFrame
    fn to_polars(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_polars")
    }

    /// The answers as an Arrow table, with the columns of `to_pandas`.
    ///
    /// Returns
    /// -------
    /// pyarrow.Table
    fn to_arrow(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_arrow")
    }

    /// The two arrays; `offsets` tell the queries apart.
    ///
    /// Returns
    /// -------
    /// (ndarray, ndarray)
    ///     ``ids`` and ``distances``.
    fn to_numpy(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        Ok((self.ids(py)?, self.distances(py)))
    }

    /// Names of the ids' column and of the metadata.
    #[getter]
    fn _columns(&self) -> Vec<String> {
        self.answers.columns()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        stream(py, self.answers.lines(py, usize::MAX)?, requested_schema)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let make = py.import("omendb._core")?.getattr("_radius_hits")?;
        (make, (self.answers.pickled(py)?, &self.answers.offsets, self.single)).into_pyobject(py)
    }

    fn __len__(&self) -> usize {
        self.queries()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let [text, _] = self.tables(py)?;
        Ok(text)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let [_, html] = self.tables(py)?;
        Ok(html)
    }
}

/// The answers that `RadiusHits` were pickled as.
#[pyfunction]
#[pyo3(name = "_radius_hits")]
pub(super) fn unpickled_radius_hits(
    answers: Pickled<'_>,
    offsets: Vec<usize>,
    single: bool,
) -> PyResult<RadiusHits> {
    if single && offsets.len() != 2 {
        return Err(no_state());
    }
    Ok(RadiusHits { answers: Answers::unpickled(answers, offsets)?, single })
}
