//! Rows: a block of vectors in the caller's own memory and number type.
//!
//! The block is borrowed where it lies, so nothing here ever forms a reference to its numbers:
//! a Python user may write into the array from another thread while a search runs, and a
//! reference would promise that nobody does. Rows are copied out one at a time through raw
//! pointers and judged on the copy. A torn number gives a wrong distance for that row, never a
//! fault; the public documentation says so and offers `copy=True`.
//!
//! Rust callers are held to more: a lifetime keeps what was borrowed alive and unchanged.

#![allow(unsafe_code)] // the array boundary: raw reads of memory that an owner keeps alive

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::kernels::float::{FEW_NUMBERS, dispatch};
use crate::kernels::halves;
use crate::region::{Region, Slice};
use crate::scratch::Buffer;

/// Numbers larger than this are refused: their squares, summed, would overflow float64.
pub(crate) const LARGEST: f64 = 1e150;

/// Rows copied at once: they pass through a core's first cache on their way.
const PIECE: usize = 16;

/// The number types that are used where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each name says it all
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    I8,
    U8,
}

impl DType {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }
}

/// A number type of vectors; there are no others.
///
/// ```compile_fail
/// # use omendb::{DType, Element};
/// #[derive(Clone, Copy)]
/// struct Byte(u8);
/// impl Element for Byte {
///     const DTYPE: DType = DType::F64; // eight bytes would be read
/// }
/// ```
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// Its tag.
    const DTYPE: DType;
}

/// Memory is read as the tag says, which nobody else may give.
mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty => $tag:ident),*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Element for $type {
                const DTYPE: DType = DType::$tag;
            }
        )*
    };
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i8 => I8, u8 => U8);

/// Vectors of one width: borrowed for `'a`, or owned.
///
/// ```
/// use omendb::Rows;
///
/// let values = [0.0f32, 0.0, 3.0, 4.0];
/// let rows = Rows::borrow(&values, 2)?;
/// assert_eq!((rows.len(), rows.dim()), (2, 2));
/// # Ok::<(), omendb::Error>(())
/// ```
#[derive(Clone)]
pub struct Rows<'a> {
    data: *const u8,
    len: usize,
    dim: usize,
    /// Bytes from one row to the next.
    stride: usize,
    dtype: DType,
    /// Keeps `data` alive where no borrow does; never looked into.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
    borrowed: PhantomData<&'a [u8]>,
}

// SAFETY: `data` is only read, through raw pointers that assume nothing about its value, and the
// owner that keeps it alive is itself Send and Sync.
unsafe impl Send for Rows<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Rows<'_> {}

impl<'a> Rows<'a> {
    /// Borrows `values`, `dim` to a row.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if `dim` is 0 or does not divide the number of values.
    #[inline]
    pub fn borrow<T: Element>(values: &'a [T], dim: usize) -> Result<Self> {
        let len = cut(values.len(), dim)?;
        // SAFETY: the slice has `len * dim` numbers, and `'a` keeps it.
        Ok(unsafe { Self::from_raw(values.as_ptr().cast(), len, dim, None, T::DTYPE, None) })
    }

    /// Borrows memory that `owner` keeps alive, or the caller does.
    ///
    /// Rows are `stride` bytes apart, or without gaps if none is given.
    ///
    /// # Safety
    ///
    /// `data` points to `len` rows of `dim` numbers of `dtype` (aligned or not) that stay
    /// readable as long as `owner` lives, or `'a` if there is none.
    #[inline]
    pub(crate) unsafe fn from_raw(
        data: *const u8,
        len: usize,
        dim: usize,
        stride: Option<usize>,
        dtype: DType,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        let stride = stride.unwrap_or(dim * dtype.size());
        Self { data, len, dim, stride, dtype, _owner: owner, borrowed: PhantomData }
    }

