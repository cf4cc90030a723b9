//! Columns as Arrow arrays: cut to what their rows need when written, and checked when read.
//!
//! An array is written without its offset: bits are moved to the first place, offsets begin at 0, and
//! bytes that no row names are left out. Both ways the same is checked, so that nothing is written
//! that would be refused when it is read.

use std::ops::Sub;
use std::result;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, DecimalType, validate_decimal_precision_and_scale as validate_decimal,
};
use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, MutableBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field};

use super::format::shown;
use super::read::Mapped;
use super::write::{Column, Source};
use super::{BLOCK, Form, Shape, is_dictionary};
use crate::error::{Error, Result};
use crate::threads::Worker;

impl Column<'static> {
    /// A column of an array's values.
    ///
    /// # Errors
    ///
    /// `InvalidParameter`, naming the column, if it is of a type that a file does not hold, or does
    /// not hold what its field says.
    pub(crate) fn of_array(field: Field, array: &dyn Array) -> Result<Self> {
        let name = shown(field.name());
        let shape = Shape::new(field).filter(|shape| !matches!(shape.form, Form::List(..)));
        let shape = shape.ok_or_else(|| {
            Error::invalid(format!(
                "column {name} is of type {}, which a file does not hold: convert it to numbers, text \
                 or bytes, or leave it out",
                array.data_type()
            ))
        })?;
        check(&shape.field, array)
            .map_err(|what| Error::invalid(format!("column {name} cannot be saved: {what}")))?;
        Ok(Self::cut(shape, array))
    }

    /// The same for a checked array.
    fn cut(mut shape: Shape, array: &dyn Array) -> Self {
        let mut buffers = Vec::new();
        if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
            shape.nulls = nulls.null_count();
            buffers.push(bits(nulls.inner()));
        }
        let mut dictionary = None;
        let mut data = array.to_data();
        if let Some(all) = array.as_any_dictionary_opt() {
            data = all.keys().to_data();
            let values = shape.dictionary().map(|shape| Self::cut(shape, all.values()));
            dictionary = values.map(|values| (all.values().len(), Box::new(values)));
        }
        match shape.form {
            Form::Nothing | Form::List(..) => {}
            Form::Bits => buffers.push(bits(array.as_boolean().values())),
            Form::Fixed(size) => {
                let bytes = data.offset() * size..(data.offset() + data.len()) * size;
                buffers.push(data.buffers()[0].slice_with_length(bytes.start, bytes.len()));
            }
            Form::Variable(size) => {
                let (offsets, bytes) =
                    if size == 4 { offsets::<i32>(&data) } else { offsets::<i64>(&data) };
                shape.bytes = bytes.len();
                buffers.extend([offsets, bytes]);
            }
        }
        let sources = buffers.into_iter().map(pieces).collect();
        Self { shape, sources, dictionary }
    }
}

/// The bits, from the first of a byte on, and zeros behind the last.
fn bits(bits: &BooleanBuffer) -> Buffer {
    let mut bytes = bits.sliced().to_vec();
    if let Some(last) = bytes.last_mut().filter(|_| !bits.len().is_multiple_of(8)) {
        *last &= (1 << (bits.len() % 8)) - 1;
    }
    bytes.into()
}

/// Offsets from 0 on, and the bytes between them.
fn offsets<T: ArrowNativeType + Sub<Output = T>>(data: &ArrayData) -> (Buffer, Buffer) {
    let offsets = &data.buffer::<T>(0)[..=data.len()];
    let (first, last) = (offsets[0], offsets[data.len()]);
    let bytes = data.buffers()[1].slice_with_length(first.as_usize(), (last - first).as_usize());
    (offsets.iter().map(|&offset| offset - first).collect::<Vec<T>>().into(), bytes)
}

fn pieces(buffer: Buffer) -> Source<'static> {
    let mut done = 0;
    Box::new(move |bytes| {
        let end = buffer.len().min(done + BLOCK);
        bytes.extend(&buffer[done..end]);
        done = end;
    })
}

/// Checks that an array holds what its field says.
///
/// # Errors
///
/// What is wrong, in a sentence.
fn check(field: &Field, array: &dyn Array) -> result::Result<(), String> {
    if array.data_type() != field.data_type() {
        return Err(format!("its values are {}, not {}", array.data_type(), field.data_type()));
    }
    array.to_data().validate_full().map_err(|error| error.to_string())?;
    check_rest(field, array)
}

