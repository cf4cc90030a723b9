//! Links for all rows at once, by matrix products.
//!
//! Of rows with the same codes one is linked as follows, and each of the others by the one before.
//!
//! 1. **Carve.** Rows are given to the nearest of some random leaders, each row to several, until
//!    parts are small: overlapping *leaves* (after `PiPNN`, as pull request 856 of `DiskANN`
//!    describes it). All of it is 8-bit products of rows with leaders.
//! 2. **Compare** all rows of a leaf with each other and keep each row's nearest few.
//! 3. **Prune** what a row collected: a candidate goes if a link that is kept is nearer to it, by
//!    a factor, than the row is (`RobustPrune`, Jayaram Subramanya et al., `DiskANN`, 2019).
//! 4. **Reverse**: rows that are linked to link back, are pruned again where links are too many,
//!    and filled up with the nearest that were not kept.
//! 5. **Refine**, where codes are long: walk to each row through the graph, and prune
//!    what the walk found together with the links there are.
//! 6. **Reach**: a row that no walk from a head can come to gets a link, or becomes a head.
//!
//! Every step is cut into tasks whose results are put together in the order of the tasks, and ties
//! are broken by row numbers, so that the graph does not depend on threads. Where distances tie,
//! as among duplicates, a row prefers those that follow it: everybody would choose the same few
//! otherwise, and most rows would be chosen by nobody.

use std::sync::{Arc, Mutex, PoisonError};

use super::search::{Reach, Start, Walks};
use super::{Graph, HEADS, Heads, Lane, PRUNED, Target, key};
use crate::corpus::{CHUNK, Corpus};
use crate::error::Result;
use crate::exact::{self, Goal};
use crate::kernels::float::{Judge, dispatch};
use crate::kernels::int8::{self, GROUP, Group, PANEL, Panel, Ratios, four};
use crate::random::Random;
use crate::rows::Rows;
use crate::selection::Selection;
use crate::threads::{Stages, Worker};
use crate::top_k::TopK;

/// Rows of a leaf, at most.
const LEAF: usize = 128;
/// Leaders that a row goes to: of the whole set, of a part, of a part's part.
const FANOUT: [usize; 3] = [8, 3, 1];
/// Neighbours that a row keeps from each leaf.
const NEAREST: usize = 3;
/// Up to here all rows are one leaf, with more neighbours from it.
const ONE_LEAF: usize = 4096;
const NEAREST_OF_ALL: usize = 64;
/// Candidates that a row collects before they are compacted, and keeps then.
const CANDIDATES: usize = 64;
const KEPT: usize = 48;
/// Squared distances must differ by this factor for a link to make another superfluous.
const ALPHA: f32 = 1.2;
/// Where pruning keeps fewer links than these, some row lies in the middle of all others, such as their
/// mean: so near to each that it makes all other links superfluous, and walks would come no farther
/// than to it. So many are kept then.
const FEW: usize = 4;
const LEAST: usize = 12;
/// The beam of the refining pass.
const REFINE: usize = 16;
/// Rows that say whether codes tell near rows apart, and in what share of the cases they must.
const AGREEMENT_PROBES: usize = 64;
const AGREEMENT: f64 = 0.9;
/// Neighbours that such a row is asked for.
const PROBE_NEAREST: usize = 10;
/// Below this distances of near rows drown in the rounding of their norms, and sweeps are short.
const FEWEST_DIMENSIONS: usize = 4;
/// Bytes of a row's codes from which the refining pass pays: leaves miss more where distances
/// are many-sided, and walks cost less beside the leaves' products.
const REFINE_FROM: usize = 192;
/// Rows that heads are chosen from.
const HEAD_SAMPLE: usize = 4096;
/// Keys of so many columns are looked through at a time for the nearest.
const SPREAD: usize = 128;
/// Parts of the carving whose edges are merged together; bounds the memory they take.
const BATCHES: usize = 16;

/// A candidate link: a squared distance and a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    pub(super) distance: f32,
    pub(super) row: u32,
}

impl Link {
    /// Its place among the candidates of `row`; see the header on ties.
    pub(super) fn order(self, row: u32) -> (u32, u32) {
        (self.distance.to_bits(), self.row.wrapping_sub(row))
    }
}

/// What is needed to compare rows, reused from row to row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    target: Target,
    kept: Vec<Link>,
    rejected: Vec<Link>,
}