    /// The same rows for whoever does not let go of them before `'a` ends.
    ///
    /// # Safety
    ///
    /// What comes back, and every clone of it, is dropped before `'a` ends.
    pub(crate) unsafe fn held(self) -> Rows<'static> {
        Rows { borrowed: PhantomData, ..self }
    }

    /// The same rows in memory of their own, without gaps.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if there is not so much memory.
    pub fn copied(&self) -> Result<Rows<'static>> {
        Ok(self.copied_to(&self.room()?, 0))
    }

    /// Memory for a copy of these rows, in large pages where the system has them.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if there is not so much memory.
    pub(crate) fn room(&self) -> Result<Arc<Region>> {
        let piece = self.len.clamp(1, PIECE) * self.row_bytes();
        let region = Region::new(self.len.div_ceil(PIECE), piece);
        let none = || Error::invalid(format!("no memory for {} bytes", self.nbytes()));
        let region = region.ok_or_else(none)?;
        region.join_pages();
        Ok(Arc::new(region))
    }

    /// The same rows, copied to where rows from `start` on lie in a room; `start` is a multiple of
    /// [`PIECE`], and nobody else writes there.
    pub(crate) fn copied_to(&self, room: &Arc<Region>, start: usize) -> Rows<'static> {
        let first = start / PIECE;
        let mut bytes = Vec::new();
        for piece in 0..self.len.div_ceil(PIECE) {
            bytes.clear();
            let rows = piece * PIECE..self.len.min((piece + 1) * PIECE);
            rows.for_each(|row| self.copy_bytes(row, &mut bytes));
            room.fill(first + piece, &bytes);
        }
        let copy = Slice::new(room, first, self.nbytes());
        let copy = copy.unwrap_or_else(|| unreachable!("every piece was written"));
        // SAFETY: the slice has the bytes of `len` whole rows, and is kept.
        unsafe {
            let data = copy.as_ptr();
            Rows::from_raw(data, self.len, self.dim, None, self.dtype, Some(Arc::new(copy)))
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The numbers of one row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The number type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes of all rows, gaps not counted.
    pub fn nbytes(&self) -> usize {
        self.len * self.row_bytes()
    }

    fn row_bytes(&self) -> usize {
        self.dim * self.dtype.size()
    }

    /// The rows `start..start + len` of the same memory.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "rows {start}..{} of {}", start + len, self.len);
        // SAFETY: the offset stays inside the block (asserted above).
        let data = unsafe { self.data.add(start * self.stride) };
        Self { data, len, ..self.clone() }
    }

    /// Appends the raw bytes of row `row` to `bytes`.
    pub(crate) fn copy_bytes(&self, row: usize, bytes: &mut Vec<u8>) {
        let width = self.row_bytes();
        bytes.reserve(width);
        // SAFETY: `row` exists (checked by `row_pointer`), `width` bytes were reserved, and a
        // byte is valid whatever its value.
        unsafe {
            let end = bytes.as_mut_ptr().add(bytes.len());
            std::ptr::copy_nonoverlapping(self.row_pointer(row), end, width);
            bytes.set_len(bytes.len() + width);
        }
    }

    #[inline]
    fn row_pointer(&self, row: usize) -> *const u8 {
        assert!(row < self.len, "row {row} of {}", self.len);
        // SAFETY: the row lies inside the block.
        unsafe { self.data.add(row * self.stride) }
    }

    /// Asks the memory for row `row`, which will be read soon.
    #[inline]
    pub(crate) fn prefetch(&self, row: usize) {
        let pointer = self.row_pointer(row);
        for line in (0..self.row_bytes()).step_by(64) {
            crate::kernels::prefetch(pointer.wrapping_add(line));
        }
    }

    /// Asks the memory for the beginning of row `row`, and so the processor for where its page lies.
    #[inline]
    pub(crate) fn prefetch_start(&self, row: usize) {
        crate::kernels::prefetch(self.row_pointer(row));
    }

    /// Writes row `row` into `out`, widened to float64 without rounding.
    pub(crate) fn read(&self, row: usize, out: &mut [f64]) {
        assert_eq!(out.len(), self.dim);
        self.read_padded::<false>(row, out);
    }

    /// The same with zeros behind it where there is room. Tells whether all numbers are at most
    /// [`LARGEST`], if that is to be `CHECKED`.
    #[inline(never)] // in a caller's loop, what any number type may need would be made ready before it
    pub(crate) fn read_padded<const CHECKED: bool>(&self, row: usize, out: &mut [f64]) -> bool {
        let data = self.row_pointer(row);
        let (numbers, rest) = out.split_at_mut(self.dim);
        rest.fill(0.0);
        // SAFETY: the row exists (checked by `row_pointer`), and `Rows` promises `dim` readable numbers
        // in it, of which `numbers` are as many; every bit pattern is a value of each type.
        unsafe {
            match self.dtype {
                DType::F32 => widen::<CHECKED, f32>(data, numbers, f64::from),
                other => widen_other::<CHECKED>(other, data, numbers),
            }
        }
    }

    /// Checks that every number is finite and that its square will not overflow.
    ///
    /// # Errors
    ///
    /// `BadNumber` with the first row that holds another.
    pub(crate) fn check(&self, what: &'static str) -> Result<()> {
        // Without rows a width may be anything, also beyond memory.
        if self.is_empty() || matches!(self.dtype, DType::I8 | DType::U8) {
            return Ok(());
        }
        let mut row = Buffer::filled(self.dim, 0.0);
        for i in 0..self.len {
            if !self.read_padded::<true>(i, &mut row) {
                return Err(self.bad(what, i));
            }
        }
        Ok(())
    }

    /// Names the number of a row that is not at most [`LARGEST`].
    #[cold]
    pub(crate) fn bad(&self, what: &'static str, row: usize) -> Error {
        let mut numbers = vec![0.0; self.dim];
        self.read(row, &mut numbers);
        let bad = numbers.into_iter().find(|x| !(x.abs() <= LARGEST)).unwrap_or(f64::NAN);
        let advice = if bad.is_finite() {
            "magnitudes above 1e150 overflow when squared: divide the data by a constant"
        } else {
            "drop or impute such rows first, for example with numpy.isfinite(X).all(axis=1)"
        };
        Error::BadNumber { what, row, value: format!("{bad:?}"), advice }
    }
}

