//! The nearest others of every row: one search whose queries are the rows themselves.
//!
//! Exactly, each pair of rows is compared once for both (`exact/pairs.rs`). What that cannot answer is
//! searched for as any query is: metrics and rows without codes, and rows that too many pass. Equal
//! rows are searched for once, so that a million of them cost no more than one.
//!
//! Where some may be missed, rows visit only the cells nearest to them (`exact/cells.rs`): as many as a
//! sample of the rows, whose true neighbours are known, would have needed.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::Arc;

use super::{Hits, Index, State};
use crate::codes::Encoder;
use crate::corpus::{CHUNK, Corpus};
use crate::error::{Error, Result};
use crate::exact::{self, Cells, Goal, List};
use crate::kernels::float::Judge;
use crate::rows::{DType, Rows};
use crate::scratch::One;
use crate::threads::{Hushed, Monitor, Run, Stages};

/// Rows that are searched for together.
const BLOCK: usize = 8 * CHUNK;
/// Below this all rows are searched for as they come.
const FEW: usize = 2048;
/// Where equal rows leave fewer than one of so many, each of these is searched for.
const REPEATED: usize = 2;
/// Cells that rows visit before all pairs are compared, so that few pass.
const FIRST_VISITS: usize = 8;
/// Candidates of a row for each of its neighbours, and more: shorter codes leave some doubt about which
/// are nearest.
const CANDIDATES: usize = 2;
const CANDIDATES_MORE: usize = 8;
/// Rows whose true neighbours tell how many cells must be visited, and how many were found.
const SAMPLE: usize = 1000;
/// Of what may be missed, the share that may lie in cells that are not visited.
const UNSEEN: f64 = 0.7;
/// Where the recall stays behind what was asked for by more, codes do not tell near rows apart, as in
/// tight clusters far from each other, and choose badly among what was seen: all pairs are compared.
const BEHIND: f64 = 0.05;
/// Where one in so many cells must be visited, comparing all pairs costs no more.
const WORTH_IT: usize = 4;

/// How many of the true neighbours must be found where some may be missed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Their share, above 0 and at most 1.
    pub recall: f64,
    /// Chooses the cells.
    pub seed: u64,
}

/// The neighbours of all rows of a state.
struct Neighborhoods {
    state: Arc<State>,
    /// None for rows that were removed.
    lists: Vec<Option<List>>,
    /// If some may be missed.
    recall: Option<f64>,
    /// To be filled.
    hits: Hits,
}

