//! What was measured and found out about an index, as Python objects.

use std::fmt::Write;
use std::path::PathBuf;

use numpy::PyArray1;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt};

use super::monitor;
use super::records::escaped;
use crate::index::{self, Reason};

/// What a notebook shows: a table of names and values, and a list of sentences.
fn html(title: &str, facts: &[(&'static str, String)], sentences: &[String]) -> String {
    let row = |(name, value): &(&str, String)| {
        format!("<tr><th>{name}</th><td>{}</td></tr>", escaped(value))
    };
    let rows = facts.iter().map(row).collect::<Vec<_>>().concat();
    let item = |sentence: &String| format!("<li>{}</li>", escaped(sentence));
    let items = sentences.iter().map(item).collect::<Vec<_>>().concat();
    let title = escaped(title);
    let list = if items.is_empty() { items } else { format!("<ul>{items}</ul>") };
    format!("<table><caption>{title}</caption><tbody>{rows}</tbody></table>{list}")
}

/// Calls one of the functions of `omendb.plots`.
pub(super) fn plot<'py>(
    object: &Bound<'py, PyAny>,
    function: &str,
    ax: Option<&Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let plots = object.py().import("omendb.plots")?;
    Ok(plots.call_method1(function, (object, ax))?.unbind())
}

/// An id as the engine has it; none if it is no integer of 64 bits.
pub(super) fn integer(id: &Bound<'_, PyAny>) -> Option<i64> {
    let whole = id.is_instance_of::<PyInt>() || id.hasattr("__index__").unwrap_or(false);
    if whole && !id.is_instance_of::<PyFloat>() { id.extract().ok() } else { None }
}

/// Recall and speed of a graph, measured against exact answers.
///
/// Attributes
/// ----------
/// target : float
///     The recall that was asked for.
/// recall : float
///     The mean recall of the queries that did not choose the effort.
/// lower_bound : float
///     A bound that the true mean recall is above, 95 times in 100; over queries, not answers.
/// effort : int
///     The width of the beam that was chosen.
/// k : int
///     Neighbours per query.
/// queries : str
///     What was asked: the caller's queries, or points between rows.
/// table : list of (int, float, float)
///     Effort, recall and queries per second of each width that was tried.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> X = np.random.default_rng(0).standard_normal((5000, 16), dtype=np.float32)
/// >>> report = omendb.Index(X, method="graph").tune(recall=0.9)
/// >>> 0 <= report.lower_bound <= report.recall <= 1
/// True
#[pyclass(frozen, module = "omendb")]
pub(super) struct RecallReport {
    pub(super) report: index::RecallReport,
}

#[pymethods]
impl RecallReport {
    /// The recall that was asked for.
    #[getter]
    fn target(&self) -> f64 {
        self.report.target
    }

    /// The mean recall of the queries that did not choose the effort.
    #[getter]
    fn recall(&self) -> f64 {
        self.report.recall
    }

    /// A bound that the true mean recall is above, 95 times in 100.
    #[getter]
    fn lower_bound(&self) -> f64 {
        self.report.lower_bound
    }

    /// The width of the beam that was chosen.
    #[getter]
    fn effort(&self) -> usize {
        self.report.effort
    }

    /// Neighbours per query.
    #[getter]
    fn k(&self) -> usize {
        self.report.k
    }

    /// What was asked.
    #[getter]
    fn queries(&self) -> String {
        let what = if self.report.given { "queries given" } else { "points between near rows" };
        format!("{} {what}", self.report.queries)
    }

    /// Effort, recall and queries per second of each width that was tried.
    #[getter]
    fn table(&self) -> Vec<(usize, f64, f64)> {
        let row = |row: &index::RecallRow| (row.effort, row.recall, row.queries_per_second);
        self.report.table.iter().map(row).collect()
    }

    /// Draw recall against queries per second; needs matplotlib.
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
        plot(slf.as_any(), "recall_curve", ax)
    }

    fn __repr__(&self) -> String {
        let report = &self.report;
        let mut text = format!(
            "RecallReport: recall@{} {:.4} (at least {:.4}; asked for {}) at effort {}, {}\n\
             {:>8} {:>8} {:>12}",
            report.k,
            report.recall,
            report.lower_bound,
            report.target,
            report.effort,
            self.queries(),
            "effort",
            "recall",
            "queries/s"
        );
        for row in &report.table {
            let mark = if row.effort == report.effort { " <" } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n{:>8} {:>8.4} {:>12.0}{mark}",
                row.effort, row.recall, row.queries_per_second
            );
        }
        text
    }

    fn _repr_html_(&self) -> String {
        let report = &self.report;
        let mut html = format!(
            "<table><caption>recall@{} {:.4} (at least {:.4}) at effort {}, {}</caption><thead>\
             <tr><th>effort</th><th>recall</th><th>queries/s</th></tr></thead><tbody>",
            report.k,
            report.recall,
            report.lower_bound,
            report.effort,
            self.queries()
        );
        for row in &report.table {
            let cells = [
                row.effort.to_string(),
                format!("{:.4}", row.recall),
                format!("{:.0}", row.queries_per_second),
            ];
            let bold = row.effort == report.effort;
            let cells = cells.map(|cell| {
                if bold { format!("<td><b>{cell}</b></td>") } else { format!("<td>{cell}</td>") }
            });
            let _ = write!(html, "<tr>{}</tr>", cells.concat());
        }
        html + "</tbody></table>"
    }
}

