//! Columns as a table keeps them: of a few types, and in memory of their own.
//!
//! All parts of a categorical column share one dictionary, in which each value is once and none is
//! null, as pandas wants it. Arrow's kernels promise neither where they put dictionaries together, so
//! they are given the keys alone.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, make_array, new_empty_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_data::transform::MutableArrayData;
use arrow_schema::{ArrowError, DataType, Field};
use arrow_select::concat::concat;
use arrow_select::interleave::interleave;

use super::refused;
use crate::error::{Error, Result};

/// The first row that is null.
pub(crate) fn null_row(column: &dyn Array) -> Option<usize> {
    let nulls = column.logical_nulls().filter(|nulls| nulls.null_count() > 0)?;
    (0..nulls.len()).find(|&row| nulls.is_null(row))
}

/// The type that a column of this type is kept in.
fn kept_type(data_type: &DataType) -> Option<DataType> {
    use DataType as T;
    match data_type {
        T::Utf8 | T::LargeUtf8 | T::Utf8View => Some(T::LargeUtf8),
        T::Binary | T::LargeBinary | T::BinaryView => Some(T::LargeBinary),
        T::Dictionary(_, values) => {
            let values = kept_type(values).filter(|values| !values.is_nested())?;
            let plain = !matches!(values, T::Dictionary(..) | T::Null);
            plain.then(|| T::Dictionary(Box::new(T::Int32), Box::new(values)))
        }
        T::Null
        | T::Boolean
        | T::Float16
        | T::Float32
        | T::Float64
        | T::Timestamp(..)
        | T::Date32
        | T::Date64
        | T::Time32(_)
        | T::Time64(_)
        | T::Duration(_)
        | T::FixedSizeBinary(_)
        | T::Decimal128(..) => Some(data_type.clone()),
        other if other.is_integer() => Some(other.clone()),
        _ => None,
    }
}

/// The description of a column as it is kept.
///
/// # Errors
///
/// `InvalidParameter` if columns of its type are not kept.
pub(crate) fn kept(field: &Field) -> Result<Field> {
    let data_type = kept_type(field.data_type()).ok_or_else(|| {
        Error::invalid(format!(
            "the column '{}' is of type {}, which is not kept as metadata: leave the column out, or \
             make strings or plain columns of it",
            field.name(),
            field.data_type()
        ))
    })?;
    Ok(field.clone().with_data_type(data_type).with_nullable(true))
}

/// A column in another type.
///
/// # Errors
///
/// `InvalidParameter` if that type does not hold a value of it.
pub(crate) fn cast(column: &dyn Array, data_type: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, data_type, &options).map_err(refused)
}

/// The chunks of a column together, in the type that it is kept in and in memory of its own.
///
/// # Errors
///
/// `InvalidParameter` if columns of its type are not kept.
pub(crate) fn keep(field: &Field, chunks: &[ArrayRef]) -> Result<(Field, ArrayRef)> {
    let field = kept(field)?;
    let chunks = chunks.iter().map(|chunk| cast(chunk, field.data_type()));
    let chunks = chunks.collect::<Result<Vec<_>>>()?;
    let column = match chunks.as_slice() {
        [] => new_empty_array(field.data_type()),
        [one] => copied(one)?,
        many => {
            let many: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
            concat(&many).map_err(refused)?
        }
    };
    let column = if is_dictionary(&column) { extended(None, &column)? } else { column };
    Ok((field, column))
}

/// The same values in memory of their own.
fn copied(column: &ArrayRef) -> Result<ArrayRef> {
    let data = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len()).map_err(refused)?;
    Ok(make_array(copy.freeze()))
}

/// Whether a column is one of categories.
pub(crate) fn is_dictionary(column: &ArrayRef) -> bool {
    matches!(column.data_type(), DataType::Dictionary(..))
}

/// The values of a categorical column.
pub(crate) fn dictionary(column: &ArrayRef) -> &ArrayRef {
    column.as_any_dictionary().values()
}

/// A categorical column whose dictionary begins with that of `before`, if there is one, and holds each
/// value once.
///
/// # Errors
///
/// `InvalidParameter` if there are more categories than keys.
pub(crate) fn extended(before: Option<&ArrayRef>, column: &ArrayRef) -> Result<ArrayRef> {
    let column = column.as_dictionary::<Int32Type>();
    let sources: Vec<&ArrayRef> = before.into_iter().chain([column.values()]).collect();
    let mut places: HashMap<Vec<u8>, i32> = HashMap::new();
    let mut chosen = Vec::new();
    let mut keys = Vec::new();
    for (number, values) in sources.iter().enumerate() {
        let bytes = value_bytes(values)?;
        let valid = |i: usize| !values.is_null(i);
        keys = (0..values.len())
            .map(|i| {
                valid(i).then(|| {
                    let next = places.len() as i32;
                    *places.entry(bytes(i)).or_insert_with(|| {
                        chosen.push((number, i));
                        next
                    })
                })
            })
            .collect();
    }
    let new_keys = column.keys().iter().map(|key| key.and_then(|key| keys[key as usize]));
    let new_keys: Int32Array = new_keys.collect();
    let values = match before {
        Some(before) if chosen.len() == before.len() => Arc::clone(before),
        _ if chosen.is_empty() => new_empty_array(column.values().data_type()),
        _ => {
            let sources: Vec<&dyn Array> = sources.iter().map(AsRef::as_ref).collect();
            interleave(&sources, &chosen).map_err(refused)?
        }
    };
    with_values(&new_keys, &values)
}

