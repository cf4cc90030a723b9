//! What a call costs beside its arithmetic: one row of 8 numbers, k = 1, one thread.
//!
//! `cargo bench --bench overhead`. A bare verdict (two rows in float64), `search_into`, `search` and
//! `omen_search` take turns; medians of the rounds, and the differences from the bare verdict.

#![allow(unsafe_code)] // the C interface

use std::hint::black_box;
use std::ptr;
use std::time::Instant;

use omendb::capi::{
    OMEN_OK, omen_add, omen_create, omen_free, omen_search, omen_search_options, omen_set_threads,
};
use omendb::{Hits, Index, Metric, Options, Rows, Run, measure};

const DIM: usize = 8;
const CALLS: usize = 100_000;
const ROUNDS: usize = 21;

/// Nanoseconds of one call.
fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / CALLS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), omendb::Error> {
    let row = [0.5f32; DIM];
    let query = [0.25f32; DIM];
    let index = Index::new(Rows::borrow(&row, DIM)?, Metric::Euclidean)?;
    let mut handle = ptr::null_mut();
    let options: *const omen_search_options = ptr::null();
    // SAFETY: the row has `DIM` numbers.
    unsafe {
        assert_eq!(omen_create(DIM as u64, ptr::null(), &raw mut handle), OMEN_OK);
        assert_eq!(omen_add(handle, row.as_ptr().cast(), 1, ptr::null()), OMEN_OK);
        assert_eq!(omen_set_threads(handle, 1), OMEN_OK);
    }
    let (wide, other) = ([0.25f64; DIM], [0.5f64; DIM]);
    let mut hits = Hits::default();
    let (mut ids, mut distances, mut counts) = ([0i64], [0.0f64], [0u64]);
    let mut rounds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        rounds[0].push(time(|| {
            let (query, row) = (black_box(&wide), black_box(&other));
            black_box(measure::verdict(Metric::Euclidean, query, row));
        }));
        rounds[1].push(time(|| {
            let query = Rows::borrow(black_box(&query), DIM);
            let run = Run::new().threads(1);
            let found = query
                .and_then(|query| index.search_into(&query, 1, Options::new(), run, &mut hits));
            assert!(found.is_ok());
        }));
        rounds[2].push(time(|| {
            let query = Rows::borrow(black_box(&query), DIM);
            assert!(black_box(query.and_then(|query| index.search(&query, 1))).is_ok());
        }));
        rounds[3].push(time(|| {
            // SAFETY: the query has `DIM` numbers, and the arrays room for one answer.
            let status = unsafe {
                omen_search(
                    handle,
                    black_box(&query).as_ptr().cast(),
                    1,
                    1,
                    options,
                    ids.as_mut_ptr(),
                    distances.as_mut_ptr(),
                    counts.as_mut_ptr(),
                )
            };
            assert_eq!(status, OMEN_OK);
        }));
    }
    // SAFETY: it is not used again.
    unsafe { omen_free(handle) };
    let [bare, into, search, c] = rounds.map(median);
    eprintln!("bare verdict {bare:.1} ns; beside it:");
    eprintln!("  search_into {:.1} ns (goal 50)", into - bare);
    eprintln!("  search      {:.1} ns", search - bare);
    eprintln!("  omen_search {:.1} ns (goal 100)", c - bare);
    Ok(())
}