/// What is wrong with the rows of an index, or slows it down, and what to do about it.
///
/// Attributes
/// ----------
/// rows : int
///     The number of rows.
/// removed : float
///     The share of all places that removed rows still take.
/// duplicate_rows, duplicate_groups : int
///     Rows that equal an earlier one, number by number, and groups of equal rows.
/// zero_rows : int
///     Rows of zeros.
/// norms : ndarray of shape (101,), float64
///     Percentiles 0 to 100 of the rows' euclidean lengths; of shape (0,) without rows.
/// sample : int
///     Rows, all different, whose neighbours among each other were found, for what follows.
/// intrinsic_dimension : float or None
///     The estimated dimension of the space that the rows fill [1]_ [2]_: too low where it is high
///     and rows are few. None where too few rows differ or all are equally far apart.
/// hubness : float or None
///     The skewness of ``occurrences``, 0 where all rows are neighbours equally often, above 1.4
///     where a few are the neighbours of very many [3]_.
/// antihubs : float or None
///     The share of rows that are nobody's neighbour.
/// k : int
///     Neighbours of each row, for the occurrences.
/// occurrences : ndarray of shape (sample,), int64
///     How often each row of the sample is among the ``k`` nearest of another.
/// graph : dict or None
///     What `Index.check` gives; None where there is no graph.
/// code_width : int or None
///     Dimensions that are coded in 8 bits; None where every row is judged in float64.
/// survivors : float or None
///     Rows that codes leave to be judged in float64, a query; None below 1,024 rows.
/// codes_prune : bool or None
///     Whether that is few enough to answer by codes.
/// advice : list of str
///     What to do about each thing that is off.
///
/// References
/// ----------
/// .. [1] E. Levina and P. Bickel, "Maximum likelihood estimation of intrinsic dimension", 2004.
/// .. [2] D. MacKay and Z. Ghahramani, "Comments on 'Maximum likelihood estimation of intrinsic
///    dimension'", 2005.
/// .. [3] M. Radovanović, A. Nanopoulos and M. Ivanović, "Hubs in space: popular nearest neighbors
///    in high-dimensional data", 2010.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> X = np.random.default_rng(0).standard_normal((2000, 3))
/// >>> health = omendb.Index(np.vstack([X, X[:5]])).health()
/// >>> health.duplicate_rows, health.zero_rows
/// (5, 0)
/// >>> round(health.intrinsic_dimension)
/// 3
/// >>> health.advice
/// ['5 rows equal an earlier one: equal rows take places among the k nearest from others; ...']
#[pyclass(frozen, module = "omendb")]
pub(super) struct HealthReport {
    pub(super) report: index::HealthReport,
}

#[pymethods]
impl HealthReport {
    /// The number of rows.
    #[getter]
    fn rows(&self) -> usize {
        self.report.rows
    }

    /// The share of all places that removed rows still take.
    #[getter]
    fn removed(&self) -> f64 {
        self.report.removed
    }

    /// Rows that equal an earlier one.
    #[getter]
    fn duplicate_rows(&self) -> usize {
        self.report.duplicate_rows
    }

    /// Groups of equal rows.
    #[getter]
    fn duplicate_groups(&self) -> usize {
        self.report.duplicate_groups
    }

    /// Rows of zeros.
    #[getter]
    fn zero_rows(&self) -> usize {
        self.report.zero_rows
    }

