//! Array-likes to rows, ids and filters.
//!
//! A C-contiguous array of a supported number type is borrowed; anything else is converted once,
//! by NumPy itself. Nothing here reads a number: `rows.rs` does.

#![allow(unsafe_code)] // the array boundary: an array's pointer, and a DLPack type tag

use std::ffi::c_void;
use std::sync::Arc;

use numpy::{
    PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyException, PyImportError, PyMemoryError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyCapsule, PyCapsuleMethods, PyDict, PyInt};

use crate::rows::{DType, Rows};

/// Rows, the array whose memory they are, whether that is our own, and whether a single vector came.
pub(super) struct Vectors<'py> {
    pub(super) rows: Rows<'static>,
    pub(super) array: Bound<'py, PyUntypedArray>,
    pub(super) own: bool,
    pub(super) single: bool,
}

/// What a conversion may do.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// The argument's name, for messages.
    pub(super) what: &'static str,
    /// The number type to convert to, whatever comes.
    pub(super) dtype: Option<DType>,
    /// Whether a 1-D array is one vector.
    pub(super) single: bool,
    /// Whether the memory must be our own.
    pub(super) copy: bool,
}

/// Whether an error says that a value is wrong: Ctrl-C and a lack of memory are handed on.
pub(super) fn is_of_value(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py)
}

/// Turns an array-like into rows.
pub(super) fn vectors<'py>(object: &Bound<'py, PyAny>, wanted: Wanted) -> PyResult<Vectors<'py>> {
    let mut array = as_array(object, wanted.what)?;
    if array.ndim() == 1 && array.dtype().kind() == b'O' {
        // A column of frames: each item may be a vector.
        let frames = object.py().import("omendb.frames")?;
        array = frames.call_method1("stacked", (&array, wanted.what))?.cast_into()?;
    }
    let mut dtype = borrowable(&array);
    let other = dtype.is_none() || wanted.dtype.is_some_and(|wanted| Some(wanted) != dtype);
    if other {
        (array, dtype) = convert(&array, wanted)?;
    } else if wanted.copy {
        array = array.call_method1("copy", ("C",))?.cast_into()?;
    }
    let dtype = dtype.ok_or_else(|| PyTypeError::new_err("no conversion"))?;
    let shape = array.shape();
    let (len, dim) = match *shape {
        [dim] if wanted.single => (1, dim),
        [len, dim] => (len, dim),
        _ => {
            let expected = if wanted.single { "1 or 2 dimensions" } else { "2 dimensions" };
            return Err(PyValueError::new_err(format!(
                "expected {} to be an array of {expected} (rows, numbers), got {} (shape {})",
                wanted.what,
                shape.len(),
                array.getattr("shape")?
            )));
        }
    };
    let owner: Arc<Py<PyUntypedArray>> = Arc::new(array.clone().unbind());
    // SAFETY: the array is C-contiguous of this type and shape (`borrowable`, or NumPy's own
    // conversion), and the owner keeps it, and with it its memory, alive; NumPy refuses to
    // resize an array that is referenced.
    let rows = unsafe {
        let data = (*array.as_array_ptr()).fields.data.cast_const().cast::<u8>();
        Rows::from_raw(data, len, dim, None, dtype, Some(owner))
    };
    let single = shape.len() == 1;
    Ok(Vectors { rows, array, own: other || wanted.copy, single })
}

/// The number type of an array that can be used where it lies.
fn borrowable(array: &Bound<'_, PyUntypedArray>) -> Option<DType> {
    const ALIGNED: i32 = numpy::npyffi::NPY_ARRAY_ALIGNED;
    let dtype = array.dtype();
    // SAFETY: reads a field of a live array object.
    let aligned = unsafe { (*array.as_array_ptr()).fields.flags } & ALIGNED != 0;
    if !array.is_c_contiguous() || !aligned || dtype.is_native_byteorder() == Some(false) {
        return None;
    }
    match (dtype.kind(), dtype.itemsize()) {
        (b'f', 4) => Some(DType::F32),
        (b'f', 8) => Some(DType::F64),
        (b'f', 2) if !is_bfloat16(&dtype) => Some(DType::F16),
        (b'i', 1) => Some(DType::I8),
        (b'u', 1) => Some(DType::U8),
        (_, 2) if is_bfloat16(&dtype) => Some(DType::BF16),
        _ => None,
    }
}

