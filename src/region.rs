//! One stretch of memory for the records of many rows, each piece of which is written once.
//!
//! Walks read records from all over. In one stretch a record is found by its row's number alone, where
//! those of every chunk by themselves took three look-ups, and the system can hold it in pages of
//! 2 MB, which the processor finds at once. The stretch of a loaded index takes no memory until its
//! pieces are read from the file.

#![allow(unsafe_code)] // pieces are written while others are read

use std::alloc::{Layout, alloc_zeroed};
use std::cell::UnsafeCell;
use std::ops::{Deref, Range};
use std::ptr::slice_from_raw_parts_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// What becomes of a piece, one after the other.
const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const THERE: u8 = 2;

/// Pieces of equal size.
pub(crate) struct Region {
    bytes: Box<[UnsafeCell<u8>]>,
    /// Bytes of a piece.
    piece: usize,
    states: Box<[AtomicU8]>,
    /// Pieces that are there, and how many of the first are known to be.
    there: AtomicUsize,
    known: AtomicUsize,
}

// SAFETY: a piece is written by the one thread that set its state to `WRITING`, and read only after
// that thread has set it to `THERE`, for good.
unsafe impl Sync for Region {}

/// Asks the system for pages of 2 MB for as much of some memory as fills such pages. A hint.
pub(crate) fn join_pages<T>(memory: &[T]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        const PAGE: usize = 1 << 21;
        let start = memory.as_ptr() as usize;
        let end = (start + size_of_val(memory)) / PAGE * PAGE;
        let start = start.next_multiple_of(PAGE);
        if start < end {
            // SAFETY: the memory is borrowed, and the advice changes no byte of it.
            unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = memory;
}

/// Zeros that may be written while others are read, if there is so much memory: a file says how much is
/// wanted, and may lie.
fn zeros(len: usize) -> Option<Box<[UnsafeCell<u8>]>> {
    if len == 0 {
        return Some(Box::default());
    }
    let layout = Layout::array::<u8>(len).ok()?;
    // SAFETY: the layout is of one byte at least.
    let bytes = unsafe { alloc_zeroed(layout) }.cast::<UnsafeCell<u8>>();
    // SAFETY: these are `len` bytes of zeros, allocated as a box of so many is.
    let boxed = || unsafe { Box::from_raw(slice_from_raw_parts_mut(bytes, len)) };
    (!bytes.is_null()).then(boxed)
}

impl Region {
    /// So many empty pieces, of so many bytes each; none if there is not so much memory.
    pub(crate) fn new(pieces: usize, piece: usize) -> Option<Self> {
        let bytes = zeros(pieces.checked_mul(piece)?)?;
        let states = (0..pieces).map(|_| AtomicU8::new(EMPTY)).collect();
        let (there, known) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Some(Self { bytes, piece, states, there, known })
    }

    /// A piece, if it is there.
    #[inline(always)]
    pub(crate) fn get(&self, piece: usize) -> Option<&[u8]> {
        let there = self.states.get(piece)?.load(Ordering::Acquire) == THERE;
        let at = piece * self.piece;
        // SAFETY: a piece that is there is never written again.
        there.then(|| unsafe { self.read(at..at + self.piece) })
    }

    /// The pieces from the first on, as far as they are there.
    pub(crate) fn head(&self) -> &[u8] {
        let mut known = self.known.load(Ordering::Acquire);
        while self.get(known).is_some() {
            known += 1;
        }
        self.known.store(known, Ordering::Release);
        // SAFETY: they are there, as seen here or by the thread that stored the number.
        unsafe { self.read(0..known * self.piece) }
    }

    /// # Safety
    ///
    /// The pieces of these bytes are there.
    #[inline(always)]
    unsafe fn read(&self, range: Range<usize>) -> &[u8] {
        let cells = &self.bytes[range];
        // SAFETY: by the contract nobody writes them as long as `self` lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }

    /// Writes pieces, from `first` on, the last of which may be short, where they are empty. Whether all
    /// are there then, as these bytes: another thread may be writing some, for which nobody waits,
    /// since it may have been lost in a fork.
    pub(crate) fn fill(&self, first: usize, bytes: &[u8]) -> bool {
        bytes.chunks(self.piece).enumerate().fold(true, |all, (i, bytes)| {
            let (state, at) = (&self.states[first + i], (first + i) * self.piece);
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            if state.compare_exchange(EMPTY, WRITING, acquire, relaxed).is_ok() {
                let cells = &self.bytes[at..at + bytes.len()];
                // SAFETY: the state was `EMPTY` and is `WRITING`, so that these cells, which `bytes`
                // are as many as, are this thread's until the next line.
                unsafe {
                    let to = UnsafeCell::raw_get(cells.as_ptr());
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                }
                state.store(THERE, Ordering::Release);
                let there = 1 + self.there.fetch_add(1, Ordering::Relaxed);
                if there == self.states.len().div_ceil(2) {
                    self.join_pages();
                }
                return all;
            }
            all && self.get(first + i).is_some_and(|there| there.starts_with(bytes))
        })
    }

    /// Asks the system for large pages, at once where nothing is written yet and else when it finds the
    /// time.
    pub(crate) fn join_pages(&self) {
        join_pages(&self.bytes);
    }

    /// The number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Bytes of pieces that are there.
    pub(crate) fn nbytes(&self) -> usize {
        self.there.load(Ordering::Relaxed) * self.piece
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} of {} bytes)", self.nbytes(), self.bytes.len())
    }
}

