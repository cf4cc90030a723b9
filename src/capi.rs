//! The C ABI: the `omen_*` symbols, and the only `extern "C"`.
//!
//! `include/omendb.h` is made of this file by cbindgen (`tests/header.rs`), so the comments on public
//! items are its manual, in C's terms; its conventions are in `cbindgen.toml`. Handles are not
//! addresses but numbers that name a place in a table and a generation of that place: what was freed,
//! or never was a handle, is found out without being read. Nothing is validated here that the engine
//! validates; pointers, lengths and the numbers that stand for enums are.

#![allow(unsafe_code)] // the C ABI: callers' pointers
#![allow(non_camel_case_types)] // names as C has them
#![allow(clippy::missing_safety_doc)] // the header's first comment says it once for all
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)] // comments are those of a C header

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::{Error, fault};
use crate::index::{Filter, Hits, Index, Method, Options};
use crate::metric::Metric;
use crate::rows::{DType, Rows};
use crate::threads::{Monitor, Run};

/// How a call ended: `OMEN_OK`, or why not. See omen_last_error for a sentence about it.
pub type omen_status = i32;
/// Done.
pub const OMEN_OK: omen_status = 0;
/// NULL where an index is expected, or an index that was freed, or something else.
pub const OMEN_INVALID_HANDLE: omen_status = 1;
/// An argument outside its range.
pub const OMEN_INVALID_ARGUMENT: omen_status = 2;
/// NaN, an infinity, or a number beyond 1e150 among vectors or queries.
pub const OMEN_BAD_NUMBER: omen_status = 3;
/// A file that the system does not read or write.
pub const OMEN_FILE: omen_status = 4;
/// A file that is not as it was written, or was never written by omendb.
pub const OMEN_DAMAGED: omen_status = 5;
/// The cancel callback asked to stop.
pub const OMEN_CANCELLED: omen_status = 6;
/// A fault of omendb; please report it. The index is as it was.
pub const OMEN_FAULT: omen_status = 7;

/// A distance between two vectors; smaller is closer.
pub type omen_metric = i32;
/// The root of the sum of squared differences.
pub const OMEN_EUCLIDEAN: omen_metric = 0;
/// The sum of squared differences.
pub const OMEN_SQEUCLIDEAN: omen_metric = 1;
/// 1 - cosine, between 0 and 2; 1 when either vector is zero.
pub const OMEN_COSINE: omen_metric = 2;
/// Minus the inner product.
pub const OMEN_INNER_PRODUCT: omen_metric = 3;
/// The sum of absolute differences.
pub const OMEN_MANHATTAN: omen_metric = 4;
/// The largest absolute difference.
pub const OMEN_CHEBYSHEV: omen_metric = 5;

/// The type of the numbers of vectors.
pub type omen_dtype = i32;
/// For a new index OMEN_F32; for queries the type of the index's rows.
pub const OMEN_DEFAULT: omen_dtype = 0;
/// float
pub const OMEN_F32: omen_dtype = 1;
/// double
pub const OMEN_F64: omen_dtype = 2;
/// IEEE 754 half precision
pub const OMEN_F16: omen_dtype = 3;
/// bfloat16, the upper half of a float
pub const OMEN_BF16: omen_dtype = 4;
/// int8_t
pub const OMEN_I8: omen_dtype = 5;
/// uint8_t
pub const OMEN_U8: omen_dtype = 6;

/// How a search finds its answers.
pub type omen_method = i32;
/// Exactly or by the graph, whichever costs less.
pub const OMEN_AUTO: omen_method = 0;
/// By looking at every row.
pub const OMEN_EXACT: omen_method = 1;
/// By walking through the graph, which must have been built.
pub const OMEN_GRAPH: omen_method = 2;

/// What an index is made for. Begin with OMEN_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct omen_options {
    /// sizeof(omen_options), set by OMEN_OPTIONS_INIT.
    pub size: u64,
    /// Bytes from one row to the next in arrays that come to omen_add, omen_borrow and omen_update;
    /// 0 where rows follow each other without gaps.
    pub row_stride: u64,
    /// The distance; OMEN_EUCLIDEAN at first.
    pub metric: omen_metric,
    /// The type of the rows' numbers.
    pub dtype: omen_dtype,
}

/// How to search. Begin with OMEN_SEARCH_OPTIONS_INIT, which asks for all rows by the cheaper way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct omen_search_options {
    /// sizeof(omen_search_options), set by OMEN_SEARCH_OPTIONS_INIT.
    pub size: u64,
    /// About the width of the walk's beam: wider finds more and takes longer. 0: what omen_tune found,
    /// and 1.5 k at least.
    pub effort: u64,
    /// Threads of this call; 0: as omen_set_threads said.
    pub threads: u64,
    /// Bytes from one query to the next; 0 where they follow each other without gaps.
    pub row_stride: u64,
    /// Unless NULL, one bit for each row in the order of omen_ids, the lowest bit of a byte first:
    /// only rows whose bit is set may answer.
    pub filter_bits: *const u8,
    /// Bytes of filter_bits: an eighth of omen_len, rounded up.
    pub n_filter_bytes: u64,
    /// Unless NULL, the ids of the rows that may answer. Not together with filter_bits.
    pub filter_ids: *const i64,
    /// The number of filter_ids; 0 allows no row.
    pub n_filter_ids: u64,
    /// Unless NULL, gets for each query 1 where the answers are proven to be the exact ones, else 0.
    pub exact: *mut u8,
    /// Which way to search; a walk through the graph is for omen_search alone.
    pub method: omen_method,
    /// The type of the queries' numbers.
    pub dtype: omen_dtype,
}