/// The bfloat16 of `ml_dtypes`, which NumPy numbers among the types it does not know itself.
fn is_bfloat16(dtype: &Bound<'_, PyArrayDescr>) -> bool {
    const USER_TYPES: i32 = 256;
    dtype.num() >= USER_TYPES
        && dtype.getattr("name").is_ok_and(|name| name.eq("bfloat16").unwrap_or(false))
}

/// Any array-like as a NumPy array, without looking at its numbers.
fn as_array<'py>(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = object.py();
    if let Ok(array) = object.cast_exact::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let numpy = py.import(intern!(py, "numpy"))?;
    if object.is_instance_of::<PyUntypedArray>()
        && numpy.getattr("ma")?.call_method1("is_masked", (object,))?.is_truthy()?
    {
        return Err(PyValueError::new_err(format!(
            "expected {what} without masked values: drop or fill in what is masked first"
        )));
    }
    let dlpack = object.hasattr("__dlpack__")?;
    let result = if dlpack && !object.hasattr("__array__")? {
        from_dlpack(&numpy, object)
    } else {
        // torch refuses to convert bfloat16 itself, but exports it.
        numpy
            .call_method1(intern!(py, "asarray"), (object,))
            .or_else(|error| if dlpack { from_dlpack(&numpy, object) } else { Err(error) })
    };
    match result.and_then(|array| array.cast_into::<PyUntypedArray>().map_err(PyErr::from)) {
        Ok(array) => Ok(array),
        Err(error) if error.is_instance_of::<PyValueError>(py) => Err(PyValueError::new_err(
            format!("expected {what} to be a rectangular array of numbers: {}", error.value(py)),
        )),
        Err(error) if is_of_value(py, &error) => Err(PyTypeError::new_err(format!(
            "expected {what} to be an array of numbers, got {}: {}",
            object.get_type().name()?,
            error.value(py)
        ))),
        Err(error) => Err(error),
    }
}

/// Converts what cannot be borrowed: strides, byte order, alignment, other numbers.
fn convert<'py>(
    array: &Bound<'py, PyUntypedArray>,
    wanted: Wanted,
) -> PyResult<(Bound<'py, PyUntypedArray>, Option<DType>)> {
    let py = array.py();
    let numpy = py.import(intern!(py, "numpy"))?;
    let dtype = array.dtype();
    let own = match (dtype.kind(), dtype.itemsize()) {
        _ if is_bfloat16(&dtype) => DType::BF16,
        (b'f', 2) => DType::F16,
        (b'f', 4) => DType::F32,
        (b'i', 1) => DType::I8,
        (b'u', 1) => DType::U8,
        (b'f' | b'i' | b'u' | b'b' | b'O', _) => DType::F64,
        _ => {
            return Err(PyTypeError::new_err(format!(
                "expected {} to be an array of real numbers, got dtype {dtype}",
                wanted.what
            )));
        }
    };
    let refuse = |error: PyErr| {
        if !is_of_value(py, &error) {
            return error;
        }
        let text = format!(
            "expected {} to be an array of real numbers, got dtype {dtype}: {}",
            wanted.what,
            error.value(py)
        );
        if error.is_instance_of::<PyTypeError>(py) {
            PyTypeError::new_err(text)
        } else {
            PyValueError::new_err(text)
        }
    };
    let cast = |array: &Bound<'py, PyAny>, dtype: DType| -> PyResult<Bound<'py, PyAny>> {
        let target = numpy_dtype(py, dtype)?;
        let requirements = if wanted.copy { vec!["C", "A", "O"] } else { vec!["C", "A"] };
        numpy.call_method1("require", (array, target, requirements))
    };
    // First to a type that holds every number that came, then to the one that is wanted.
    let mut out = if own == DType::BF16 && array.dtype().is_native_byteorder() != Some(false) {
        // NumPy knows the type only through ml_dtypes, which gave the array its dtype.
        let copied = array.call_method1("copy", ("C",))?;
        copied.into_any()
    } else {
        cast(array.as_any(), own).map_err(refuse)?
    };
    let dtype = wanted.dtype.unwrap_or(own);
    if dtype != own {
        let exact = out.clone();
        out = if dtype == DType::BF16 || own == DType::BF16 {
            out.call_method1("astype", (numpy_dtype(py, dtype)?,)).map_err(refuse)?
        } else {
            // A number too large for the index's type becomes infinite and is refused with its
            // row; NumPy's warning about it would say less.
            let quiet = PyDict::new(py);
            quiet.set_item("over", "ignore")?;
            quiet.set_item("invalid", "ignore")?;
            let state = numpy.call_method("errstate", (), Some(&quiet))?;
            state.call_method0("__enter__")?;
            let result = out.call_method1("astype", (numpy_dtype(py, dtype)?,));
            state.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
            result.map_err(refuse)?
        };
        check_range(&numpy, &exact, &out, wanted.what)?;
        if matches!(dtype, DType::I8 | DType::U8)
            && !numpy.call_method1("array_equal", (&out, &exact))?.is_truthy()?
        {
            return Err(PyValueError::new_err(format!(
                "expected {} that {} can hold, as the index does; got other numbers",
                wanted.what,
                numpy_dtype(py, dtype)?
            )));
        }
    }
    Ok((out.cast_into::<PyUntypedArray>()?, Some(dtype)))
}