    /// Percentiles 0 to 100 of the rows' euclidean lengths: float64 of shape (101,).
    #[getter]
    fn norms<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_slice(py, &self.report.norms)
    }

    /// Rows, all different, whose neighbours among each other were found.
    #[getter]
    fn sample(&self) -> usize {
        self.report.sample
    }

    /// The estimated dimension of the space that the rows fill.
    #[getter]
    fn intrinsic_dimension(&self) -> Option<f64> {
        self.report.intrinsic_dimension
    }

    /// The skewness of how often rows are neighbours.
    #[getter]
    fn hubness(&self) -> Option<f64> {
        self.report.hubness
    }

    /// The share of rows that are nobody's neighbour.
    #[getter]
    fn antihubs(&self) -> Option<f64> {
        self.report.antihubs
    }

    /// Neighbours of each row, for the occurrences.
    #[getter]
    fn k(&self) -> usize {
        self.report.k
    }

    /// How often each row of the sample is a neighbour: int64 of shape (sample,).
    #[getter]
    fn occurrences<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        let counts = self.report.occurrences.iter().map(|&count| i64::from(count));
        PyArray1::from_iter(py, counts)
    }

    /// What `Index.check` gives; None where there is no graph.
    #[getter]
    fn graph<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.report.graph.map(|check| counts(py, check)).transpose()
    }

    /// Dimensions that are coded in 8 bits.
    #[getter]
    fn code_width(&self) -> Option<usize> {
        self.report.code_width
    }

    /// Rows that codes leave to be judged in float64, a query.
    #[getter]
    fn survivors(&self) -> Option<f64> {
        self.report.survivors
    }

    /// Whether that is few enough to answer by codes.
    #[getter]
    fn codes_prune(&self) -> Option<bool> {
        self.report.codes_prune
    }

    /// What to do about each thing that is off.
    #[getter]
    fn advice(&self) -> Vec<String> {
        self.report.advice()
    }

    /// Draw the rows' lengths and how often they are neighbours; needs matplotlib.
    ///
    /// Parameters
    /// ----------
    /// ax : sequence of two matplotlib.axes.Axes, optional
    ///     Where to draw; a new figure by default.
    ///
    /// Returns
    /// -------
    /// ndarray of shape (2,) of matplotlib.axes.Axes
    #[pyo3(signature = (ax=None))]
    fn plot(slf: &Bound<'_, Self>, ax: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        plot(slf.as_any(), "health", ax)
    }

    fn __repr__(&self) -> String {
        self.report.to_string()
    }

    fn _repr_html_(&self) -> String {
        html(&self.report.title(), &self.report.facts(), &self.report.advice())
    }
}

