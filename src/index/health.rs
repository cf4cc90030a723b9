//! What is wrong with the rows of an index, or will slow it down, and what to do about it.
//!
//! Every row is read once, for its length and to find rows that are the same. What takes neighbours is
//! measured on a seeded sample of the rows that differ, all of them against each other, since the number
//! of a row's neighbours among some rows is not what it is among all.
//!
//! - Intrinsic dimension: the maximum likelihood of Levina and Bickel ("Maximum likelihood estimation of
//!   intrinsic dimension", 2004), its inverse averaged over the rows as `MacKay` and Ghahramani showed
//!   (2005). With a finite sample it falls short in many dimensions.
//! - Hubness: the skewness of how often a row is among the ten nearest of others, and the share of rows
//!   that never are (Radovanović, Nanopoulos and Ivanović, "Hubs in space", 2010).

use std::fmt;

use super::explain::{grouped, number, percent, table};
use super::{Goal, Hits, Index, Method, Options, State};
use crate::corpus::{CHUNK, Corpus};
use crate::error::{Error, Result};
use crate::graph::Check;
use crate::kernels::float::dot;
use crate::metric::Metric;
use crate::random::Random;
use crate::rows::{DType, Rows};
use crate::selection::Selection;
use crate::tally::Tally;
use crate::threads::{Hushed, Monitor, Run, run, single};
use crate::top_k::Neighbor;

/// Rows whose neighbours are found where the caller names no number.
const SAMPLE: usize = 10_000;
/// Multiply-adds that all pairs of a sample may take: a second or so, by codes and in float64.
const PAIRS: usize = 50_000_000_000;
const JUDGED_PAIRS: usize = 2_000_000_000;
/// Neighbours for the dimension, and for the occurrences.
const DIMENSION_K: usize = 20;
const OCCURRENCE_K: usize = 10;
/// Neighbours nearer than this part of the farthest are the row itself but for rounding. Of rows in so
/// few as one dimension one in a million would be so near.
const ITSELF: f64 = 1e-6;
/// Lengths that the percentiles come from, at most about twice so many.
const LENGTHS: usize = 1 << 18;
/// Searches that tell how codes prune, and the rows from which on they would be used.
const PROBES: usize = 64;
const CODED_ROWS: usize = 1024;
/// Parts of the keys that are sorted one by one.
const BUCKETS: usize = 256;

/// A skewness above this is called high in the literature (Schnitzer et al., "Local and global scaling
/// reduce hubs in space", 2012).
const HIGH_HUBNESS: f64 = 1.4;
/// Dimensions of data in which near rows are hardly nearer than others.
const HIGH_DIMENSION: f64 = 40.0;
const LOW_DIMENSION: f64 = 2.0;
/// How many times longer the 95th percentile of lengths is than the 5th, where lengths vary.
const VARIED: f64 = 1.5;
/// A share of removed rows that costs searches time.
const MANY_REMOVED: f64 = 0.2;
/// A share of rows with verdicts for which codes do not prune.
const MANY_JUDGED: f64 = 0.05;