/// Refuses numbers that became infinite on their way to the index's number type.
fn check_range(
    numpy: &Bound<'_, PyModule>,
    exact: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    what: &str,
) -> PyResult<()> {
    if out.getattr("ndim")?.extract::<usize>()? != 2 {
        return Ok(()); // refused for that
    }
    let lost = numpy.call_method1("isinf", (out,))?;
    let lost = lost.call_method1("__and__", (numpy.call_method1("isfinite", (exact,))?,))?;
    if !lost.call_method0("any")?.is_truthy()? {
        return Ok(());
    }
    let place = numpy.call_method1("argwhere", (lost,))?.get_item(0)?.call_method0("tolist")?;
    let place: Vec<usize> = place.extract()?;
    let &[row, column] = place.as_slice() else { return Ok(()) };
    Err(PyValueError::new_err(format!(
        "row {row} of the {what} holds {}, which {}, the number type of the index, cannot hold",
        exact.get_item((row, column))?,
        out.getattr("dtype")?
    )))
}

/// NumPy's dtype of a number type.
pub(super) fn numpy_dtype(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyAny>> {
    let name = match dtype {
        DType::F32 => "float32",
        DType::F64 => "float64",
        DType::F16 => "float16",
        DType::I8 => "int8",
        DType::U8 => "uint8",
        DType::BF16 => {
            let module = py.import("ml_dtypes").map_err(|error| {
                if !error.is_instance_of::<PyImportError>(py) {
                    return error;
                }
                PyTypeError::new_err("bfloat16 arrays need the package ml_dtypes: install it")
            })?;
            return py.import("numpy")?.call_method1("dtype", (module.getattr("bfloat16")?,));
        }
    };
    py.import("numpy")?.call_method1("dtype", (name,))
}

/// A memory exporter by DLPack as an array; bfloat16, which NumPy does not take, included.
fn from_dlpack<'py>(
    numpy: &Bound<'py, PyModule>,
    object: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    numpy.call_method1("from_dlpack", (object,)).or_else(|error| {
        let bits = Py::new(py, Bits { tensor: object.clone().unbind() })?;
        match numpy.call_method1("from_dlpack", (bits,)) {
            Ok(array) => array.call_method1("view", (numpy_dtype(py, DType::BF16)?,)),
            Err(_) => Err(error),
        }
    })
}

/// Exports a bfloat16 tensor as the 16-bit integers that its numbers are.
#[pyclass(frozen)]
struct Bits {
    tensor: Py<PyAny>,
}

/// The head of DLPack's `DLManagedTensor`, as its standard lays it out.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
}

#[pymethods]
impl Bits {
    #[pyo3(signature = (**_options))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        const UNSIGNED: u8 = 1;
        const BFLOAT: u8 = 4;
        let object = self.tensor.bind(py).call_method0("__dlpack__")?;
        let capsule = object.cast::<PyCapsule>()?;
        let tensor = capsule.pointer_checked(Some(c"dltensor"))?.cast::<DlTensor>();
        // SAFETY: a capsule of this name holds a `DLManagedTensor`, by DLPack's standard, which
        // begins with these fields; nobody else has seen this capsule yet.
        let tensor = unsafe { &mut *tensor.as_ptr() };
        if tensor.code != BFLOAT || tensor.bits != 16 || tensor.lanes != 1 {
            return Err(PyTypeError::new_err("not a tensor of bfloat16"));
        }
        tensor.code = UNSIGNED;
        Ok(object)
    }

    fn __dlpack_device__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.tensor.bind(py).call_method0("__dlpack_device__")
    }
}

