//! Ids of any type, in and out of NumPy, pandas, Polars, pyarrow and plain lists.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, Int64Array, LargeStringArray, UInt64Array,
    downcast_integer_array,
};
use arrow_schema::extension::EXTENSION_TYPE_NAME_KEY;
use arrow_schema::{DataType, Field};
use numpy::{PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyType};

use super::array;
use super::hits;
use crate::table::{self, Key, Keys, Kind, UUID, keep, null_row};

/// The class `uuid.UUID`.
fn uuid(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "uuid", "UUID")
}

/// The description of a column of ids of this kind.
pub(super) fn field(name: &str, kind: Kind) -> Field {
    match kind {
        Kind::Int => Field::new(name, DataType::Int64, false),
        Kind::Unsigned => Field::new(name, DataType::UInt64, false),
        Kind::Text => Field::new(name, DataType::LargeUtf8, false),
        Kind::Uuid => {
            let metadata = HashMap::from([(EXTENSION_TYPE_NAME_KEY.into(), UUID.into())]);
            Field::new(name, DataType::FixedSizeBinary(16), false).with_metadata(metadata)
        }
    }
}

/// Ids as they were given.
pub(super) enum Given<'py> {
    /// What NumPy makes integers of, or refuses to.
    Integers(Bound<'py, PyAny>),
    /// A column of ids of any kind.
    Column(Field, ArrayRef),
}

/// What ids are, without making integers of them.
pub(super) fn given<'py>(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Given<'py>> {
    let py = object.py();
    if object.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "expected {what} to be an array, got one string"
        )));
    }
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        if !matches!(array.dtype().kind(), b'U' | b'T' | b'O') {
            return Ok(Given::Integers(object.clone()));
        }
        if array.ndim() != 1 {
            return Err(PyValueError::new_err(format!(
                "expected {what} of 1 dimension, got {} (shape {})",
                array.ndim(),
                array.getattr("shape")?
            )));
        }
        let items = array.call_method0(intern!(py, "tolist"))?;
        return objects(object, items.cast::<PyList>()?, what);
    }
    if is_of_pandas(object)? {
        // Of no rows the type alone tells, and NumPy has none for texts.
        let dtype = object.getattr(intern!(py, "dtype"))?;
        if object.is_empty()? && dtype.get_type().name()? == "StringDtype" {
            let none = arrow_array::new_empty_array(&DataType::LargeUtf8);
            return Ok(Given::Column(field("id", Kind::Text), none));
        }
        return given(&object.call_method0(intern!(py, "to_numpy"))?, what);
    }
    let arrow = ["__arrow_c_array__", "__arrow_c_stream__"];
    if arrow.iter().any(|name| object.hasattr(*name).unwrap_or(false)) {
        let chunked = object.extract::<pyo3_arrow::input::AnyArray>()?.into_chunked_array()?;
        let (chunks, field) = chunked.into_inner();
        return column(&field, &chunks, what);
    }
    if object.hasattr("__array__")? || !object.hasattr("__iter__")? {
        return Ok(Given::Integers(object.clone()));
    }
    match object.cast::<PyList>() {
        Ok(items) => objects(object, items, what),
        Err(_) if object.hasattr("__getitem__")? => {
            let items = py.get_type::<PyList>().call1((object,))?;
            objects(object, items.cast::<PyList>()?, what)
        }
        Err(_) => Ok(Given::Integers(object.clone())),
    }
}

fn is_of_pandas(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.get_type().module()?.to_cow()?.starts_with("pandas"))
}

/// Whether the labels of a column of pandas are numbers; none if it is no such column.
pub(super) fn are_numbers_of_pandas(object: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    if !is_of_pandas(object)? || !object.hasattr("index")? {
        return Ok(None);
    }
    let index = object.getattr("index")?;
    let kind: String = index.getattr("dtype")?.getattr("kind")?.extract()?;
    // A column of objects may be of integers as well.
    let objects = kind == "O" && index.getattr("inferred_type")?.eq("integer")?;
    Ok(Some(objects || matches!(kind.as_str(), "i" | "u" | "f")))
}

