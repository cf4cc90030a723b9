//! The walk: a beam of the best rows seen so far, of which the nearest are expanded first.
//!
//! Past the second-level cache the time goes to waiting for memory, so that what matters is how
//! many records are on their way at once: neither few nor more than a core can wait for. Each round
//! expands the best few rows of the beam together, asks for the first records of their unseen links,
//! then for the links of the rows that the next round will most likely expand, and only then scores,
//! and asks for one more record with each. Where there are several targets, as in a batch of queries or
//! in a build, their walks take turns: one computes while the memory works for the others.
//!
//! A walk ends by distance, not by count alone: what is much farther than the k-th best leads to
//! nothing better, and how many rows are nearer differs from query to query (Al-Jazzazi et al.,
//! "Distance Adaptive Beam Search for Provably Accurate Graph-Based Nearest Neighbor Search", 2025).

use std::cell::RefCell;

use super::{Graph, Heads, Lane, MOST_ROWS, Target, key, value};
use crate::codes::QueryCode;
use crate::corpus::Corpus;
use crate::exact::List;
use crate::kernels::float::Judge;
use crate::scratch::One;
use crate::selection::Selection;
use crate::top_k::{Neighbor, TopK};

/// Rows that are expanded in a round.
const WIDTH: usize = 2;
/// The nearest `effort` rows of a query are within `(effort / k)^GROWTH` times the squared distance
/// of the k-th, where the intrinsic dimension is 17: a walk expands what lies so near. Where it is
/// more, that are more rows than the effort, and where it is less, fewer: up to so many times as
/// many, and no less than one of so many.
const GROWTH: f32 = 0.12;
const WIDER: usize = 3;
const NARROWER: usize = 2;
/// Heads that a walk by inner products starts from: the product has no triangle, so that the group
/// of the best head need not be where the best rows are. By distances one head finds as much.
const ENTRIES: usize = 8;
/// Walks that take turns.
const TOGETHER: usize = 3;
/// Set in the number of a row that was expanded.
const EXPANDED: u64 = MOST_ROWS as u64;
/// Rows that are judged beside the k nearest by codes, and again so many for each of those that is
/// among the k nearest so far: few where codes order rows as the numbers do, and all that the walk
/// found where rows lie closer to each other than codes tell apart.
const SPARE: usize = 4;
/// A wider beam, which wants more, can afford more: one for so many rows.
const SPARE_SHARE: usize = 32;
/// Rows whose numbers are fetched before their verdict.
const AHEAD: usize = 4;

/// Which rows a walk looks for, and how far it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach<'a> {
    /// The rows that may answer; all if none.
    allowed: Option<&'a Selection>,
    /// The nearest `least` of them are expanded, and up to `most` within the bound: `growth` times
    /// the distance of the `k`-th, or its square. There is none where `k` is 0.
    least: usize,
    most: usize,
    k: usize,
    growth: f32,
    /// So many are kept to be expanded and judged, within the bound or not.
    kept: usize,
    /// So many are judged beside the first `k`, and again for each of those that answers.
    spare: usize,
    /// Other rows that are kept, to be expanded where they are nearer than the last of those.
    others: usize,
}

impl<'a> Reach<'a> {
    /// Of a walk to the `k` nearest rows that may answer, which are a share of all, with an effort
    /// of `k` at least. `by_distance` where values and [`Target::apart`] come to distances or their
    /// squares.
    pub(crate) fn new(
        allowed: Option<&'a Selection>,
        share: f64,
        k: usize,
        effort: usize,
        by_distance: bool,
    ) -> Self {
        // Of the rows beside the first k, a share may answer. Near a query that is apart from its
        // answers they are fewer: then the others end the walk, twice as many as a share of rows
        // drawn at random would leave.
        let expanded = k + (share.min(1.0) * (effort - k) as f64) as usize;
        let others = if share < 1.0 { effort + (2.0 * between(share, k)) as usize } else { 0 };
        let spare = SPARE + expanded / SPARE_SHARE;
        let kept = k + (k / 2).max(2 * spare);
        if !by_distance {
            let most = expanded.max(kept);
            return Self { allowed, spare, others, ..Self::all(most) };
        }
        let least = k.max(expanded / NARROWER);
        Self {
            allowed,
            least,
            most: kept.max(WIDER * expanded),
            k,
            growth: (expanded as f32 / k as f32).powf(GROWTH),
            kept: kept.max(least),
            spare,
            others: WIDER * others,
        }
    }

    /// The `width` nearest of all rows.
    pub(crate) fn all(width: usize) -> Self {
        let (least, most, kept) = (width, width, width);
        Self { allowed: None, least, most, k: 0, growth: 1.0, kept, spare: 0, others: 0 }
    }
}