impl Index<'_> {
    /// The `k` rows nearest to each row, itself left out, in the rows' order.
    ///
    /// # Errors
    ///
    /// As [`Index::search_with`].
    pub fn neighbors(&self, k: usize, run: Run<'_>) -> Result<Hits> {
        let Neighborhoods { state, lists, mut hits, .. } = self.neighbor_lists(k, None, run)?;
        lists.iter().flatten().for_each(|list| hits.push(&state, list, true));
        Ok(hits)
    }

    /// As [`Index::neighbors`], with the places of rows in the order of [`Index::ids`] instead of ids.
    ///
    /// Where `near` allows it, only the rows that lie in the cells nearest to each row are compared with
    /// it. Then the share of the true neighbours that was found, as measured on some rows, comes as
    /// well; none where all pairs were compared after all.
    ///
    /// # Errors
    ///
    /// As [`Index::neighbors`]; `InvalidParameter` also if the recall is not above 0 and at most 1.
    pub fn neighbor_places(
        &self,
        k: usize,
        near: Option<Near>,
        run: Run<'_>,
    ) -> Result<(Hits, Option<f64>)> {
        if let Some(Near { recall, .. }) =
            near.filter(|near| !(0.0 < near.recall && near.recall <= 1.0))
        {
            return Err(Error::invalid(format!(
                "expected recall above 0 and up to 1, got {recall}"
            )));
        }
        let Neighborhoods { state, lists, recall, mut hits } = self.neighbor_lists(k, near, run)?;
        let places = state.places();
        for list in lists.iter().flatten() {
            hits.ids.extend(list.iter().map(|near| i64::from(places[near.row as usize])));
            hits.distances.extend(list.iter().map(|near| near.distance));
            hits.offsets.push(hits.ids.len());
            hits.exact.push(recall.is_none());
        }
        Ok((hits, recall))
    }

    fn neighbor_lists(&self, k: usize, near: Option<Near>, run: Run<'_>) -> Result<Neighborhoods> {
        if k == 0 {
            return Err(Error::invalid("expected k of at least 1, got 0"));
        }
        let (threads, monitor) = run.parts()?;
        let state = self.state();
        let k = k.min(state.len().saturating_sub(1));
        let mut hits = Hits::default();
        hits.begin(k);
        let (mut lists, mut recall) = if k == 0 {
            ((0..state.len()).map(|_| Some(List::new())).collect(), None)
        } else {
            self.all_lists(&state, k, near, threads, monitor)?
        };
        if near.zip(recall).is_some_and(|(near, reached)| reached < near.recall - BEHIND) {
            drop(lists);
            (lists, recall) = self.all_lists(&state, k, None, threads, &mut Hushed(monitor))?;
        }
        state.sound()?;
        Ok(Neighborhoods { state, lists, recall, hits })
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

    /// The lists of all rows that are not removed, none for others; the recall if some may be missed.
    fn all_lists(
        &self,
        state: &State,
        k: usize,
        near: Option<Near>,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<(Vec<Option<List>>, Option<f64>)> {
        let fine = self.corpus(state, state.live.as_deref());
        let rows: Vec<u32> = state.live_rows().into_iter().map(|row| row as u32).collect();
        let distinct = Distinct::new(fine, &rows);
        let pays = self.metric.is_of_differences()
            && rows.len() >= FEW
            && distinct.rows.len() * REPEATED > rows.len();
        let narrow = if pays { self.narrow(state, threads, monitor)? } else { None };
        let swept = narrow.as_ref().unwrap_or(state);
        let corpus = self.corpus(swept, state.live.as_deref());
        let coded = pays && [fine, corpus].into_iter().all(Corpus::is_coded);
        let prunes = coded && exact::codes_prune(corpus, &rows, k);
        let width = corpus.encoder.map_or(8 * self.dim, Encoder::swept) as u64;
        let queries = if prunes { rows.len() as u64 / 2 } else { distinct.rows.len() as u64 };
        let near = near.filter(|near| coded && near.recall < 1.0);
        let mut stages = Stages::new(monitor, queries * state.rows() as u64 * width);
        let seed = near.map_or(0, |near| near.seed);
        let cells = if prunes || near.is_some() {
            Cells::new(corpus, seed, threads, &mut stages)?
        } else {
            None
        };
        let mut sample = None;
        if let (Some(cells), Some(near)) = (&cells, near) {
            let some: Vec<u32> =
                rows.iter().copied().step_by(rows.len().div_ceil(SAMPLE)).collect();
            let found = self.searched(state, fine, &some, k, threads, &mut stages)?;
            let truth =
                some.iter().zip(found).map(|(&row, found)| others(&found, row, k)).collect();
            let known = Sample { rows: some, truth };
            let visits = cells.visits(corpus, &known.pairs(), threads, &mut stages)?;
            let visits = enough(visits, near.recall);
            if visits * WORTH_IT <= cells.len() {
                // Visitors of a cell are compared with its rows: about as many pairs as all have.
                let share = visits as u64 * state.rows() as u64 / cells.len() as u64;
                stages.expect(rows.len() as u64 * share * width);
                sample = Some((visits, known));
            }
        }
        let mut lists = if let Some(cells) = cells.filter(|_| prunes || sample.is_some()) {
            let visits = sample.as_ref().map_or(FIRST_VISITS, |&(visits, _)| visits);
            let most = CANDIDATES * k + CANDIDATES_MORE;
            let seeds = cells.candidates(corpus, visits, most, threads, &mut stages)?;
            drop(cells); // an eighth of a kilobyte a row
            exact::pairs(corpus, fine, k, seeds, sample.is_none(), threads, &mut stages)?
        } else {
            (0..state.rows()).map(|_| None).collect()
        };
        let missing = rows.iter().copied().filter(|&row| lists[row as usize].is_none());
        let (asked, same) = distinct.kinds(missing);
        for asked in asked.chunks(BLOCK) {
            let found = self.searched(state, fine, asked, k, threads, &mut stages)?;
            stages.count((asked.len() * state.rows()) as u64 * width);
            for (first, found) in asked.iter().zip(found) {
                for &row in &same[first] {
                    lists[row as usize] = Some(others(&found, row, k));
                }
            }
        }
        stages.finish()?;
        let recall = sample.map(|(_, sample)| sample.recall(&lists));
        Ok((lists, recall))
    }

    /// The `k` nearest of some rows and one more, which a row is itself if not too many are equal to it.
    fn searched(
        &self,
        state: &State,
        corpus: Corpus<'_>,
        rows: &[u32],
        k: usize,
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<One<List>> {
        let mut bytes = Vec::new();
        for &row in rows {
            state.chunks[row as usize / CHUNK].rows().copy_bytes(row as usize % CHUNK, &mut bytes);
        }
        let queries = Rows::from_bytes(bytes, self.dim, state.dtype.unwrap_or(DType::F32));
        exact::search(corpus, &queries, Goal::Nearest(k + 1), threads, stages)
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
}

/// The first `k` that are not `row` itself.
fn others(found: &List, row: u32, k: usize) -> List {
    let mut list = List::new();
    list.extend(found.iter().filter(|near| near.row != row).take(k));
    list
}

/// How many cells rows must visit for this recall, where pairs of neighbours need so many.
///
/// The rest of what may be missed is left to the codes, which choose among what was seen.
fn enough(mut visits: Vec<usize>, recall: f64) -> usize {
    visits.sort_unstable();
    let wanted = visits.len() as f64 * (1.0 - (1.0 - recall) * UNSEEN);
    visits[(wanted.ceil() as usize).clamp(1, visits.len()) - 1]
}

/// Some rows and their true neighbours.
struct Sample {
    rows: Vec<u32>,
    truth: Vec<List>,
}

impl Sample {
    /// Every second row and its neighbours, which tell how many cells to visit.
    fn pairs(&self) -> Vec<(u32, u32)> {
        let told = self.rows.iter().zip(&self.truth).step_by(2);
        told.flat_map(|(&row, truth)| truth.iter().map(move |near| (row, near.row))).collect()
    }

    /// The share of the true neighbours in lists of all rows; equally far ones count.
    fn recall(&self, lists: &[Option<List>]) -> f64 {
        // Not of the rows that chose how many cells were visited, which that flatters.
        let told = self.rows.iter().zip(&self.truth).skip(1).step_by(2);
        let shares = told.map(|(&row, truth)| {
            let far = truth.last().map_or(0.0, |last| last.distance);
            let list = lists[row as usize].iter().flat_map(|list| list.iter());
            list.filter(|near| near.distance <= far).count() as f64 / truth.len() as f64
        });
        shares.sum::<f64>() / (self.rows.len() / 2) as f64
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
