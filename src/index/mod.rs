//! The index: rows, their codes and their ids together, and every edit of them.
//!
//! What a search sees is an immutable [`State`] behind an `Arc`. An edit builds the next state
//! beside it, sharing all chunks it does not touch, and publishes it in one step: a search sees
//! the old rows or the new ones, never half, and an edit that fails or is interrupted has changed
//! nothing. What searches lock is held for the time it takes to copy a pointer, or to answer from a few
//! rows. Edits wait for each other, and would wait for ever in the child of a fork that fell into one, or
//! into a search: there they are refused.

#[cfg(feature = "table")]
mod columns;
mod explain;
mod health;
mod neighbors;
mod saved;
mod tune;
mod why_not;

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};
use std::{mem, process, thread};

use crate::codes::{Codes, Encoder, Scratch};
use crate::corpus::{CHUNK, Chunk, Corpus, PIECES, Store, Together, room, rows_of};
use crate::error::{Error, Result};
use crate::exact::{self, Goal, List};
use crate::graph::{self, Check, Edit, Graph, Lane, Reach};
use crate::kernels::Isa;
use crate::metric::Metric;
use crate::rows::{DType, Rows};
use crate::scratch::One;
use crate::selection::Selection;
use crate::tally::{Counts, Plan, Tally};
use crate::threads::{Hushed, Monitor, Run, Silent, Stages, Turn, Turns, run, single};
use crate::top_k::Neighbor;

pub use explain::Explanation;
pub use health::HealthReport;
pub use neighbors::Near;
pub use saved::{FileColumn, file_columns};
pub use tune::{RecallReport, RecallRow};
pub use why_not::{Reason, WhyNot};

/// Chunks that one thread encodes before it takes more.
const ENCODE_CHUNKS: usize = 8;
/// Chunks of which more lie together: the records of fewer take no more than the caches hold.
const TOGETHER: usize = 16;
/// The mean and the axes are learned again when the rows have grown by this factor.
const RELEARN: usize = 4;
/// After so large a share of the rows was updated, so many are asked whether they lie elsewhere by now.
const STALE_SHARE: usize = 16;
const STALE_PROBES: usize = 256;
/// Where more than one row for so many comes at once, the graph is built again.
const REBUILD_SHARE: usize = 3;
/// Where one row of so many is longer than the longest at the build, links for products are made anew.
const BEYOND_SHARE: usize = 32;
/// The searches that keep an edit from its end take microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Queries that are put in an order together: so many starts are remembered.
const ORDERED: usize = 8192;
/// Answers, and which of them are exact.
type Walked = (One<List>, One<bool>);
/// What a search sees, and the rows that may answer, if not all.
type Seen = (Arc<State>, Option<Arc<Selection>>);

/// Nearest neighbours of vectors of one width, under one metric; rows may be borrowed for `'a`.
///
/// Every call takes `&self`: any thread may search while another edits, and sees the rows before
/// the edit or after it. Calls that may take long have a twin with `_with` at its end, which takes a
/// [`Run`]: the number of threads, and a [`Monitor`] that may stop it.
///
/// ```
/// use omendb::{Index, Metric, Rows};
///
/// let x = vec![0.0f32, 0.0, 3.0, 4.0, 6.0, 8.0];
/// let index = Index::new(Rows::borrow(&x, 2)?, Metric::Euclidean)?;
/// let added = index.add(Rows::from_vec(vec![1.0f32, 1.0], 2)?)?;
/// assert_eq!(added, [3]);
/// index.remove(&[0])?;
/// let hits = index.search(&Rows::borrow(&[0.0f32, 0.0], 2)?, 2)?;
/// assert_eq!(hits.ids, [3, 1]);
/// # Ok::<(), omendb::Error>(())
/// ```
///
/// What is borrowed must outlive the index:
///
/// ```compile_fail
/// # use omendb::{Index, Metric, Rows};
/// let index = Index::empty(2, Metric::Euclidean).unwrap();
/// {
///     let x = vec![0.0f32, 0.0];
///     index.add(Rows::borrow(&x, 2).unwrap()).unwrap();
/// }
/// println!("{}", index.len());
/// ```
#[derive(Debug)]
pub struct Index<'a> {
    metric: Metric,
    dim: usize,
    isa: Isa,
    /// Held while an edit prepares the next state; never while a search runs.
    editing: Turns,
    published: RwLock<Published>,
    /// The process whose edits wait for no search that a fork left behind.
    process: AtomicU32,
    /// What states hold of rows is borrowed for `'a`, and no shorter: an index of longer borrows is
    /// none of shorter ones, since `add` works through a shared reference.
    _rows: PhantomData<fn(&'a ()) -> &'a ()>,
}

#[derive(Debug)]
struct Published {
    state: Arc<State>,
    /// Where each id is; kept only while ids do not ascend, otherwise found by bisection.
    places: Option<Arc<HashMap<i64, u32>>>,
}

/// Everything a search sees.
#[derive(Debug, Clone)]
struct State {
    dtype: Option<DType>,
    chunks: Vec<Arc<Chunk>>,
    /// Where chunks lie that are not in memory yet.
    store: Option<Arc<dyn Store>>,
    /// The ids of each chunk's rows.
    ids: Vec<Arc<Vec<i64>>>,
    ascending: bool,
    /// The rows that are not removed; all if none.
    live: Option<Arc<Selection>>,
    encoder: Option<Arc<Encoder>>,
    /// None where none is wanted, or codes do not serve.
    graph: Option<Arc<Graph>>,
    /// The seed of the graph, where one is wanted.
    seed: Option<u64>,
    /// The width of a walk's beam where the caller names none.
    effort: usize,
    /// Rows when the encoder learned.
    learned: usize,
    /// Rows updated since.
    updated: usize,
    /// One more than the largest id so far, which may be the largest there is.
    next_id: i128,
}

/// Which rows may answer.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Filter<'a> {
    /// One flag for each row, in the order of [`Index::ids`].
    Mask(&'a [bool]),
    /// One bit for each row, in that order, the lowest bit of a byte first, as in Arrow.
    Bits(&'a [u8]),
    /// The ids of the rows.
    Ids(&'a [i64]),
    /// One bit for each id from `first` on, the lowest bit of a byte first. Rows whose id has none are
    /// left out, and ids that no row has do no harm.
    IdBits {
        /// The id of the first bit.
        first: i64,
        /// The bits.
        bits: &'a [u8],
    },
    /// Rows that every one of these lets answer; all rows if there is none.
    All(&'a [Filter<'a>]),
}

/// How a search finds its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Method {
    /// Exactly or by the graph, whichever costs less.
    #[default]
    Auto,
    /// By looking at every row.
    Exact,
    /// By walking through the graph, which must have been built.
    Graph,
}

/// Which rows answer a query, and how they are found.
///
/// ```
/// use omendb::{Filter, Index, Method, Metric, Options, Rows, Run};
///
/// let x: Vec<f32> = (0..2000).map(|i| i as f32).collect();
/// let index = Index::new(Rows::borrow(&x, 2)?, Metric::Euclidean)?;
/// index.build_graph(0)?;
/// let options = Options::new().method(Method::Graph).effort(40).filter(Filter::Ids(&[7, 8, 9]));
/// let query = Rows::borrow(&[0.0f32, 0.0], 2)?;
/// assert_eq!(index.search_with(&query, 2, options, Run::new())?.ids, [7, 8]);
/// # Ok::<(), omendb::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct Options<'a> {
    method: Method,
    effort: Option<usize>,
    pub(crate) filter: Option<Filter<'a>>,
}