/// Rows that may not answer among the nearest that hold `k` that may, if those are drawn at random.
pub(crate) fn between(share: f64, k: usize) -> f64 {
    k as f64 * (1.0 / share - 1.0)
}

/// What is kept of a row and its value, in the order of the values.
#[inline(always)]
fn item(value: f32, row: u32) -> u64 {
    u64::from(key(value)) << 32 | u64::from(row)
}

/// The best rows of a kind, ascending, as [`item`]s.
#[derive(Debug, Default)]
struct Nearest {
    rows: Vec<u64>,
    width: usize,
    /// Rows from this [`item`] on are kept only to make up `floor` rows.
    bound: u64,
    floor: usize,
    /// No row before this one is unexpanded.
    first: usize,
}

impl Nearest {
    fn start(&mut self, width: usize) {
        self.rows.clear();
        self.width = width;
        self.bound = u64::MAX;
        self.first = 0;
    }

    /// Where the row is now, if it is kept.
    #[inline(always)]
    fn push(&mut self, item: u64) -> Option<usize> {
        if self.rows.len() >= self.floor {
            let worst = self.rows.last().map_or(0, |&worst| worst & !EXPANDED);
            let full = self.rows.len() == self.width || worst >= self.bound;
            if item >= if full { worst } else { self.bound } {
                return None;
            }
            if full {
                self.rows.pop();
            }
        }
        let at = self.rows.partition_point(|&other| other & !EXPANDED < item);
        self.rows.insert(at, item);
        self.first = self.first.min(at);
        Some(at)
    }

    /// Bounds the rows by so many times the distance of the `k`-th, which is its value plus `base`.
    #[inline(always)]
    fn tighten(&mut self, k: usize, growth: f32, base: f32) {
        let Some(last) = self.rows.get(k - 1) else { return };
        // Rounding of codes may leave less than nothing of a short distance.
        let far = (value((last >> 32) as u32) + base).max(0.0);
        self.bound = item(growth * far - base, 0);
        while self.rows.len() > self.floor
            && self.rows.last().is_some_and(|&row| row & !EXPANDED >= self.bound)
        {
            self.rows.pop();
        }
        self.first = self.first.min(self.rows.len());
    }

    /// The nearest unexpanded row.
    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        while self.rows.get(self.first).is_some_and(|&row| row & EXPANDED != 0) {
            self.first += 1;
        }
        self.rows.get(self.first).copied()
    }

    /// Asks the memory for the links of the rows that are expanded next.
    #[inline(always)]
    fn prefetch_links(&self, graph: &Graph) {
        let next = self.rows[self.first.min(self.rows.len())..].iter();
        for &row in next.filter(|&&row| row & EXPANDED == 0).take(WIDTH) {
            graph.prefetch(row as u32);
        }
    }
}

/// The best rows seen.
#[derive(Debug, Default)]
pub(crate) struct Beam {
    /// Those that may answer.
    near: Nearest,
    /// The others, which lead to them.
    others: Nearest,
    /// Where the walk starts.
    entries: Nearest,
    /// A bit for each row that was seen: few enough to stay in the second-level cache for millions.
    seen: Vec<u64>,
    /// The rows that were seen, in that order, of which those from `scored` are not scored yet.
    met: Vec<u32>,
    scored: usize,
}

impl Beam {
    fn start(&mut self, reach: &Reach<'_>, rows: usize) {
        self.near.start(reach.most);
        self.near.floor = reach.kept;
        self.others.start(reach.others);
        self.met.drain(..).for_each(|row| self.seen[row as usize / 64] = 0);
        self.scored = 0;
        if self.seen.len() < rows.div_ceil(64) {
            self.seen.resize(rows.div_ceil(64), 0);
        }
    }

    /// Notes a row to be scored, if it is new to this walk.
    #[inline(always)]
    fn meet(&mut self, row: u32) -> bool {
        let (seen, bit) = (&mut self.seen[row as usize / 64], 1 << (row % 64));
        let new = *seen & bit == 0;
        if new {
            *seen |= bit;
            self.met.push(row);
        }
        new
    }

    #[inline(always)]
    fn push(&mut self, item: u64, reach: &Reach<'_>, base: f32) {
        if reach.allowed.is_some_and(|allowed| !allowed.contains(item as u32 as usize)) {
            self.others.push(item);
        } else if self.near.push(item).is_some_and(|at| at < reach.k) {
            self.near.tighten(reach.k, reach.growth, base);
        }
    }