impl Rows<'static> {
    /// Owns `values`, `dim` to a row.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if `dim` is 0 or does not divide the number of values.
    pub fn from_vec<T: Element>(values: Vec<T>, dim: usize) -> Result<Self> {
        let len = cut(values.len(), dim)?;
        let data = values.as_ptr().cast();
        // SAFETY: the vector has `len * dim` numbers, and is kept.
        Ok(unsafe { Self::from_raw(data, len, dim, None, T::DTYPE, Some(Arc::new(values))) })
    }

    /// Owns the raw bytes of rows.
    pub(crate) fn from_bytes(bytes: Vec<u8>, dim: usize, dtype: DType) -> Self {
        let (data, len) = (bytes.as_ptr(), bytes.len() / (dim * dtype.size()));
        // SAFETY: the vector has the bytes of `len` whole rows, and is kept.
        unsafe { Self::from_raw(data, len, dim, None, dtype, Some(Arc::new(bytes))) }
    }
}

/// The rows that `values` numbers make.
#[inline]
fn cut(values: usize, dim: usize) -> Result<usize> {
    if dim == 0 || !values.is_multiple_of(dim) {
        return Err(Error::invalid(format!("cannot cut {values} values into rows of {dim}")));
    }
    Ok(values / dim)
}

/// A view whose rows are whole is borrowed; one with other strides is copied.
#[cfg(feature = "ndarray")]
impl<'a, T: Element> TryFrom<ndarray::ArrayView2<'a, T>> for Rows<'a> {
    type Error = Error;

    fn try_from(view: ndarray::ArrayView2<'a, T>) -> Result<Self> {
        let (len, dim) = view.dim();
        if dim == 0 {
            return Err(Error::invalid("expected vectors of at least 1 dimension, got 0"));
        }
        match *view.strides() {
            [stride, inner] if stride >= 0 && (inner == 1 || dim == 1) => {
                let stride = Some(stride as usize * size_of::<T>());
                // SAFETY: the view has `len` rows of `dim` numbers, each `stride` bytes after the
                // one before (which may be none, as where a row is repeated), for `'a`.
                Ok(unsafe {
                    Self::from_raw(view.as_ptr().cast(), len, dim, stride, T::DTYPE, None)
                })
            }
            _ => Rows::from_vec(view.iter().copied().collect(), dim),
        }
    }
}