impl<'a> Options<'a> {
    /// All rows, by whichever method costs less.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the graph is used.
    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// About the width of the graph search's beam, rather than the index's own: a search expands the
    /// nearest half of so many rows at least, and up to three times as many where they are hardly
    /// farther than the k-th.
    pub fn effort(self, effort: usize) -> Self {
        Self { effort: Some(effort), ..self }
    }

    /// Which rows may answer.
    pub fn filter(self, filter: Filter<'a>) -> Self {
        Self { filter: Some(filter), ..self }
    }
}

/// The answers to some queries, nearest first; query `i` has `offsets[i]..offsets[i + 1]`.
#[derive(Debug, Default, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hits {
    /// Where each query's answers begin; one more than there are queries.
    pub offsets: Vec<usize>,
    /// Ids of the rows.
    pub ids: Vec<i64>,
    /// Their distances.
    pub distances: Vec<f64>,
    /// Answers of each query, where that is the same for all: `min(k, rows allowed)`.
    pub k: usize,
    /// Whether each query's answers are proven to be the exact ones.
    pub exact: Vec<bool>,
}

impl Hits {
    /// The ids and distances of one query's answers.
    pub fn of(&self, query: usize) -> (&[i64], &[f64]) {
        let range = self.offsets[query]..self.offsets[query + 1];
        (&self.ids[range.clone()], &self.distances[range])
    }

    /// Forgets all answers.
    fn begin(&mut self, k: usize) {
        self.offsets.clear();
        self.ids.clear();
        self.distances.clear();
        self.exact.clear();
        self.offsets.push(0);
        self.k = k;
    }

    /// The answers of the next query.
    fn push(&mut self, state: &State, list: &[Neighbor], exact: bool) {
        self.ids.extend(list.iter().map(|neighbor| state.id(neighbor.row as usize)));
        self.distances.extend(list.iter().map(|neighbor| neighbor.distance));
        self.offsets.push(self.ids.len());
        self.exact.push(exact);
    }
}

impl State {
    fn rows(&self) -> usize {
        rows_of(&self.chunks)
    }

    fn len(&self) -> usize {
        self.live.as_ref().map_or_else(|| self.rows(), |live| live.len())
    }

    /// Whether links were found damaged in a file.
    fn is_damaged(&self) -> bool {
        self.graph.as_ref().is_some_and(|graph| graph.is_damaged())
    }

    fn is_live(&self, row: usize) -> bool {
        row < self.rows() && self.live.as_ref().is_none_or(|live| live.contains(row))
    }

    /// The rows of each chunk.
    fn blocks(&self) -> Vec<Rows<'static>> {
        self.chunks.iter().map(|chunk| chunk.rows().clone()).collect()
    }

    /// Rows that are not removed, ascending.
    fn live_rows(&self) -> Vec<usize> {
        match &self.live {
            Some(live) => live.iter().collect(),
            None => (0..self.rows()).collect(),
        }
    }

    /// The bytes of these rows, one after another.
    fn bytes(&self, rows: &[usize]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for row in rows {
            self.chunks[row / CHUNK].rows().copy_bytes(row % CHUNK, &mut bytes);
        }
        self.sound()?;
        Ok(bytes)
    }

    /// The place of each row among those that are not removed.
    fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.rows()];
        self.live_rows().into_iter().zip(0..).for_each(|(row, place)| places[row] = place);
        places
    }

    /// Fails if a row that was touched is damaged.
    fn sound(&self) -> Result<()> {
        self.store.as_ref().and_then(|store| store.damage()).map_or(Ok(()), Err)
    }

    fn id(&self, row: usize) -> i64 {
        self.ids[row / CHUNK][row % CHUNK]
    }

    /// The row of an id, by bisection where ids ascend.
    fn row(&self, id: i64, places: Option<&HashMap<i64, u32>>) -> Option<usize> {
        let row = if let Some(places) = places {
            *places.get(&id)? as usize
        } else {
            let chunk = self.ids.partition_point(|ids| ids.last().is_some_and(|&last| last < id));
            chunk * CHUNK + self.ids.get(chunk)?.binary_search(&id).ok()?
        };
        self.is_live(row).then_some(row)
    }

    /// The rows that are not removed, where some are, whose places among these are wanted.
    fn selected(&self, wanted: impl Fn(usize) -> bool) -> Selection {
        let mut selection = Selection::none(self.rows());
        let live = self.live.iter().flat_map(|live| live.iter());
        live.enumerate().filter(|&(place, _)| wanted(place)).for_each(|(_, row)| {
            selection.insert(row);
        });
        selection
    }

    /// The rows that are not removed and pass a filter; all if none.
    #[inline]
    fn selection(
        &self,
        filter: Option<Filter<'_>>,
        places: Option<&HashMap<i64, u32>>,
    ) -> Result<Option<Arc<Selection>>> {
        filter.map_or_else(|| Ok(self.live.clone()), |filter| self.filtered(filter, places))
    }

    fn filtered(
        &self,
        filter: Filter<'_>,
        places: Option<&HashMap<i64, u32>>,
    ) -> Result<Option<Arc<Selection>>> {
        match filter {
            Filter::Mask(mask) => {
                if mask.len() != self.len() {
                    return Err(Error::invalid(format!(
                        "expected a boolean filter with one value for each of the {} rows, in the \
                         order of index.ids, got {}",
                        self.len(),
                        mask.len()
                    )));
                }
                Ok(Some(Arc::new(match self.live {
                    None => Selection::of_flags(mask),
                    Some(_) => self.selected(|place| mask[place]),
                })))
            }
            Filter::Bits(bits) => {
                if bits.len() != self.len().div_ceil(8) {
                    return Err(Error::invalid(format!(
                        "expected a filter of {} bytes, with one bit for each of the {} rows, got {}",
                        self.len().div_ceil(8),
                        self.len(),
                        bits.len()
                    )));
                }
                let bit = |place: usize| bits[place / 8] >> (place % 8) & 1 == 1;
                Ok(Some(Arc::new(match self.live {
                    None => Selection::of_bits(bits, self.rows()),
                    Some(_) => self.selected(bit),
                })))
            }
            Filter::Ids(ids) => {
                let mut selection = Selection::none(self.rows());
                for &id in ids {
                    let row = self.row(id, places).ok_or_else(|| unknown(id, "filter"))?;
                    selection.insert(row);
                }
                Ok(Some(Arc::new(selection)))
            }
            Filter::IdBits { first, bits } => {
                let chunks = self.ids.iter().map(|ids| ids.as_slice());
                let mut selection = Selection::of_id_bits(chunks, first, bits);
                self.live.iter().for_each(|live| selection.intersect(live));
                Ok(Some(Arc::new(selection)))
            }
            Filter::All(filters) => {
                let mut all = self.live.clone();
                for &filter in filters {
                    let one = self.filtered(filter, places)?;
                    all = match (all, one) {
                        (Some(mut all), Some(one)) => {
                            Arc::make_mut(&mut all).intersect(&one);
                            Some(all)
                        }
                        (all, one) => all.or(one),
                    };
                }
                Ok(all)
            }
        }
    }
}