/// What [`Index::health`] found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HealthReport {
    /// The number of rows.
    pub rows: usize,
    /// The numbers of a row.
    pub dim: usize,
    /// The metric.
    pub metric: Metric,
    /// The number type of the rows; none while there are none.
    pub dtype: Option<DType>,
    /// The share of all places that removed rows still take.
    pub removed: f64,
    /// Rows that equal an earlier one.
    pub duplicate_rows: usize,
    /// Groups of equal rows.
    pub duplicate_groups: usize,
    /// Rows of zeros.
    pub zero_rows: usize,
    /// Percentiles 0 to 100 of the rows' euclidean lengths; empty without rows.
    pub norms: Vec<f64>,
    /// Rows that the percentiles between the first and the last come from.
    pub norms_of: usize,
    /// Rows, all different, whose neighbours among each other were found.
    pub sample: usize,
    /// Rows that are different.
    pub distinct: usize,
    /// The estimated dimension of the space that the rows fill.
    pub intrinsic_dimension: Option<f64>,
    /// Neighbours of a row, for the occurrences.
    pub k: usize,
    /// How often each row of the sample is among the `k` nearest of another.
    pub occurrences: Vec<u32>,
    /// The skewness of those numbers.
    pub hubness: Option<f64>,
    /// The share of rows that are nobody's neighbour.
    pub antihubs: Option<f64>,
    /// Whether a graph was asked for.
    pub has_graph: bool,
    /// What is wrong with the graph; none where there is none.
    pub graph: Option<Check>,
    /// Dimensions that are coded; none where rows have no codes.
    pub code_width: Option<usize>,
    /// Rows that codes leave to be judged in float64, on average; none where codes are not used.
    pub survivors: Option<f64>,
    /// Whether codes rule out enough rows to answer by.
    pub codes_prune: Option<bool>,
}

/// What one pass over all rows found.
#[derive(Debug, Default)]
struct Pass {
    zero_rows: usize,
    shortest: f64,
    longest: f64,
    norms: Vec<f64>,
    groups: usize,
}

