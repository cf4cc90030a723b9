//! A file's bytes in memory; the one place where raw memory is read.
//!
//! Nobody can promise that another program leaves a mapped file alone, so no reference to its
//! bytes is ever formed: they are copied out through raw pointers and used as a copy, as the
//! user's own arrays are (see `rows.rs`). A checksum is taken over such copies, a few KiB at a
//! time: 8 GB/s from main memory rather than 12 on a Zen 4.

#![allow(unsafe_code)] // the file boundary: raw reads of mapped memory

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::MmapOptions;

use super::ALIGN;

/// Bytes copied at once for a checksum: they stay in the first-level cache.
const PIECE: usize = 8 * 1024;

/// Bytes that stay readable as long as this lives.
pub(super) struct Map {
    data: *const u8,
    len: usize,
    /// Keeps `data` alive; never looked into.
    _owner: Box<dyn Any + Send + Sync>,
}

/// One aligned piece of memory.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    _bytes: [u8; ALIGN],
}

// SAFETY: `data` is only read, by copying bytes whatever their value, and the owner that keeps it
// alive is itself Send and Sync.
unsafe impl Send for Map {}
// SAFETY: as for Send.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `len` bytes of a file, which has at least so many.
    pub(super) fn of_file(file: &File, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Self { data: map.as_ptr(), len, _owner: Box::new(map) })
    }

    /// The same for bytes that are in no file: for fuzzing, and for Miri, which maps none.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let mut lines = vec![Line { _bytes: [0; ALIGN] }; bytes.len().div_ceil(ALIGN)];
        let data: *mut u8 = lines.as_mut_ptr().cast();
        // SAFETY: the lines have room for all bytes, and are ours alone.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
        Self { data, len: bytes.len(), _owner: Box::new(lines) }
    }

    /// The number of bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the bytes `range` lie: readable, not to be turned into a reference.
    pub(super) fn pointer(&self, range: &Range<usize>) -> *const u8 {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "bytes {range:?} of {}",
            self.len
        );
        // SAFETY: the offset stays inside the memory (asserted above).
        unsafe { self.data.add(range.start) }
    }

    /// Copies the bytes from `start` on into `out`.
    pub(super) fn copy(&self, start: usize, out: &mut [u8]) {
        let from = self.pointer(&(start..start + out.len()));
        // SAFETY: as many bytes are readable (asserted by `pointer`), and `out` is exclusively
        // borrowed, so it is other memory.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
    }

    /// A copy of the bytes `range`.
    pub(super) fn read(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        self.copy(range.start, &mut bytes);
        bytes
    }

    /// The checksum of the bytes `range`.
    pub(super) fn checksum(&self, range: Range<usize>) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.hash(range, &mut hasher);
        hasher.finalize()
    }

    /// Adds the bytes `range` to a checksum.
    pub(super) fn hash(&self, range: Range<usize>, hasher: &mut crc32fast::Hasher) {
        let mut piece = [0; PIECE];
        for start in range.clone().step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(range.end - start)];
            self.copy(start, piece);
            hasher.update(piece);
        }
    }
}