/// As its view.
#[cfg(feature = "ndarray")]
impl<'a, T: Element, S: ndarray::Data<Elem = T>> TryFrom<&'a ndarray::ArrayBase<S, ndarray::Ix2>>
    for Rows<'a>
{
    type Error = Error;

    fn try_from(array: &'a ndarray::ArrayBase<S, ndarray::Ix2>) -> Result<Self> {
        array.view().try_into()
    }
}

/// [`widen`] for all types but the most common, for which a caller need not jump by a table.
///
/// # Safety
///
/// As many numbers of the type as there are to be written are readable from `data`, aligned or not.
#[inline(never)]
unsafe fn widen_other<const CHECKED: bool>(
    dtype: DType,
    data: *const u8,
    numbers: &mut [f64],
) -> bool {
    // SAFETY: as the caller says; every bit pattern is a value of each type here.
    unsafe {
        match dtype {
            DType::F32 => unreachable!("the caller widens float32"),
            DType::F64 => widen::<CHECKED, f64>(data, numbers, |x| x),
            DType::I8 => widen::<CHECKED, i8>(data, numbers, f64::from),
            DType::U8 => widen::<CHECKED, u8>(data, numbers, f64::from),
            DType::F16 if halves::are_quick() => {
                halves::widen(data.cast(), numbers);
                !CHECKED || numbers.iter().all(|x| x.abs() <= LARGEST)
            }
            DType::F16 => widen::<CHECKED, u16>(data, numbers, |bits| f64::from(half(bits))),
            DType::BF16 => widen::<CHECKED, u16>(data, numbers, |bits| {
                f64::from(f32::from_bits(u32::from(bits) << 16))
            }),
        }
    }
}

/// A loop of its own for each number type: in one for all, all would be made ready for each.
///
/// # Safety
///
/// As many numbers of the type as there are to be written are readable from `data`, aligned or not, and
/// every bit pattern is one.
#[inline(always)]
unsafe fn widen<const CHECKED: bool, T: Copy>(
    data: *const u8,
    numbers: &mut [f64],
    convert: impl Fn(T) -> f64,
) -> bool {
    let data = data.cast::<T>();
    if numbers.len() > FEW_NUMBERS {
        return dispatch(
            #[inline(always)]
            // SAFETY: as the caller says.
            || unsafe { one_by_one::<CHECKED, T>(data, numbers, &convert) },
        );
    }
    // In parts of eight, which one loop over all would take longer to make ready for.
    let (parts, rest) = numbers.as_chunks_mut::<8>();
    let start = 8 * parts.len();
    let mut fine = true;
    for (i, part) in parts.iter_mut().enumerate() {
        // SAFETY: as the caller says; an array lies as its numbers do.
        let eight = unsafe { data.cast::<[T; 8]>().add(i).read_unaligned() };
        *part = eight.map(&convert);
        fine &= !CHECKED || part.iter().all(|x| x.abs() <= LARGEST);
    }
    // SAFETY: as the caller says; the parts before it were read.
    fine & unsafe { one_by_one::<CHECKED, T>(data.add(start), rest, &convert) }
}

/// # Safety
///
/// As of [`widen`].
#[inline(always)]
unsafe fn one_by_one<const CHECKED: bool, T: Copy>(
    data: *const T,
    numbers: &mut [f64],
    convert: &impl Fn(T) -> f64,
) -> bool {
    let mut fine = true;
    for (j, slot) in numbers.iter_mut().enumerate() {
        // SAFETY: as the caller says.
        *slot = convert(unsafe { data.add(j).read_unaligned() });
        fine &= !CHECKED || slot.abs() <= LARGEST;
    }
    fine
}