/// Keeps those of some candidates, sorted, that no kept one makes superfluous; at most [`PRUNED`],
/// and filled up to `fill`, or [`LEAST`] where they are fewer than [`FEW`], with the nearest of the others.
pub(super) fn prune(
    lane: &Lane<'_>,
    candidates: &[Link],
    fill: usize,
    scratch: &mut Scratch,
    out: &mut Vec<Link>,
) {
    let Scratch { target, kept, rejected } = scratch;
    kept.clear();
    rejected.clear();
    for &candidate in candidates {
        if kept.len() == PRUNED {
            break;
        }
        if kept.is_empty() {
            kept.push(candidate);
            continue;
        }
        lane.aim_at_row(candidate.row, target);
        let superfluous = kept.chunks(4).any(|links| {
            let rows = four(links).map(|link| link.row);
            let [a, b, c, d] = lane.values(target, &rows);
            ALPHA * a.min(b).min(c.min(d)).max(0.0) <= candidate.distance
        });
        (if superfluous { &mut *rejected } else { &mut *kept }).push(candidate);
    }
    out.clear();
    out.extend_from_slice(kept);
    let fill = if kept.len() < FEW { fill.max(LEAST) } else { fill };
    let missing = fill.saturating_sub(kept.len());
    out.extend(rejected.iter().take(missing));
}

/// Whether codes tell near rows apart: whether the nearest rows by codes hold the nearest.
///
/// Where they do not, a walk would answer badly however wide it is.
pub(crate) fn codes_agree(
    corpus: Corpus<'_>,
    lane: &Lane<'_>,
    seed: u64,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<bool> {
    let Some(encoder) = corpus.encoder.filter(|_| corpus.dim >= FEWEST_DIMENSIONS) else {
        return Ok(false);
    };
    let n = lane.rows;
    let rows = Random(seed ^ 4).sample(AGREEMENT_PROBES, n);
    let mut values = vec![0.0; rows.len() * corpus.dim];
    for (query, &row) in values.chunks_exact_mut(corpus.dim).zip(&rows) {
        corpus.read(row, query);
    }
    let queries = Rows::from_vec(values.clone(), corpus.dim)?;
    let k = PROBE_NEAREST.min(n);
    let truth = exact::search(corpus, &queries, Goal::Nearest(k), threads, stages)?;
    let work = (n * lane.padded) as u64;
    let agreed = stages.run(threads, rows.len(), work * rows.len() as u64, |task, worker| {
        let query = &values[task * corpus.dim..(task + 1) * corpus.dim];
        let Some(floats) = encoder.query_floats(query) else { return 0 };
        let mut target = Target::default();
        lane.aim_at_query(&encoder.walk_code(lane.isa, &floats), &floats, &mut target);
        let mut nearest = TopK::new(k + k / 2);
        all_values(lane, &target, |row, value| {
            nearest.push((key(value), row));
        });
        worker.advance(work);
        let judge = Judge::new(corpus.metric, query);
        let mut wide = vec![0.0; corpus.dim];
        let far = truth[task].last().map_or(f64::INFINITY, |last| last.distance);
        let near = nearest.iter().filter(|&(_, row)| {
            corpus.read(row, &mut wide);
            judge.distance(&wide) <= far
        });
        near.count().min(k)
    })?;
    Ok(agreed.iter().sum::<usize>() as f64 >= AGREEMENT * (rows.len() * k) as f64)
}

/// The value of every row.
fn all_values(lane: &Lane<'_>, target: &Target, mut found: impl FnMut(u32, f32)) {
    let n = lane.rows as u32;
    for first in (0..n).step_by(4) {
        let rows = [0, 1, 2, 3].map(|i| (first + i).min(n - 1));
        (first..n).zip(lane.values::<4>(target, &rows)).for_each(|(row, value)| found(row, value));
    }
}

/// Builds the graph of all rows that are live.
pub(crate) fn build(
    lane: &Lane<'_>,
    live: Option<&Selection>,
    seed: u64,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<Graph> {
    let is_live = |row: u32| live.is_none_or(|live| live.contains(row as usize));
    let (rows, copies) = originals(lane, (0..lane.rows as u32).filter(|&row| is_live(row)));
    let one = rows.len() <= ONE_LEAF;
    let (candidates, order) = if one {
        let candidates = one_leaf(lane, &rows, threads, stages)?;
        (candidates, Order::new(rows.clone(), lane.rows))
    } else {
        carve(lane, &rows, seed, threads, stages)?
    };
    let forward = forward(lane, &candidates, &order, threads, stages)?;
    drop(candidates);
    let mut graph = Graph::new(lane, Heads::new(lane, heads(lane, &rows, seed)), seed);
    graph.grow(lane.rows);
    finish(lane, &graph, &forward, &order, threads, stages)?;
    if !one && lane.padded >= REFINE_FROM {
        let forward = refine(lane, &graph, &order, threads, stages)?;
        finish(lane, &graph, &forward, &order, threads, stages)?;
    }
    for group in &copies {
        group[1..].iter().rev().for_each(|&copy| graph.add_copy(copy, group[0]));
    }
    reach(lane, &mut graph, is_live);
    Ok(graph)
}

/// Some rows but for copies of an earlier one, ascending, and each that has copies, with them.
pub(super) fn originals(
    lane: &Lane<'_>,
    rows: impl Iterator<Item = u32>,
) -> (Vec<u32>, Vec<Vec<u32>>) {
    // Most rows differ in what is read here.
    let key = |row: u32| {
        let (factor, _, sum) = lane.meta(lane.record(row));
        (factor.to_bits(), sum)
    };
    let mut keys: Vec<((u32, i32), u32)> = rows.map(|row| (key(row), row)).collect();
    keys.sort_unstable_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| lane.compare(a.1, b.1)).then(a.1.cmp(&b.1))
    });
    let mut rows = Vec::with_capacity(keys.len());
    let mut copies = Vec::new();
    for group in keys.chunk_by(|a, b| a.0 == b.0 && lane.compare(a.1, b.1).is_eq()) {
        rows.push(group[0].1);
        if group.len() > 1 {
            copies.push(group.iter().map(|&(_, row)| row).collect());
        }
    }
    rows.sort_unstable();
    (rows, copies)
}

