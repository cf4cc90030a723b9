//! Rows of a table, as a Python object and as what a terminal or a notebook shows.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, RecordBatch, StructArray, make_array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};

use crate::error::Result;
use crate::table::{Key, UUID, refused};

/// Lines of a table that is shown in full; of a longer one, the first.
pub(super) const SHOWN: usize = 10;
/// Characters of a cell in a terminal, and in a notebook.
const CELL: [usize; 2] = [24, 100];
const UUID_CHARS: usize = 36;
/// Characters of a line in a terminal.
const LINE: usize = 100;
/// Columns in a notebook.
const COLUMNS: usize = 16;

/// A batch as a stream for whoever reads Arrow's C interface.
pub(super) fn stream<'py>(
    py: Python<'py>,
    batch: RecordBatch,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let field = Field::new_struct("", batch.schema().fields().clone(), false);
    let array: Arc<dyn Array> = Arc::new(StructArray::from(batch));
    let reader = ArrayIterator::new(std::iter::once(Ok(array)), Arc::new(field));
    Ok(to_stream_pycapsule(py, Box::new(reader), requested)?)
}

/// Calls a converter of `omendb.frames` with an object that exports a stream.
pub(super) fn convert(object: &Bound<'_, PyAny>, converter: &str) -> PyResult<Py<PyAny>> {
    let frames = object.py().import("omendb.frames")?;
    Ok(frames.call_method1(converter, (object,))?.unbind())
}

/// A name that is not taken: itself, or with the first number behind it that is free.
pub(super) fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (1..).map(|i| format!("{name}_{i}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// Text of one cell, on one line and no longer than this.
fn clipped(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= most {
        return plain.collect();
    }
    plain.take(most - 1).chain(['…']).collect()
}

/// Text as HTML shows it.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            c => html.push(c),
        }
    }
    html
}

fn is_uuid(field: &Field) -> bool {
    field.extension_type_name() == Some(UUID) && *field.data_type() == DataType::FixedSizeBinary(16)
}

/// The values of a column as text.
fn cells(field: &Field, column: &dyn Array) -> Result<Vec<String>> {
    let rows = 0..column.len();
    if is_uuid(field) {
        let ids = column.as_fixed_size_binary();
        let cell = |row| {
            if ids.is_null(row) { String::new() } else { Key::Uuid(ids.value(row)).to_string() }
        };
        return Ok(rows.map(cell).collect());
    }
    // Metadata of this name may be null, and anything.
    if field.name() == "distance" && !field.is_nullable() {
        match column.data_type() {
            DataType::Float32 => {
                let far = column.as_primitive::<Float32Type>();
                return Ok(rows.map(|row| format!("{:.6}", far.value(row))).collect());
            }
            DataType::Float64 => {
                let far = column.as_primitive::<Float64Type>();
                return Ok(rows.map(|row| format!("{:.6}", far.value(row))).collect());
            }
            _ => {}
        }
    }
    let options = FormatOptions::default().with_display_error(true);
    let utc;
    let values = match (ArrayFormatter::try_new(column, &options), column.data_type()) {
        // A time zone that Arrow's tables do not know is shown as UTC.
        (Err(_), DataType::Timestamp(unit, Some(_))) => {
            let in_utc = DataType::Timestamp(*unit, Some("+00:00".into()));
            let data = column.to_data().into_builder().data_type(in_utc).build();
            utc = make_array(data.map_err(refused)?);
            ArrayFormatter::try_new(utc.as_ref(), &options)
        }
        (values, _) => values,
    };
    let values = values.map_err(refused)?;
    Ok(rows.map(|row| values.value(row).to_string()).collect())
}