impl Index<'_> {
    /// Looks for what is wrong with the rows, or slows searches down.
    ///
    /// `sample` rows, chosen by `seed`, are compared with each other: 10,000 where none is given, or
    /// fewer where that would take more than seconds. Damaged links of a loaded index are built again.
    ///
    /// ```
    /// use omendb::{Index, Metric, Rows, Run};
    ///
    /// let index = Index::new(Rows::from_vec(vec![1.0f32, 1.0, 0.0, 5.0], 1)?, Metric::Cosine)?;
    /// let health = index.health(None, 0, Run::new())?;
    /// assert_eq!((health.duplicate_rows, health.zero_rows), (1, 1));
    /// println!("{health}");
    /// # Ok::<(), omendb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the sample is 0 or there are no threads, `Damaged` if the index was loaded
    /// and a row is not what was saved, `Interrupted` if the monitor said so.
    pub fn health(&self, sample: Option<usize>, seed: u64, run: Run<'_>) -> Result<HealthReport> {
        let (threads, monitor) = run.parts()?;
        if sample == Some(0) {
            return Err(Error::invalid("expected a sample of at least 1 row, got 0"));
        }
        let monitor = &mut Hushed(monitor);
        // Edits change links where they lie: none is under way but one that this call was made from.
        let edit = match self.edit(monitor) {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            edit => edit.ok(),
        };
        let (state, graph) = loop {
            let state = self.state();
            let graph = checked(&state, monitor)?;
            match &edit {
                Some(edit) if state.is_damaged() => self.mend_in(edit, threads, monitor)?,
                _ => break (state, graph),
            }
        };
        drop(edit);
        let (pass, repeats) = self.pass(&state, seed, threads, monitor)?;
        state.sound()?;
        let rows = state.len();
        let distinct = rows - repeats.len();
        let pairs = if state.encoder.is_some() { PAIRS } else { JUDGED_PAIRS };
        let most = ((pairs / self.dim) as f64).sqrt() as usize;
        let sample = sample.unwrap_or_else(|| SAMPLE.min(most.max(DIMENSION_K + 1)));
        let sample = self.sample(&state, &repeats, sample, distinct, seed);
        let (codes_prune, survivors) = self.probe(&state, &sample, threads, monitor)?;
        state.sound()?;
        let near = |metric, k| neighbours(&sample, metric, k, threads, &mut *monitor);
        let (dimension, occurrences) = measure(self.metric, &sample, near)?;
        let [hubness, antihubs] = hubness(&occurrences);
        let places = state.rows();
        Ok(HealthReport {
            rows,
            dim: self.dim,
            metric: self.metric,
            dtype: state.dtype,
            removed: if places == 0 { 0.0 } else { 1.0 - rows as f64 / places as f64 },
            duplicate_rows: repeats.len(),
            duplicate_groups: pass.groups,
            zero_rows: pass.zero_rows,
            norms_of: pass.norms.len(),
            norms: percentiles(pass.norms, pass.shortest, pass.longest),
            sample: sample.len(),
            distinct,
            intrinsic_dimension: dimension,
            k: OCCURRENCE_K.min(sample.len().saturating_sub(1)),
            occurrences,
            hubness,
            antihubs,
            has_graph: state.seed.is_some(),
            graph,
            code_width: state.encoder.as_ref().map(|encoder| encoder.width()),
            survivors,
            codes_prune,
        })
    }

    /// Reads all rows: their lengths, and those that equal an earlier one.
    ///
    /// Rows that are the same have the same length and the same product with a random vector, bit by
    /// bit. Those that share both are compared.
    fn pass(
        &self,
        state: &State,
        seed: u64,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<(Pass, Selection)> {
        let mut random = Random(seed);
        let direction: Vec<f64> = (0..self.dim)
            .map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5)
            .collect();
        let step = (state.rows() / LENGTHS).max(1);
        let corpus = self.corpus(state, None);
        let chunks = state.chunks.len();
        let total = (state.rows() * self.dim) as u64 * 2;
        let read = run(threads, chunks, total, monitor, |chunk, worker| {
            let mut row = vec![0.0; self.dim];
            let mut part = Pass { shortest: f64::INFINITY, ..Pass::default() };
            let mut keys: Vec<(u64, u32)> = Vec::new();
            let first = chunk * CHUNK;
            for number in first..first + state.chunks[chunk].len() {
                if !state.is_live(number) {
                    continue;
                }
                corpus.read(number as u32, &mut row);
                let (square, product) = (dot(&row, &row), dot(&row, &direction));
                let norm = square.sqrt();
                part.zero_rows += usize::from(row.iter().all(|&x| x == 0.0));
                part.shortest = part.shortest.min(norm);
                part.longest = part.longest.max(norm);
                if number % step == 0 {
                    part.norms.push(norm);
                }
                // Zeros of either sign are equal.
                let key = square.to_bits().rotate_left(32) ^ (product + 0.0).to_bits();
                keys.push((Random(key).next(), number as u32));
                if !worker.advance(2 * self.dim as u64) {
                    break;
                }
            }
            (part, keys)
        })?;
        let mut pass = Pass { shortest: f64::INFINITY, ..Pass::default() };
        let mut buckets: Vec<Vec<(u64, u32)>> = vec![Vec::new(); BUCKETS];
        for (part, keys) in read {
            pass.zero_rows += part.zero_rows;
            pass.shortest = pass.shortest.min(part.shortest);
            pass.longest = pass.longest.max(part.longest);
            pass.norms.extend(part.norms);
            keys.into_iter().for_each(|key| buckets[key.0 as usize % BUCKETS].push(key));
        }
        let total = state.rows() as u64 * self.dim as u64;
        let found = run(threads, BUCKETS, total, monitor, |bucket, worker| {
            let mut keys = buckets[bucket].clone();
            keys.sort_unstable();
            let [mut row, mut other] = [(); 2].map(|()| vec![0.0; self.dim]);
            let (mut groups, mut repeats) = (0, Vec::new());
            for same in keys.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
                // The first row of each group, and whether others equal it.
                let mut firsts: Vec<(u32, bool)> = Vec::new();
                for &(_, number) in same {
                    corpus.read(number, &mut row);
                    let equal = firsts.iter_mut().find(|(first, _)| {
                        corpus.read(*first, &mut other);
                        worker.advance(self.dim as u64);
                        row == other
                    });
                    match equal {
                        Some((_, repeated)) => {
                            groups += usize::from(!std::mem::replace(repeated, true));
                            repeats.push(number);
                        }
                        None => firsts.push((number, false)),
                    }
                    if !worker.advance(self.dim as u64) {
                        return (groups, repeats);
                    }
                }
            }
            (groups, repeats)
        })?;
        let mut all = Selection::none(state.rows());
        for (groups, repeats) in found {
            pass.groups += groups;
            repeats.into_iter().for_each(|row| all.insert(row as usize));
        }
        Ok((pass, all))
    }

    /// Copies of some of the rows that differ.
    fn sample(
        &self,
        state: &State,
        repeats: &Selection,
        count: usize,
        distinct: usize,
        seed: u64,
    ) -> Rows<'static> {
        let mut chosen = Random(seed).sample(count, distinct).into_iter().peekable();
        let mut bytes = Vec::new();
        let differ = |&row: &usize| state.is_live(row) && !repeats.contains(row);
        for (row, place) in (0..state.rows()).filter(differ).zip(0..) {
            if chosen.next_if_eq(&place).is_some() {
                state.chunks[row / CHUNK].rows().copy_bytes(row % CHUNK, &mut bytes);
            }
        }
        Rows::from_bytes(bytes, self.dim, state.dtype.unwrap_or(DType::F32))
    }

    /// Whether codes prune, and how many rows they leave to be judged, by a few searches.
    fn probe(
        &self,
        state: &State,
        sample: &Rows<'static>,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<(Option<bool>, Option<f64>)> {
        if state.encoder.is_none() || state.len() < CODED_ROWS || sample.is_empty() {
            return Ok((None, None));
        }
        let queries = sample.slice(0, sample.len().min(PROBES));
        let tally = Tally::default();
        let live = state.live.as_deref();
        let corpus = Corpus { tally: Some(&tally), ..self.corpus(state, live) };
        let options = &Options::new().method(Method::Exact);
        let (goal, mut hits) = (Goal::Nearest(OCCURRENCE_K), Hits::default());
        self.answer_from(state, corpus, &queries, goal, options, (threads, monitor), &mut hits)?;
        let counts = tally.into_counts();
        let judged = counts.judged as f64 / queries.len() as f64;
        let failed = counts.by_floats + counts.by_judge;
        let prune = 2 * failed <= queries.len() && judged <= MANY_JUDGED * state.len() as f64;
        Ok((Some(prune), Some(judged)))
    }
}