/// The order in which rows are worked on: near ones together, so that records that one row needs
/// are still in the cache for the next.
#[derive(Debug)]
struct Order {
    rows: Vec<u32>,
    /// Where each row of all is in it.
    places: Vec<u32>,
}

impl Order {
    fn new(rows: Vec<u32>, all: usize) -> Self {
        let mut places = vec![0; all];
        rows.iter().zip(0..).for_each(|(&row, place)| places[row as usize] = place);
        Self { rows, places }
    }

    /// The rows of a task.
    fn task(&self, task: usize) -> &[u32] {
        &self.rows[task * CHUNK..((task + 1) * CHUNK).min(self.rows.len())]
    }

    fn tasks(&self) -> usize {
        self.rows.len().div_ceil(CHUNK)
    }

    /// The links of a row.
    fn links<'a>(&self, pruned: &'a [Pruned], row: u32) -> &'a [Link] {
        let place = self.places[row as usize] as usize;
        pruned[place / CHUNK].row(place % CHUNK)
    }
}

/// Rows that walks start from: half of them at random, which puts them where the rows are, and half
/// each as far as can be from those there are, which puts one into every group that lies apart.
fn heads(lane: &Lane<'_>, rows: &[u32], seed: u64) -> Vec<u32> {
    let sample = Random(seed).sample(HEAD_SAMPLE, rows.len());
    let sample: Vec<u32> = sample.into_iter().map(|i| rows[i as usize]).collect();
    let count = HEADS.min(sample.len());
    let mut target = Target::default();
    let mut chosen: Vec<u32> = Random(seed ^ 5)
        .sample(count.div_ceil(2), sample.len())
        .into_iter()
        .map(|i| sample[i as usize])
        .collect();
    let mut apart = vec![f32::INFINITY; sample.len()];
    let mut told = 0;
    loop {
        for &head in &chosen[told..] {
            lane.aim_at_row(head, &mut target);
            for (apart, link) in apart.iter_mut().zip(distances(lane, &target, &sample)) {
                *apart = apart.min(if link.row == head { -1.0 } else { link.distance });
            }
        }
        told = chosen.len();
        if told >= count {
            break;
        }
        let farthest =
            apart.iter().zip(&sample).max_by(|a, b| a.0.total_cmp(b.0).then(b.1.cmp(a.1)));
        chosen.extend(farthest.map(|(_, &row)| row));
    }
    chosen.sort_unstable();
    chosen.dedup();
    along(lane, chosen)
}

/// Rows in an order in which those lie near each other that follow one another.
fn along(lane: &Lane<'_>, mut rows: Vec<u32>) -> Vec<u32> {
    let mut target = Target::default();
    for i in 1..rows.len() {
        lane.aim_at_row(rows[i - 1], &mut target);
        let others = distances(lane, &target, &rows[i..]);
        let nearest = (i..).zip(others).min_by_key(|(_, link)| link.order(rows[i - 1]));
        nearest.into_iter().for_each(|(at, _)| rows.swap(i, at));
    }
    rows
}

/// About how many multiply-adds a build takes, for progress.
pub(crate) fn work(lane: &Lane<'_>) -> u64 {
    let n = lane.rows;
    (n * lane.padded) as u64 * if n <= ONE_LEAF { n as u64 } else { 12_000 }
}

/// Some rows' records in a block of their own, ready to be multiplied with each other.
#[derive(Debug, Default)]
struct Gathered {
    records: Vec<u8>,
    rows: usize,
    stride: usize,
    /// Squared norms, factors and heights.
    squares: Vec<f32>,
    factors: Vec<f32>,
    heights: Vec<f32>,
}

