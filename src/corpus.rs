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
use crate::kernels::int8::record_bytes;
use crate::metric::Metric;
use crate::region::Region;
use crate::rows::Rows;
use crate::selection::Selection;
use crate::tally::{Counts, Tally};

/// Rows of a chunk: the unit of storage, of edits, and of looking whether to stop.
pub(crate) const CHUNK: usize = 1024;

/// Rows whose records are copied together from a store: a walk goes to few rows of many chunks.
const PIECE: usize = 128;
/// Pieces of a chunk.
pub(crate) const PIECES: usize = CHUNK / PIECE;

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

/// Room for the records of so many chunks, if there is so much memory.
pub(crate) fn room(chunks: usize, encoder: &Encoder) -> Option<Arc<Region>> {
    Region::new(chunks * PIECES, PIECE * record_bytes(encoder.steps())).map(Arc::new)
}

/// Consecutive rows and their codes.
#[derive(Debug)]
pub(crate) struct Chunk {
    rows: Rows<'static>,
    /// Certified codes; none within where the encoder has none, or some row is beyond codes.
    codes: OnceLock<Option<Codes>>,
    place: Option<Box<Place>>,
}

/// A chunk's place in a store.
#[derive(Debug)]
struct Place {
    store: Arc<dyn Store>,
    number: usize,
    /// Set when the store has checked the rows.
    checked: OnceLock<()>,
    /// Records of all rows of the store, [`PIECES`] pieces for each chunk, which walks may use while no
    /// certified ones were needed; none where the store has no records.
    region: Option<Arc<Region>>,
    /// Zeros, for walks to rows whose records are damaged and that are beyond codes.
    none: OnceLock<Vec<u8>>,
}

impl Chunk {
    /// Rows in memory and their codes.
    pub(crate) fn new(rows: Rows<'static>, codes: Option<Codes>) -> Self {
        Self { rows, codes: codes.into(), place: None }
    }

    /// Chunk `number` of a store, whose records are to lie in a region.
    pub(crate) fn stored(
        rows: Rows<'static>,
        store: Arc<dyn Store>,
        number: usize,
        region: Option<Arc<Region>>,
    ) -> Self {
        let (checked, none) = (OnceLock::new(), OnceLock::new());
        let place = Place { store, number, checked, region, none };
        Self { rows, codes: OnceLock::new(), place: Some(Box::new(place)) }
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
        let encode = || {
            let codes = encoder.encode(self.rows(), None, &mut Scratch::default())?;
            Some(codes.lie_in(self.stored_records()))
        };
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

    /// The region of a store, and the first of this chunk's pieces.
    fn stored_records(&self) -> Option<(&Arc<Region>, usize)> {
        let place = self.place.as_ref()?;
        Some((place.region.as_ref()?, place.number * PIECES))
    }

    /// The record of a row, certified or not, and all that follow it in memory.
    #[inline]
    pub(crate) fn record(&self, row: usize, bytes: usize, encoder: &Encoder) -> &[u8] {
        if let Some(records) = self.records() {
            return &records[row * bytes..];
        }
        let stored = self.stored_records();
        let piece = stored.and_then(|(region, first)| region.get(first + row / PIECE));
        let piece = piece.unwrap_or_else(|| self.fetch(row / PIECE, bytes, encoder));
        &piece[row % PIECE * bytes..]
    }

    #[cold]
    #[inline(never)]
    fn fetch(&self, piece: usize, bytes: usize, encoder: &Encoder) -> &[u8] {
        let place = self.place.as_ref().expect("what is not there is to come from a store");
        let (start, first) = (place.number * CHUNK, piece * PIECE);
        let last = self.len().min(first + PIECE);
        if let Some((region, pieces)) = self.stored_records() {
            if let Some(records) = place.store.records(start + first..start + last) {
                region.fill(pieces + piece, &records);
            }
            if let Some(piece) = region.get(pieces + piece) {
                return piece;
            }
        }
        // Damaged ones are made again from the rows, as are those that another thread is writing.
        match self.codes(encoder) {
            Some(codes) => &codes.records()[first * bytes..],
            None => once::<Vec<u8>>(&place.none, || encoder.no_records(PIECE)),
        }
    }

    /// Where records lie, certified ones if there are any, and the first of their pieces.
    fn pieces(&self) -> Option<(&Arc<Region>, usize)> {
        match self.codes.get() {
            Some(codes) => codes.as_ref().map(|codes| codes.records().place()),
            None => self.stored_records(),
        }
    }

    /// Bytes that codes take.
    pub(crate) fn nbytes(&self) -> usize {
        let codes = self.codes.get().and_then(Option::as_ref);
        let stored = self.stored_records().filter(|&(region, first)| {
            codes.is_none_or(|codes| !codes.records().is_at(region, first))
        });
        let stored = stored.into_iter().flat_map(|(region, first)| {
            (first..first + PIECES).filter_map(|piece| region.get(piece))
        });
        codes.map_or(0, Codes::nbytes) + stored.map(<[u8]>::len).sum::<usize>()
    }
}

/// The region in which the records of most chunks lie, each where its number says, so that a walk need
/// not look for them chunk by chunk.
#[derive(Debug, Default)]
pub(crate) struct Together {
    region: Option<Arc<Region>>,
    /// Whether a chunk's records lie there. Edits lay those of chunks that change elsewhere.
    chunks: Vec<bool>,
    /// The first chunks whose records do.
    lead: usize,
}

impl Together {
    pub(crate) fn new(chunks: &[Arc<Chunk>]) -> Self {
        let regions = chunks.iter().filter_map(|chunk| Some(chunk.pieces()?.0));
        let region = regions.max_by_key(|region| region.len()).filter(|region| region.len() > 1);
        let Some(region) = region else { return Self::default() };
        let lies = |(number, chunk): (usize, &Arc<Chunk>)| {
            chunk.pieces().is_some_and(|(other, first)| {
                Arc::ptr_eq(other, region) && first == number * PIECES
            })
        };
        let chunks: Vec<bool> = chunks.iter().enumerate().map(lies).collect();
        let lead = chunks.iter().take_while(|&&lies| lies).count();
        Self { region: Some(Arc::clone(region)), chunks, lead }
    }