/// How to build a graph. Begin with OMEN_GRAPH_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct omen_graph_options {
    /// sizeof(omen_graph_options), set by OMEN_GRAPH_OPTIONS_INIT.
    pub size: u64,
    /// Chooses the random rows that building starts from. The same seed gives the same graph.
    pub seed: u64,
}

/// Recall and speed of one width of the beam.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct omen_recall_row {
    /// The width.
    pub effort: u64,
    /// The mean share of the true answers that were found.
    pub recall: f64,
    /// The speed of one call with all queries.
    pub queries_per_second: f64,
}

/// What omen_tune measured. Begin with OMEN_RECALL_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct omen_recall_report {
    /// sizeof(omen_recall_report), set by OMEN_RECALL_REPORT_INIT.
    pub size: u64,
    /// The mean recall of the half of the queries that did not choose the effort.
    pub recall: f64,
    /// A bound that the true mean is above, 95 times in 100.
    pub lower_bound: f64,
    /// The width that was chosen, and is the index's own now.
    pub effort: u64,
    /// The number of queries.
    pub queries: u64,
    /// Set by the caller: room for rows about each width that was tried, or NULL.
    pub table: *mut omen_recall_row,
    /// Set by the caller: the number of rows there is room for.
    pub table_capacity: u64,
    /// Rows that there are; no more than table_capacity were written.
    pub table_len: u64,
}

/// What omen_stats tells. Begin with OMEN_STATISTICS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct omen_statistics {
    /// sizeof(omen_statistics), set by OMEN_STATISTICS_INIT.
    pub size: u64,
    /// The number of rows.
    pub len: u64,
    /// The numbers of a row.
    pub dim: u64,
    /// Bytes that the index holds beside the rows' own.
    pub nbytes: u64,
    /// Dimensions that are coded; 0 where rows have no codes.
    pub code_width: u64,
    /// Width of a walk's beam where a search names none.
    pub effort: u64,
    /// The distance.
    pub metric: omen_metric,
    /// The type of the rows' numbers.
    pub dtype: omen_dtype,
    /// 1 where omen_build_graph was called, else 0.
    pub has_graph: i32,
    /// 0.
    pub reserved: i32,
}

/// Asked about every 25 ms during a long call, on the thread that made it, how much is done of the
/// total, and while the call waits for an edit of another thread. Not 0 stops the call.
pub type omen_cancel =
    Option<unsafe extern "C" fn(context: *mut c_void, done: u64, total: u64) -> i32>;

/// Gets the answers of one query of omen_search_radius, nearest first, in arrays that are gone when
/// it returns. Not 0 means: enough; later queries are not told.
pub type omen_found = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        query: u64,
        count: u64,
        ids: *const i64,
        distances: *const f64,
    ) -> i32,
>;

/// Options that carry their size, so that later versions may add to their end.
///
/// # Safety
///
/// `repr(C)`, without padding, beginning with a `u64` that is the size; any bits are a value.
unsafe trait Extensible: Copy {
    /// All zero but the size, which is also the least: none is older.
    const NEW: Self;
}

macro_rules! extensible {
    ($($name:ident { $($field:ident: $zero:expr),* })*) => {
        $(
            // SAFETY: the structs above are so; the last field ends where the struct does.
            unsafe impl Extensible for $name {
                const NEW: Self = Self { size: size_of::<Self>() as u64, $($field: $zero),* };
            }
            const _: () = assert!(offset_of!($name, size) == 0 && size_of::<$name>() % 8 == 0);
        )*
    };
}
extensible! {
    omen_options { row_stride: 0, metric: 0, dtype: 0 }
    omen_search_options {
        effort: 0, threads: 0, row_stride: 0, filter_bits: ptr::null(), n_filter_bytes: 0,
        filter_ids: ptr::null(), n_filter_ids: 0, exact: ptr::null_mut(), method: 0, dtype: 0
    }
    omen_graph_options { seed: 0 }
    omen_recall_report {
        recall: 0.0, lower_bound: 0.0, effort: 0, queries: 0, table: ptr::null_mut(),
        table_capacity: 0, table_len: 0
    }
    omen_statistics {
        len: 0, dim: 0, nbytes: 0, code_width: 0, effort: 0, metric: 0, dtype: 0, has_graph: 0,
        reserved: 0
    }
}

/// More than any version will have.
const LARGEST_STRUCT: u64 = 4096;

/// An index. What it points to is omendb's alone.
pub struct omen_index {
    index: Index<'static>,
    dtype: DType,
    row_stride: usize,
    /// 0 for all processors.
    threads: AtomicU64,
    /// Whether there is a cancel callback: most calls need not wait for the lock.
    cancels: AtomicBool,
    cancel: Mutex<Option<Cancel>>,
}

#[derive(Clone, Copy)]
struct Cancel {
    ask: unsafe extern "C" fn(*mut c_void, u64, u64) -> i32,
    context: *mut c_void,
}