/// One-dimensional integers.
pub(super) fn ids(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<i64>> {
    let py = object.py();
    let array = as_array(object, what)?;
    let dtype = array.dtype();
    let refuse =
        || PyTypeError::new_err(format!("expected {what} to be integers, got an array of {dtype}"));
    if array.ndim() > 1 {
        return Err(PyValueError::new_err(format!(
            "expected {what} of 1 dimension, got {} (shape {})",
            array.ndim(),
            array.getattr("shape")?
        )));
    }
    match dtype.kind() {
        b'i' => {}
        b'u' => {
            let most = array.call_method("max", (), Some(&initial(py)?))?;
            if most.gt(i64::MAX)? {
                return Err(PyValueError::new_err(format!(
                    "expected {what} below 2**63, got {most}"
                )));
            }
        }
        // An empty list has no numbers to tell its type by.
        _ if array.len() == 0 => return Ok(Vec::new()),
        b'O' => {
            let all_int = array.call_method0("ravel")?.try_iter()?.all(|item| {
                item.is_ok_and(|item| {
                    item.is_instance_of::<PyInt>() && !item.is_instance_of::<PyBool>()
                })
            });
            if !all_int {
                return Err(refuse());
            }
        }
        _ => return Err(refuse()),
    }
    let array = array.call_method1("astype", ("int64",)).map_err(|error| {
        if !is_of_value(py, &error) {
            return error;
        }
        PyValueError::new_err(format!("expected {what} to fit 64 bits: {}", error.value(py)))
    })?;
    let array = array.call_method0("ravel")?;
    Ok(array.cast::<PyArrayDyn<i64>>()?.readonly().as_array().iter().copied().collect())
}

fn initial(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let options = PyDict::new(py);
    options.set_item("initial", 0)?;
    Ok(options)
}

/// The flags of a boolean mask; none where the object is something else.
pub(super) fn mask(object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<bool>>> {
    let mut array = as_array(object, "filter")?;
    if array.ndim() == 1 && array.dtype().kind() == b'O' {
        // Booleans of a column of objects, or beside missing values.
        let frames = object.py().import("omendb.frames")?;
        array = frames.call_method1("booleans", (&array,))?.cast_into()?;
    }
    if array.dtype().kind() != b'b' {
        return Ok(None);
    }
    if array.ndim() != 1 {
        return Err(PyValueError::new_err(format!(
            "expected a boolean filter of 1 dimension, got {} (shape {})",
            array.ndim(),
            array.getattr("shape")?
        )));
    }
    let mask = array.cast::<PyArrayDyn<bool>>()?.readonly();
    Ok(Some(match mask.as_slice() {
        Ok(flags) => flags.to_vec(),
        Err(_) => mask.as_array().iter().copied().collect(),
    }))
}

/// A positive whole number, as a parameter with a default.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) usize);

impl<'a, 'py> FromPyObject<'a, 'py> for Count {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        count(&object, "k").map(Self)
    }
}

/// A positive whole number.
pub(super) fn count(object: &Bound<'_, PyAny>, what: &str) -> PyResult<usize> {
    let py = object.py();
    let refuse = || -> PyErr {
        let name = object.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
        PyTypeError::new_err(format!("expected {what} to be an integer, got {name}"))
    };
    let integer = if object.is_exact_instance_of::<PyInt>() {
        object.clone()
    } else if object.is_instance_of::<PyBool>() {
        return Err(refuse());
    } else {
        object
            .call_method0(intern!(py, "__index__"))
            .map_err(|error| if is_of_value(py, &error) { refuse() } else { error })?
    };
    match integer.extract::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        // More than any index holds: all of it.
        Err(_) if integer.gt(0)? => Ok(usize::MAX),
        _ => Err(PyValueError::new_err(format!("expected {what} of at least 1, got {integer}"))),
    }
}