impl Gathered {
    fn gather(&mut self, lane: &Lane<'_>, rows: impl ExactSizeIterator<Item = u32> + Clone) {
        self.rows = rows.len();
        self.stride = lane.stride;
        self.records.clear();
        self.squares.clear();
        self.factors.clear();
        self.heights.clear();
        let mut ahead = rows.clone();
        ahead.by_ref().take(lane.ahead).for_each(|row| lane.prefetch(row));
        for row in rows {
            ahead.next().into_iter().for_each(|row| lane.prefetch(row));
            let record = &lane.record(row)[..lane.stride];
            self.records.extend_from_slice(record);
            let (factor, bias, _) = lane.meta(record);
            self.factors.push(factor);
            self.squares.push(-2.0 * bias);
            self.heights.push(if lane.lift > 0.0 { lane.height(bias) } else { 0.0 });
        }
        self.records.resize(self.rows.next_multiple_of(GROUP) * self.stride, 0);
        let padded = self.rows.next_multiple_of(PANEL);
        self.squares.resize(padded, 0.0);
        self.heights.resize(padded, 0.0);
    }

    fn group(&self, first: usize) -> Group<'_> {
        let records = &self.records[first * self.stride..];
        Group { records, ratios: Ratios::default(), thresholds: None }
    }

    /// The rows packed as columns.
    fn pack(self, lane: &Lane<'_>) -> Packed {
        let record = |row: usize| &self.records[row * self.stride..];
        let panels = (0..self.rows)
            .step_by(PANEL)
            .map(|first| {
                let len = PANEL.min(self.rows - first);
                let mut panel = Panel::for_rows(lane.isa, len, lane.steps);
                (0..len).for_each(|q| panel.put_row(q, record(first + q), int8::COLUMN_LIMIT));
                panel
            })
            .collect();
        Packed { block: self, panels }
    }
}

/// Rows packed as the columns of products, and as they were gathered.
#[derive(Debug)]
struct Packed {
    block: Gathered,
    panels: Vec<Panel>,
}

/// Compares rows with columns; its buffers are reused from group to group.
struct Comparison<'a, 'b> {
    lane: &'a Lane<'b>,
    sums: int8::Sums,
    /// Of each row of a group, one panel of columns after another.
    distances: Vec<[f32; PANEL]>,
    keys: Vec<i32>,
}

impl<'a, 'b> Comparison<'a, 'b> {
    fn new(lane: &'a Lane<'b>) -> Self {
        Self { lane, sums: [[0; PANEL]; GROUP], distances: Vec::new(), keys: Vec::new() }
    }

    /// The nearest `count` columns of each row of the group of `rows` from `first`, by `found(row,
    /// column, distance)`, nearest first. Without rows the columns are compared with each other,
    /// and none finds itself.
    fn nearest(
        &mut self,
        columns: &Packed,
        rows: Option<&Gathered>,
        first: usize,
        count: usize,
        mut found: impl FnMut(usize, usize, f32),
    ) {
        let Self { lane, sums, distances, keys } = self;
        let Packed { block, panels } = columns;
        let (rows, same) = (rows.unwrap_or(block), rows.is_none());
        let group = rows.group(first);
        let columns = block.rows;
        let there = GROUP.min(rows.rows - first);
        let padded = panels.len() * PANEL;
        distances.resize(GROUP * panels.len(), [0.0; PANEL]);
        for (p, panel) in panels.iter().enumerate() {
            int8::products(lane.isa, group, panel, sums);
            let squares = &block.squares.as_chunks::<PANEL>().0[p];
            let factors = &panel.scale;
            let heights = &block.heights.as_chunks::<PANEL>().0[p];
            for r in 0..there {
                let (square, gain) = (rows.squares[first + r], -2.0 * rows.factors[first + r]);
                let (height, sums) = (rows.heights[first + r], &sums[r]);
                let out = &mut distances[r * panels.len() + p];
                // Arrays of a known size, and the result in one of its own: nothing is checked then.
                dispatch(
                    #[inline(always)]
                    || {
                        let mut near = [0.0; PANEL];
                        for j in 0..PANEL {
                            let apart = height - heights[j];
                            let d = square
                                + squares[j]
                                + gain * factors[j] * sums[j] as f32
                                + apart * apart;
                            near[j] = if d > 0.0 { d } else { 0.0 };
                        }
                        *out = near;
                    },
                );
            }
        }
        // A key holds the distance and, in its lowest bits, how far the column follows the row's.
        let low = (padded as u32).next_power_of_two() - 1;
        keys.resize(padded.next_multiple_of(SPREAD), 0);
        for r in 0..there {
            let distances = distances[r * panels.len()..][..panels.len()].as_flattened();
            let shift = (first + r) % columns;
            let (end, turn) = (columns as u32, (columns - shift) as u32);
            dispatch(
                #[inline(always)]
                || {
                    for (j, (key, d)) in keys.iter_mut().zip(distances).enumerate() {
                        let follows = j as u32 + turn;
                        let follows = if follows >= end { follows - end } else { follows };
                        *key = (d.to_bits() & !low | follows & low) as i32;
                    }
                },
            );
            keys[columns..].fill(i32::MAX);
            if same {
                keys[shift] = i32::MAX;
            }
            // The least of all keys that are so far apart: only these are looked through again.
            let mut least = [i32::MAX; SPREAD];
            dispatch(
                #[inline(always)]
                || {
                    for keys in keys.as_chunks::<SPREAD>().0 {
                        for (least, &key) in least.iter_mut().zip(keys) {
                            *least = key.min(*least);
                        }
                    }
                },
            );
            for _ in 0..count {
                let next = dispatch(
                    #[inline(always)]
                    || least.iter().fold(i32::MAX, |least, &key| key.min(least)),
                );
                if next == i32::MAX {
                    break;
                }
                let mut column = (next as u32 & low) as usize + shift;
                if column >= columns {
                    column -= columns;
                }
                found(first + r, column, distances[column]);
                keys[column] = i32::MAX;
                let apart = keys.iter().skip(column % SPREAD).step_by(SPREAD);
                least[column % SPREAD] = apart.fold(i32::MAX, |least, &key| key.min(least));
            }
        }
    }
}