// SAFETY: the pointer is the caller's, who is told that any thread which calls gets it.
unsafe impl Send for Cancel {}

impl Monitor for Cancel {
    fn poll(&mut self, done: u64, total: u64) -> bool {
        ASKING.set(true);
        // SAFETY: whoever set it says that it can be called until another is set.
        let go_on = unsafe { (self.ask)(self.context, done, total) == 0 };
        ASKING.set(false);
        go_on
    }
}

/// Why a call failed.
struct Failure {
    status: omen_status,
    message: String,
}

/// What a function's body gives: small where it fails, so that it comes back in registers.
type Outcome<T = ()> = Result<T, Box<Failure>>;

impl From<Error> for Box<Failure> {
    #[cold]
    fn from(error: Error) -> Self {
        let status = match error {
            Error::DimensionMismatch { .. } | Error::InvalidParameter(_) => OMEN_INVALID_ARGUMENT,
            Error::BadNumber { .. } => OMEN_BAD_NUMBER,
            Error::File { .. } => OMEN_FILE,
            Error::Damaged { .. } => OMEN_DAMAGED,
            Error::Interrupted => OMEN_CANCELLED,
        };
        Self::new(Failure { status, message: error.to_string() })
    }
}

#[cold]
fn invalid<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Failure { status: OMEN_INVALID_ARGUMENT, message: message.into() }))
}

thread_local! {
    /// Whether this thread is in a callback: what that calls asks none, or a long search in it would ask
    /// it again, and so on without end.
    static ASKING: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<CString> = RefCell::default();
    /// Answers of the last search: their memory is used again.
    static HITS: RefCell<Hits> = RefCell::default();
}

/// Answers whose memory a thread keeps for the next search, at most.
const FEW: u64 = 1 << 12;

/// Runs the body of a function: its failures become a status and a message, its panics as well.
#[inline]
fn call(body: impl FnOnce() -> Outcome) -> omen_status {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return OMEN_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Box::new(Failure { status: OMEN_FAULT, message: fault(&*panic) }),
    };
    let text = CString::new(failure.message.replace('\0', " ")).unwrap_or_default();
    // A thread that is ending has no place for it.
    let _ = MESSAGE.try_with(|message| message.replace(text));
    failure.status
}

/// The indexes that there are, by the numbers in their handles.
static TABLE: RwLock<Vec<Place>> = RwLock::new(Vec::new());

struct Place {
    /// Counts the indexes that were here.
    generation: u64,
    index: Option<Arc<omen_index>>,
}

/// Bits of a handle that name the place; the others are its generation.
const PLACE_BITS: u32 = 20;
/// What generations begin with. No address of a process has the highest bit set, and no small number
/// has any of these: neither is taken for a handle.
const FIRST_GENERATION: u64 = 0x9a5_3c0d_71e0;

const _: () = assert!(usize::BITS == 64, "a handle takes 64 bits");

/// Makes a handle for an index.
fn register(index: Index<'static>, dtype: DType, row_stride: usize) -> Outcome<*mut omen_index> {
    let index = omen_index {
        index,
        dtype,
        row_stride,
        threads: AtomicU64::new(0),
        cancels: AtomicBool::new(false),
        cancel: Mutex::new(None),
    };
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    let free = table.iter().position(|place| place.index.is_none());
    let place = free.unwrap_or(table.len());
    if place == 1 << PLACE_BITS {
        return invalid(format!("{place} indexes are open already: free some"));
    }
    if free.is_none() {
        table.push(Place { generation: FIRST_GENERATION, index: None });
    }
    table[place].index = Some(Arc::new(index));
    let handle = table[place].generation << PLACE_BITS | place as u64;
    Ok(ptr::without_provenance_mut(handle as usize))
}

/// The place and the generation in a handle.
fn split(handle: *const omen_index) -> (usize, u64) {
    let handle = handle.addr() as u64;
    ((handle & ((1 << PLACE_BITS) - 1)) as usize, handle >> PLACE_BITS)
}

#[cold]
fn no_index<T>(handle: *const omen_index) -> Outcome<T> {
    let message = if handle.is_null() {
        "expected an index, got NULL"
    } else {
        "expected an index, got one that was freed or a pointer to something else"
    };
    Err(Box::new(Failure { status: OMEN_INVALID_HANDLE, message: message.to_owned() }))
}

/// The index of a handle, which stays while it is in use even if it is freed meanwhile.
#[inline]
fn find(handle: *const omen_index) -> Outcome<Arc<omen_index>> {
    let (place, generation) = split(handle);
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    match table.get(place) {
        Some(Place { generation: there, index: Some(index) }) if *there == generation => {
            Ok(Arc::clone(index))
        }
        _ => no_index(handle),
    }
}