/// What the graph's check counted.
pub(super) fn counts(py: Python<'_>, check: crate::graph::Check) -> PyResult<Bound<'_, PyDict>> {
    let counts = PyDict::new(py);
    counts.set_item("rows", check.rows)?;
    counts.set_item("unreachable", check.unreachable)?;
    counts.set_item("dangling", check.dangling)?;
    counts.set_item("links", check.links)?;
    counts.set_item("degree", check.degree)?;
    Ok(counts)
}

/// Which way a search went, why, and what it took.
///
/// The search was run, on one thread, and counted. Counts and times are of all its queries together.
///
/// Attributes
/// ----------
/// way : str
///     What was done, in a few words.
/// reasons : list of str
///     Why.
/// queries, k : int
///     Queries, and answers of each.
/// rows, allowed : int
///     Rows of the index, and those among them that may answer.
/// effort : int or None
///     The width of the walk's beam; None where there was no choice of a walk.
/// estimates : dict or None
///     Microseconds a query that ``walk`` and ``exact`` were thought to take, on which the choice
///     between them stood; None where there was no choice.
/// answered : dict
///     Queries answered by each of ``walk``, ``codes``, ``floats`` and ``float64``: the walk through
///     the graph, and the three ways of the exact search.
/// discarded : int
///     Walks that were thrown away, so that those queries were answered exactly.
/// scored : int
///     Rows that were scored by 8-bit codes or float32 products.
/// judged : int
///     Rows whose float64 distance was computed.
/// milliseconds : dict
///     ``total``, and in it ``filter``, ``walk`` and ``exact``; of this one run.
/// exact : ndarray of shape (queries,), bool
///     Whether the answers are proven; a bool for a single query.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> X = np.random.default_rng(0).standard_normal((5000, 16), dtype=np.float32)
/// >>> explanation = omendb.Index(X).explain(X[0])
/// >>> explanation.way
/// 'an exact sweep of 8-bit codes'
/// >>> explanation.scored, explanation.judged < 500
/// (5000, True)
/// >>> explanation.reasons
/// ['there is no graph, so the search was exact']
#[pyclass(frozen, module = "omendb")]
pub(super) struct Explanation {
    pub(super) explanation: index::Explanation,
    /// Whether one vector was asked for.
    pub(super) single: bool,
}

#[pymethods]
impl Explanation {
    /// What was done, in a few words.
    #[getter]
    fn way(&self) -> String {
        self.explanation.way()
    }

    /// Why.
    #[getter]
    fn reasons(&self) -> Vec<String> {
        self.explanation.reasons.clone()
    }

    /// The number of queries.
    #[getter]
    fn queries(&self) -> usize {
        self.explanation.queries
    }

    /// Answers of each query.
    #[getter]
    fn k(&self) -> usize {
        self.explanation.k
    }

    /// Rows of the index.
    #[getter]
    fn rows(&self) -> usize {
        self.explanation.rows
    }

    /// Rows that may answer.
    #[getter]
    fn allowed(&self) -> usize {
        self.explanation.allowed
    }

    /// The width of the walk's beam; None where there was no choice of a walk.
    #[getter]
    fn effort(&self) -> Option<usize> {
        self.explanation.effort
    }

    /// Microseconds a query that ``walk`` and ``exact`` were thought to take, or None.
    #[getter]
    fn estimates<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let explanation = &self.explanation;
        let estimates = explanation.walk_estimate_ns.zip(explanation.exact_estimate_ns);
        let Some((walk, exact)) = estimates else { return Ok(None) };
        let estimates = PyDict::new(py);
        estimates.set_item("walk", walk / 1e3)?;
        estimates.set_item("exact", exact / 1e3)?;
        Ok(Some(estimates))
    }

    /// Queries answered by each of ``walk``, ``codes``, ``floats`` and ``float64``.
    #[getter]
    fn answered<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let explanation = &self.explanation;
        let answered = PyDict::new(py);
        answered.set_item("walk", explanation.walked - explanation.discarded)?;
        answered.set_item("codes", explanation.by_codes)?;
        answered.set_item("floats", explanation.by_floats)?;
        answered.set_item("float64", explanation.by_float64)?;
        Ok(answered)
    }

    /// Walks that were thrown away.
    #[getter]
    fn discarded(&self) -> usize {
        self.explanation.discarded
    }

    /// Rows that were scored by 8-bit codes or float32 products.
    #[getter]
    fn scored(&self) -> u64 {
        self.explanation.scored
    }

    /// Rows whose float64 distance was computed.
    #[getter]
    fn judged(&self) -> u64 {
        self.explanation.judged
    }

    /// ``total``, and in it ``filter``, ``walk`` and ``exact``.
    #[getter]
    fn milliseconds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let explanation = &self.explanation;
        let milliseconds = PyDict::new(py);
        milliseconds.set_item("total", explanation.milliseconds)?;
        milliseconds.set_item("filter", explanation.filter_milliseconds)?;
        milliseconds.set_item("walk", explanation.walk_milliseconds)?;
        milliseconds.set_item("exact", explanation.exact_milliseconds)?;
        Ok(milliseconds)
    }

    /// Whether the answers are proven: bool of shape (queries,), or one bool.
    #[getter]
    fn exact(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.explanation.exact[..] {
            [exact] if self.single => exact.into_py_any(py),
            ref exact => PyArray1::from_slice(py, exact).into_py_any(py),
        }
    }

    fn __len__(&self) -> usize {
        self.explanation.queries
    }

    fn __repr__(&self) -> String {
        self.explanation.to_string()
    }

    fn _repr_html_(&self) -> String {
        let explanation = &self.explanation;
        html(&explanation.title(), &explanation.facts(), &explanation.reasons)
    }
}

