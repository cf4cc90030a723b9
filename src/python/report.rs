//! What tuning measured, as a Python object.

use pyo3::prelude::*;
use std::fmt::Write;

use crate::index;

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
        let plots = slf.py().import("omendb.plots")?;
        Ok(plots.call_method1("recall_curve", (slf, ax))?.unbind())
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