/// Multiply-adds for which looking at the links of a row stands.
const CHECK_WORK: u64 = 64;

/// [`Index::check`] of a state, which may be stopped.
fn checked(state: &State, monitor: &mut dyn Monitor) -> Result<Option<Check>> {
    let Some(graph) = &state.graph else { return Ok(None) };
    let total = 2 * state.rows() as u64 * CHECK_WORK;
    let check = single(total, monitor, |worker| {
        let live = |row: u32| state.is_live(row as usize);
        graph.check(state.rows(), live, || worker.advance(CHECK_WORK))
    })?;
    Ok(Some(check))
}

/// The neighbours of each row of a sample among the others, nearest first.
fn neighbours(
    sample: &Rows<'static>,
    metric: Metric,
    k: usize,
    threads: usize,
    monitor: &mut dyn Monitor,
) -> Result<Vec<Vec<Neighbor>>> {
    let run = Run::new().threads(threads).monitor(monitor);
    let index = Index::new_with(sample.clone(), metric, None, None, run)?;
    let options = Options::new().method(Method::Exact);
    let run = Run::new().threads(threads).monitor(monitor);
    let hits = index.search_with(sample, k + 1, options, run)?;
    // The row itself is not always the nearest: products prefer longer ones.
    let others = |row: usize| {
        let (ids, distances) = hits.of(row);
        let all = ids.iter().zip(distances).filter(|&(&id, _)| id != row as i64);
        let all = all.map(|(&id, &distance)| Neighbor { distance, row: id as u32 });
        all.take(k).collect()
    };
    Ok((0..sample.len()).map(others).collect())
}