/// The nearest `count` of some rows to each of them.
pub(super) fn nearest_within(lane: &Lane<'_>, rows: &[u32], count: usize) -> Vec<Vec<Link>> {
    let mut found = vec![Vec::with_capacity(count); rows.len()];
    if rows.len() < 2 {
        return found;
    }
    let mut block = Gathered::default();
    block.gather(lane, rows.iter().copied());
    let columns = block.pack(lane);
    let mut comparison = Comparison::new(lane);
    for first in (0..rows.len()).step_by(GROUP) {
        let found = |row: usize, column: usize, distance: f32| {
            found[row].push(Link { distance, row: rows[column] });
        };
        comparison.nearest(&columns, None, first, count, found);
    }
    found
}

/// An edge that a leaf proposes.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: u32,
    to: Link,
}

/// The best candidates of a range of rows.
#[derive(Debug)]
struct Shard {
    first: usize,
    /// [`CANDIDATES`] for each row.
    links: Vec<Link>,
    counts: Vec<u8>,
}

impl Shard {
    fn new(first: usize, rows: usize) -> Self {
        let none = Link { distance: 0.0, row: 0 };
        Self { first, links: vec![none; rows * CANDIDATES], counts: vec![0; rows] }
    }

    fn push(&mut self, edge: Edge) {
        let i = edge.from as usize - self.first;
        if self.counts[i] as usize == CANDIDATES {
            self.compact(i);
        }
        self.links[i * CANDIDATES + self.counts[i] as usize] = edge.to;
        self.counts[i] += 1;
    }

    /// Sorts the candidates of a row, each once, and keeps the nearest.
    fn compact(&mut self, i: usize) {
        let row = (self.first + i) as u32;
        let links = &mut self.links[i * CANDIDATES..][..self.counts[i] as usize];
        links.sort_unstable_by_key(|link| link.order(row));
        let mut count = 0;
        for j in 0..links.len() {
            // The same two rows have the same distance in each leaf.
            if j == 0 || links[j].row != links[count - 1].row {
                links[count] = links[j];
                count += 1;
            }
        }
        self.counts[i] = count.min(KEPT) as u8;
    }

    fn row(&self, i: usize) -> &[Link] {
        &self.links[i * CANDIDATES..][..self.counts[i] as usize]
    }
}

/// Room for the candidates of all rows.
fn shards(lane: &Lane<'_>) -> Vec<Shard> {
    let firsts = (0..lane.rows).step_by(CHUNK);
    firsts.map(|first| Shard::new(first, CHUNK.min(lane.rows - first))).collect()
}