impl omen_index {
    /// Runs `work` on the threads of this call and, where there is a cancel callback, asks it.
    #[inline]
    fn run<T>(&self, threads: u64, work: impl FnOnce(Run<'_>) -> Outcome<T>) -> Outcome<T> {
        let threads = if threads == 0 { self.threads.load(Ordering::Relaxed) } else { threads };
        let mut run = Run::new();
        if threads != 0 {
            run = run.threads(usize::try_from(threads).unwrap_or(usize::MAX));
        }
        if !self.cancels.load(Ordering::Acquire) || ASKING.get() {
            return work(run);
        }
        let mut cancel = *self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut cancel {
            Some(cancel) => work(run.monitor(cancel)),
            None => work(run),
        }
    }

    /// Rows to be kept, in the type and with the stride that the index was made for.
    unsafe fn rows(&self, vectors: *const c_void, n: u64) -> Outcome<Rows<'static>> {
        let (dim, dtype) = (self.index.dim(), self.dtype);
        let stride = stride("vectors", vectors, n, dim, dtype, self.row_stride as u64)?;
        // SAFETY: the caller says that so many rows are there, and keeps them as the header tells.
        Ok(unsafe { Rows::from_raw(vectors.cast(), n as usize, dim, Some(stride), dtype, None) })
    }
}

#[inline]
fn dtype(number: omen_dtype, default: DType) -> Outcome<DType> {
    Ok(match number {
        OMEN_DEFAULT => default,
        OMEN_F32 => DType::F32,
        OMEN_F64 => DType::F64,
        OMEN_F16 => DType::F16,
        OMEN_BF16 => DType::BF16,
        OMEN_I8 => DType::I8,
        OMEN_U8 => DType::U8,
        _ => return invalid(format!("expected a dtype from 0 to {OMEN_U8}, got {number}")),
    })
}

fn dtype_number(dtype: DType) -> omen_dtype {
    match dtype {
        DType::F32 => OMEN_F32,
        DType::F64 => OMEN_F64,
        DType::F16 => OMEN_F16,
        DType::BF16 => OMEN_BF16,
        DType::I8 => OMEN_I8,
        DType::U8 => OMEN_U8,
    }
}

fn metric(number: omen_metric) -> Outcome<Metric> {
    Ok(match number {
        OMEN_EUCLIDEAN => Metric::Euclidean,
        OMEN_SQEUCLIDEAN => Metric::SqEuclidean,
        OMEN_COSINE => Metric::Cosine,
        OMEN_INNER_PRODUCT => Metric::InnerProduct,
        OMEN_MANHATTAN => Metric::Manhattan,
        OMEN_CHEBYSHEV => Metric::Chebyshev,
        _ => return invalid(format!("expected a metric from 0 to {OMEN_CHEBYSHEV}, got {number}")),
    })
}

fn metric_number(metric: Metric) -> omen_metric {
    match metric {
        Metric::Euclidean => OMEN_EUCLIDEAN,
        Metric::SqEuclidean => OMEN_SQEUCLIDEAN,
        Metric::Cosine => OMEN_COSINE,
        Metric::InnerProduct => OMEN_INNER_PRODUCT,
        Metric::Manhattan => OMEN_MANHATTAN,
        Metric::Chebyshev => OMEN_CHEBYSHEV,
    }
}

#[inline]
fn method(number: omen_method) -> Outcome<Method> {
    Ok(match number {
        OMEN_AUTO => Method::Auto,
        OMEN_EXACT => Method::Exact,
        OMEN_GRAPH => Method::Graph,
        _ => return invalid(format!("expected a method from 0 to {OMEN_GRAPH}, got {number}")),
    })
}

/// The caller's options, or new ones.
#[inline]
unsafe fn options<T: Extensible>(pointer: *const T) -> Outcome<T> {
    if pointer.is_null() {
        return Ok(T::NEW);
    }
    // SAFETY: not NULL, so the caller says that the size, and so many bytes, can be read there.
    let size = unsafe { checked_size(pointer)? };
    let mut value = T::NEW;
    let known = size.min(size_of::<T>());
    // SAFETY: as above; `T` may have any bits.
    unsafe {
        ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast(), known);
        let more = pointer.cast::<u8>().add(known);
        if (0..size - known).any(|i| *more.add(i) != 0) {
            return invalid("options of a later version of omendb ask for what this one lacks");
        }
    }
    Ok(value)
}

/// The size in a struct, if it is one.
unsafe fn checked_size<T: Extensible>(pointer: *const T) -> Outcome<usize> {
    // SAFETY: the caller says that a size can be read there.
    let size = unsafe { pointer.cast::<u64>().read_unaligned() };
    if size < size_of::<T>() as u64 || size > LARGEST_STRUCT {
        return invalid(format!(
            "expected a struct that begins with its size, {} or somewhat more, got {size}: begin \
             with its OMEN_..._INIT",
            size_of::<T>()
        ));
    }
    Ok(size as usize)
}

/// Writes what a caller asked for; of a struct of a later version, the part that is known.
unsafe fn give<T: Extensible>(pointer: *mut T, value: T) {
    let size = size_of::<u64>();
    // SAFETY: `checked_size` found room for a `T`; its size stays as the caller set it.
    unsafe {
        ptr::copy_nonoverlapping(
            (&raw const value).cast::<u8>().add(size),
            pointer.cast::<u8>().add(size),
            size_of::<T>() - size,
        );
    }
}

/// Bytes that a process can address on any processor that we know.
const ADDRESSES: u64 = 1 << 56;

/// Bytes of an array, if memory can hold it.
#[inline(always)]
fn extent(what: &str, n: u64, bytes: u64) -> Outcome<usize> {
    match n.checked_mul(bytes) {
        Some(extent) if extent <= ADDRESSES => Ok(extent as usize),
        _ => too_large(what, n, bytes),
    }
}