/// The dimension of a sample, and how often each row of it is a neighbour.
fn measure(
    metric: Metric,
    sample: &Rows<'static>,
    mut near: impl FnMut(Metric, usize) -> Result<Vec<Vec<Neighbor>>>,
) -> Result<(Option<f64>, Vec<u32>)> {
    if sample.len() < 2 {
        return Ok((None, vec![0; sample.len()]));
    }
    let lists = near(metric, DIMENSION_K)?;
    let mut occurrences = vec![0; sample.len()];
    for list in &lists {
        list.iter().take(OCCURRENCE_K).for_each(|other| occurrences[other.row as usize] += 1);
    }
    // Balls grow with a power of the radius only where distances are those of a space.
    let lists =
        if metric == Metric::InnerProduct { near(Metric::Euclidean, DIMENSION_K)? } else { lists };
    let length = |distance: f64| match metric {
        Metric::SqEuclidean => distance.sqrt(),
        Metric::Cosine => (2.0 * distance).sqrt(), // the chord
        _ => distance,
    };
    Ok((
        dimension(lists.iter().map(|list| list.iter().map(|near| length(near.distance)))),
        occurrences,
    ))
}

/// The maximum likelihood of the dimension, by the distances of each row's neighbours, ascending.
fn dimension(lists: impl Iterator<Item = impl DoubleEndedIterator<Item = f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for list in lists {
        let mut list = list.rev();
        let Some(farthest) = list.next().filter(|&farthest| farthest > 0.0) else { continue };
        for near in list.filter(|&near| near > ITSELF * farthest) {
            sum += (farthest / near).ln();
            count += 1;
        }
    }
    // Rows that are all equally far from each other are of no dimension.
    (count > 0 && sum > 0.0).then(|| f64::from(count) / sum)
}

/// The skewness of occurrences, and the share of rows that have none.
fn hubness(occurrences: &[u32]) -> [Option<f64>; 2] {
    if occurrences.len() < 3 {
        return [None, None];
    }
    let n = occurrences.len() as f64;
    let mean = occurrences.iter().copied().map(f64::from).sum::<f64>() / n;
    let moment = |power: i32| {
        occurrences.iter().map(|&count| (f64::from(count) - mean).powi(power)).sum::<f64>() / n
    };
    let variance = moment(2);
    let skewness = if variance > 0.0 { moment(3) / variance.powf(1.5) } else { 0.0 };
    let none = occurrences.iter().filter(|&&count| count == 0).count() as f64;
    [Some(skewness), Some(none / n)]
}

/// Percentiles 0 to 100, of which the ends are known.
fn percentiles(mut values: Vec<f64>, least: f64, most: f64) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        // All rows that were looked at may be removed ones.
        return if least <= most {
            vec![least; 100].into_iter().chain([most]).collect()
        } else {
            vec![]
        };
    };
    let mut all: Vec<f64> = (0..=100)
        .map(|percent| {
            let place = f64::from(percent) / 100.0 * last as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            low + (high - low) * place.fract()
        })
        .collect();
    (all[0], all[100]) = (least, most);
    all
}

impl HealthReport {
    /// How many times longer the 95th percentile of lengths is than the 5th; none where that is zero.
    pub fn norm_spread(&self) -> Option<f64> {
        let (low, high) = (self.norms.get(5)?, self.norms.get(95)?);
        (*low > 0.0).then(|| high / low)
    }