/// Why a row is, or is not, among a query's answers; prints as a sentence.
///
/// Attributes
/// ----------
/// id : object
///     The id that was asked for.
/// reason : {"found", "not in index", "filtered out", "beyond k", "missed"}
///     Among the answers; no row has the id; the filter excludes its row; ``k`` rows come before it;
///     or it is one of the ``k`` nearest and the walk did not come to it.
/// sentence : str
///     The same with the numbers in it.
/// rank : int or None
///     How many rows that may answer come before it in an exact search: 0 for the nearest.
/// distance : float or None
///     The exact distance of its row.
/// kth_distance : float or None
///     The exact distance of the last of the ``k`` nearest rows that may answer.
/// effort : int or None
///     The width of the beam that missed it.
/// effort_needed : int or None
///     A width at which it is found; None if even 8,192 is too narrow.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> index = omendb.Index(np.arange(20.0).reshape(20, 1))
/// >>> index.why_not([0.2], 12)
/// id 12 is not among the 10 nearest: at distance 11.800000 it is the 13th nearest of 20 rows,
/// 3.000000 beyond the last answer at 8.800000; k = 13 would reach it
/// >>> index.why_not([0.2], 99).reason
/// 'not in index'
#[pyclass(frozen, module = "omendb")]
pub(super) struct WhyNot {
    pub(super) id: Py<PyAny>,
    /// None where the id is none that a row could have.
    pub(super) why: Option<index::WhyNot>,
}

#[pymethods]
impl WhyNot {
    /// The id that was asked for.
    #[getter]
    fn id(&self, py: Python<'_>) -> Py<PyAny> {
        self.id.clone_ref(py)
    }

    /// Why, in a word or two.
    #[getter]
    fn reason(&self) -> &'static str {
        match self.why.map(|why| why.reason) {
            None | Some(Reason::NotInIndex) => "not in index",
            Some(Reason::Found) => "found",
            Some(Reason::FilteredOut) => "filtered out",
            Some(Reason::BeyondK) => "beyond k",
            Some(Reason::Missed) => "missed",
        }
    }

    /// Why, with the numbers in it.
    #[getter]
    fn sentence(&self, py: Python<'_>) -> PyResult<String> {
        let id = self.id.bind(py).str()?.to_string();
        let unknown = || format!("id {id} is not in the index");
        Ok(self.why.map_or_else(unknown, |why| why.sentence(&id)))
    }

    /// How many rows that may answer come before it in an exact search.
    #[getter]
    fn rank(&self) -> Option<usize> {
        self.why?.rank
    }

    /// The exact distance of its row.
    #[getter]
    fn distance(&self) -> Option<f64> {
        self.why?.distance
    }

    /// The exact distance of the last of the ``k`` nearest rows that may answer.
    #[getter]
    fn kth_distance(&self) -> Option<f64> {
        self.why?.kth_distance
    }

    /// The width of the beam that missed it.
    #[getter]
    fn effort(&self) -> Option<usize> {
        self.why?.effort
    }

    /// A width at which it is found.
    #[getter]
    fn effort_needed(&self) -> Option<usize> {
        self.why?.effort_needed
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.sentence(py)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<p>{}</p>", escaped(&self.sentence(py)?)))
    }
}

/// The columns of a file that `Index.save` wrote.
///
/// Parameters
/// ----------
/// path : str or os.PathLike
///     The file.
/// verify : bool, default=False
///     Check every column against its checksums; otherwise no column is read.
///
/// Returns
/// -------
/// list of dict
///     Of each column ``name``; ``type`` of a row's value, such as ``float32[384]``; ``bytes``; and
///     ``damage``, what is wrong with it, or None.
///
/// Raises
/// ------
/// OSError
///     If the file cannot be read.
/// ValueError
///     If it is not a saved index, or what describes it is damaged.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb, tempfile, pathlib
/// >>> from omendb import _core
/// >>> path = pathlib.Path(tempfile.mkdtemp()) / "eye.omen"
/// >>> omendb.Index(np.eye(3)).save(path)
/// >>> [(column["name"], column["type"]) for column in _core.file_columns(path)]
/// [('ids', 'int64'), ('vectors', 'float64[3]')]
#[pyfunction]
#[pyo3(signature = (path, *, verify=false))]
pub(super) fn file_columns(
    py: Python<'_>,
    path: PathBuf,
    verify: bool,
) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let columns = monitor::run(py, None, 1, "file", usize::MAX, None, |run| {
        index::file_columns(path, verify, run)
    })?;
    let dict = |column: index::FileColumn| {
        let dict = PyDict::new(py);
        dict.set_item("name", column.name)?;
        dict.set_item("type", column.value)?;
        dict.set_item("bytes", column.bytes)?;
        dict.set_item("damage", column.damage)?;
        Ok(dict)
    };
    columns.into_iter().map(dict).collect()
}