    /// The records of the first rows, of so many bytes each, as far as they lie there.
    pub(crate) fn head(&self, bytes: usize) -> &[u8] {
        let head = self.region.as_ref().map_or(&[][..], |region| region.head());
        &head[..head.len().min(self.lead * CHUNK * bytes)]
    }

    /// The record of a row, of so many bytes, if it lies there.
    #[inline(always)]
    pub(crate) fn record(&self, row: usize, bytes: usize) -> Option<&[u8]> {
        if !*self.chunks.get(row / CHUNK)? {
            return None;
        }
        let piece = self.region.as_ref()?.get(row / PIECE)?;
        piece.get(row % PIECE * bytes..)?.get(..bytes)
    }
}

/// Everything a search looks at.
#[derive(Clone, Copy)]
pub(crate) struct Corpus<'a> {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    /// All full but the last.
    pub(crate) chunks: &'a [Arc<Chunk>],
    /// The number of their rows.
    pub(crate) rows: usize,
    pub(crate) encoder: Option<&'a Encoder>,
    /// The rows that may answer; all if none.
    pub(crate) allowed: Option<&'a Selection>,
    pub(crate) isa: Isa,
    /// Who asks what the search did.
    pub(crate) tally: Option<&'a Tally>,
}

/// The number of rows of chunks that are all full but the last.
pub(crate) fn rows_of(chunks: &[Arc<Chunk>]) -> usize {
    chunks.last().map_or(0, |last| (chunks.len() - 1) * CHUNK + last.len())
}

impl Corpus<'_> {
    /// Copies a row out in float64.
    pub(crate) fn read(&self, row: u32, out: &mut [f64]) {
        self.chunks[row as usize / CHUNK].rows().read(row as usize % CHUNK, out);
    }

    /// Asks the memory for a row that will be read soon.
    pub(crate) fn prefetch(&self, row: u32) {
        self.chunks[row as usize / CHUNK].rows.prefetch(row as usize % CHUNK);
    }

    /// Asks the memory for the beginning of a row.
    pub(crate) fn prefetch_start(&self, row: u32) {
        self.chunks[row as usize / CHUNK].rows.prefetch_start(row as usize % CHUNK);
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
        self.allowed.map_or(self.rows, Selection::len)
    }
}