    /// The list whose next row is to be expanded.
    #[inline(always)]
    fn next(&mut self, reach: &Reach<'_>) -> Option<&mut Nearest> {
        let near = self.near.next();
        let (first, bound) = (self.near.first, self.near.bound);
        let near = near.filter(|&row| first < reach.least || (first < reach.most && row < bound));
        if self.others.rows.is_empty() {
            return near.map(|_| &mut self.near);
        }
        // The last of the rows that are looked for: what is farther leads to none of them.
        let last = self.near.rows.get(reach.most - 1).map_or(u64::MAX, |last| last & !EXPANDED);
        let end = last.min(bound).min(near.unwrap_or(u64::MAX));
        if self.others.next().is_some_and(|other| other < end) {
            return Some(&mut self.others);
        }
        near.map(|_| &mut self.near)
    }

    /// Marks the nearest unexpanded row, and gives it.
    #[inline(always)]
    fn expand(&mut self, reach: &Reach<'_>) -> Option<u32> {
        let list = self.next(reach)?;
        let row = &mut list.rows[list.first];
        *row |= EXPANDED;
        list.first += 1;
        Some(*row as u32 & !(EXPANDED as u32))
    }

    /// The rows that may answer, nearest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.near.rows.iter().map(|&row| row as u32 & !(EXPANDED as u32))
    }

    /// Whether others were left out, and all that may answer are farther than those that were kept:
    /// then the walk did not come to where the answers lie.
    fn is_lost(&self) -> bool {
        let full = self.others.rows.len() == self.others.width;
        let last = self.others.rows.last().filter(|_| full);
        let nearest = self.near.rows.first().map_or(u64::MAX, |row| row & !EXPANDED);
        last.is_some_and(|last| nearest > last & !EXPANDED)
    }

    /// Asks the memory for the links of the rows that are expanded next.
    #[inline(always)]
    fn prefetch_links(&self, graph: &Graph) {
        self.near.prefetch_links(graph);
        self.others.prefetch_links(graph);
    }

    /// Expands the nearest few rows and asks the memory for the first records of what they link to.
    #[inline(always)]
    fn expand_some(&mut self, lane: &Lane<'_>, graph: &Graph, reach: &Reach<'_>) {
        for _ in 0..WIDTH {
            let Some(row) = self.expand(reach) else { break };
            for link in graph.links(row) {
                if (link as usize) < lane.rows {
                    self.meet(link);
                }
            }
        }
        lane.ask(&self.met[self.scored..]);
        // A guess, which scores may change.
        self.prefetch_links(graph);
    }

    /// Scores what was met; whether there is anything left to expand.
    #[inline(always)]
    fn score(
        &mut self,
        lane: &Lane<'_>,
        graph: &Graph,
        target: &Target,
        reach: &Reach<'_>,
    ) -> bool {
        let met = std::mem::take(&mut self.met);
        let rows = &met[self.scored..];
        lane.each(target, rows, |row, value| self.push(item(value, row), reach, target.apart));
        self.scored = met.len();
        self.met = met;
        self.prefetch_links(graph);
        self.next(reach).is_some()
    }

    /// Starts from the nearest head, or heads.
    fn enter(&mut self, lane: &Lane<'_>, graph: &Graph, target: &Target, reach: &Reach<'_>) {
        let mut nearest = std::mem::take(&mut self.entries);
        let by_product = lane.lift > 0.0 && lane.zero_bias.is_none() && target.height.is_none();
        nearest.start(if by_product { ENTRIES } else { 1 });
        let Heads { rows, records } = &*graph.heads;
        let record = |i: usize| &records[i.min(rows.len() - 1) * lane.stride..];
        for (at, rows) in (0..).step_by(4).zip(rows.chunks(4)) {
            // Not mapped from an array of numbers: it would be moved just after it was written.
            let four = [record(at), record(at + 1), record(at + 2), record(at + 3)];
            for (&row, value) in rows.iter().zip(lane.values_of(target, &four)) {
                nearest.push(item(value, row));
            }
        }
        for &entry in &nearest.rows {
            let row = entry as u32;
            if (row as usize) < lane.rows && self.meet(row) {
                self.push(entry, reach, target.apart);
            }
        }
        self.scored = self.met.len();
        self.entries = nearest;
    }
}

/// Beams of walks that take turns, so that the memory works for one while another computes.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    walks: [Walk; TOGETHER],
}

#[derive(Debug, Default)]
struct Walk {
    beam: Beam,
    target: Target,
    /// Which of the walks it is; none where it is done.
    number: Option<usize>,
    /// Whether rows are to be scored, rather than expanded.
    met: bool,
}