/// The bytes of a value, which are those of equal values alone.
fn value_bytes(values: &ArrayRef) -> Result<Box<dyn Fn(usize) -> Vec<u8> + '_>> {
    Ok(match values.data_type() {
        DataType::LargeUtf8 => {
            let values = values.as_string::<i64>();
            Box::new(|i| values.value(i).as_bytes().to_vec())
        }
        DataType::LargeBinary => {
            let values = values.as_binary::<i64>();
            Box::new(|i| values.value(i).to_vec())
        }
        DataType::Boolean => {
            let values = values.as_boolean();
            Box::new(|i| vec![u8::from(values.value(i))])
        }
        data_type => {
            let width = match data_type {
                DataType::FixedSizeBinary(width) => Some(*width as usize),
                other => other.primitive_width(),
            };
            let width =
                width.ok_or_else(|| Error::invalid(format!("no categories of {data_type}")))?;
            let data = values.to_data();
            Box::new(move |i| {
                let start = (data.offset() + i) * width;
                data.buffers()[0][start..start + width].to_vec()
            })
        }
    })
}

/// A categorical column of these keys.
///
/// # Errors
///
/// `InvalidParameter` if a key has no value.
pub(crate) fn with_values(keys: &dyn Array, values: &ArrayRef) -> Result<ArrayRef> {
    let keys = keys.as_primitive::<Int32Type>().clone();
    let column = DictionaryArray::<Int32Type>::try_new(keys, Arc::clone(values));
    Ok(Arc::new(column.map_err(refused)?))
}

/// What a kernel makes of the same column of several parts, whose dictionaries are one.
///
/// # Errors
///
/// `InvalidParameter` if the kernel fails.
pub(crate) fn joined(
    parts: &[&ArrayRef],
    kernel: impl Fn(&[&dyn Array]) -> std::result::Result<ArrayRef, ArrowError>,
) -> Result<ArrayRef> {
    if !is_dictionary(parts[0]) {
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        return kernel(&parts).map_err(refused);
    }
    let keys: Vec<&dyn Array> =
        parts.iter().map(|part| part.as_dictionary::<Int32Type>().keys() as &dyn Array).collect();
    with_values(&kernel(&keys).map_err(refused)?, dictionary(parts[0]))
}

/// What a column means, whatever its width: values of one class may be converted into each other.
fn class(data_type: &DataType) -> DataType {
    use DataType as T;
    match data_type {
        T::Dictionary(_, values) => class(values),
        T::Timestamp(_, zone) => T::Timestamp(arrow_schema::TimeUnit::Nanosecond, zone.clone()),
        T::Duration(_) => T::Duration(arrow_schema::TimeUnit::Nanosecond),
        T::Date32 | T::Date64 => T::Date64,
        T::Time32(_) | T::Time64(_) => T::Time64(arrow_schema::TimeUnit::Nanosecond),
        other if other.is_numeric() => T::Float64,
        other => other.clone(),
    }
}

/// A column that is to follow a kept one, in its type and in memory of its own.
///
/// Numbers, times and categories are converted where nothing is lost, and a column of nulls is one of
/// any type.
///
/// # Errors
///
/// `InvalidParameter` if it is of another type, or a value would not be the same.
pub(crate) fn adapt(field: &Field, to: &Field, chunks: &[ArrayRef]) -> Result<ArrayRef> {
    let (_, column) = keep(field, chunks)?;
    if column.data_type() == to.data_type() {
        return Ok(column);
    }
    let refuse = |what: &str| {
        Error::invalid(format!(
            "expected the column '{}' to be of type {}, as in the index, got {}{what}",
            to.name(),
            to.data_type(),
            field.data_type()
        ))
    };
    let null = *column.data_type() == DataType::Null;
    if !null && class(column.data_type()) != class(to.data_type()) {
        return Err(refuse(""));
    }
    let lost = || refuse(" with values that it cannot hold");
    let adapted = cast(&column, to.data_type()).map_err(|_| lost())?;
    if !null {
        let back = cast(&adapted, column.data_type()).map_err(|_| lost())?;
        if !same(&back, &column) {
            return Err(lost());
        }
    }
    Ok(adapted)
}

/// Whether two columns of one type hold the same values, whatever the order of their categories.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    let plain = |column: &ArrayRef| match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values),
        _ => Ok(Arc::clone(column)),
    };
    matches!((plain(a), plain(b)), (Ok(a), Ok(b)) if a.to_data() == b.to_data())
}