#[cold]
fn too_large<T>(what: &str, n: u64, bytes: u64) -> Outcome<T> {
    invalid(format!("{n} {what} of {bytes} bytes each are more than memory can hold"))
}

/// Checks that `n` pieces of so many bytes may lie at an address.
#[inline(always)]
fn reach(what: &str, address: *const c_void, n: u64, bytes: u64) -> Outcome {
    let extent = extent(what, n, bytes)?;
    if (n > 0 && address.is_null()) || address.addr().checked_add(extent).is_none() {
        return out_of_reach(what, address, n);
    }
    Ok(())
}

#[cold]
fn out_of_reach<T>(what: &str, address: *const c_void, n: u64) -> Outcome<T> {
    if address.is_null() {
        return invalid(format!("expected {n} {what}, got NULL"));
    }
    invalid(format!(
        "{what}: expected an address that suits the type and has room for {n}, got {address:?}"
    ))
}

/// Checks a pointer to `n` values of a type.
#[inline(always)]
fn array<T>(what: &str, pointer: *const T, n: u64) -> Outcome<usize> {
    reach(what, pointer.cast(), n, size_of::<T>() as u64)?;
    if !pointer.is_aligned() {
        return out_of_reach(what, pointer.cast(), n);
    }
    Ok(n as usize)
}

/// The caller's array.
#[inline(always)]
unsafe fn slice<'a, T>(what: &str, pointer: *const T, n: u64) -> Outcome<&'a [T]> {
    let n = array(what, pointer, n)?;
    if n == 0 {
        return Ok(&[]);
    }
    // SAFETY: not NULL, aligned, of a size that memory can hold; the caller says that it is there.
    Ok(unsafe { std::slice::from_raw_parts(pointer, n) })
}

/// Bytes from one of the caller's vectors to the next, if they may lie where he says.
#[inline(always)]
fn stride(
    what: &str,
    data: *const c_void,
    n: u64,
    dim: usize,
    dtype: DType,
    stride: u64,
) -> Outcome<usize> {
    let width = (dim * dtype.size()) as u64;
    let stride = if stride == 0 { width } else { stride };
    if stride < width {
        return invalid(format!(
            "expected a row_stride of at least {width} bytes ({dim} numbers), got {stride}"
        ));
    }
    if n > u64::from(u32::MAX) {
        return invalid(format!("expected at most 4,294,967,295 {what}, got {n}"));
    }
    reach(what, data, n, stride)?;
    Ok(stride as usize)
}

unsafe fn path<'a>(pointer: *const c_char) -> Outcome<&'a Path> {
    if pointer.is_null() {
        return invalid("expected a path, got NULL");
    }
    // SAFETY: not NULL, so the caller says that it is a string.
    let text = unsafe { CStr::from_ptr(pointer) };
    #[cfg(unix)]
    let name = std::os::unix::ffi::OsStrExt::from_bytes(text.to_bytes());
    #[cfg(not(unix))]
    let name = match text.to_str() {
        Ok(text) => OsStr::new(text),
        Err(_) => return invalid("expected a path in UTF-8"),
    };
    let name: &OsStr = name;
    Ok(Path::new(name))
}

/// Queries, and what is asked of them.
struct Question<'a> {
    queries: Rows<'static>,
    options: Options<'a>,
    threads: u64,
    exact: *mut u8,
}

/// Gives a question to who answers it, rather than back: what was just written waits to be moved.
#[inline(always)]
unsafe fn ask<'a>(
    index: &omen_index,
    queries: *const c_void,
    n: u64,
    options: *const omen_search_options,
    answer: impl FnOnce(&Question<'a>) -> Outcome,
) -> Outcome {
    // SAFETY: handed on.
    let asked = unsafe { self::options(options)? };
    let (dim, dtype) = (index.index.dim(), dtype(asked.dtype, index.dtype)?);
    let stride = stride("queries", queries, n, dim, dtype, asked.row_stride)?;
    let mut options = Options::new().method(method(asked.method)?);
    if asked.effort != 0 {
        options = options.effort(usize::try_from(asked.effort).unwrap_or(usize::MAX));
    }
    let filters = (asked.filter_bits.is_null(), asked.filter_ids.is_null());
    let empty = asked.n_filter_bytes == 0 && asked.n_filter_ids == 0;
    // Asked first, since as a rule there is none: the checks take a tenth of a small search.
    if filters != (true, true) || !empty {
        // SAFETY: handed on.
        let (bits, ids) = unsafe {
            (
                slice("filter_bits", asked.filter_bits, asked.n_filter_bytes)?,
                slice("filter_ids", asked.filter_ids, asked.n_filter_ids)?,
            )
        };
        options = match filters {
            (true, true) => options, // refused above
            (false, true) => options.filter(Filter::Bits(bits)),
            (true, false) => options.filter(Filter::Ids(ids)),
            (false, false) => return invalid("expected filter_bits or filter_ids, got both"),
        };
    }
    if !asked.exact.is_null() {
        array("exact", asked.exact, n)?;
    }
    answer(&Question {
        // SAFETY: the caller says that so many queries are there, and keeps them until this returns.
        queries: unsafe {
            Rows::from_raw(queries.cast(), n as usize, dim, Some(stride), dtype, None)
        },
        options,
        threads: asked.threads,
        exact: asked.exact,
    })
}