/// A column of ids: integers, strings or UUIDs, none of them null.
pub(super) fn column<'py>(field: &Field, chunks: &[ArrayRef], what: &str) -> PyResult<Given<'py>> {
    let (mut kept, mut ids) = keep(field, chunks)?;
    if let DataType::Dictionary(_, values) = kept.data_type().clone() {
        ids = table::cast(&ids, &values)?;
        kept = kept.with_data_type(*values);
    }
    if ids.is_empty() && *kept.data_type() == DataType::Null {
        kept = kept.with_data_type(DataType::Int64);
        ids = Arc::new(Int64Array::from(Vec::<i64>::new()));
    }
    if let Some(row) = null_row(ids.as_ref()) {
        return Err(null(row, what));
    }
    Kind::of(&kept).map_err(|_| {
        PyTypeError::new_err(format!(
            "expected {what} to be integers, strings or UUIDs, got {}",
            field.data_type()
        ))
    })?;
    Ok(Given::Column(kept.with_nullable(false), ids))
}

fn null(row: usize, what: &str) -> PyErr {
    PyValueError::new_err(format!(
        "row {row} of the {what} is null: every row needs one; drop such rows or fill it in"
    ))
}

/// Whether this stands for a value that is missing.
fn is_missing(item: &Bound<'_, PyAny>) -> bool {
    item.is_none()
        || item.is_instance_of::<PyFloat>() && item.extract::<f64>().is_ok_and(f64::is_nan)
        || item.get_type().name().is_ok_and(|name| name == "NAType" || name == "NaTType")
}

/// Python objects: strings, UUIDs, or something else that NumPy may know.
fn objects<'py>(
    source: &Bound<'py, PyAny>,
    items: &Bound<'py, PyList>,
    what: &str,
) -> PyResult<Given<'py>> {
    let py = source.py();
    let class = uuid(py)?;
    let Some(first) = items.iter().find(|item| !is_missing(item)) else {
        return if items.is_empty() {
            Ok(Given::Integers(source.clone()))
        } else {
            Err(null(0, what))
        };
    };
    let text = first.is_instance_of::<PyString>();
    let check = |row: usize, item: &Bound<'py, PyAny>, same: bool, kind: &str| -> PyResult<()> {
        if same {
            return Ok(());
        }
        if is_missing(item) {
            return Err(null(row, what));
        }
        let name = item.get_type().name()?;
        Err(PyTypeError::new_err(format!(
            "expected all {what} to be {kind}, as others are, got {name} at row {row}"
        )))
    };
    if text {
        let mut ids = Vec::with_capacity(items.len());
        for (row, item) in items.iter().enumerate() {
            check(row, &item, item.is_instance_of::<PyString>(), "strings")?;
            let id: String = item.extract().map_err(|error: PyErr| {
                PyValueError::new_err(format!("{what} at row {row}: {}", error.value(py)))
            })?;
            ids.push(id);
        }
        let ids = LargeStringArray::from_iter_values(ids);
        return Ok(Given::Column(field("id", Kind::Text), Arc::new(ids)));
    }
    if first.is_instance(class)? {
        let mut ids: Vec<[u8; 16]> = Vec::with_capacity(items.len());
        for (row, item) in items.iter().enumerate() {
            check(row, &item, item.is_instance(class)?, "UUIDs")?;
            ids.push(item.getattr(intern!(py, "bytes"))?.extract()?);
        }
        let ids = FixedSizeBinaryArray::try_from_iter(ids.into_iter()).map_err(table::refused)?;
        return Ok(Given::Column(field("id", Kind::Uuid), Arc::new(ids)));
    }
    if first.is_instance_of::<PyInt>() {
        for (row, item) in items.iter().enumerate() {
            let same = !item.is_instance_of::<PyBool>() && item.hasattr("__index__")?;
            check(row, &item, same, "integers")?;
        }
    }
    Ok(Given::Integers(source.clone()))
}