/// Times a part of a search, if somebody asks.
struct Clock<'a>(Option<(&'a Tally, Instant)>);

impl<'a> Clock<'a> {
    fn start(corpus: Corpus<'a>) -> Self {
        Self(corpus.tally.map(|tally| (tally, Instant::now())))
    }

    fn stop(self, part: impl FnOnce(&mut Counts) -> &mut u64) {
        if let Some((tally, start)) = self.0 {
            tally.count(|counts| *part(counts) += start.elapsed().as_nanos() as u64);
        }
    }
}

fn unknown(id: i64, what: &str) -> Error {
    Error::invalid(format!("id {id} of the {what} is not in the index"))
}

fn repeated(ids: &[i64]) -> Result<()> {
    let mut seen = HashSet::with_capacity(ids.len());
    match ids.iter().find(|id| !seen.insert(**id)) {
        Some(id) => Err(Error::invalid(format!("id {id} is given twice; ids must be unique"))),
        None => Ok(()),
    }
}

impl<'a> Index<'a> {
    /// An empty index for vectors of `dim` numbers.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if `dim` is 0, or `OMENDB_ISA` names no instruction set of this
    /// processor.
    pub fn empty(dim: usize, metric: Metric) -> Result<Self> {
        Self::empty_of(dim, metric, None)
    }

    /// As [`Index::empty`], for rows of this number type alone.
    pub(crate) fn empty_of(dim: usize, metric: Metric, dtype: Option<DType>) -> Result<Self> {
        if dim == 0 {
            return Err(Error::invalid("expected vectors of at least 1 dimension, got 0"));
        }
        let state = State {
            dtype,
            chunks: Vec::new(),
            store: None,
            ids: Vec::new(),
            ascending: true,
            live: None,
            encoder: None,
            graph: None,
            seed: None,
            effort: graph::DEFAULT_EFFORT,
            learned: 0,
            updated: 0,
            next_id: 0,
        };
        Ok(Self {
            metric,
            dim,
            isa: Isa::current()?,
            editing: Turns::default(),
            published: RwLock::new(Published { state: Arc::new(state), places: None }),
            process: process::id().into(),
            _rows: PhantomData,
        })
    }

    /// An index of `rows`, which are used where they lie; their ids are 0, 1, 2 and so on.
    ///
    /// # Errors
    ///
    /// As [`Index::empty`] and [`Index::add`].
    pub fn new(rows: Rows<'a>, metric: Metric) -> Result<Self> {
        Self::new_with(rows, metric, None, None, Run::new())
    }

    /// As [`Index::new`], with ids; where there is a seed, with the graph that
    /// [`Index::build_graph`] builds.
    ///
    /// # Errors
    ///
    /// As [`Index::empty`], [`Index::add_with`] and [`Index::build_graph`].
    pub fn new_with(
        rows: Rows<'a>,
        metric: Metric,
        ids: Option<&[i64]>,
        seed: Option<u64>,
        run: Run<'_>,
    ) -> Result<Self> {
        if seed.is_some() {
            check_linkable(metric)?;
        }
        let index = Self::empty(rows.dim(), metric)?;
        // An index made of no rows has their number type all the same.
        let state = State { dtype: Some(rows.dtype()), seed, ..(*index.state()).clone() };
        index.publish(state, 0, &[])?;
        index.add_with(rows, ids, run)?;
        Ok(index)
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The numbers of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The number type of the rows; none while there are no rows.
    pub fn dtype(&self) -> Option<DType> {
        self.state().dtype
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of the rows, in the rows' order.
    pub fn ids(&self) -> Vec<i64> {
        let state = self.state();
        state.live_rows().into_iter().map(|row| state.id(row)).collect()
    }

    /// Whether there is a row with this id.
    pub fn contains(&self, id: i64) -> bool {
        let published = self.published();
        published.state.row(id, published.places.as_deref()).is_some()
    }

    /// The rows in their number type, one after another, as raw bytes.
    ///
    /// # Errors
    ///
    /// `Damaged` if the index was loaded and a row is not what was saved.
    pub fn vector_bytes(&self) -> Result<Vec<u8>> {
        let state = self.state();
        state.bytes(&state.live_rows())
    }

    /// The ids of the rows, and the rows as [`Index::vector_bytes`] gives them, of one moment.
    ///
    /// # Errors
    ///
    /// As [`Index::vector_bytes`].
    pub fn ids_and_vector_bytes(&self) -> Result<(Vec<i64>, Vec<u8>)> {
        let state = self.state();
        let rows = state.live_rows();
        Ok((rows.iter().map(|&row| state.id(row)).collect(), state.bytes(&rows)?))
    }

    /// The rows of these ids in their number type, one after another, as raw bytes.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if an id is not there; also as [`Index::vector_bytes`].
    pub fn vector_bytes_of(&self, ids: &[i64]) -> Result<Vec<u8>> {
        let (state, places) = {
            let published = self.published();
            (Arc::clone(&published.state), published.places.clone())
        };
        let row = |&id| state.row(id, places.as_deref());
        let rows = ids.iter().map(|id| row(id).ok_or_else(|| unknown(*id, "argument")));
        state.bytes(&rows.collect::<Result<Vec<_>>>()?)
    }

    /// Bytes that the index holds beside the rows' own.
    pub fn nbytes(&self) -> usize {
        let state = self.state();
        let encoder = state.encoder.as_ref().map_or(0, |encoder| encoder.nbytes());
        let graph = state.graph.as_ref().map_or(0, |graph| graph.nbytes());
        let codes: usize = state.chunks.iter().map(|chunk| chunk.nbytes()).sum();
        codes + state.rows() * 8 + encoder + graph
    }

    /// Dimensions that are coded: fewer than `dim` where a part of the principal axes is enough.
    pub fn code_width(&self) -> Option<usize> {
        self.state().encoder.as_ref().map(|encoder| encoder.width())
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.published().state)
    }

    fn published(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for other edits; refused where this one could not publish, before it changes anything where
    /// it lies.
    fn edit(&self, monitor: &mut dyn Monitor) -> Result<Turn<'_>> {
        let turn = self.editing.take(monitor)?;
        self.refuse_for_ever()?;
        Ok(turn)
    }

    /// None where another edit is under way.
    fn try_edit(&self) -> Result<Option<Turn<'_>>> {
        let turn = self.editing.try_take()?;
        if turn.is_some() {
            self.refuse_for_ever()?;
        }
        Ok(turn)
    }

    /// The searches of a parent process never end in its child.
    fn refuse_for_ever(&self) -> Result<()> {
        let here = process::id();
        if self.process.load(Ordering::Relaxed) == here {
            return Ok(());
        }
        let start = Instant::now();
        while let Err(TryLockError::WouldBlock) = self.published.try_write() {
            if start.elapsed() >= PATIENCE {
                return Err(Error::invalid(
                    "this process was forked while another thread searched the index, so that \
                     here the search never ends: search it, or edit a copy",
                ));
            }
            thread::sleep(PATIENCE / 1000);
        }
        self.process.store(here, Ordering::Relaxed);
        Ok(())
    }

    fn check_dim(&self, what: &'static str, got: usize) -> Result<()> {
        if got == self.dim {
            return Ok(());
        }
        Err(Error::DimensionMismatch { what, expected: self.dim, got })
    }

