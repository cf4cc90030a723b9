//! Frames in: vectors, ids and metadata of pandas, Polars, pyarrow and whatever exports Arrow.
//!
//! Vectors of a fixed-size list are handed to NumPy where they lie, so that they take the way of all
//! arrays from there on. What pandas means by its columns is for `omendb/frames.py`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use arrow_select::concat::concat;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use pyo3_arrow::PyTable;
use pyo3_arrow::input::{AnyArray, AnyRecordBatch};

use super::ids::{self, Given};
use crate::table::{ID, adapt, cast, keep, null_row, refused, schema};

/// Where the schema of a table notes what the frame's columns were: whether the ids were one.
const ID_IS_COLUMN: &str = "omendb.id_is_column";
/// The name of the vectors' column, or, with a number behind it, of each of their columns.
const VECTOR: &str = "omendb.vector";

/// Which columns of a frame are the vectors.
#[derive(Clone, PartialEq)]
pub(super) enum Names {
    /// A column of lists.
    One(String),
    /// A column for each number.
    Many(Vec<String>),
}

/// What is known of a frame's columns.
#[derive(Clone)]
pub(super) struct Roles {
    pub(super) vector: Names,
    /// The ids' column, if it is one of the frame.
    pub(super) id: Option<String>,
}

impl Roles {
    /// Reads the arguments `vector` and `id` of `from_frame`.
    pub(super) fn of(vector: &Bound<'_, PyAny>, id: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        // Labels of pandas' columns may be anything; their texts name them.
        let text = |label: &Bound<'_, PyAny>| Ok::<_, PyErr>(label.str()?.to_string());
        let many = !vector.is_instance_of::<PyString>()
            && vector.hasattr("__iter__")?
            && !vector.is_instance_of::<pyo3::types::PyTuple>();
        let vector = if many {
            let names =
                vector.try_iter()?.map(|label| text(&label?)).collect::<PyResult<Vec<_>>>()?;
            if names.is_empty() {
                return Err(PyValueError::new_err("expected vector= to name columns, got none"));
            }
            Names::Many(names)
        } else {
            Names::One(text(vector)?)
        };
        Ok(Self { vector, id: id.map(text).transpose()? })
    }

    /// The roles that a schema notes; none where the index was not made of a frame.
    pub(super) fn noted(schema: &Schema) -> Option<Self> {
        let entry = |key: &str| schema.metadata().get(key).cloned();
        let vector = entry(VECTOR).map(Names::One).or_else(|| {
            let names = (0..).map_while(|i| entry(&format!("{VECTOR}.{i}")));
            Some(Names::Many(names.collect())).filter(|names| *names != Names::Many(vec![]))
        })?;
        let id = entry(ID).filter(|_| entry(ID_IS_COLUMN).is_some());
        Some(Self { vector, id })
    }

    fn note(&self, columns: Vec<FieldRef>) -> Schema {
        let mut notes = HashMap::new();
        if self.id.is_some() {
            notes.insert(ID_IS_COLUMN.to_owned(), "yes".to_owned());
        }
        match &self.vector {
            Names::One(name) => {
                notes.insert(VECTOR.to_owned(), name.clone());
            }
            Names::Many(names) => notes.extend(
                names.iter().enumerate().map(|(i, name)| (format!("{VECTOR}.{i}"), name.clone())),
            ),
        }
        Schema::new_with_metadata(columns, notes)
    }
}

/// A frame, taken apart.
pub(super) struct Frame<'py> {
    /// Something that NumPy makes an array of.
    pub(super) vectors: Bound<'py, PyAny>,
    /// The ids, where the frame has some.
    pub(super) ids: Option<Given<'py>>,
    /// What the ids are called.
    id_name: String,
    /// The other columns, as they came.
    columns: Vec<(FieldRef, Vec<ArrayRef>)>,
    roles: Roles,
}