/// Candidates from comparing some rows with each other.
fn one_leaf(
    lane: &Lane<'_>,
    rows: &[u32],
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<Vec<Shard>> {
    let n = rows.len();
    let mut all = Gathered::default();
    all.gather(lane, rows.iter().copied());
    let all = all.pack(lane);
    let task = CHUNK / 8;
    let operations = (n * n * lane.padded) as u64;
    let edges = stages.run(threads, n.div_ceil(task), operations, |t, worker| {
        let mut edges = Vec::new();
        let mut comparison = Comparison::new(lane);
        for first in (t * task..n.min((t + 1) * task)).step_by(GROUP) {
            let found = |row: usize, column: usize, distance: f32| {
                edges.push(Edge { from: rows[row], to: Link { distance, row: rows[column] } });
            };
            comparison.nearest(&all, None, first, NEAREST_OF_ALL, found);
            if !worker.advance((GROUP * n * lane.padded) as u64) {
                break;
            }
        }
        edges
    })?;
    let mut shards = shards(lane);
    for edge in edges.into_iter().flatten() {
        shards[edge.from as usize / CHUNK].push(edge);
    }
    Ok(shards)
}

/// Candidates from leaves.
fn carve(
    lane: &Lane<'_>,
    rows: &[u32],
    seed: u64,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<(Vec<Shard>, Order)> {
    let n = rows.len();
    // A row is compared with `count` leaders, and with those of the parts it goes to, which are the
    // fewer the smaller these are: least together at the root of what those come to with one leader.
    let inner = 2 * FANOUT[0] * FANOUT[0] * FANOUT[1] / LEAF;
    let count = (inner * n).isqrt().min(usize::from(u16::MAX));
    let mut leaders = Gathered::default();
    let chosen = Random(seed ^ 1).sample(count, n);
    leaders.gather(lane, chosen.into_iter().map(|i| rows[i as usize]));
    let leaders = leaders.pack(lane);
    let operations = (n * count * lane.padded) as u64;
    let homes: Vec<Vec<u16>> =
        stages.run(threads, n.div_ceil(CHUNK), operations, |task, worker| {
            let mut block = Gathered::default();
            block.gather(lane, rows[task * CHUNK..n.min((task + 1) * CHUNK)].iter().copied());
            let mut homes = vec![0; block.rows * FANOUT[0]];
            let mut comparison = Comparison::new(lane);
            for first in (0..block.rows).step_by(GROUP) {
                let mut places = [0; GROUP];
                let found = |row: usize, leader: usize, _: f32| {
                    homes[row * FANOUT[0] + places[row - first]] = leader as u16;
                    places[row - first] += 1;
                };
                comparison.nearest(&leaders, Some(&block), first, FANOUT[0], found);
                if !worker.advance((GROUP * count * lane.padded) as u64) {
                    break;
                }
            }
            homes
        })?;
    let mut parts: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (&row, homes) in rows.iter().zip(homes.iter().flat_map(|h| h.chunks_exact(FANOUT[0]))) {
        homes.iter().for_each(|&home| parts[home as usize].push(row));
    }
    let mut order: Vec<usize> = (0..n).collect();
    let home = |i: usize| &homes[i / CHUNK][i % CHUNK * FANOUT[0]..][..2];
    order.sort_by_key(|&i| (home(i)[0], home(i)[1]));
    let order = order.into_iter().map(|i| rows[i]).collect();
    drop(homes);
    let shards: Vec<Mutex<Shard>> = shards(lane).into_iter().map(Mutex::new).collect();
    // Several parts a task: few long lists are merged faster than many short ones.
    let batch = count.div_ceil(BATCHES).max(threads * 2).min(count);
    for (b, parts) in parts.chunks(batch).enumerate() {
        let rows: usize = parts.iter().map(Vec::len).sum();
        let operations = (rows * 3 * 256 * lane.padded) as u64;
        let edges = stages.run(threads, parts.len(), operations, |task, worker| {
            let random = Random(seed ^ ((b * batch + task + 2) as u64) << 20);
            let out = Vec::with_capacity(parts[task].len() * FANOUT[1] * NEAREST);
            let comparison = Comparison::new(lane);
            let mut carver = Carver { comparison, random, worker, out };
            carver.part(&parts[task], 1);
            let mut out = carver.out;
            // In the order of rows, so that merging goes through memory once.
            out.sort_unstable_by_key(|edge: &Edge| (edge.from, edge.to.order(edge.from)));
            out.dedup_by_key(|edge| (edge.from, edge.to.row));
            out
        })?;
        stages.run(threads, shards.len(), (rows * 64) as u64, |task, _| {
            let mut shard = shards[task].lock().unwrap_or_else(PoisonError::into_inner);
            let (first, last) = (shard.first, shard.first + shard.counts.len());
            for edges in &edges {
                let start = edges.partition_point(|edge| (edge.from as usize) < first);
                for &edge in edges[start..].iter().take_while(|e| (e.from as usize) < last) {
                    shard.push(edge);
                }
            }
        })?;
    }
    let shards: Vec<Shard> = shards
        .into_iter()
        .map(|shard| shard.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect();
    Ok((shards, Order::new(order, lane.rows)))
}

/// Carves one part of the rows into leaves.
struct Carver<'a, 'b, 'c> {
    comparison: Comparison<'a, 'b>,
    random: Random,
    worker: &'a Worker<'c>,
    out: Vec<Edge>,
}

impl Carver<'_, '_, '_> {
    fn part(&mut self, rows: &[u32], level: usize) {
        if rows.len() <= LEAF {
            self.leaf(rows);
            return;
        }
        let lane = self.comparison.lane;
        let fanout = FANOUT[level.min(FANOUT.len() - 1)];
        let count = 2 * rows.len() * fanout / LEAF + 2;
        let chosen = self.random.sample(count, rows.len());
        let mut leaders = Gathered::default();
        leaders.gather(lane, chosen.iter().map(|&i| rows[i as usize]));
        let leaders = leaders.pack(lane);
        let mut parts: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut block = Gathered::default();
        for rows in rows.chunks(CHUNK) {
            block.gather(lane, rows.iter().copied());
            for first in (0..rows.len()).step_by(GROUP) {
                let found = |row: usize, leader: usize, _: f32| parts[leader].push(rows[row]);
                self.comparison.nearest(&leaders, Some(&block), first, fanout, found);
            }
            if !self.worker.advance((rows.len() * count * lane.padded) as u64) {
                return;
            }
        }
        for part in parts {
            // Rows that no leader tells apart are cut as they come.
            if part.len() == rows.len() {
                part.chunks(LEAF).for_each(|rows| self.leaf(rows));
            } else {
                self.part(&part, level + 1);
            }
        }
    }

    fn leaf(&mut self, rows: &[u32]) {
        if rows.len() < 2 {
            return;
        }
        let lane = self.comparison.lane;
        let mut block = Gathered::default();
        block.gather(lane, rows.iter().copied());
        let columns = block.pack(lane);
        for first in (0..rows.len()).step_by(GROUP) {
            let out = &mut self.out;
            let found = |row: usize, column: usize, distance: f32| {
                out.push(Edge { from: rows[row], to: Link { distance, row: rows[column] } });
            };
            self.comparison.nearest(&columns, None, first, NEAREST, found);
        }
        self.worker.advance((rows.len() * rows.len() * lane.padded) as u64);
    }
}

/// The pruned links of a task's rows.
#[derive(Default)]
struct Pruned {
    links: Vec<Link>,
    /// Where each row's links end.
    ends: Vec<u32>,
}

impl Pruned {
    fn row(&self, i: usize) -> &[Link] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.links[start..self.ends[i] as usize]
    }

    fn push(&mut self, links: &[Link]) {
        self.links.extend_from_slice(links);
        self.ends.push(self.links.len() as u32);
    }
}

