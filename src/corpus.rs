//! The rows of an index in chunks, each with its codes.
//!
//! A chunk of a loaded index lies in a file, and is checked and coded when it is first touched, so
//! that loading takes no longer for a million rows than for a thousand. Codes are *certified* where
//! they were made from the rows, here: an exact search trusts no others. A walk through the graph
//! only asks for hints, and takes the codes of the file.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::codes::{Codes, Encoder, Scratch};
use crate::error::Error;
use crate::kernels::Isa;
use crate::metric::Metric;
use crate::rows::Rows;
use crate::selection::Selection;
use crate::tally::{Counts, Tally};

/// Rows of a chunk: the unit of storage, of edits, and of looking whether to stop.
pub(crate) const CHUNK: usize = 1024;

/// Rows whose records are copied together from a store: a walk goes to few rows of many chunks.
const PIECE: usize = 128;

/// Where chunks lie that are not in memory yet.
///
/// What is damaged is remembered there. Whoever touched chunks asks afterwards, before the answer
/// is given away.
pub(crate) trait Store: std::fmt::Debug + Send + Sync {
    /// Checks the rows of a chunk.
    fn check_rows(&self, chunk: usize);
    /// The records of the codes of some rows, and the zeros behind them; none if they are damaged,
    /// or not there.
    fn records(&self, rows: Range<usize>) -> Option<Vec<u8>>;
    /// The links of the rows of a chunk, unused ones last; none if they are damaged. They are
    /// then missed: the graph is to be built again.
    fn links(&self, chunk: usize) -> Option<Vec<u32>>;
    /// Whether links were missed.
    fn misses_links(&self) -> bool;
    /// The first damage to rows.
    fn damage(&self) -> Option<Error>;
}

/// What is in a cell, made now if there is nothing.
///
/// It is made before the cell is locked: a fork in the middle would leave the child's cell locked for
/// ever. Threads that come together may each make it; one result stays.
#[inline(always)]
pub(crate) fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    if let Some(value) = cell.get() {
        return value;
    }
    let made = make();
    cell.get_or_init(|| made)
}

/// Consecutive rows and their codes.
#[derive(Debug)]
pub(crate) struct Chunk {
    rows: Rows<'static>,
    /// Certified codes; none within where the encoder has none, or some row is beyond codes.
    codes: OnceLock<Option<Codes>>,
    /// Records of the store, which walks may use while no certified ones were needed. They lie here
    /// and not in the place, since a walk looks them up for every row.
    pieces: [OnceLock<Box<[u8]>>; CHUNK / PIECE],
    place: Option<Box<Place>>,
}

/// A chunk's place in a store.
#[derive(Debug)]
struct Place {
    store: Arc<dyn Store>,
    number: usize,
    /// Set when the store has checked the rows.
    checked: OnceLock<()>,
}

impl Chunk {
    /// Rows in memory and their codes.
    pub(crate) fn new(rows: Rows<'static>, codes: Option<Codes>) -> Self {
        Self { rows, codes: codes.into(), pieces: Default::default(), place: None }
    }

    /// Chunk `number` of a store.
    pub(crate) fn stored(rows: Rows<'static>, store: Arc<dyn Store>, number: usize) -> Self {
        let place = Place { store, number, checked: OnceLock::new() };
        Self { place: Some(Box::new(place)), codes: OnceLock::new(), ..Self::new(rows, None) }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows, checked.
    #[inline]
    pub(crate) fn rows(&self) -> &Rows<'static> {
        if let Some(place) = &self.place {
            once(&place.checked, || place.store.check_rows(place.number));
        }
        &self.rows
    }

    /// Certified codes; none where the rows have none.
    #[inline]
    pub(crate) fn codes(&self, encoder: &Encoder) -> Option<&Codes> {
        let encode = || encoder.encode(self.rows(), None, &mut Scratch::default());
        once(&self.codes, encode).as_ref()
    }

    /// Whether it is known that the rows have no codes.
    pub(crate) fn is_beyond_codes(&self) -> bool {
        matches!(self.codes.get(), Some(None))
    }

    /// The records of all rows, if they are certified.
    #[inline(always)]
    pub(crate) fn records(&self) -> Option<&[u8]> {
        Some(self.codes.get()?.as_ref()?.records())
    }

    /// The record of a row, certified or not, and all that follow it in memory.
    #[inline(always)]
    pub(crate) fn record(&self, row: usize, bytes: usize, encoder: &Encoder) -> &[u8] {
        if let Some(records) = self.records() {
            return &records[row * bytes..];
        }
        let piece = match self.pieces[row / PIECE].get() {
            Some(piece) => piece,
            None => self.fetch(row / PIECE, bytes, encoder),
        };
        &piece[row % PIECE * bytes..]
    }

    #[cold]
    #[inline(never)]
    fn fetch(&self, piece: usize, bytes: usize, encoder: &Encoder) -> &[u8] {
        let place = self.place.as_ref().expect("rows in memory are walked to by their codes");
        let make = || {
            let first = piece * PIECE;
            let last = self.len().min(first + PIECE);
            let start = place.number * CHUNK;
            // Damaged ones are made again from the rows.
            let records = place.store.records(start + first..start + last);
            let made = || Some(self.codes(encoder)?.records()[first * bytes..].to_vec());
            records.or_else(made).unwrap_or_else(|| encoder.no_records(PIECE)).into()
        };
        once::<Box<[u8]>>(&self.pieces[piece], make)
    }

    /// Bytes that codes take.
    pub(crate) fn nbytes(&self) -> usize {
        let codes = self.codes.get().and_then(Option::as_ref).map_or(0, Codes::nbytes);
        let pieces = self.pieces.iter().filter_map(OnceLock::get);
        codes + pieces.map(|piece| piece.len()).sum::<usize>()
    }
}

/// Everything a search looks at.
#[derive(Clone, Copy)]
pub(crate) struct Corpus<'a> {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    /// All full but the last.
    pub(crate) chunks: &'a [Arc<Chunk>],
    pub(crate) encoder: Option<&'a Encoder>,
    /// The rows that may answer; all if none.
    pub(crate) allowed: Option<&'a Selection>,
    pub(crate) isa: Isa,
    /// Who asks what the search did.
    pub(crate) tally: Option<&'a Tally>,
}

impl Corpus<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Copies a row out in float64.
    pub(crate) fn read(&self, row: u32, out: &mut [f64]) {
        self.chunks[row as usize / CHUNK].rows().read(row as usize % CHUNK, out);
    }

    /// Asks the memory for a row that will be read soon.
    pub(crate) fn prefetch(&self, row: u32) {
        self.chunks[row as usize / CHUNK].rows.prefetch(row as usize % CHUNK);
    }

    /// Tells what was done, if somebody asks.
    #[inline]
    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        if let Some(tally) = self.tally {
            tally.count(add);
        }
    }

    /// Whether every row has codes.
    pub(crate) fn is_coded(self) -> bool {
        self.encoder
            .is_some_and(|encoder| self.chunks.iter().all(|chunk| chunk.codes(encoder).is_some()))
    }

    /// Whether a row may answer.
    pub(crate) fn is_allowed(&self, row: usize) -> bool {
        self.allowed.is_none_or(|allowed| allowed.contains(row))
    }

    /// The number of rows that may answer.
    pub(crate) fn candidates(&self) -> usize {
        self.allowed.map_or_else(|| self.rows(), Selection::len)
    }
}