impl<'py> Frame<'py> {
    pub(super) fn read(frame: &Bound<'py, PyAny>, roles: Roles) -> PyResult<Self> {
        let py = frame.py();
        let names = match &roles.vector {
            Names::One(name) => PyString::new(py, name).into_any(),
            Names::Many(names) => PyList::new(py, names)?.into_any(),
        };
        let parts =
            py.import("omendb.frames")?.call_method1("of_pandas", (frame, names, &roles.id))?;
        if !parts.is_none() {
            let (vectors, ids, id_name, rest): (
                Bound<'py, PyAny>,
                Bound<'py, PyAny>,
                String,
                Bound<'py, PyAny>,
            ) = parts.extract()?;
            let vectors = if vectors.hasattr("__arrow_c_stream__")? {
                let (chunks, field) =
                    vectors.extract::<AnyArray>()?.into_chunked_array()?.into_inner();
                let name = vector_name(&roles.vector);
                lists(py, &Field::new(name, field.data_type().clone(), true), &chunks)?
            } else {
                vectors
            };
            let ids = (!ids.is_none()).then(|| ids::given(&ids, "ids")).transpose()?;
            let mut columns = Vec::new();
            if !rest.is_none() {
                let (batches, schema) = rest.extract::<PyTable>()?.into_inner();
                columns = split(&batches, &schema);
            }
            let frame = Self { vectors, ids, id_name, columns, roles };
            return frame.checked();
        }
        let stream = ["__arrow_c_stream__", "__arrow_c_array__"];
        if !stream.iter().any(|name| frame.hasattr(*name).unwrap_or(false)) {
            return Err(PyTypeError::new_err(format!(
                "expected a frame of pandas, Polars or pyarrow, or what else has \
                 __arrow_c_stream__, got {}",
                frame.get_type().name()?
            )));
        }
        let (batches, schema) = frame
            .extract::<AnyRecordBatch>()
            .and_then(|batches| Ok(batches.into_table()?.into_inner()))
            .map_err(|error| {
                PyTypeError::new_err(format!("expected a frame of columns: {}", error.value(py)))
            })?;
        let mut names = HashSet::new();
        if let Some(field) = schema.fields().iter().find(|field| !names.insert(field.name())) {
            return Err(PyValueError::new_err(format!(
                "the frame has two columns '{}': rename one of them",
                field.name()
            )));
        }
        let mut columns = split(&batches, &schema);
        let mut take = |name: &str| -> PyResult<(FieldRef, Vec<ArrayRef>)> {
            let place = columns.iter().position(|(field, _)| field.name() == name);
            place.map(|place| columns.remove(place)).ok_or_else(|| {
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                let twice = if names.contains(&name) { " once more" } else { "" };
                PyValueError::new_err(format!(
                    "the frame has no column '{name}'{twice}; its columns are {}",
                    names.join(", ")
                ))
            })
        };
        let vectors = match &roles.vector {
            Names::One(name) => {
                let (field, chunks) = take(name)?;
                lists(py, &field, &chunks)?
            }
            Names::Many(names) => {
                let columns = names.iter().map(|name| {
                    let (field, chunks) = take(name)?;
                    numbers(py, &field, &chunks)
                });
                let columns = PyList::new(py, columns.collect::<PyResult<Vec<_>>>()?)?;
                py.import("numpy")?.call_method1("column_stack", (columns,))?
            }
        };
        let ids = roles.id.as_deref().map(|name| {
            let (field, chunks) = take(name)?;
            ids::column(&field, &chunks, &format!("ids in the column '{name}'"))
        });
        let ids = ids.transpose()?;
        let id_name = roles.id.clone().unwrap_or_else(|| "id".to_owned());
        Self { vectors, ids, id_name, columns, roles }.checked()
    }

    fn checked(self) -> PyResult<Self> {
        if self.columns.iter().any(|(field, _)| *field.name() == self.id_name) {
            return Err(PyValueError::new_err(format!(
                "the frame has a column '{0}', which would be taken for the ids: say id='{0}' if it \
                 holds them, and rename it or leave it out otherwise",
                self.id_name
            )));
        }
        Ok(self)
    }

    /// The first lines of a new table, of `len` rows.
    pub(super) fn lines(self, len: usize) -> PyResult<RecordBatch> {
        let (field, ids) = match self.ids {
            Some(Given::Column(field, ids)) => (field.with_name(&self.id_name), ids),
            Some(Given::Integers(object)) => integers(&object, &self.id_name)?,
            None => {
                let ids = arrow_array::Int64Array::from_iter_values(0..len as i64);
                (Field::new(&self.id_name, DataType::Int64, false), Arc::new(ids) as ArrayRef)
            }
        };
        check_len(&ids, len)?;
        let mut fields = Vec::new();
        let mut arrays = vec![ids];
        for (field, chunks) in &self.columns {
            let (field, column) = keep(field, chunks)?;
            fields.push(Arc::new(field));
            arrays.push(column);
        }
        let schema = schema(field, &self.roles.note(fields));
        Ok(RecordBatch::try_new(schema, arrays).map_err(refused)?)
    }

