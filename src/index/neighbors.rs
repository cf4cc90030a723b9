//! The nearest others of every row: one search whose queries are the rows themselves.
//!
//! Exactly, each pair of rows is compared once for both (`exact/pairs.rs`). What that cannot answer is
//! searched for as any query is: metrics and rows without codes, and rows that too many pass. Equal
//! rows are searched for once, so that a million of them cost no more than one.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::Arc;

use super::{Hits, Index, State};
use crate::codes::Encoder;
use crate::corpus::{CHUNK, Corpus};
use crate::error::{Error, Result};
use crate::exact::{self, Goal, List};
use crate::graph::{Lane, Nearby};
use crate::kernels::float::Judge;
use crate::rows::{DType, Rows};
use crate::threads::{Monitor, Run, Stages};

/// Rows that are searched for together.
const BLOCK: usize = 8 * CHUNK;
/// Below this all rows are searched for as they come.
const FEW: usize = 2048;
/// Where equal rows leave fewer than one of so many, each of these is searched for.
const REPEATED: usize = 2;
/// Seeds of a row for each of its neighbours.
const SEEDS: usize = 2;

impl Index<'_> {
    /// The `k` rows nearest to each row, itself left out, in the rows' order.
    ///
    /// # Errors
    ///
    /// As [`Index::search_with`].
    pub fn neighbors(&self, k: usize, run: Run<'_>) -> Result<Hits> {
        let (state, lists, mut hits) = self.neighbor_lists(k, run)?;
        lists.iter().flatten().for_each(|list| hits.push(&state, list, true));
        Ok(hits)
    }

    /// As [`Index::neighbors`], with the places of rows in the order of [`Index::ids`] instead of ids.
    ///
    /// # Errors
    ///
    /// As [`Index::neighbors`].
    pub fn neighbor_places(&self, k: usize, run: Run<'_>) -> Result<Hits> {
        let (state, lists, mut hits) = self.neighbor_lists(k, run)?;
        let places = state.places();
        for list in lists.iter().flatten() {
            hits.ids.extend(list.iter().map(|near| i64::from(places[near.row as usize])));
            hits.distances.extend(list.iter().map(|near| near.distance));
            hits.offsets.push(hits.ids.len());
            hits.exact.push(true);
        }
        Ok(hits)
    }

    /// The lists of all rows, of the state that they are of, and hits to be filled.
    fn neighbor_lists(
        &self,
        k: usize,
        run: Run<'_>,
    ) -> Result<(Arc<State>, Vec<Option<List>>, Hits)> {
        if k == 0 {
            return Err(Error::invalid("expected k of at least 1, got 0"));
        }
        let (threads, monitor) = run.parts()?;
        let state = self.state();
        let k = k.min(state.len().saturating_sub(1));
        let mut hits = Hits::default();
        hits.begin(k);
        let lists = if k == 0 {
            (0..state.len()).map(|_| Some(List::new())).collect()
        } else {
            self.all_lists(&state, k, threads, monitor)?
        };
        state.sound()?;
        Ok((state, lists, hits))
    }

    /// Groups of rows that lie near each other, as the first row of each row's group.
    ///
    /// Two rows are in one group if a chain of rows leads from one to the other in steps of at most
    /// `radius`. Rows are numbered in the order of [`Index::ids`]. The memory that it takes does not
    /// depend on how many rows are near each other.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the radius is not a number, `Interrupted` if the monitor said so, `Damaged`.
    pub fn groups(&self, radius: f64, run: Run<'_>) -> Result<Vec<u32>> {
        if radius.is_nan() {
            return Err(Error::invalid("expected a radius, got NaN"));
        }
        let (threads, monitor) = run.parts()?;
        let state = self.state();
        let corpus = self.corpus(&state, state.live.as_deref());
        let rows: Vec<u32> = state.live_rows().into_iter().map(|row| row as u32).collect();
        let distinct = Distinct::new(corpus, &rows);
        // Equal rows may be farther apart than a radius: by inner product, or where it is negative.
        let mut known = Vec::new();
        let mut wide = vec![0.0; self.dim];
        for (&row, &first) in &distinct.others {
            corpus.read(row, &mut wide);
            if Judge::new(self.metric, &wide).distance(&wide) <= radius {
                known.push((row, first));
            }
        }
        let width = corpus.encoder.map_or(8 * self.dim, Encoder::swept) as u64;
        let total = (state.rows() as u64).pow(2) / 2 * width;
        let mut stages = Stages::new(monitor, total);
        let firsts = exact::groups(corpus, radius, known.into_iter(), threads, &mut stages)?;
        state.sound()?;
        stages.finish()?;
        let places = state.places();
        Ok(rows.iter().map(|&row| places[firsts[row as usize] as usize]).collect())
    }

    /// The lists of all rows that are not removed, none for others.
    fn all_lists(
        &self,
        state: &State,
        k: usize,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Vec<Option<List>>> {
        let fine = self.corpus(state, state.live.as_deref());
        let rows: Vec<u32> = state.live_rows().into_iter().map(|row| row as u32).collect();
        let distinct = Distinct::new(fine, &rows);
        let pays = rows.len() >= FEW && distinct.rows.len() * REPEATED > rows.len();
        let narrow = if pays { self.narrow(state, threads, monitor)? } else { None };
        let swept = narrow.as_ref().unwrap_or(state);
        let corpus = self.corpus(swept, state.live.as_deref());
        let pays = pays
            && self.metric.is_of_differences()
            && [fine, corpus].into_iter().all(Corpus::is_coded)
            && exact::codes_prune(corpus, &rows, k);
        let width = corpus.encoder.map_or(8 * self.dim, Encoder::swept) as u64;
        let queries = if pays { rows.len() as u64 / 2 } else { distinct.rows.len() as u64 };
        let mut stages = Stages::new(monitor, queries * state.rows() as u64 * width);
        let mut lists = if let Some(lane) = Lane::new(corpus, 0.0).filter(|_| pays) {
            let nearby = Nearby::new(&lane, 0, threads, &mut stages)?;
            let seeds = |row: u32, out: &mut Vec<u32>| nearby.of(row, SEEDS * k, out);
            exact::pairs(corpus, fine, k, seeds, threads, &mut stages)?
        } else {
            (0..state.rows()).map(|_| None).collect()
        };
        let missing = rows.iter().copied().filter(|&row| lists[row as usize].is_none());
        let (asked, same) = distinct.kinds(missing);
        for asked in asked.chunks(BLOCK) {
            let queries = self.rows_together(state, asked);
            let found = exact::search(fine, &queries, Goal::Nearest(k + 1), threads, &mut stages)?;
            stages.count((asked.len() * state.rows()) as u64 * width);
            for (first, found) in asked.iter().zip(found) {
                for &row in &same[first] {
                    // Where as many others come before it, a row is not among its own nearest.
                    let mut list = List::new();
                    list.extend(found.iter().filter(|near| near.row != row).take(k));
                    lists[row as usize] = Some(list);
                }
            }
        }
        stages.finish()?;
        Ok(lists)
    }

    /// The state with codes that are shorter, if that pays where all rows are compared: axes may
    /// pay then that did not pay for single searches.
    fn narrow(
        &self,
        state: &State,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Option<State>> {
        if state.seed.is_some() {
            return Ok(None);
        }
        let blocks: Vec<Rows<'static>> =
            state.chunks.iter().map(|chunk| chunk.rows().clone()).collect();
        // Learned as for a graph.
        let mut narrow = State { seed: Some(0), ..state.clone() };
        narrow.encoder = self.learn(&narrow, &blocks);
        let width = |state: &State| state.encoder.as_ref().map(|encoder| encoder.width());
        if width(&narrow) == width(state) {
            return Ok(None);
        }
        narrow.chunks = self.encode(&narrow, &blocks, None, threads, monitor)?;
        Ok(Some(narrow))
    }

    /// Copies of some rows.
    fn rows_together(&self, state: &State, rows: &[u32]) -> Rows<'static> {
        let mut bytes = Vec::new();
        for &row in rows {
            state.chunks[row as usize / CHUNK].rows().copy_bytes(row as usize % CHUNK, &mut bytes);
        }
        Rows::from_bytes(bytes, self.dim, state.dtype.unwrap_or(DType::F32))
    }
}