/// Writes which answers are exact, where that was asked for.
unsafe fn give_exact(exact: *mut u8, hits: &Hits) {
    if !exact.is_null() {
        for (i, &proven) in hits.exact.iter().enumerate() {
            // SAFETY: the caller says that there is room for each query.
            unsafe { exact.add(i).write(u8::from(proven)) };
        }
    }
}

/// Fails unless a result can be written there.
fn place<T>(what: &str, pointer: *const T) -> Outcome {
    if pointer.is_null() {
        return invalid(format!("expected a place for {what}, got NULL"));
    }
    array(what, pointer, 1)?;
    Ok(())
}

/// Writes a number about an index.
unsafe fn give_number(
    index: *const omen_index,
    what: &str,
    pointer: *mut u64,
    number: fn(&Index<'static>) -> usize,
) -> Outcome {
    let index = find(index)?;
    place(what, pointer)?;
    // SAFETY: `place` looked at it.
    unsafe { pointer.write(number(&index.index) as u64) };
    Ok(())
}

/// Makes an empty index for vectors of dim numbers, and writes its handle to *index. options may be
/// NULL. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_create(
    dim: u64,
    options: *const omen_options,
    index: *mut *mut omen_index,
) -> omen_status {
    call(|| {
        place("the index", index)?;
        // SAFETY: handed on.
        let options = unsafe { self::options(options)? };
        let dtype = dtype(options.dtype, DType::F32)?;
        let width = extent("numbers", dim, dtype.size() as u64)?;
        if options.row_stride != 0 && options.row_stride < width as u64 {
            return invalid(format!(
                "expected a row_stride of 0 or at least {width} bytes ({dim} numbers), got {}",
                options.row_stride
            ));
        }
        let row_stride = extent("rows", 1, options.row_stride)?;
        let made = Index::empty_of(dim as usize, metric(options.metric)?, Some(dtype))?;
        let made = register(made, dtype, row_stride)?;
        // SAFETY: `place` looked at it.
        unsafe { index.write(made) };
        Ok(())
    })
}

/// Ends an index. Calls that other threads are making finish first in peace, but borrowed memory
/// must stay until they have. NULL is nothing to free. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_free(index: *mut omen_index) -> omen_status {
    call(|| {
        if index.is_null() {
            return Ok(());
        }
        let (place, generation) = split(index);
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        let freed = match table.get_mut(place) {
            Some(place) if place.generation == generation && place.index.is_some() => {
                place.generation += 1;
                place.index.take()
            }
            _ => return no_index(index),
        };
        drop(table); // an index may be large, and others wait
        drop(freed);
        Ok(())
    })
}

/// Adds n vectors, which are copied. ids has one for each, all new, or is NULL for the next free
/// ones: 0, 1, 2 and so on. Threads: any, also during searches; edits wait for each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_add(
    index: *mut omen_index,
    vectors: *const c_void,
    n: u64,
    ids: *const i64,
) -> omen_status {
    // SAFETY: handed on.
    call(|| unsafe { add(index, vectors, n, ids, true) })
}

/// As omen_add, but the vectors are used where they lie: they must stay there, unchanged, until
/// the index is freed, and until the calls that were running then have returned. Threads: as
/// omen_add.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_borrow(
    index: *mut omen_index,
    vectors: *const c_void,
    n: u64,
    ids: *const i64,
) -> omen_status {
    // SAFETY: handed on.
    call(|| unsafe { add(index, vectors, n, ids, false) })
}

unsafe fn add(
    index: *mut omen_index,
    vectors: *const c_void,
    n: u64,
    ids: *const i64,
    copy: bool,
) -> Outcome {
    let index = find(index)?;
    // SAFETY: handed on.
    let rows = unsafe { index.rows(vectors, n)? };
    // SAFETY: handed on.
    let ids = if ids.is_null() { None } else { Some(unsafe { slice("ids", ids, n)? }) };
    index.run(0, |run| Ok(index.index.add_rows(rows, copy, ids, run).map(drop)?))
}

/// Removes the rows of n ids, each of which must be there, and once. Threads: as omen_add.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_remove(
    index: *mut omen_index,
    ids: *const i64,
    n: u64,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        // SAFETY: handed on.
        let ids = unsafe { slice("ids", ids, n)? };
        index.run(0, |run| Ok(index.index.remove_with(ids, run)?))
    })
}

/// Gives the rows of n ids, each of which must be there, and once, new vectors, which are copied.
/// Borrowed memory is not written to. Threads: as omen_add.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_update(
    index: *mut omen_index,
    ids: *const i64,
    vectors: *const c_void,
    n: u64,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        // SAFETY: handed on.
        let (ids, rows) = unsafe { (slice("ids", ids, n)?, index.rows(vectors, n)?) };
        index.run(0, |run| Ok(index.index.update_with(ids, &rows, run)?))
    })
}