/// Bytes of a region that are there.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    region: Arc<Region>,
    /// The first of the pieces.
    first: usize,
    bytes: *const [u8],
}

// SAFETY: the bytes are only read, and the region that keeps them is itself Send and Sync.
unsafe impl Send for Slice {}
// SAFETY: as for Send.
unsafe impl Sync for Slice {}

impl Slice {
    /// The first `len` bytes of the pieces from `first` on, if all of these are there.
    pub(crate) fn new(region: &Arc<Region>, first: usize, len: usize) -> Option<Self> {
        let mut pieces = first..first + len.div_ceil(region.piece);
        let there = pieces.all(|piece| region.get(piece).is_some());
        let start = first * region.piece;
        // SAFETY: they are there.
        let bytes = there.then(|| unsafe { region.read(start..start + len) })?;
        Some(Self { region: Arc::clone(region), first, bytes })
    }

    /// The region, and the first of the pieces.
    pub(crate) fn place(&self) -> (&Arc<Region>, usize) {
        (&self.region, self.first)
    }

    /// Whether these are the bytes of a region's pieces from `first` on.
    pub(crate) fn is_at(&self, region: &Arc<Region>, first: usize) -> bool {
        Arc::ptr_eq(&self.region, region) && self.first == first
    }
}

impl From<Vec<u8>> for Slice {
    /// All of a region of one piece.
    fn from(bytes: Vec<u8>) -> Self {
        let piece = bytes.len();
        let bytes = Box::into_raw(bytes.into_boxed_slice());
        // SAFETY: an `UnsafeCell` has the layout of what is in it, and the box is handed on.
        let bytes = unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) };
        let states = Box::new([AtomicU8::new(THERE)]);
        let (there, known) = (AtomicUsize::new(1), AtomicUsize::new(1));
        // First where it stays: a box that moves takes back what was lent of it.
        let region = Arc::new(Region { bytes, piece, states, there, known });
        // SAFETY: it is there.
        let bytes: *const [u8] = unsafe { region.read(0..piece) };
        Self { region, first: 0, bytes }
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: they were there when this was made, and the region is kept.
        unsafe { &*self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_there_once_it_is_written_and_stays_as_it_is() {
        assert!(Region::new(usize::MAX, 2).is_none());
        // Miri stops where there is no memory.
        assert!(cfg!(miri) || Region::new(1, usize::MAX / 4).is_none());
        let region = Arc::new(Region::new(4, 3).unwrap());
        assert!(region.get(0).is_none() && region.get(4).is_none() && region.head().is_empty());
        assert!(region.fill(1, &[1, 2, 3, 4, 5]));
        assert_eq!(region.get(1), Some(&[1, 2, 3][..]));
        assert_eq!(region.get(2), Some(&[4, 5, 0][..]));
        assert!(region.head().is_empty() && Slice::new(&region, 0, 4).is_none());
        assert_eq!(&*Slice::new(&region, 1, 5).unwrap(), [1, 2, 3, 4, 5]);
        assert!(region.fill(1, &[1, 2]) && !region.fill(1, &[1, 2, 3, 4, 6]));
        assert_eq!(region.get(2), Some(&[4, 5, 0][..]));
        assert!(region.fill(0, &[9; 3]));
        assert_eq!(region.head(), [9, 9, 9, 1, 2, 3, 4, 5, 0]);
        assert_eq!(region.nbytes(), 9);
        let alone = Slice::from(vec![7, 8]);
        assert_eq!((&*alone, alone.place().1), (&[7, 8][..], 0));
        assert!(!alone.is_at(&region, 0) && Slice::new(&region, 1, 3).unwrap().is_at(&region, 1));
    }

    #[test]
    fn threads_that_write_the_same_pieces_leave_the_bytes_of_one() {
        let region = Arc::new(Region::new(50, 16).unwrap());
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let region = &region;
                scope.spawn(move || {
                    for i in 0..50 {
                        let piece = (i * 7 + usize::from(thread) * 13) % 50;
                        let bytes = [thread; 16];
                        let mine = region.fill(piece, &bytes);
                        let there = region.get(piece);
                        assert!(there.is_none_or(|there| there.iter().all(|&x| x == there[0])));
                        assert!(!mine || there == Some(&bytes));
                        assert!(region.head().len().is_multiple_of(16));
                    }
                });
            }
        });
        assert_eq!(region.head().len(), 50 * 16);
        assert!(
            region
                .head()
                .as_chunks::<16>()
                .0
                .iter()
                .all(|piece| piece.iter().all(|&x| x == piece[0]))
        );
    }
}