/// Some lines as text and as HTML; `more` says whether there are others.
pub(super) fn tables(title: &str, lines: &RecordBatch, more: bool) -> Result<[String; 2]> {
    let schema = lines.schema();
    let columns = schema.fields().iter().zip(lines.columns());
    let columns = columns.map(|(field, column)| Ok((field, cells(field, column)?)));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut text: Vec<String> = vec![String::new(); lines.num_rows() + 1];
    let mut shown = 0;
    for (i, (field, cells)) in columns.iter().enumerate() {
        let name = field.name();
        let least = match name.as_str() {
            "query" => 6,
            "rank" => 5,
            "distance" => 14,
            _ if i == 2 => 20,
            _ => 0,
        };
        // A part of a UUID names nothing.
        let most = if is_uuid(field) { UUID_CHARS } else { CELL[0] };
        let column: Vec<String> =
            std::iter::once(name).chain(cells).map(|cell| clipped(cell, most)).collect();
        let width = column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0).max(least);
        if i > 3 && text[0].chars().count() + 1 + width > LINE {
            break;
        }
        shown += 1;
        for (line, cell) in text.iter_mut().zip(column) {
            let gap = if i == 0 { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(line, "{gap}{cell:>width$}");
        }
    }
    let mut text = format!("{title}\n{}", text.join("\n"));
    let row = |tag: &str, cells: Vec<&str>| {
        let cell = |cell: &str| format!("<{tag}>{}</{tag}>", escaped(&clipped(cell, CELL[1])));
        format!("<tr>{}</tr>", cells.into_iter().map(cell).collect::<String>())
    };
    let seen = &columns[..columns.len().min(COLUMNS)];
    let head = row("th", seen.iter().map(|(field, _)| field.name().as_str()).collect());
    let body =
        (0..lines.num_rows()).map(|i| row("td", seen.iter().map(|(_, c)| c[i].as_str()).collect()));
    let mut html = format!(
        "<table><caption>{}</caption><thead>{head}</thead><tbody>{}",
        escaped(title),
        body.collect::<String>()
    );
    if more {
        text += "\n   ...";
        let _ = write!(html, "<tr><td colspan=\"{}\">…</td></tr>", seen.len());
    }
    if shown < columns.len() {
        let _ = write!(text, "\n   and {} more columns", columns.len() - shown);
    }
    html += "</tbody>";
    if seen.len() < columns.len() {
        let _ = write!(
            html,
            "<tfoot><tr><td>and {} more columns</td></tr></tfoot>",
            columns.len() - seen.len()
        );
    }
    Ok([text, html + "</table>"])
}

/// Rows of an index: their ids, their vectors and what else is known of them.
///
/// It exports Arrow's C stream, so that ``pyarrow.table(records)``, ``polars.DataFrame(records)`` and
/// DuckDB read it without a copy.
///
/// Examples
/// --------
/// >>> import numpy as np, omendb
/// >>> index = omendb.Index(np.eye(2), ids=["left", "right"])
/// >>> index.get(["right"]).to_polars().columns
/// ['id', 'vector']
#[pyclass(frozen, module = "omendb")]
pub(super) struct Records {
    lines: RecordBatch,
}

impl Records {
    pub(super) fn new(lines: RecordBatch) -> Self {
        Self { lines }
    }

    fn tables(&self) -> PyResult<[String; 2]> {
        let rows = self.lines.num_rows();
        let title = format!("Records: {rows} rows, {} columns", self.lines.num_columns());
        Ok(tables(&title, &self.lines.slice(0, rows.min(SHOWN)), rows > SHOWN)?)
    }
}

#[pymethods]
impl Records {
    /// A pandas frame; needs pandas and pyarrow.
    ///
    /// Returns
    /// -------
    /// pandas.DataFrame
    fn to_pandas(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_pandas")
    }

    /// A Polars frame; needs Polars.
    ///
    /// Returns
    /// -------
    /// polars.DataFrame
    fn to_polars(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_polars")
    }

    /// An Arrow table; needs pyarrow.
    ///
    /// Returns
    /// -------
    /// pyarrow.Table
    fn to_arrow(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        convert(slf, "to_arrow")
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        stream(py, self.lines.clone(), requested_schema)
    }

    fn __len__(&self) -> usize {
        self.lines.num_rows()
    }

    fn __repr__(&self) -> PyResult<String> {
        let [text, _] = self.tables()?;
        Ok(text)
    }

    fn _repr_html_(&self) -> PyResult<String> {
        let [_, html] = self.tables()?;
        Ok(html)
    }
}