/// Finds the k rows nearest to each of n_queries, nearest first, equal distances by row. Query i
/// gets counts[i] answers, min(k, rows that may answer), in ids[i * k] and distances[i * k] and
/// what follows; the rest of its k places is left as it was. options may be NULL. Threads: any,
/// also while others search or edit: a search sees the rows before an edit or after it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_search(
    index: *const omen_index,
    queries: *const c_void,
    n_queries: u64,
    k: u64,
    options: *const omen_search_options,
    ids: *mut i64,
    distances: *mut f64,
    counts: *mut u64,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        let Some(answers) = n_queries.checked_mul(k) else {
            return invalid(format!("{n_queries} times {k} answers are more than memory can hold"));
        };
        array("ids", ids, answers)?;
        array("distances", distances, answers)?;
        array("counts", counts, n_queries)?;
        let k = k as usize;
        let answer = |question: &Question<'_>, hits: &mut Hits| {
            let Question { queries, options, threads, exact } = question;
            index.run(*threads, |run| {
                Ok(index.index.search_into(queries, k, *options, run, hits)?)
            })?;
            for i in 0..queries.len() {
                let (found, far) = hits.of(i);
                // SAFETY: the caller says that there is room for `k` answers of each query and for
                // its count; a query has no more than `k`.
                unsafe {
                    ptr::copy_nonoverlapping(found.as_ptr(), ids.add(i * k), found.len());
                    ptr::copy_nonoverlapping(far.as_ptr(), distances.add(i * k), far.len());
                    counts.add(i).write(found.len() as u64);
                }
            }
            // SAFETY: handed on.
            unsafe { give_exact(*exact, hits) };
            Ok(())
        };
        // SAFETY: handed on.
        unsafe {
            ask(&index, queries, n_queries, options, |question| {
                let mut outcome = None;
                if answers <= FEW {
                    // Not where the thread is ending, or in the cancel callback of such a call.
                    let _ = HITS.try_with(|hits| {
                        let mut hits = hits.try_borrow_mut().ok()?;
                        outcome = Some(answer(question, &mut hits));
                        Some(())
                    });
                }
                outcome.unwrap_or_else(|| answer(question, &mut Hits::default()))
            })
        }
    })
}

/// Finds every row at most radius from each of n_queries and tells them to found, query by query,
/// on this thread, when all are answered. options may be NULL; whatever its method and effort, the
/// answers are exact. Threads: as omen_search.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_search_radius(
    index: *const omen_index,
    queries: *const c_void,
    n_queries: u64,
    radius: f64,
    options: *const omen_search_options,
    found: omen_found,
    context: *mut c_void,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        let Some(found) = found else { return invalid("expected a callback, got NULL") };
        let answer = |question: &Question<'_>| {
            let Question { queries, options, threads, exact } = question;
            let hits = index.run(*threads, |run| {
                Ok(index.index.search_radius_with(queries, radius, options.filter, run)?)
            })?;
            // SAFETY: handed on.
            unsafe { give_exact(*exact, &hits) };
            for i in 0..queries.len() {
                let (ids, distances) = hits.of(i);
                let count = ids.len() as u64;
                // SAFETY: the caller says that it can be called.
                let enough =
                    unsafe { found(context, i as u64, count, ids.as_ptr(), distances.as_ptr()) };
                if enough != 0 {
                    break;
                }
            }
            Ok(())
        };
        // SAFETY: handed on.
        unsafe { ask(&index, queries, n_queries, options, answer) }
    })
}

/// Links near rows, so that searches need not look at all of them; edits keep the links up to date.
/// Not for OMEN_MANHATTAN and OMEN_CHEBYSHEV. options may be NULL. Threads: as omen_add.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_build_graph(
    index: *mut omen_index,
    options: *const omen_graph_options,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        // SAFETY: handed on.
        let options = unsafe { self::options(options)? };
        index.run(0, |run| Ok(index.index.build_graph_with(options.seed, run)?))
    })
}

/// Finds the effort that answers with this recall (above 0, up to 1) for k neighbours, compared with
/// exact answers, and makes it the index's own. Where queries is NULL and n_queries 0, points between rows are taken.
/// options (of which threads, row_stride and dtype count) and report may be NULL. Threads: as omen_add.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_tune(
    index: *mut omen_index,
    recall: f64,
    k: u64,
    queries: *const c_void,
    n_queries: u64,
    options: *const omen_search_options,
    report: *mut omen_recall_report,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        let answer = |question: &Question<'_>| {
            let mut asked = omen_recall_report::NEW;
            if !report.is_null() {
                // SAFETY: handed on.
                asked = unsafe { self::options(report.cast_const())? };
                array("rows of the table", asked.table, asked.table_capacity)?;
            }
            let given = (!queries.is_null()).then_some(&question.queries);
            let k = usize::try_from(k).unwrap_or(usize::MAX);
            let tuned = index
                .run(question.threads, |run| Ok(index.index.tune_with(recall, k, given, run)?))?;
            if report.is_null() {
                return Ok(());
            }
            for (i, row) in tuned.table.iter().enumerate().take(asked.table_capacity as usize) {
                let row = omen_recall_row {
                    effort: row.effort as u64,
                    recall: row.recall,
                    queries_per_second: row.queries_per_second,
                };
                // SAFETY: the caller says that there is room for `table_capacity` rows.
                unsafe { asked.table.add(i).write(row) };
            }
            let told = omen_recall_report {
                recall: tuned.recall,
                lower_bound: tuned.lower_bound,
                effort: tuned.effort as u64,
                queries: tuned.queries as u64,
                table_len: tuned.table.len() as u64,
                ..asked
            };
            // SAFETY: `options` looked at its size.
            unsafe { give(report, told) };
            Ok(())
        };
        // SAFETY: handed on.
        unsafe { ask(&index, queries, n_queries, options, answer) }
    })
}

