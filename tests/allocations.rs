//! One query after another takes nothing from the heap, and what an index takes it gives back.

#![allow(unsafe_code)] // an allocator that counts, and the C interface

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use omendb::capi::{
    OMEN_OK, omen_add, omen_build_graph, omen_create, omen_free, omen_index, omen_search,
    omen_search_options,
};
use omendb::{Hits, Index, Method, Metric, Options, Rows, Run};

/// Counts how often this thread takes something, and what all of them still hold.
struct Counting;

thread_local! {
    /// A search on one thread runs where it is called. Others, the test runner's, take things meanwhile.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}
static BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tests of this file take turns: bytes are counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

const DIM: usize = 32;
const WARM: usize = 200;
const CALLS_COUNTED: usize = 100;

fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// What `search(query)` takes from the heap once it is warm.
fn taken(mut search: impl FnMut(&[f32])) -> u64 {
    let queries = numbers((WARM + CALLS_COUNTED) * DIM);
    let (warm, counted) = queries.split_at(WARM * DIM);
    warm.chunks_exact(DIM).for_each(&mut search);
    let before = CALLS.get();
    counted.chunks_exact(DIM).for_each(&mut search);
    CALLS.get() - before
}

#[test]
fn one_query_after_another_takes_nothing_from_the_heap() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let x = numbers(5000 * DIM);
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan] {
        for rows in [1, 100, 5000] {
            let index = Index::new(Rows::borrow(&x[..rows * DIM], DIM).unwrap(), metric).unwrap();
            let mut methods = vec![Method::Auto, Method::Exact];
            if metric != Metric::Manhattan {
                index.build_graph(0).unwrap();
                methods.push(Method::Graph);
            }
            for method in methods {
                let mut hits = Hits::default();
                let count = taken(|query| {
                    let query = Rows::borrow(query, DIM).unwrap();
                    let options = Options::new().method(method);
                    let run = Run::new().threads(1);
                    index.search_into(&query, 10, options, run, &mut hits).unwrap();
                });
                assert_eq!(count, 0, "{metric} among {rows} rows, {method:?}");
                assert_eq!(hits.ids.len(), rows.min(10));
            }
        }
    }
}

unsafe fn search(index: *const omen_index, query: &[f32], options: *const omen_search_options) {
    let (mut ids, mut distances, mut counts) = ([0; 10], [0.0; 10], [0]);
    // SAFETY: the arrays have room for the ten answers of one query.
    let status = unsafe {
        omen_search(
            index,
            query.as_ptr().cast::<c_void>(),
            1,
            10,
            options,
            ids.as_mut_ptr(),
            distances.as_mut_ptr(),
            counts.as_mut_ptr(),
        )
    };
    assert_eq!((status, counts[0]), (OMEN_OK, 10));
}

#[test]
fn what_an_index_takes_it_gives_back() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let x = numbers(3000 * DIM);
    let options = omen_search_options {
        size: size_of::<omen_search_options>() as u64,
        effort: 0,
        threads: 1,
        row_stride: 0,
        filter_bits: ptr::null(),
        n_filter_bytes: 0,
        filter_ids: ptr::null(),
        n_filter_ids: 0,
        exact: ptr::null_mut(),
        method: 0,
        dtype: 0,
    };
    let mut held = Vec::new();
    for round in 0..4 {
        let mut index = ptr::null_mut();
        // SAFETY: vectors and results are where the calls are told; the index is freed once.
        unsafe {
            assert_eq!(omen_create(DIM as u64, ptr::null(), &raw mut index), OMEN_OK);
            assert_eq!(omen_add(index, x.as_ptr().cast(), 3000, ptr::null()), OMEN_OK);
            assert_eq!(omen_build_graph(index, ptr::null()), OMEN_OK);
            let count = taken(|query| search(index, query, &raw const options));
            assert_eq!(count, 0, "calls of the C interface, in round {round}");
            assert_eq!(omen_free(index), OMEN_OK);
        }
        held.push(BYTES.load(Ordering::Relaxed));
    }
    // The first rounds fill what threads keep.
    assert!((held[3] - held[1]).abs() < 50_000, "held after each round: {held:?}");
}
