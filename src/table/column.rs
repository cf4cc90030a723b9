//! Columns as a table keeps them: of a few types, and in memory of their own.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, make_array, new_empty_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_data::transform::MutableArrayData;
use arrow_schema::{DataType, Field};
use arrow_select::concat::concat;

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
    Ok((field, column))
}

/// The same values in memory of their own.
fn copied(column: &ArrayRef) -> Result<ArrayRef> {
    let data = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len()).map_err(refused)?;
    Ok(make_array(copy.freeze()))
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