    /// What to do about each thing that is off, in sentences.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let rows = |count: usize| number(count, "row", "rows");
        if self.rows == 0 {
            advice.push("the index is empty: add() rows".into());
        }
        if self.duplicate_rows > 0 {
            advice.push(format!(
                "{} {} an earlier one: equal rows take places among the k nearest from others; \
                 deduplicate, or ask for a larger k",
                rows(self.duplicate_rows),
                if self.duplicate_rows == 1 { "equals" } else { "equal" }
            ));
        }
        if self.zero_rows > 0 {
            let what = if self.metric == Metric::Cosine {
                "at cosine distance 1 from everything"
            } else {
                "often the trace of an embedding that failed"
            };
            advice.push(format!(
                "{} {} only zeros, {what}: find out where they come from, and remove them",
                rows(self.zero_rows),
                if self.zero_rows == 1 { "holds" } else { "hold" }
            ));
        }
        if let Some(spread) = self.norm_spread().filter(|&spread| spread > VARIED) {
            match self.metric {
                Metric::InnerProduct => advice.push(format!(
                    "lengths vary {spread:.1}-fold (5th to 95th percentile), and inner_product prefers long \
                     rows to near ones: use cosine, or make all rows of length 1, unless lengths mean \
                     something"
                )),
                Metric::Cosine => advice.push(format!(
                    "lengths vary {spread:.1}-fold (5th to 95th percentile), and cosine ignores them: use \
                     inner_product if they mean something"
                )),
                _ => {}
            }
        }
        if let Some(hubness) = self.hubness.filter(|&hubness| hubness > HIGH_HUBNESS) {
            advice.push(format!(
                "a few rows are neighbours of very many (skewness {hubness:.1}), and {:.0} % of none: look at \
                 the rows that answer everything{}",
                100.0 * self.antihubs.unwrap_or(0.0),
                if self.metric == Metric::Cosine {
                    "; subtracting the mean of all rows first often helps"
                } else if self.metric == Metric::InnerProduct {
                    "; cosine has fewer such hubs where lengths vary"
                } else {
                    "; try cosine, or subtract what is common to all rows"
                }
            ));
        }
        match self.intrinsic_dimension {
            Some(dimension) if dimension > HIGH_DIMENSION => advice.push(format!(
                "the rows fill {dimension:.0} dimensions: the nearest are hardly nearer than others, so that a \
                 graph needs much effort; tune() measures its recall"
            )),
            Some(dimension) if dimension < LOW_DIMENSION && self.dim >= 8 => advice.push(format!(
                "the rows of {} numbers lie near a curve (dimension {dimension:.1}): a few principal \
                 components would do, or the vectors do not hold what they should",
                self.dim
            )),
            _ => {}
        }
        if self.codes_prune == Some(false) {
            advice.push(format!(
                "8-bit codes rule out too few rows ({:.0} of {} are left), so that exact searches take \
                 several times longer: look for a few numbers that are far larger than the others",
                self.survivors.unwrap_or(0.0),
                grouped(self.rows)
            ));
        }
        if let Some(check) = self.graph {
            if check.unreachable > 0 {
                advice.push(format!(
                    "no walk can come to {}: build_graph() links them again",
                    rows(check.unreachable)
                ));
            }
            if check.dangling > 0 {
                advice.push(format!(
                    "{} of the graph lead to no row: build_graph() removes them",
                    number(check.dangling, "link", "links")
                ));
            }
        } else if self.has_graph && self.rows > 1 {
            advice.push(
                "a graph was asked for and not made, since codes do not tell near rows apart: every search \
                 is exact"
                    .into(),
            );
        }
        if self.removed > MANY_REMOVED {
            advice.push(format!(
                "{:.0} % of all places belong to removed rows, which searches still pass: saving and loading \
                 leaves them out",
                100.0 * self.removed
            ));
        }
        advice
    }

    /// Names and values, as a table shows them.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let none = || "none".to_owned();
        let duplicates = if self.duplicate_rows == 0 {
            none()
        } else {
            format!(
                "{} in {}",
                number(self.duplicate_rows, "row", "rows"),
                number(self.duplicate_groups, "group", "groups")
            )
        };
        let lengths = match self.norms[..] {
            [] => none(),
            ref all => {
                let [least, low, middle, high, most] =
                    [0, 5, 50, 95, 100].map(|i| significant(all[i]));
                let text =
                    format!("{least} least, {low} 5 %, {middle} median, {high} 95 %, {most} most");
                if self.norms_of < self.rows {
                    format!("{text} (of {} rows)", grouped(self.norms_of))
                } else {
                    text
                }
            }
        };
        let unknown = || "not known: too few rows that differ".to_owned();
        let dimension = self.intrinsic_dimension.map_or_else(
            || if self.sample > 2 { "not known".into() } else { unknown() },
            |dimension| format!("{dimension:.1} of {}", self.dim),
        );
        let hubness = self.hubness.map_or_else(unknown, |hubness| {
            format!(
                "skewness {hubness:.2}, {:.1} % of rows are nobody's neighbour (k = {})",
                100.0 * self.antihubs.unwrap_or(0.0),
                self.k
            )
        });
        let codes = match (self.code_width, self.codes_prune) {
            (None, _) => "none: rows are judged in float64".into(),
            (Some(width), None) => format!("{width} of {} dimensions", self.dim),
            (Some(width), Some(prune)) => format!(
                "{width} of {} dimensions, {} ({:.1} rows left of {})",
                self.dim,
                if prune { "they prune" } else { "they do not prune" },
                self.survivors.unwrap_or(0.0),
                grouped(self.rows)
            ),
        };
        let graph = match self.graph {
            None if self.has_graph && self.rows > 0 => "asked for and not made".into(),
            None => none(),
            Some(check) => format!(
                "{}, {} unreachable, {} dangling",
                number(check.links, "link", "links"),
                number(check.unreachable, "row", "rows"),
                number(check.dangling, "link", "links")
            ),
        };
        let sample = if self.sample < self.distinct {
            format!("{} of {} rows that differ", grouped(self.sample), grouped(self.distinct))
        } else {
            "all rows that differ".into()
        };
        vec![
            ("removed", format!("{:.1} % of all places", 100.0 * self.removed)),
            ("duplicates", duplicates),
            ("zero rows", percent_of(self.zero_rows, self.rows)),
            ("lengths", lengths),
            ("dimension", dimension),
            ("hubness", hubness),
            ("measured on", sample),
            ("codes", codes),
            ("graph", graph),
        ]
    }

    /// What stands above that table.
    pub(crate) fn title(&self) -> String {
        format!(
            "HealthReport: {} of {} numbers, {}",
            number(self.rows, "row", "rows"),
            self.dim,
            self.metric
        )
    }
}