    /// The metadata of this frame in the columns of a table, whose ids come first.
    pub(super) fn columns_as(&self, schema: &Schema, len: usize) -> PyResult<Vec<ArrayRef>> {
        let wanted = &schema.fields()[1..];
        let known = |name: &str| wanted.iter().any(|field| field.name() == name);
        if let Some((field, _)) = self.columns.iter().find(|(field, _)| !known(field.name())) {
            let names: Vec<&str> = wanted.iter().map(|field| field.name().as_str()).collect();
            return Err(PyValueError::new_err(format!(
                "the frame has a column '{}', which the index has not; the index has the columns {}",
                field.name(),
                if names.is_empty() { "of ids and vectors alone".into() } else { names.join(", ") }
            )));
        }
        let column = |field: &FieldRef| -> PyResult<ArrayRef> {
            let came = self.columns.iter().find(|(other, _)| other.name() == field.name());
            match came {
                None => Ok(arrow_array::new_null_array(field.data_type(), len)),
                Some((other, chunks)) => Ok(adapt(other, field, chunks)?),
            }
        };
        wanted.iter().map(column).collect()
    }
}

/// Fails if there is not one id for each row.
pub(super) fn check_len(ids: &ArrayRef, len: usize) -> PyResult<()> {
    if ids.len() == len {
        return Ok(());
    }
    let got = ids.len();
    Err(PyValueError::new_err(format!("expected one id for each of {len} rows, got {got}")))
}

/// The name under which vectors come back.
pub(super) fn vector_name(names: &Names) -> &str {
    match names {
        Names::One(name) => name,
        Names::Many(_) => "vector",
    }
}

/// Integers in the type that their array has, as a column.
pub(super) fn integers(object: &Bound<'_, PyAny>, name: &str) -> PyResult<(Field, ArrayRef)> {
    let dtype = object.getattr("dtype").and_then(|dtype| dtype.getattr("name"));
    let data_type = match dtype.and_then(|name| name.extract::<String>()).as_deref() {
        Ok("int8") => DataType::Int8,
        Ok("int16") => DataType::Int16,
        Ok("int32") => DataType::Int32,
        Ok("uint8") => DataType::UInt8,
        Ok("uint16") => DataType::UInt16,
        Ok("uint32") => DataType::UInt32,
        Ok("uint64") => DataType::UInt64,
        _ => DataType::Int64,
    };
    let kind = if data_type == DataType::UInt64 {
        crate::table::Kind::Unsigned
    } else {
        crate::table::Kind::Int
    };
    let ids = ids::integers(object, "ids", kind)?;
    Ok((Field::new(name, data_type.clone(), false), cast(&ids, &data_type)?))
}

/// The columns of some batches, each with its chunks.
fn split(batches: &[RecordBatch], schema: &Schema) -> Vec<(FieldRef, Vec<ArrayRef>)> {
    let chunks = |i: usize| batches.iter().map(|batch| Arc::clone(batch.column(i))).collect();
    schema.fields().iter().enumerate().map(|(i, field)| (Arc::clone(field), chunks(i))).collect()
}

fn joined(field: &Field, chunks: &[ArrayRef]) -> PyResult<ArrayRef> {
    match chunks {
        [] => Ok(arrow_array::new_empty_array(field.data_type())),
        [one] => Ok(Arc::clone(one)),
        many => {
            let many: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
            Ok(concat(&many).map_err(refused)?)
        }
    }
}

fn null_error(field: &Field, row: usize, inside: &str) -> PyErr {
    PyValueError::new_err(format!(
        "row {row} of the column '{}' is null{inside}; drop or impute such rows first",
        field.name()
    ))
}