    /// Finds the `k` rows nearest to each query, nearest first; equal distances by row.
    ///
    /// Each query has exactly `min(k, rows allowed)` answers.
    ///
    /// # Errors
    ///
    /// `DimensionMismatch`, `BadNumber`, `InvalidParameter` if `k` is 0.
    pub fn search(&self, queries: &Rows<'_>, k: usize) -> Result<Hits> {
        self.search_with(queries, k, Options::new(), Run::new())
    }

    /// As [`Index::search`], among some rows, by a method, on some threads.
    ///
    /// # Errors
    ///
    /// As [`Index::search`]; `InvalidParameter` also if there are no threads, the effort is 0, the
    /// filter does not fit or there is no graph; `Interrupted` if the monitor said so.
    pub fn search_with(
        &self,
        queries: &Rows<'_>,
        k: usize,
        options: Options<'_>,
        run: Run<'_>,
    ) -> Result<Hits> {
        let mut hits = Hits::default();
        self.search_into(queries, k, options, run, &mut hits)?;
        Ok(hits)
    }

    /// As [`Index::search_with`], into the memory of earlier answers, which are lost also where it
    /// fails.
    ///
    /// One query after another on one thread, without a filter, takes no memory from the heap once
    /// some have been answered.
    ///
    /// # Errors
    ///
    /// As [`Index::search_with`].
    pub fn search_into(
        &self,
        queries: &Rows<'_>,
        k: usize,
        options: Options<'_>,
        run: Run<'_>,
        hits: &mut Hits,
    ) -> Result<()> {
        self.answer(queries, Goal::Nearest(k), &options, run, hits)
    }

    /// Finds every row at most `radius` from each query, nearest first; equal distances by row.
    ///
    /// # Errors
    ///
    /// `DimensionMismatch`, `BadNumber`, `InvalidParameter` if the radius is NaN.
    pub fn search_radius(&self, queries: &Rows<'_>, radius: f64) -> Result<Hits> {
        self.search_radius_with(queries, radius, None, Run::new())
    }

    /// As [`Index::search_radius`], among some rows, on some threads.
    ///
    /// # Errors
    ///
    /// As [`Index::search_radius`]; `InvalidParameter` also if there are no threads or the filter
    /// does not fit; `Interrupted` if the monitor said so.
    pub fn search_radius_with(
        &self,
        queries: &Rows<'_>,
        radius: f64,
        filter: Option<Filter<'_>>,
        run: Run<'_>,
    ) -> Result<Hits> {
        let mut hits = Hits::default();
        let options = Options { filter, ..Options::new() };
        self.answer(queries, Goal::Within(radius), &options, run, &mut hits)?;
        Ok(hits)
    }

    fn answer(
        &self,
        queries: &Rows<'_>,
        goal: Goal,
        options: &Options<'_>,
        run: Run<'_>,
        hits: &mut Hits,
    ) -> Result<()> {
        let run = run.parts()?;
        self.check_asked(queries, goal, options)?;
        let published = self.published();
        // Under the lock, if it takes no longer than two more references to the state would.
        let state = &*published.state;
        let corpus = self.corpus(state, state.live.as_deref());
        if options.filter.is_none()
            && options.method != Method::Graph
            && state.store.is_none()
            && exact::is_brief(&corpus, queries)
        {
            return Self::answer_briefly(state, &corpus, queries, goal, hits);
        }
        let (state, selection) = Self::seen(published, options)?;
        let corpus = self.corpus(&state, selection.as_deref());
        self.answer_from(&state, corpus, queries, goal, options, run, hits)
    }

    /// What a search sees, and the rows of it that may answer; refuses what cannot be answered.
    fn asked(&self, queries: &Rows<'_>, goal: Goal, options: &Options<'_>) -> Result<Seen> {
        self.check_asked(queries, goal, options)?;
        Self::seen(self.published(), options)
    }

    #[inline(always)] // a small search takes less time than a few moves more
    fn check_asked(&self, queries: &Rows<'_>, goal: Goal, options: &Options<'_>) -> Result<()> {
        match goal {
            Goal::Nearest(0) => return Err(Error::invalid("expected k of at least 1, got 0")),
            Goal::Within(radius) if radius.is_nan() => {
                return Err(Error::invalid("expected a radius, got NaN"));
            }
            _ => {}
        }
        self.check_dim("queries", queries.dim())?;
        if options.effort == Some(0) {
            return Err(Error::invalid("expected effort of at least 1, got 0"));
        }
        Ok(())
    }

    fn seen(published: RwLockReadGuard<'_, Published>, options: &Options<'_>) -> Result<Seen> {
        let places = options.filter.and_then(|_| published.places.clone());
        let state = Arc::clone(&published.state);
        drop(published);
        let selection = state.selection(options.filter, places.as_deref())?;
        if options.method == Method::Graph && state.seed.is_none() {
            return Err(Error::invalid(
                "the index has no graph: call build_graph() first, or search with method 'auto' \
                 or 'exact'",
            ));
        }
        Ok((state, selection))
    }

    #[inline(never)] // one piece for all
    fn answer_briefly(
        state: &State,
        corpus: &Corpus<'_>,
        queries: &Rows<'_>,
        goal: Goal,
        hits: &mut Hits,
    ) -> Result<()> {
        hits.begin(goal.answers(corpus));
        exact::brief(corpus, queries, goal, |list| hits.push(state, list, true))?;
        state.sound()
    }

    /// The answers of one state, of which `explain`, `why_not` and `health` ask several things.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)] // as `check_asked`
    fn answer_from(
        &self,
        state: &State,
        corpus: Corpus<'_>,
        queries: &Rows<'_>,
        goal: Goal,
        options: &Options<'_>,
        (threads, monitor): (usize, &mut dyn Monitor),
        hits: &mut Hits,
    ) -> Result<()> {
        let walks = state.graph.is_some() && options.method == Method::Graph;
        if !walks && exact::is_brief(&corpus, queries) {
            return Self::answer_briefly(state, &corpus, queries, goal, hits);
        }
        let k = goal.answers(&corpus);
        hits.begin(k);
        let walked = match goal {
            Goal::Nearest(_) => {
                self.walk(state, corpus, queries, k, options, (threads, monitor))?
            }
            Goal::Within(_) => None,
        };
        let (lists, exact) = if let Some(found) = walked {
            found
        } else {
            let clock = Clock::start(corpus);
            let lists = exact::search(corpus, queries, goal, threads, monitor)?;
            clock.stop(|counts| &mut counts.exact_ns);
            (lists, One::from_elem(true, queries.len()))
        };
        state.sound()?;
        lists.iter().zip(exact).for_each(|(list, exact)| hits.push(state, list, exact));
        Ok(())
    }