/// A number with five digits that tell something.
fn significant(number: f64) -> String {
    match number.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e5).contains(&size) => {
            let decimals = (4.0 - size.log10().floor()).max(0.0) as usize;
            format!("{number:.decimals$}")
        }
        _ => format!("{number:.4e}"),
    }
}

fn percent_of(count: usize, all: usize) -> String {
    if count == 0 { "none".into() } else { format!("{}, {}", grouped(count), percent(count, all)) }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, &self.title(), &self.facts(), "advice", &self.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dimension_is_that_of_a_ball_whose_neighbours_grow_by_a_power() {
        for d in [1.0f64, 2.0, 7.0] {
            // Expected places of the k nearest in d dimensions; one list stands for all.
            let list: Vec<f64> =
                (1..=2000).map(|i| (f64::from(i) / 2000.0).powf(1.0 / d)).collect();
            let found = dimension([list.iter().copied()].into_iter()).unwrap();
            assert!((found / d - 1.0).abs() < 0.01, "{found} for {d}");
        }
        assert_eq!(dimension([[1.0, 1.0, 1.0].into_iter()].into_iter()), None);
        assert_eq!(dimension([[0.0, 0.0].into_iter()].into_iter()), None);
    }

    #[test]
    fn hubness_is_the_skewness_of_occurrences() {
        assert_eq!(hubness(&[2, 2, 2]), [Some(0.0), Some(0.0)]);
        let [skewness, none] = hubness(&[0, 0, 0, 8]);
        assert!((skewness.unwrap() - 2.0 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(none, Some(0.75));
        assert_eq!(hubness(&[1, 1]), [None, None]);
    }
}
