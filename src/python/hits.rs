//! Answers as arrays.

#![allow(unsafe_code)] // arrays are made uninitialised and filled at once

use std::fmt::Write;

use numpy::{Element, PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::index;

/// Rows of a table that is shown in full; of a longer one, the first.
const SHOWN: usize = 10;

/// An array of this shape with these values.
fn array<'py, T: Element + Copy>(
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

/// One line of the table that a notebook or a terminal shows.
struct Line {
    query: usize,
    rank: usize,
    id: i64,
    distance: f64,
}

/// The first answers, as text and as HTML.
fn table(
    py: Python<'_>,
    title: &str,
    ids: &Py<PyAny>,
    distances: &Py<PyAny>,
    offsets: &[usize],
) -> PyResult<[String; 2]> {
    let flat = |array: &Py<PyAny>, dtype: &str| -> PyResult<Py<PyAny>> {
        Ok(array.bind(py).call_method0("ravel")?.call_method1("astype", (dtype,))?.unbind())
    };
    let ids = flat(ids, "int64")?;
    let ids = ids.bind(py).cast::<PyArray1<i64>>()?.readonly();
    let distances = flat(distances, "float64")?;
    let distances = distances.bind(py).cast::<PyArray1<f64>>()?.readonly();
    let (ids, distances) = (ids.as_array(), distances.as_array());
    let lines = offsets.windows(2).enumerate().flat_map(|(query, range)| {
        (range[0]..range[1]).zip(0..).map(move |(i, rank)| (i, query, rank))
    });
    let lines = lines.take(SHOWN).map(|(i, query, rank)| {
        let (id, distance) = (ids[i], distances[i]);
        Line { query, rank, id, distance }
    });
    let mut text = format!("{title}\n{:>6} {:>5} {:>20} {:>14}", "query", "rank", "id", "distance");
    let mut html = format!(
        "<table><caption>{title}</caption><thead><tr><th>query</th><th>rank</th><th>id</th>\
         <th>distance</th></tr></thead><tbody>"
    );
    for Line { query, rank, id, distance } in lines {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{query:>6} {rank:>5} {id:>20} {distance:>14.6}");
        let _ = write!(
            html,
            "<tr><td>{query}</td><td>{rank}</td><td>{id}</td><td>{distance:.6}</td></tr>"
        );
    }
    if ids.len() > SHOWN {
        text += "\n   ...";
        html += "<tr><td colspan=\"4\">…</td></tr>";
    }
    Ok([text, html + "</tbody></table>"])
}

/// The nearest rows of each query, nearest first.
///
/// Attributes
/// ----------
/// ids : ndarray of shape (n_queries, k), int64
///     Ids of the rows; of shape (k,) for a single query.
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
    ids: Py<PyAny>,
    distances: Py<PyAny>,
    exact: Vec<bool>,
    queries: usize,
    k: usize,
    single: bool,
}

impl Hits {
    pub(super) fn new(py: Python<'_>, hits: &index::Hits, double: bool, single: bool) -> Self {
        let queries = hits.offsets.len() - 1;
        let k = hits.k;
        let shape = [queries, k];
        let shape = if single { &shape[1..] } else { &shape };
        Self {
            ids: array(py, shape, hits.ids.iter().copied()).unbind(),
            distances: distances(py, shape, &hits.distances, double).unbind(),
            exact: hits.exact.clone(),
            queries,
            k,
            single,
        }
    }

    fn tables(&self, py: Python<'_>) -> PyResult<[String; 2]> {
        let offsets: Vec<usize> = (0..=self.queries).map(|i| i * self.k).collect();
        let exact = self.exact.iter().filter(|&&exact| exact).count();
        let how = if exact == self.queries {
            "exact".into()
        } else if exact == 0 {
            "by the graph".into()
        } else {
            format!("{exact} exact, the others by the graph")
        };
        let title = format!("Hits: {} queries, {} nearest, {how}", self.queries, self.k);
        table(py, &title, &self.ids, &self.distances, &offsets)
    }
}

#[pymethods]
impl Hits {
    /// Ids of the rows, nearest first: int64 of shape (n_queries, k), or (k,) for one query.
    #[getter]
    fn ids(&self, py: Python<'_>) -> Py<PyAny> {
        self.ids.clone_ref(py)
    }

    /// Distances of the rows, ascending: float32 or float64, of the shape of ``ids``.
    #[getter]
    fn distances(&self, py: Python<'_>) -> Py<PyAny> {
        self.distances.clone_ref(py)
    }

    /// Whether each answer is proven exact: bool of shape (n_queries,), or one bool.
    #[getter]
    fn exact(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        flags(py, &self.exact, self.single)
    }

    fn __len__(&self) -> usize {
        self.queries
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

/// All rows within a radius of each query, nearest first.
///
/// Attributes
/// ----------
/// offsets : ndarray of shape (n_queries + 1,), int64
///     Query ``i`` has the answers ``offsets[i]:offsets[i + 1]``.
/// ids : ndarray of shape (offsets[-1],), int64
///     Ids of the rows, query after query.
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
    offsets: Vec<usize>,
    ids: Py<PyAny>,
    distances: Py<PyAny>,
    single: bool,
}

impl RadiusHits {
    pub(super) fn new(py: Python<'_>, hits: index::Hits, double: bool, single: bool) -> Self {
        let shape = [hits.ids.len()];
        Self {
            ids: array(py, &shape, hits.ids.iter().copied()).unbind(),
            distances: distances(py, &shape, &hits.distances, double).unbind(),
            offsets: hits.offsets,
            single,
        }
    }

    fn queries(&self) -> usize {
        self.offsets.len() - 1
    }

    fn tables(&self, py: Python<'_>) -> PyResult<[String; 2]> {
        let answers = self.offsets.last().copied().unwrap_or(0);
        let title = format!("RadiusHits: {} queries, {answers} answers, exact", self.queries());
        table(py, &title, &self.ids, &self.distances, &self.offsets)
    }
}

#[pymethods]
impl RadiusHits {
    /// Where each query's answers begin and end: int64 of shape (n_queries + 1,).
    #[getter]
    fn offsets<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        array(py, &[self.offsets.len()], self.offsets.iter().map(|&offset| offset as i64))
    }

    /// Ids of the rows, query after query: int64 of shape (offsets[-1],).
    #[getter]
    fn ids(&self, py: Python<'_>) -> Py<PyAny> {
        self.ids.clone_ref(py)
    }

    /// Distances of the rows, ascending within a query: float32 or float64, as long as ``ids``.
    #[getter]
    fn distances(&self, py: Python<'_>) -> Py<PyAny> {
        self.distances.clone_ref(py)
    }

    /// Whether each answer is proven complete: bool of shape (n_queries,), or one bool.
    #[getter]
    fn exact(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        flags(py, &vec![true; self.queries()], self.single)
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