/// A column of lists as something that NumPy makes an array of, without a copy where the lists are
/// one chunk.
fn lists<'py>(py: Python<'py>, field: &Field, chunks: &[ArrayRef]) -> PyResult<Bound<'py, PyAny>> {
    let mut column = joined(field, chunks)?;
    if let DataType::ListView(item) | DataType::LargeListView(item) = column.data_type() {
        column = cast(&column, &DataType::LargeList(Arc::clone(item)))?;
    }
    if let Some(row) = null_row(&column) {
        return Err(null_error(field, row, ""));
    }
    let len = column.len();
    let (values, dim) = match column.data_type() {
        DataType::FixedSizeList(_, dim) => {
            let dim = *dim as usize;
            (Arc::clone(column.as_fixed_size_list().values()), dim)
        }
        DataType::List(f) => {
            column = cast(&column, &DataType::LargeList(Arc::clone(f)))?;
            ragged(field, &column)?
        }
        DataType::LargeList(_) => ragged(field, &column)?,
        other => {
            let advice = if other.is_numeric() {
                "; name several columns, as in vector=['x', 'y'], if each holds one number"
            } else {
                ""
            };
            return Err(PyTypeError::new_err(format!(
                "expected the column '{}' to hold lists of numbers, got {other}{advice}",
                field.name()
            )));
        }
    };
    if dim == 0 {
        return Err(PyValueError::new_err(format!(
            "expected the lists of the column '{}' to have at least 1 number, got 0",
            field.name()
        )));
    }
    let values = values.slice(0, len * dim);
    if let Some(place) = null_row(values.as_ref()) {
        let inside = format!(" at place {}", place % dim);
        return Err(null_error(field, place / dim, &inside));
    }
    memory(py, field, values, &[len, dim])
}

/// The values of lists of one length, and that length.
fn ragged(field: &Field, column: &ArrayRef) -> PyResult<(ArrayRef, usize)> {
    let lists = column.as_list::<i64>();
    let offsets = lists.value_offsets();
    let Some(dim) = offsets.windows(2).next().map(|pair| pair[1] - pair[0]) else {
        return Err(PyValueError::new_err(format!(
            "the column '{}' has no rows to tell the length of a vector by: give a fixed-size list, or \
             begin with omendb.Index(dim=...)",
            field.name()
        )));
    };
    let other = offsets.windows(2).position(|pair| pair[1] - pair[0] != dim);
    if let Some(row) = other {
        return Err(PyValueError::new_err(format!(
            "expected all vectors of the column '{}' to have one length, got {dim} numbers in row 0 and \
             {} in row {row}",
            field.name(),
            offsets[row + 1] - offsets[row],
        )));
    }
    let first = offsets[0] as usize;
    Ok((lists.values().slice(first, lists.len() * dim as usize), dim as usize))
}

/// A column of numbers as something that NumPy makes an array of.
fn numbers<'py>(
    py: Python<'py>,
    field: &Field,
    chunks: &[ArrayRef],
) -> PyResult<Bound<'py, PyAny>> {
    let column = joined(field, chunks)?;
    if let Some(row) = null_row(column.as_ref()) {
        return Err(null_error(field, row, ""));
    }
    let len = column.len();
    let memory = memory(py, field, column, &[len])?;
    py.import("numpy")?.call_method1("asarray", (memory,))
}

/// Arrow's values where they lie, for NumPy.
fn memory<'py>(
    py: Python<'py>,
    field: &Field,
    values: ArrayRef,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let (dtype, values) = match values.data_type() {
        DataType::Float16 => ("<f2", values),
        DataType::Float32 => ("<f4", values),
        DataType::Float64 => ("<f8", values),
        DataType::Int8 => ("|i1", values),
        DataType::UInt8 => ("|u1", values),
        DataType::Int16 => ("<i2", values),
        DataType::UInt16 => ("<u2", values),
        DataType::Int32 => ("<i4", values),
        DataType::UInt32 => ("<u4", values),
        DataType::Int64 => ("<i8", values),
        DataType::UInt64 => ("<u8", values),
        // As NumPy's booleans.
        DataType::Boolean => ("<f8", cast(&values, &DataType::Float64)?),
        data_type if data_type.is_decimal() => ("<f8", cast(&values, &DataType::Float64)?),
        other => {
            return Err(PyTypeError::new_err(format!(
                "expected the column '{}' to hold numbers, got {other}",
                field.name()
            )));
        }
    };
    let memory = Memory { values, dtype, shape: shape.to_vec() };
    Ok(Bound::new(py, memory)?.into_any())
}

/// Numbers in Arrow's memory, for NumPy's array interface; an array of them keeps this alive.
#[pyclass(frozen)]
struct Memory {
    values: ArrayRef,
    dtype: &'static str,
    shape: Vec<usize>,
}

#[pymethods]
impl Memory {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let data = self.values.to_data();
        let width = data.data_type().primitive_width().unwrap_or(1);
        let start = data.buffers()[0].as_ptr() as usize + data.offset() * width;
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", self.dtype)?;
        interface.set_item("shape", pyo3::types::PyTuple::new(py, &self.shape)?)?;
        interface.set_item("data", (start, true))?; // read-only
        Ok(interface)
    }
}