/// Writes the index to a file, which replaces one that is there, or nothing on failure. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_save(index: *const omen_index, path: *const c_char) -> omen_status {
    call(|| {
        let index = find(index)?;
        // SAFETY: handed on.
        let path = unsafe { self::path(path)? };
        index.run(0, |run| Ok(index.index.save_with(path, run)?))
    })
}

/// Opens a file that omen_save, or another face of omendb, wrote, and writes a handle to *index. The
/// file stays mapped: rows are read, and checked, when they are first needed, or all at once where
/// verify is not 0. Vectors and queries have the dtype of the file (omen_stats tells it) and no row_stride.
/// Whoever cuts the file short or writes into it meanwhile ends the process or changes answers; omen_save
/// replaces it, which does neither. Ids of another type and metadata, which files from Python may hold, are
/// left out: the ids are 0 to n - 1 then, and what omen_save writes has neither. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_load(
    path: *const c_char,
    verify: i32,
    index: *mut *mut omen_index,
) -> omen_status {
    call(|| {
        place("the index", index)?;
        // SAFETY: handed on.
        let path = unsafe { self::path(path)? };
        let loaded = Index::load_with(path, verify != 0, Run::new())?;
        let dtype = loaded.dtype().unwrap_or(DType::F32);
        let loaded = register(loaded, dtype, 0)?;
        // SAFETY: `place` looked at it.
        unsafe { index.write(loaded) };
        Ok(())
    })
}

/// Writes the number of rows to *len. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_len(index: *const omen_index, len: *mut u64) -> omen_status {
    // SAFETY: handed on.
    call(|| unsafe { give_number(index, "the length", len, Index::len) })
}

/// Writes the numbers of a vector to *dim. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_dim(index: *const omen_index, dim: *mut u64) -> omen_status {
    // SAFETY: handed on.
    call(|| unsafe { give_number(index, "the dimension", dim, Index::dim) })
}

/// Writes the ids of all rows, in the order that filter_bits is in, to ids, which has room for
/// capacity of them (as many as omen_len says, or more), and their number to *len. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_ids(
    index: *const omen_index,
    ids: *mut i64,
    capacity: u64,
    len: *mut u64,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        place("the length", len)?;
        array("ids", ids, capacity)?;
        let found = index.index.ids();
        if found.len() as u64 > capacity {
            return invalid(format!("expected room for {} ids, got {capacity}", found.len()));
        }
        // SAFETY: the caller says that there is room; `place` looked at `len`.
        unsafe {
            ptr::copy_nonoverlapping(found.as_ptr(), ids, found.len());
            len.write(found.len() as u64);
        }
        Ok(())
    })
}

/// Tells what the index is. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_stats(
    index: *const omen_index,
    stats: *mut omen_statistics,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        place("the statistics", stats)?;
        // SAFETY: not NULL.
        unsafe { checked_size(stats.cast_const())? };
        let engine = &index.index;
        let told = omen_statistics {
            len: engine.len() as u64,
            dim: engine.dim() as u64,
            nbytes: engine.nbytes() as u64,
            code_width: engine.code_width().unwrap_or(0) as u64,
            effort: engine.effort() as u64,
            metric: metric_number(engine.metric()),
            dtype: dtype_number(index.dtype),
            has_graph: i32::from(engine.has_graph()),
            ..omen_statistics::NEW
        };
        // SAFETY: `checked_size` found room.
        unsafe { give(stats, told) };
        Ok(())
    })
}

/// Sets the threads of later calls, the calling one among them; 0 for one per processor, as at
/// first. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_set_threads(index: *mut omen_index, threads: u64) -> omen_status {
    call(|| {
        find(index)?.threads.store(threads, Ordering::Relaxed);
        Ok(())
    })
}

/// Sets what later calls ask whether to stop, and what they give it; NULL for nothing, as at first.
/// Several threads that call ask it at once. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omen_set_cancel(
    index: *mut omen_index,
    cancel: omen_cancel,
    context: *mut c_void,
) -> omen_status {
    call(|| {
        let index = find(index)?;
        let cancel = cancel.map(|ask| Cancel { ask, context });
        let mut there = index.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        *there = cancel;
        index.cancels.store(cancel.is_some(), Ordering::Release);
        Ok(())
    })
}

/// A sentence about why the last call of this thread that failed did so; empty if none has. It lives
/// until the thread's next call. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn omen_last_error() -> *const c_char {
    MESSAGE.try_with(|message| message.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The version of the library, as "1.2.3". Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn omen_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The version of this interface, OMEN_ABI_VERSION of the header it was built with. It is counted up
/// when a program that was compiled before would go wrong. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn omen_abi_version() -> u32 {
    OMEN_ABI_VERSION
}

/// The version of this interface: see omen_abi_version.
pub const OMEN_ABI_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status_with_a_message() {
        assert_eq!(call(|| panic!("of row {}", 7)), OMEN_FAULT);
        // SAFETY: a message lives until the thread's next call.
        let message = unsafe { CStr::from_ptr(omen_last_error()) };
        assert!(message.to_str().unwrap().contains("of row 7"));
    }
}
