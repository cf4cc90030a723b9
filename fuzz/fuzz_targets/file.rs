//! Opens any bytes as a file and touches all of it: refused or read, never a fault.
//!
//! Under `cargo fuzz` checksums are computed but not compared (see `matches` in
//! `src/file/format.rs`): no fuzzer guesses one, and what lies behind must stand without it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = omendb::fuzzing::file(bytes);
});