/// Candidates of one row after another, by `found(row, candidates)`: sorted, each once. The memory
/// is asked for the next row's records while those of one are compared.
fn in_turn(
    lane: &Lane<'_>,
    rows: &[u32],
    collect: impl Fn(u32, &mut Vec<Link>),
    mut found: impl FnMut(u32, &[Link]) -> bool,
) {
    let (mut links, mut next) = (Vec::new(), Vec::new());
    let collect = |row: u32, links: &mut Vec<Link>| {
        links.clear();
        collect(row, links);
        links.sort_unstable_by_key(|link| link.order(row));
        links.dedup_by_key(|link| link.row);
        links.iter().for_each(|link| lane.prefetch(link.row));
    };
    rows.iter().take(1).for_each(|&row| collect(row, &mut next));
    for (i, &row) in rows.iter().enumerate() {
        std::mem::swap(&mut links, &mut next);
        rows.get(i + 1).into_iter().for_each(|&row| collect(row, &mut next));
        if !found(row, &links) {
            return;
        }
    }
}

/// Multiply-adds of pruning a row, about.
fn pruning(lane: &Lane<'_>) -> u64 {
    300 * lane.padded as u64
}

/// Prunes every row's candidates.
fn forward(
    lane: &Lane<'_>,
    shards: &[Shard],
    order: &Order,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<Vec<Pruned>> {
    let operations = order.rows.len() as u64 * pruning(lane);
    stages.run(threads, order.tasks(), operations, |task, worker| {
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        let mut pruned = Pruned::default();
        let collect = |row: u32, links: &mut Vec<Link>| {
            let row = row as usize;
            links.extend_from_slice(shards[row / CHUNK].row(row % CHUNK));
        };
        in_turn(lane, order.task(task), collect, |_, candidates| {
            prune(lane, candidates, 0, &mut scratch, &mut out);
            pruned.push(&out);
            worker.advance(pruning(lane))
        });
        pruned
    })
}

/// Adds reverse links, prunes again where there are too many, fills up, and writes the links.
fn finish(
    lane: &Lane<'_>,
    graph: &Graph,
    forward: &[Pruned],
    order: &Order,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<()> {
    let n = lane.rows;
    // Reverse edges by target: where each row's begin, then the edges themselves.
    let mut starts = vec![0u32; n + 1];
    for pruned in forward {
        pruned.links.iter().for_each(|link| starts[link.row as usize + 1] += 1);
    }
    for i in 0..n {
        starts[i + 1] += starts[i];
    }
    let mut places = starts.clone();
    let mut reverse = vec![Link { distance: 0.0, row: 0 }; starts[n] as usize];
    for &row in &order.rows {
        for link in order.links(forward, row) {
            let place = &mut places[link.row as usize];
            reverse[*place as usize] = Link { distance: link.distance, row };
            *place += 1;
        }
    }
    drop(places);
    stages.run(threads, order.tasks(), n as u64 * pruning(lane), |task, worker| {
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        let collect = |row: u32, links: &mut Vec<Link>| {
            let (start, end) = (starts[row as usize] as usize, starts[row as usize + 1] as usize);
            links.extend_from_slice(order.links(forward, row));
            links.extend_from_slice(&reverse[start..end]);
        };
        in_turn(lane, order.task(task), collect, |row, all| {
            let all = if all.len() > PRUNED {
                prune(lane, all, PRUNED, &mut scratch, &mut out);
                &out
            } else {
                all
            };
            graph.set_links(row, all.iter().map(|link| link.row));
            worker.advance(pruning(lane))
        });
    })?;
    Ok(())
}

/// Walks around every row through the graph, and prunes what was found with the links there are.
fn refine(
    lane: &Lane<'_>,
    graph: &Graph,
    order: &Order,
    threads: usize,
    stages: &mut Stages<'_>,
) -> Result<Vec<Pruned>> {
    let operations = 6 * pruning(lane);
    let total = order.rows.len() as u64 * operations;
    stages.run(threads, order.tasks(), total, |task, worker| {
        let rows = order.task(task);
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        let mut all = Vec::new();
        let mut pruned = vec![Vec::new(); rows.len()];
        let aim = |i: usize, start: &mut Start| {
            lane.aim_at_row(rows[i], &mut start.target);
            true
        };
        let reach = Reach::all(REFINE);
        Walks::default().run(lane, graph, rows.len(), reach, aim, |i, beam, target| {
            let row = rows[i];
            all.clear();
            all.extend(beam.rows().filter(|&other| other != row));
            all.extend(graph.links(row));
            all.sort_unstable();
            all.dedup();
            let mut links = distances(lane, target, &all);
            links.sort_unstable_by_key(|link| link.order(row));
            prune(lane, &links, 0, &mut scratch, &mut out);
            pruned[i].clone_from(&out);
            worker.advance(operations)
        });
        pruned.iter().fold(Pruned::default(), |mut all, links: &Vec<Link>| {
            all.push(links);
            all
        })
    })
}

/// Rows with their distances from the target.
pub(super) fn distances(lane: &Lane<'_>, target: &Target, rows: &[u32]) -> Vec<Link> {
    let mut links = Vec::with_capacity(rows.len());
    lane.ask(rows, 0);
    lane.each(target, rows, |row, d| links.push(Link { distance: d.max(0.0), row }));
    links
}

/// Gives every row that no walk from a head can come to a link, or makes it a head.
///
/// `live` are the rows that count.
pub(super) fn reach(lane: &Lane<'_>, graph: &mut Graph, live: impl Fn(u32) -> bool) {
    let n = lane.rows;
    let mut reached = vec![false; n];
    let mut queue: Vec<u32> = Vec::new();
    for &head in graph.heads() {
        reached[head as usize] = true;
        queue.push(head);
    }
    graph.spread(&mut queue, &mut reached, || true);
    let mut heads = None;
    for row in 0..n as u32 {
        if reached[row as usize] || !live(row) {
            continue;
        }
        // A reached row that it links to and that has room links back.
        let links: Vec<u32> = graph.links(row).collect();
        let host = links
            .iter()
            .copied()
            .find(|&link| reached[link as usize] && graph.links(link).count() < graph.room(link));
        if let Some(host) = host {
            let mut links: Vec<u32> = graph.links(host).collect();
            links.push(row);
            graph.set_links(host, links.into_iter());
        } else {
            heads.get_or_insert_with(|| graph.heads().to_vec()).push(row);
        }
        reached[row as usize] = true;
        queue.push(row);
        graph.spread(&mut queue, &mut reached, || true);
    }
    if let Some(heads) = heads {
        graph.heads = Arc::new(Heads::new(lane, heads));
    }
}