    /// The answers of the graph, and which of them are exact; none where the exact search is due.
    fn walk(
        &self,
        state: &State,
        corpus: Corpus<'_>,
        queries: &Rows<'_>,
        k: usize,
        options: &Options<'_>,
        (threads, monitor): (usize, &mut dyn Monitor),
    ) -> Result<Option<Walked>> {
        let (Some(graph), Some(encoder)) = (&state.graph, corpus.encoder) else { return Ok(None) };
        let n = queries.len();
        if options.method == Method::Exact || n == 0 || k == 0 {
            return Ok(None);
        }
        // A filter leaves fewer rows to look at, and a walk more to come to: the cheaper way, always.
        let effort = options.effort.unwrap_or(state.effort.max(k + k / 2));
        let effort = effort.min(corpus.rows).max(k);
        let share = corpus.candidates() as f64 / state.len() as f64;
        let expanded = effort + graph::between(share, k) as usize;
        let walk_ns = graph::walk_costs(corpus, encoder, expanded);
        let exact_ns = exact::costs(corpus, encoder, n);
        let walks = walk_ns < exact_ns || (options.method == Method::Graph && share >= 1.0);
        corpus.count(|counts| counts.plan = Some(Plan { walk_ns, exact_ns, effort, walks }));
        if !walks {
            return Ok(None);
        }
        let reach = Reach::new(corpus.allowed, share, k, effort, self.metric.is_of_differences());
        let Some(lane) = Lane::new(corpus, graph.lift, &graph.together, n) else { return Ok(None) };
        queries.check("queries")?;
        let clock = Clock::start(corpus);
        let work = (expanded * 16 * self.dim) as u64;
        let search = graph::Search { corpus, lane: &lane, graph, k, reach };
        let found = if n <= graph::TASK {
            let mut lists: One<Option<List>> = (0..n).map(|_| None).collect();
            single(work * n as u64, monitor, |worker| {
                search.run(queries, |i, list| {
                    lists[i] = list;
                    worker.advance(work)
                });
            })?;
            lists
        } else {
            let mut stages = Stages::new(monitor, work * n as u64);
            let mut lists = One::new();
            for first in (0..n).step_by(ORDERED) {
                let part = queries.slice(first, ORDERED.min(n - first));
                lists.extend(search.run_in_order(&part, threads, work, &mut stages)?);
            }
            stages.finish()?;
            lists
        };
        clock.stop(|counts| &mut counts.walk_ns);
        if graph.is_damaged() {
            // An edit under way may wait for what this thread holds; the next search may mend.
            if let Ok(Some(edit)) = self.try_edit() {
                self.mend_in(&edit, threads, &mut Hushed(monitor))?;
            }
            corpus.count(|counts| counts.discarded += n);
            return Ok(None);
        }
        // A walk that failed is no answer: all such queries are one batch.
        let exact: One<bool> = found.iter().map(Option::is_none).collect();
        if !exact.contains(&true) {
            return Ok(Some((found.into_iter().flatten().collect(), exact)));
        }
        let mut bytes = Vec::new();
        let short = (0..n).filter(|&i| exact[i]);
        short.for_each(|i| queries.copy_bytes(i, &mut bytes));
        let asked = Rows::from_bytes(bytes, self.dim, queries.dtype());
        let goal = Goal::Nearest(k);
        corpus.count(|counts| counts.discarded += asked.len());
        let clock = Clock::start(corpus);
        let mut others =
            exact::search(corpus, &asked, goal, threads, &mut Hushed(monitor))?.into_iter();
        clock.stop(|counts| &mut counts.exact_ns);
        let lists = found.into_iter().filter_map(|list| list.or_else(|| others.next()));
        Ok(Some((lists.collect(), exact)))
    }

    /// Links near rows, so that searches need not look at all of them.
    ///
    /// Edits keep the links up to date from now on. Where 8-bit codes do not tell near rows apart,
    /// as a probe says, or some row has none (numbers so small or large that their squares leave the
    /// range of floats), nothing is linked and every search is exact.
    /// The same rows, seed and metric give the same graph at any number of threads.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the metric is not one of products and euclidean distances.
    pub fn build_graph(&self, seed: u64) -> Result<()> {
        self.build_graph_with(seed, Run::new())
    }

    /// As [`Index::build_graph`], on some threads.
    ///
    /// # Errors
    ///
    /// As [`Index::build_graph`]; `InvalidParameter` if there are no threads, `Interrupted` if the
    /// monitor said so, the index being as it was.
    pub fn build_graph_with(&self, seed: u64, run: Run<'_>) -> Result<()> {
        let (threads, monitor) = run.parts()?;
        check_linkable(self.metric)?;
        let _edit = self.edit(monitor)?;
        let state = self.state();
        let mut next = State { seed: Some(seed), ..(*state).clone() };
        // For the first graph, axes may pay that did not pay for the sweep alone.
        let stale = self.is_stale(&state);
        if state.seed.is_none() || stale {
            let blocks = state.blocks();
            let width = |encoder: &Option<Arc<Encoder>>| encoder.as_ref().map(|e| e.width());
            let encoder = self.learn(&next, &blocks);
            if stale || width(&encoder) != width(&state.encoder) {
                self.recode(&mut next, encoder, &blocks, threads, monitor)?;
            }
        }
        next.graph = self.new_graph(&next, threads, monitor)?;
        self.publish(next, state.rows(), &[])
    }

    /// Builds the graph again if links of it were damaged in a file.
    fn mend_in(&self, _edit: &Turn<'_>, threads: usize, monitor: &mut dyn Monitor) -> Result<()> {
        let state = self.state();
        if !state.is_damaged() {
            return Ok(());
        }
        let mut next = (*state).clone();
        next.graph = self.new_graph(&next, threads, monitor)?;
        self.publish(next, state.rows(), &[])
    }