/// What Arrow does not look at itself: nulls where none may be, and the digits of decimals.
fn check_rest(field: &Field, array: &dyn Array) -> result::Result<(), String> {
    let nulls = if field.is_nullable() { 0 } else { array.logical_null_count() };
    if nulls > 0 {
        return Err(format!("{nulls} of its values are null, and it says that none is"));
    }
    check_digits(array)
}

fn check_digits(array: &dyn Array) -> result::Result<(), String> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        return check_digits(dictionary.values());
    }
    let &DataType::Decimal128(precision, scale) = array.data_type() else { return Ok(()) };
    validate_decimal::<Decimal128Type>(precision, scale)
        .and_then(|()| {
            let mut values = array.as_primitive::<Decimal128Type>().iter().flatten();
            values.try_for_each(|value| {
                Decimal128Type::validate_decimal_precision(value, precision, scale)
            })
        })
        .map_err(|error| error.to_string())
}

impl Mapped {
    /// The numbers of the columns but those of the names `but`.
    pub(crate) fn others(&self, but: &[&str]) -> Vec<usize> {
        let name = |&column: &usize| self.field(column).name().as_str();
        self.columns().filter(|column| !but.contains(&name(column))).collect()
    }

    /// What a column is.
    pub(crate) fn field(&self, column: usize) -> &Field {
        &self.parts.shapes[column].field
    }

    /// The bytes of a column and its dictionary.
    pub(crate) fn size(&self, column: usize) -> usize {
        let dictionary = self.dictionary(column).map(|dictionary| self.size(dictionary));
        let buffers = &self.parts.buffers[self.buffers(column)];
        buffers.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + dictionary.unwrap_or(0)
    }

    /// A copy of a column of any type but lists, verified.
    ///
    /// # Errors
    ///
    /// `Damaged`, naming the column, if a checksum does not match or what is there is no such array;
    /// `Interrupted` if the worker is to stop.
    pub(crate) fn array(&self, column: usize, worker: &Worker<'_>) -> Result<ArrayRef> {
        let array = make_array(self.array_data(column, self.rows(), worker)?);
        check_rest(self.field(column), &array).map_err(|what| self.senseless(column, &what))?;
        Ok(array)
    }

    fn senseless(&self, column: usize, what: &str) -> Error {
        let name = self.field(column).name();
        Error::damaged(
            &self.path,
            Some(name),
            format!("column {} makes no sense: {what}", shown(name)),
        )
    }

    /// The shape of a column's dictionary.
    fn dictionary(&self, column: usize) -> Option<usize> {
        let is_coded = |column: usize| is_dictionary(self.field(column).data_type());
        is_coded(column).then(|| (self.columns().start..column).filter(|&c| is_coded(c)).count())
    }

    fn array_data(&self, column: usize, rows: usize, worker: &Worker<'_>) -> Result<ArrayData> {
        let shape = &self.parts.shapes[column];
        let data_type = shape.field.data_type().clone();
        let mut buffers = Vec::new();
        for buffer in self.buffers(column) {
            buffers.push(self.copy_buffer(buffer, worker)?);
        }
        let nulls = (shape.nulls > 0).then(|| buffers.remove(0));
        let mut data = ArrayData::builder(data_type).len(rows).null_bit_buffer(nulls);
        data = data.buffers(buffers);
        if let Some(dictionary) = self.dictionary(column) {
            let values = self.parts.dictionaries[dictionary];
            data = data.add_child_data(self.array_data(dictionary, values, worker)?);
        }
        let data = data.build().map_err(|error| self.senseless(column, &error.to_string()))?;
        if data.null_count() != shape.nulls {
            let what = format!("{} of its values are null, not {}", data.null_count(), shape.nulls);
            return Err(self.senseless(column, &what));
        }
        Ok(data)
    }

    fn copy_buffer(&self, buffer: usize, worker: &Worker<'_>) -> Result<Buffer> {
        let bytes = self.parts.buffers[buffer].1.clone();
        let mut copy = MutableBuffer::from_len_zeroed(bytes.len());
        for (piece, start) in copy.chunks_mut(BLOCK).zip((0..).step_by(BLOCK)) {
            self.verify_buffer(buffer, start..start + piece.len())?;
            self.map.copy(bytes.start + start, piece);
            if !worker.advance(piece.len() as u64) {
                return Err(Error::Interrupted);
            }
        }
        Ok(copy.into())
    }
}