/// A number of half precision in float32, by operations that a compiler makes vectors of.
#[inline(always)]
fn half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let rebased = magnitude + (112 << 23);
    // Infinity and what is no number have the largest exponent, here as there.
    let special = rebased + (112 << 23);
    // Without an exponent there is no hidden bit: it is set, and taken away again.
    let small = f32::from_bits(rebased + (1 << 23)) - f32::from_bits(113 << 23);
    let value = match magnitude >> 23 {
        31 => special,
        0 => small.to_bits(),
        _ => rebased,
    };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} x {}, {:?})", self.len, self.dim, self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_what_it_should_be() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (half(bits), f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
        }
    }

    #[test]
    fn every_number_type_widens_without_rounding() {
        fn check<T: Element>(values: Vec<T>, expected: &[f64]) {
            let rows = Rows::from_vec(values, expected.len() / 2).unwrap();
            let mut out = vec![0.0; expected.len() / 2];
            rows.slice(1, 1).read(0, &mut out);
            assert_eq!(out, expected[expected.len() / 2..]);
        }
        let floats: Vec<f64> = (0..600).map(|i| f64::from(i % 120) - 60.0).collect();
        check(floats.clone(), &floats);
        check(floats.iter().map(|&x| x as f32).collect(), &floats);
        check(floats.iter().map(|&x| f16::from_f64(x)).collect(), &floats);
        check(floats.iter().map(|&x| bf16::from_f64(x)).collect(), &floats);
        check(floats.iter().map(|&x| x as i8).collect(), &floats);
        let positive: Vec<f64> = floats.iter().map(|x| x + 60.0).collect();
        check(positive.iter().map(|&x| x as u8).collect(), &positive);
    }

    #[test]
    #[cfg(feature = "ndarray")]
    fn views_of_arrays_are_borrowed_where_their_rows_are_whole() {
        use ndarray::{Array2, s};
        let array = Array2::from_shape_fn((4, 6), |(i, j)| (10 * i + j) as f32);
        let check = |view: ndarray::ArrayView2<'_, f32>, borrowed: bool| {
            let rows = Rows::try_from(view).unwrap();
            assert_eq!(rows.data == view.as_ptr().cast(), borrowed);
            assert_eq!((rows.len(), rows.dim()), view.dim());
            let mut out = vec![0.0; rows.dim()];
            for (i, expected) in view.rows().into_iter().enumerate() {
                rows.read(i, &mut out);
                let expected: Vec<f64> = expected.iter().copied().map(f64::from).collect();
                assert_eq!(out, expected);
            }
            let copy = rows.slice(1, rows.len() - 1).copied().unwrap();
            copy.read(0, &mut out);
            assert_eq!(out[..1], [f64::from(view[[1, 0]])]);
        };
        check(array.view(), true);
        check(array.slice(s![..;2, 1..4]), true);
        check(array.slice(s![.., 3..4]), true);
        check(array.slice(s![..;-1, ..]), false);
        check(array.slice(s![.., ..;2]), false);
        check(array.t(), false);
        assert!(Rows::try_from(array.slice(s![.., 0..0])).is_err());
        assert_eq!(Rows::try_from(&array).unwrap().nbytes(), 96);
    }

    #[test]
    fn copies_in_one_room_have_the_rows_of_each_block() {
        let values: Vec<f64> = (0..3 * 45).map(f64::from).collect();
        let rows = Rows::borrow(&values, 3).unwrap().slice(2, 43);
        let room = rows.room().unwrap();
        let blocks = [(32, 11), (0, 32)].map(|(start, len)| {
            let copy = rows.slice(start, len).copied_to(&room, start);
            (start, copy)
        });
        drop((rows, room));
        let mut out = [0.0; 3];
        for (start, block) in blocks {
            for row in 0..block.len() {
                block.read(row, &mut out);
                let first = 3 * (2 + start + row);
                assert_eq!(out[..], values[first..first + 3]);
            }
        }
    }

    #[test]
    fn no_rows_take_no_memory_however_wide_they_are() {
        for dim in [1, 3, usize::MAX / 8] {
            let none = Rows::borrow(&[0.0f64; 0], dim).unwrap();
            none.check("vectors").unwrap();
            assert_eq!(none.copied().unwrap().len(), 0);
        }
    }

    #[test]
    fn the_first_bad_row_is_named() {
        for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e200] {
            let mut values = vec![1.0; 30];
            values[17] = bad;
            values[29] = f64::NAN;
            let error = Rows::from_vec(values, 3).unwrap().check("vectors").unwrap_err();
            assert!(error.to_string().starts_with("row 5 of the vectors holds"), "{error}");
        }
    }
}