    /// Learns how some rows become codes.
    fn learn(&self, state: &State, blocks: &[Rows<'_>]) -> Option<Arc<Encoder>> {
        Encoder::learn(self.metric, self.dim, blocks, state.seed.is_some()).map(Arc::new)
    }

    /// Codes all rows of a state, which are `blocks`, by an encoder that has just learned from them.
    fn recode(
        &self,
        next: &mut State,
        encoder: Option<Arc<Encoder>>,
        blocks: &[Rows<'static>],
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<()> {
        next.encoder = encoder;
        (next.learned, next.updated) = (next.rows(), 0);
        next.chunks = self.encode(next, blocks, None, threads, monitor)?;
        Ok(())
    }

    /// Whether the rows lie elsewhere by now than those that the encoder learned from.
    fn is_stale(&self, state: &State) -> bool {
        let Some(encoder) = &state.encoder else { return self.metric.is_product() };
        let corpus = self.corpus(state, None);
        let live = state.live_rows();
        let sample = live.iter().step_by(live.len().div_ceil(STALE_PROBES).max(1));
        encoder.is_stale(sample.map(|&row| {
            let mut wide = vec![0.0; self.dim];
            corpus.read(row as u32, &mut wide);
            wide
        }))
    }

    fn corpus<'s>(&self, state: &'s State, allowed: Option<&'s Selection>) -> Corpus<'s> {
        Corpus {
            metric: self.metric,
            dim: self.dim,
            chunks: &state.chunks,
            rows: state.rows(),
            encoder: state.encoder.as_deref(),
            allowed,
            isa: self.isa,
            tally: None,
        }
    }

    /// A new graph of all rows that are not removed, if one is wanted and can be made.
    fn new_graph(
        &self,
        state: &State,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Option<Arc<Graph>>> {
        let Some(seed) = state.seed else { return Ok(None) };
        let corpus = self.corpus(state, None);
        // The certified codes of all rows, which are made now where they come from a file.
        let codes: Option<Vec<&Codes>> = corpus
            .encoder
            .and_then(|encoder| state.chunks.iter().map(|chunk| chunk.codes(encoder)).collect());
        let lift = corpus.encoder.zip(codes.as_ref());
        let lift = lift.map_or(0.0, |(encoder, codes)| encoder.lift(codes.iter().copied()));
        let together = Arc::new(Together::new(&state.chunks));
        let lane = codes
            .filter(|_| state.rows() > 0)
            .and_then(|_| Lane::new(corpus, lift, &together, state.rows()));
        let Some(lane) = lane else {
            Stages::new(monitor, 0).finish()?;
            return Ok(None);
        };
        let mut stages = Stages::new(monitor, graph::work(&lane));
        if !graph::codes_agree(corpus, &lane, seed, threads, &mut stages)? {
            stages.finish()?;
            return Ok(None);
        }
        let graph = graph::build(&lane, state.live.as_deref(), seed, threads, &mut stages)?;
        stages.finish()?;
        Ok(Some(Arc::new(graph)))
    }

    /// The graph of `next`, in which the rows `gone` are no more and the rows `new` have come.
    fn edited_graph(
        &self,
        state: &State,
        next: &State,
        gone: &[u32],
        new: &[u32],
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Option<Arc<Graph>>> {
        let same_codes = match (&state.encoder, &next.encoder) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        let Some(graph) = &state.graph else { return self.new_graph(next, threads, monitor) };
        graph.fetch_all();
        // Where many rows come it takes less to begin again.
        if !same_codes || new.len() > state.len() / REBUILD_SHARE || graph.is_damaged() {
            return self.new_graph(next, threads, monitor);
        }
        let together = Arc::new(Together::new(&next.chunks));
        let corpus = self.corpus(next, None);
        let beyond = next.chunks.iter().any(|chunk| chunk.is_beyond_codes());
        let lane = if beyond { None } else { Lane::new(corpus, graph.lift, &together, new.len()) };
        let Some(lane) = lane else {
            Stages::new(monitor, 0).finish()?;
            return Ok(None);
        };
        // Rows beyond the lift are linked as if they were shorter.
        let beyond = graph.beyond + lane.beyond(new);
        if beyond > next.len() / BEYOND_SHARE {
            return self.new_graph(next, threads, monitor);
        }
        let mut work = new.len() as u64 * Edit::work(&lane);
        if !gone.is_empty() {
            work += Edit::work_of_removal(&lane, gone.len());
        }
        let mut stages = Stages::new(monitor, work);
        let edited = new.len().max(gone.len());
        let mut edit = Edit::new(graph, &lane, next.live.as_deref(), edited, beyond);
        if !gone.is_empty() {
            edit.remove(gone, threads, &mut stages)?;
        }
        edit.insert(new, threads, &mut stages)?;
        stages.finish()?;
        Ok(Some(Arc::new(edit.finish())))
    }

    /// What a copy made of the vectors and their ids would not have: the effort, and the next free id.
    #[cfg(feature = "python")]
    pub(crate) fn kept(&self) -> (usize, i128) {
        let state = self.state();
        (state.effort, state.next_id)
    }

    /// Takes that of another index.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if there is no such effort or id.
    #[cfg(feature = "python")]
    pub(crate) fn keep(&self, effort: usize, next_id: i128) -> Result<()> {
        let _edit = self.edit(&mut Silent)?;
        let state = self.state();
        if effort == 0 || !(state.next_id..=1 << 63).contains(&next_id) {
            return Err(Error::invalid("expected an effort and an id as an index has them"));
        }
        let next = State { effort, next_id, ..(*state).clone() };
        self.publish(next, state.rows(), &[])
    }

    /// Whether near rows are linked.
    pub fn has_graph(&self) -> bool {
        self.state().seed.is_some()
    }

    /// The seed of the graph, where one was asked for.
    pub fn seed(&self) -> Option<u64> {
        self.state().seed
    }

    /// The width of a walk's beam where a search names none.
    pub fn effort(&self) -> usize {
        self.state().effort
    }

    /// Walks through the graph and counts what should not be; none where there is no graph.
    ///
    /// Waits for an edit under way, whose links are half made.
    pub fn check(&self) -> Option<Check> {
        let _edit = self.edit(&mut Silent);
        let state = self.state();
        let graph = state.graph.as_ref()?;
        Some(graph.check(state.rows(), |row| state.is_live(row as usize), || true))
    }

    /// Adds rows after those there are, with the next free ids; gives the ids.
    ///
    /// The rows are used where they lie. They must be of the number type of those there are.
    ///
    /// # Errors
    ///
    /// `DimensionMismatch`, `BadNumber`, `InvalidParameter` for another number type or where no
    /// integers are left for ids.
    pub fn add(&self, rows: Rows<'a>) -> Result<Vec<i64>> {
        self.add_with(rows, None, Run::new())
    }

    /// As [`Index::add`], with ids, on some threads.
    ///
    /// # Errors
    ///
    /// As [`Index::add`]; `InvalidParameter` also if an id is there already or given twice, or there
    /// are no threads; `Interrupted` if the monitor said so.
    pub fn add_with(&self, rows: Rows<'a>, ids: Option<&[i64]>, run: Run<'_>) -> Result<Vec<i64>> {
        self.add_rows(rows, false, ids, run)
    }

    /// As [`Index::add_with`]; the rows are copied, or used where they lie.
    ///
    /// # Errors
    ///
    /// As [`Index::add_with`].
    #[allow(unsafe_code)] // the promise of `'a`, handed on to the states
    pub(crate) fn add_rows(
        &self,
        rows: Rows<'a>,
        copy: bool,
        ids: Option<&[i64]>,
        run: Run<'_>,
    ) -> Result<Vec<i64>> {
        self.check_dim("vectors", rows.dim())?;
        let (threads, monitor) = run.parts()?;
        // SAFETY: only states hold rows. They are dropped with the index, which does not outlive
        // `'a`, or by a call that borrows the index.
        let rows = unsafe { rows.held() };
        let _edit = self.edit(monitor)?;
        let state = self.state();
        if let Some(dtype) = state.dtype.filter(|&dtype| dtype != rows.dtype()) {
            let got = rows.dtype();
            return Err(Error::invalid(format!("expected vectors of {dtype:?}, got {got:?}")));
        }
        if state.rows() + rows.len() > u32::MAX as usize {
            return Err(Error::invalid("an index holds at most 4,294,967,295 rows"));
        }
        let ids = self.new_ids(&state, rows.len(), ids)?;
        if rows.is_empty() {
            return Ok(ids);
        }
        let mut next = State { dtype: Some(rows.dtype()), ..(*state).clone() };
        let first = state.rows();
        let mut blocks = Vec::new();
        let mut taken = 0;
        // What is left of the last chunk is filled first, in memory of our own.
        let partial = first % CHUNK;
        if partial != 0 {
            taken = rows.len().min(CHUNK - partial);
            let last = state.chunks[first / CHUNK].rows();
            let mut bytes = Vec::new();
            (0..partial).for_each(|row| last.copy_bytes(row, &mut bytes));
            (0..taken).for_each(|row| rows.copy_bytes(row, &mut bytes));
            blocks.push(Rows::from_bytes(bytes, self.dim, rows.dtype()));
            let mut chunk_ids = (*next.ids[first / CHUNK]).clone();
            chunk_ids.extend(&ids[..taken]);
            next.ids.pop();
            next.ids.push(Arc::new(chunk_ids));
        }
        for start in (taken..rows.len()).step_by(CHUNK) {
            let len = CHUNK.min(rows.len() - start);
            blocks.push(rows.slice(start, len));
            next.ids.push(Arc::new(ids[start..start + len].to_vec()));
        }
        let total = first + rows.len();
        // Links are only as good as codes, and those of rows far from what was learned are coarse.
        let far = |encoder: &Arc<Encoder>| state.seed.is_some() && encoder.is_far(&rows);
        let relearn =
            total >= RELEARN * state.learned.max(CHUNK) || state.encoder.as_ref().is_none_or(far);
        if relearn {
            let old = state.chunks[..first / CHUNK].iter().map(|chunk| chunk.rows().clone());
            blocks = old.chain(blocks).collect();
            next.chunks.clear();
            next.encoder = self.learn(&next, &blocks);
            (next.learned, next.updated) = (total, 0);
        } else {
            next.chunks.truncate(first / CHUNK);
        }
        let before = if relearn || partial == 0 { None } else { state.chunks.last() };
        let before = before.zip(next.encoder.as_deref());
        let before = before.and_then(|(chunk, encoder)| chunk.codes(encoder));
        // The last blocks lie in the caller's memory: a copy is made of each where it is encoded.
        let given = rows.slice(taken, rows.len() - taken);
        let own = blocks.len() - given.len().div_ceil(CHUNK);
        let room = if copy { Some(given.room()?) } else { None };
        let block = |i: usize| match &room {
            Some(room) if i >= own => blocks[i].copied_to(room, (i - own) * CHUNK),
            _ => blocks[i].clone(),
        };
        let chunks = self.encode_each(&next, blocks.len(), block, before, threads, monitor)?;
        check_uncoded(&chunks, &rows)?;
        next.chunks.extend(chunks);
        if let Some(live) = &mut next.live {
            Arc::make_mut(live).extend(rows.len(), first);
        }
        let new: Vec<u32> = (first as u32..total as u32).collect();
        next.graph = self.edited_graph(&state, &next, &[], &new, threads, monitor)?;
        self.publish(next, first, &ids)?;
        Ok(ids)
    }

    /// Chunks with codes; `before` are those of the first block's first rows.
    fn encode(
        &self,
        state: &State,
        blocks: &[Rows<'static>],
        before: Option<&Codes>,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Vec<Arc<Chunk>>> {
        self.encode_each(state, blocks.len(), |i| blocks[i].clone(), before, threads, monitor)
    }

    /// As [`Index::encode`], of `count` blocks that are made where they are encoded: copying many takes
    /// long enough to be stopped.
    fn encode_each(
        &self,
        state: &State,
        count: usize,
        block: impl Fn(usize) -> Rows<'static> + Sync,
        before: Option<&Codes>,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Vec<Arc<Chunk>>> {
        // Linking takes most of the time where it is due: progress is that of linking then.
        let mut hushed;
        let monitor: &mut dyn Monitor = if state.seed.is_some() {
            hushed = Hushed(monitor);
            &mut hushed
        } else {
            monitor
        };
        let encoder = state.encoder.as_deref();
        // Many chunks have their records together.
        let region = encoder.filter(|_| count > TOGETHER).and_then(|encoder| room(count, encoder));
        region.iter().for_each(|region| region.join_pages());
        // What it costs to encode a row, in the sweep's multiply-adds: reading, and the axes.
        let width = encoder.map(Encoder::width).filter(|&width| width < self.dim).unwrap_or(0);
        let cost = self.dim as u64 * (16 + 4 * width as u64);
        let total = (count * CHUNK) as u64 * cost;
        let encoded =
            run(threads, count.div_ceil(ENCODE_CHUNKS), total, monitor, |task, worker| {
                let mut scratch = Scratch::default();
                let mut chunks = Vec::with_capacity(ENCODE_CHUNKS);
                for i in task * ENCODE_CHUNKS..count.min((task + 1) * ENCODE_CHUNKS) {
                    let before = if i == 0 { before } else { None };
                    let rows = block(i);
                    let codes =
                        encoder.and_then(|encoder| encoder.encode(&rows, before, &mut scratch));
                    let place = region.as_ref().map(|region| (region, i * PIECES));
                    let codes = codes.map(|codes| codes.lie_in(place));
                    let done = rows.len() as u64 * cost;
                    chunks.push(Arc::new(Chunk::new(rows, codes)));
                    if !worker.advance(done) {
                        break;
                    }
                }
                chunks
            })?;
        Ok(encoded.into_iter().flatten().collect())
    }

    fn new_ids(&self, state: &State, len: usize, ids: Option<&[i64]>) -> Result<Vec<i64>> {
        let Some(ids) = ids else {
            let end = state.next_id + len as i128;
            if end > i128::from(i64::MAX) + 1 {
                return Err(Error::invalid("no integers are left for ids: give ids="));
            }
            return Ok((state.next_id..end).map(|id| id as i64).collect());
        };
        if ids.len() != len {
            let got = ids.len();
            return Err(Error::invalid(format!(
                "expected one id for each of {len} rows, got {got}"
            )));
        }
        repeated(ids)?;
        let published = self.published();
        match ids.iter().find(|&&id| state.row(id, published.places.as_deref()).is_some()) {
            Some(id) => Err(Error::invalid(format!(
                "id {id} is in the index already; use update() to replace its vector"
            ))),
            None => Ok(ids.to_vec()),
        }
    }

    /// Publishes the next state, whose rows from `first` have these ids.
    ///
    /// # Errors
    ///
    /// `Damaged` if a row that was touched is not what was saved; nothing is published then.
    fn publish(&self, mut next: State, first: usize, ids: &[i64]) -> Result<()> {
        next.sound()?;
        let last = first.checked_sub(1).map(|row| next.id(row));
        next.ascending &=
            ids.is_sorted() && ids.first().is_none_or(|&id| last.is_none_or(|l| l < id));
        next.next_id = ids.iter().fold(next.next_id, |next, &id| next.max(i128::from(id) + 1));
        let mut places = None;
        if !next.ascending && self.published().places.is_none() {
            let rows = 0..next.rows();
            places = Some(Arc::new(rows.map(|row| (next.id(row), row as u32)).collect()));
        }
        let _old; // states are large, and end when searches can go on
        let mut published = self.write();
        if let Some(places) = places {
            published.places = Some(places);
        } else if let Some(places) = &mut published.places {
            let new = ids.iter().zip(first as u32..).map(|(&id, row)| (id, row));
            Arc::make_mut(places).extend(new);
        }
        _old = mem::replace(&mut published.state, Arc::new(next));
        Ok(())
    }

    /// The rows of ids, each of which must be there, and once.
    fn rows_of(&self, state: &State, ids: &[i64]) -> Result<Vec<usize>> {
        repeated(ids)?;
        let published = self.published();
        let row = |&id: &i64| {
            state.row(id, published.places.as_deref()).ok_or_else(|| unknown(id, "argument"))
        };
        ids.iter().map(row).collect()
    }

    /// Removes the rows with these ids.
    ///
    /// Their space is given back when half of all rows are gone; the others are then copied.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if an id is not there or given twice.
    pub fn remove(&self, ids: &[i64]) -> Result<()> {
        self.remove_with(ids, Run::new())
    }

    /// As [`Index::remove`], on some threads.
    ///
    /// # Errors
    ///
    /// As [`Index::remove`]; `InvalidParameter` if there are no threads, `Interrupted` if the monitor
    /// said so.
    pub fn remove_with(&self, ids: &[i64], run: Run<'_>) -> Result<()> {
        let (threads, monitor) = run.parts()?;
        let _edit = self.edit(monitor)?;
        let state = self.state();
        let rows = self.rows_of(&state, ids)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut next = (*state).clone();
        let live = next.live.get_or_insert_with(|| Arc::new(Selection::all(state.rows())));
        let live = Arc::make_mut(live);
        rows.iter().for_each(|&row| live.remove(row));
        let left = live.len();
        if left < state.rows() / 2 || left == 0 {
            return self.compact(&next, threads, monitor);
        }
        let gone: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
        next.graph = self.edited_graph(&state, &next, &gone, &[], threads, monitor)?;
        self.publish(next, state.rows(), &[])
    }

    /// Copies the live rows together and starts again from them.
    fn compact(&self, state: &State, threads: usize, monitor: &mut dyn Monitor) -> Result<()> {
        let live = state.live_rows();
        let mut next =
            State { live: None, chunks: Vec::new(), store: None, ids: Vec::new(), ..state.clone() };
        if live.is_empty() {
            next = State { encoder: None, learned: 0, ascending: true, ..next };
        }
        let dtype = state.dtype.unwrap_or(DType::F32);
        let mut blocks = Vec::new();
        for rows in live.chunks(CHUNK) {
            let mut bytes = Vec::new();
            for row in rows {
                state.chunks[row / CHUNK].rows().copy_bytes(row % CHUNK, &mut bytes);
            }
            blocks.push(Rows::from_bytes(bytes, self.dim, dtype));
            next.ids.push(Arc::new(rows.iter().map(|&row| state.id(row)).collect()));
        }
        state.sound()?;
        next.encoder = self.learn(&next, &blocks);
        (next.learned, next.updated) = (live.len(), 0);
        next.chunks = self.encode(&next, &blocks, None, threads, monitor)?;
        next.graph = self.new_graph(&next, threads, monitor)?;
        let places = (!next.ascending)
            .then(|| Arc::new((0..next.rows()).map(|row| (next.id(row), row as u32)).collect()));
        let _old;
        let mut published = self.write();
        _old = mem::replace(&mut *published, Published { state: Arc::new(next), places });
        Ok(())
    }

    /// Gives the rows with these ids new vectors; the rows keep their places.
    ///
    /// The caller's memory is not written to: chunks that change are copied first.
    ///
    /// # Errors
    ///
    /// As [`Index::add`]; `InvalidParameter` also if an id is not there or given twice.
    pub fn update(&self, ids: &[i64], rows: &Rows<'_>) -> Result<()> {
        self.update_with(ids, rows, Run::new())
    }

    /// As [`Index::update`], on some threads.
    ///
    /// # Errors
    ///
    /// As [`Index::update`]; `InvalidParameter` if there are no threads, `Interrupted` if the
    /// monitor said so.
    pub fn update_with(&self, ids: &[i64], rows: &Rows<'_>, run: Run<'_>) -> Result<()> {
        self.check_dim("vectors", rows.dim())?;
        let (threads, monitor) = run.parts()?;
        if ids.len() != rows.len() {
            let (ids, rows) = (ids.len(), rows.len());
            return Err(Error::invalid(format!(
                "expected {ids} vectors for {ids} ids, got {rows}"
            )));
        }
        let _edit = self.edit(monitor)?;
        let state = self.state();
        if let Some(dtype) = state.dtype.filter(|&dtype| dtype != rows.dtype()) {
            let got = rows.dtype();
            return Err(Error::invalid(format!("expected vectors of {dtype:?}, got {got:?}")));
        }
        let mut changes: Vec<(usize, usize)> =
            self.rows_of(&state, ids)?.into_iter().zip(0..).collect();
        changes.sort_unstable();
        let mut next = (*state).clone();
        let touched: Vec<&[(usize, usize)]> =
            changes.chunk_by(|a, b| a.0 / CHUNK == b.0 / CHUNK).collect();
        let number = |changes: &[(usize, usize)]| changes[0].0 / CHUNK;
        let block = |i: usize| {
            let old = state.chunks[number(touched[i])].rows();
            let mut bytes = Vec::with_capacity(old.nbytes());
            let mut changes = touched[i].iter().peekable();
            for row in 0..old.len() {
                match changes.next_if(|(changed, _)| changed % CHUNK == row) {
                    Some(&(_, new)) => rows.copy_bytes(new, &mut bytes),
                    None => old.copy_bytes(row, &mut bytes),
                }
            }
            Rows::from_bytes(bytes, self.dim, rows.dtype())
        };
        let chunks = self.encode_each(&next, touched.len(), block, None, threads, monitor)?;
        check_uncoded(&chunks, rows)?;
        for (changes, chunk) in touched.into_iter().zip(chunks) {
            next.chunks[number(changes)] = chunk;
        }
        // As where rows are added; and rows may move one after another, each not far.
        let far = |encoder: &Arc<Encoder>| state.seed.is_some() && encoder.is_far(rows);
        next.updated += rows.len();
        let asked = |updated: usize| updated / (state.rows() / STALE_SHARE + 1);
        // After as many updates as there are rows it is done at any rate: a graph all of whose rows were
        // linked one by one is a little worse than one that was built.
        let relearn = state.encoder.as_ref().is_some_and(far)
            || next.updated >= state.rows()
            || asked(next.updated) > asked(state.updated) && self.is_stale(&next);
        if relearn {
            let blocks = next.blocks();
            let encoder = self.learn(&next, &blocks);
            self.recode(&mut next, encoder, &blocks, threads, &mut Hushed(monitor))?;
        }
        let changed: Vec<u32> = changes.iter().map(|&(row, _)| row as u32).collect();
        next.graph = self.edited_graph(&state, &next, &changed, &changed, threads, monitor)?;
        self.publish(next, state.rows(), &[])
    }
}

/// Checks new rows if some of their chunks have no codes; rows that are coded are finite.
fn check_uncoded(chunks: &[Arc<Chunk>], rows: &Rows<'_>) -> Result<()> {
    let beyond = chunks.iter().any(|chunk| chunk.is_beyond_codes());
    if beyond { rows.check("vectors") } else { Ok(()) }
}

fn check_linkable(metric: Metric) -> Result<()> {
    if metric.is_product() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a graph needs the metric euclidean, sqeuclidean, cosine or inner_product; {metric} is \
         searched exactly"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_does_not_wait_for_a_search_that_a_fork_left_behind() {
        let rows = || Rows::from_vec(vec![1.0f32; 8], 2).unwrap();
        let index = Index::new(rows(), Metric::Euclidean).unwrap();
        let reader = index.published();
        index.process.fetch_add(1, Ordering::Relaxed);
        let refused = index.add(rows()).unwrap_err().to_string();
        assert!(refused.contains("forked while another thread searched"), "{refused}");
        assert!(index.remove(&[0, 1, 2]).is_err());
        drop(reader);
        assert_eq!(index.add(rows()).unwrap(), [4, 5, 6, 7]);
        assert_eq!(index.process.load(Ordering::Relaxed), process::id());
    }
}