/// Integers as a column.
pub(super) fn integers(object: &Bound<'_, PyAny>, what: &str, kind: Kind) -> PyResult<ArrayRef> {
    let py = object.py();
    if kind == Kind::Unsigned {
        let array = py.import(intern!(py, "numpy"))?.call_method1("asarray", (object,))?;
        if array.getattr("dtype")?.getattr("kind")?.eq("u")? {
            let array = array.call_method1("astype", ("uint64",))?.call_method0("ravel")?;
            let array = array.cast::<PyArray1<u64>>()?.readonly();
            return Ok(Arc::new(UInt64Array::from_iter_values(array.as_array().iter().copied())));
        }
        // NumPy makes floats of integers some of which are beyond 63 bits.
        if let Ok(items) = object.try_iter() {
            let wide = |item: PyResult<Bound<'_, PyAny>>| -> Option<u64> {
                item.ok().filter(PyAnyMethods::is_instance_of::<PyInt>)?.extract().ok()
            };
            if let Some(ids) = items.map(wide).collect::<Option<Vec<u64>>>() {
                return Ok(Arc::new(UInt64Array::from(ids)));
            }
        }
    }
    Ok(Arc::new(Int64Array::from(array::ids(object, what)?)))
}

/// Ids of the kind that a table has.
pub(super) fn of_kind(given: Given<'_>, what: &str, kind: Kind) -> PyResult<ArrayRef> {
    let refuse = |got: &str| {
        PyTypeError::new_err(format!("expected {what} to be {kind}, as in the index, got {got}"))
    };
    let none = || arrow_array::new_empty_array(field("", kind).data_type());
    match given {
        Given::Integers(object) => {
            let ids = integers(&object, what, kind)?;
            match kind {
                Kind::Int | Kind::Unsigned => Ok(ids),
                Kind::Text | Kind::Uuid if ids.is_empty() => Ok(none()),
                _ => Err(refuse("integers")),
            }
        }
        Given::Column(field, ids) => {
            let got = Kind::of(&field)?;
            let same = got == kind || got.is_integer() && kind.is_integer();
            if same {
                Ok(ids)
            } else if ids.is_empty() {
                Ok(none())
            } else {
                Err(refuse(&got.to_string()))
            }
        }
    }
}

/// Ids to look for; integers that the kind cannot hold are ids that are not there.
pub(super) fn wanted(object: &Bound<'_, PyAny>, what: &str, kind: Kind) -> PyResult<Keys> {
    let ids = of_kind(given(object, what)?, what, kind)?;
    // Integers of either width are compared by value.
    let kind = match ids.data_type() {
        DataType::UInt64 => Kind::Unsigned,
        other if other.is_integer() => Kind::Int,
        _ => kind,
    };
    Ok(Keys::of(&ids, kind)?)
}

/// Calls `look` with an id of this kind; none where the object is none.
pub(super) fn with_key<T>(
    id: &Bound<'_, PyAny>,
    kind: Kind,
    look: impl FnOnce(&Key<'_>) -> T,
) -> PyResult<Option<T>> {
    let py = id.py();
    match kind {
        Kind::Int | Kind::Unsigned => {
            if id.is_instance_of::<PyFloat>() || !id.hasattr("__index__")? {
                return Ok(None);
            }
            let id: Option<i128> = id.call_method0("__index__")?.extract().ok();
            Ok(id.map(|id| look(&Key::Int(id))))
        }
        Kind::Text => {
            let Ok(id) = id.cast::<PyString>() else { return Ok(None) };
            Ok(id.to_cow().ok().map(|id| look(&Key::Text(&id))))
        }
        Kind::Uuid => {
            if !id.is_instance(uuid(py)?)? {
                return Ok(None);
            }
            let bytes: [u8; 16] = id.getattr("bytes")?.extract()?;
            Ok(Some(look(&Key::Uuid(&bytes))))
        }
    }
}

/// A column of ids as an array of this shape: integers of its own dtype, or objects.
pub(super) fn to_numpy<'py>(
    py: Python<'py>,
    ids: &ArrayRef,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let objects = |objects: Vec<Py<PyAny>>| {
        PyArray1::from_vec(py, objects).call_method1("reshape", (shape.to_vec(),))
    };
    downcast_integer_array!(
        ids => Ok(hits::array(py, shape, ids.values().iter().copied())),
        DataType::LargeUtf8 => {
            let text = |id: Option<&str>| PyString::new(py, id.unwrap_or_default()).into_any().unbind();
            objects(ids.as_string::<i64>().iter().map(text).collect())
        }
        _ => {
            let class = uuid(py)?;
            let options = PyDict::new(py);
            let mut all = Vec::with_capacity(ids.len());
            for id in ids.as_fixed_size_binary() {
                options.set_item("bytes", id.unwrap_or_default())?;
                all.push(class.call((), Some(&options))?.unbind());
            }
            objects(all)
        }
    )
}