impl Walks {
    /// Walks `n` times to the rows nearest to a target. `aim` sets the target of a walk, and `found`
    /// gets what it came to, until it says that it is enough.
    pub(crate) fn run(
        &mut self,
        lane: &Lane<'_>,
        graph: &Graph,
        n: usize,
        reach: Reach<'_>,
        mut aim: impl FnMut(usize, &mut Target),
        mut found: impl FnMut(usize, &Beam, &Target) -> bool,
    ) {
        self.walks.iter_mut().for_each(|walk| walk.number = None);
        let (mut begun, mut done) = (0, 0);
        while done < n {
            for walk in &mut self.walks {
                let Walk { beam, target, number, met } = walk;
                match *number {
                    None if begun < n => {
                        aim(begun, target);
                        beam.start(&reach, lane.rows);
                        beam.enter(lane, graph, target, &reach);
                        (*number, *met) = (Some(begun), false);
                        begun += 1;
                    }
                    None => {}
                    Some(i) if *met => {
                        *met = false;
                        if !beam.score(lane, graph, target, &reach) {
                            (*number, done) = (None, done + 1);
                            if !found(i, beam, target) {
                                return;
                            }
                        }
                    }
                    Some(_) => {
                        beam.expand_some(lane, graph, &reach);
                        *met = true;
                    }
                }
            }
        }
    }
}

thread_local! {
    /// Kept from call to call: marks of all rows are dear to make.
    static WALKS: RefCell<(Walks, Vec<f64>)> = RefCell::default();
}

/// The `k` rows nearest to each query among those that a walk finds, by `found(query, answers)`,
/// until it says that it is enough.
///
/// The answers are none where the walk cannot answer: a query beyond codes, fewer than there are, or
/// a walk that did not come to where they lie.
pub(crate) fn search(
    corpus: Corpus<'_>,
    lane: &Lane<'_>,
    graph: &Graph,
    queries: &[&[f64]],
    k: usize,
    reach: Reach<'_>,
    mut found: impl FnMut(usize, Option<List>) -> bool,
) {
    let (mut floats, mut walked) = (One::new(), One::new());
    for (i, query) in queries.iter().enumerate() {
        match lane.encoder.query_floats(query) {
            Some(query) => {
                floats.push(query);
                walked.push(i);
            }
            None if found(i, None) => {}
            None => return,
        }
    }
    let codes: One<QueryCode> =
        floats.iter().map(|query| lane.encoder.walk_code(lane.isa, query)).collect();
    WALKS.with_borrow_mut(|(walks, wide)| {
        wide.resize(corpus.dim, 0.0);
        let aim = |i: usize, target: &mut Target| lane.aim_at_query(&codes[i], &floats[i], target);
        walks.run(lane, graph, walked.len(), reach, aim, |i, beam, _| {
            corpus.count(|counts| {
                counts.walked += 1;
                counts.scored += (graph.heads().len() + beam.met.len()) as u64;
            });
            if beam.is_lost() {
                return found(walked[i], None);
            }
            let judge = Judge::new(corpus.metric, queries[walked[i]]);
            let mut nearest = TopK::new(k);
            let mut ahead = beam.rows();
            let (mut asked, mut judged, mut late) = (0, 0, 0);
            for row in beam.rows() {
                let due = k + reach.spare * (1 + late);
                if judged == due {
                    break;
                }
                // Nothing is fetched that may not be judged.
                let wanted = due.min(judged + 1 + AHEAD);
                ahead.by_ref().take(wanted - asked).for_each(|row| corpus.prefetch(row));
                asked = wanted;
                corpus.read(row, wide);
                let kept = nearest.push(Neighbor { distance: judge.distance(wide), row });
                late += usize::from(kept && judged >= k);
                judged += 1;
            }
            corpus.count(|counts| counts.judged += judged as u64);
            found(walked[i], (judged >= k).then(|| nearest.into_sorted()))
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// What is kept in the end is what would be kept of all rows at once.
    #[test]
    fn a_bounded_list_keeps_what_lies_within_and_the_nearest_of_the_rest() {
        let mut random = Random(7);
        for turn in 0..500_usize {
            let (k, floor, width) = (1 + turn % 5, 5 + turn % 7, 12 + turn % 30);
            let (growth, base) = (1.0 + (turn % 11) as f32 / 10.0, (turn % 3) as f32);
            let seen: Vec<u64> = (0..60)
                .map(|row| {
                    item((random.next() % (100 - turn as u64 % 99)) as f32 / 10.0 - base, row)
                })
                .collect();
            let mut list = Nearest { floor, ..Nearest::default() };
            list.start(width);
            for &item in &seen {
                if list.push(item).is_some_and(|at| at < k) {
                    list.tighten(k, growth, base);
                }
            }
            let mut sorted = seen;
            sorted.sort_unstable();
            let far = (value((sorted[k - 1] >> 32) as u32) + base).max(0.0);
            let bound = item(growth * far - base, 0);
            let within = sorted.partition_point(|&item| item < bound);
            sorted.truncate(within.clamp(floor, width));
            assert_eq!(list.rows, sorted, "turn {turn}");
        }
    }
}