/// Which rows are equal, bit by bit.
struct Distinct {
    /// The first of each kind.
    rows: Vec<u32>,
    /// Rows that are not the first of their kind, and that one.
    others: HashMap<u32, u32>,
}

impl Distinct {
    fn new(corpus: Corpus<'_>, all: &[u32]) -> Self {
        let mut kinds: HashMap<u64, Vec<u32>> = HashMap::with_capacity(all.len());
        let (mut rows, mut others) = (Vec::new(), HashMap::new());
        let (mut bytes, mut known) = (Vec::new(), Vec::new());
        let copy = |row: u32, bytes: &mut Vec<u8>| {
            bytes.clear();
            corpus.chunks[row as usize / CHUNK].rows().copy_bytes(row as usize % CHUNK, bytes);
        };
        for &row in all {
            copy(row, &mut bytes);
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            let kind = kinds.entry(hasher.finish()).or_default();
            let first = kind.iter().copied().find(|&first| {
                copy(first, &mut known);
                known == bytes
            });
            if let Some(first) = first {
                others.insert(row, first);
            } else {
                kind.push(row);
                rows.push(row);
            }
        }
        Self { rows, others }
    }

    /// The first of each kind that some rows are of, and the rows of each kind.
    fn kinds(&self, rows: impl Iterator<Item = u32>) -> (Vec<u32>, HashMap<u32, Vec<u32>>) {
        let (mut firsts, mut kinds) = (Vec::new(), HashMap::<u32, Vec<u32>>::new());
        for row in rows {
            let first = self.others.get(&row).copied().unwrap_or(row);
            let kind = kinds.entry(first).or_default();
            if kind.is_empty() {
                firsts.push(first);
            }
            kind.push(row);
        }
        (firsts, kinds)
    }
}
