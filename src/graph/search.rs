//! The walk: a beam of the best rows seen so far, of which the nearest are expanded first.
//!
//! Past the second-level cache the time goes to waiting for memory, so that what matters is how
//! many records are on their way at once: neither few nor more than a core can wait for. Each round
//! expands the best few rows of the beam together, asks for the first records of their unseen links,
//! then for the links of the rows that the next round will most likely expand, and only then scores,
//! and asks for more records as it goes. Where there are several targets, as in a batch of queries or
//! in a build, their walks take turns: one computes while the memory works for the others.
//!
//! Walks to many queries are made in the order of the heads that they start from, so that one finds in
//! the cache what the last has read.
//!
//! A walk ends by distance, not by count alone: what is much farther than the k-th best leads to
//! nothing better, and how many rows are nearer differs from query to query (Al-Jazzazi et al.,
//! "Distance Adaptive Beam Search for Provably Accurate Graph-Based Nearest Neighbor Search", 2025).

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::{DEGREE, Graph, Lane, MARK, NONE, Target, key, value};
use crate::corpus::Corpus;
use crate::error::Result;
use crate::exact::{self, List};
use crate::kernels::Isa;
use crate::kernels::float::Judge;
use crate::kernels::merge::{MOST, merge};
use crate::rows::Rows;
use crate::scratch::{Buffer, Few};
use crate::selection::Selection;
use crate::threads::Stages;
use crate::top_k::{Neighbor, TopK};

/// Rows that are expanded in a round.
const WIDTH: usize = 2;
// What they lead to is put into the beam together.
const _: () = assert!(WIDTH * DEGREE <= MOST);
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
/// Heads whose values are compared together.
const BLOCK: usize = 16;
/// Queries that one thread walks for before it takes more.
pub(crate) const TASK: usize = 32;
/// Walks that take turns.
const TOGETHER: usize = 3;
/// Set in the [`item`] of a row that was expanded, where no other row's differs: it changes no order.
const EXPANDED: u64 = 1;
/// Rows that are judged beside the k nearest by codes, and again so many for each of those that is
/// among the k nearest so far: few where codes order rows as the numbers do, and all that the walk
/// found where rows lie closer to each other than codes tell apart.
const SPARE: usize = 4;
/// A wider beam, which wants more, can afford more: one for so many rows.
const SPARE_SHARE: usize = 32;
/// Rows whose numbers are fetched before their verdict.
const AHEAD: usize = 4;
/// And so many whose beginning is: more might be gone from the cache when they are read.
const STARTS: usize = 64;

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

    #[inline(always)]
    fn may_answer(&self, row: u32) -> bool {
        self.allowed.is_none_or(|allowed| allowed.contains(row as usize))
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
    u64::from(key(value)) << 32 | u64::from(row) << 1
}

/// The row of an [`item`].
#[inline(always)]
fn row_of(item: u64) -> u32 {
    item as u32 >> 1
}

/// The value of an [`item`].
#[inline(always)]
fn value_of(item: u64) -> f32 {
    value((item >> 32) as u32)
}

/// The item of another row that has the same value.
#[inline(always)]
fn beside(item: u64, row: u32) -> u64 {
    item >> 32 << 32 | u64::from(row) << 1
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

    /// Where there are `floor` rows: only what comes before this is kept, in the place of the last where
    /// the list is full.
    #[inline(always)]
    fn limit(&self) -> (u64, bool) {
        let worst = self.rows.last().copied().unwrap_or(0);
        let full = self.rows.len() == self.width || worst >= self.bound;
        (if full { worst } else { self.bound }, full)
    }

    /// Nothing from this item on is kept.
    #[inline(always)]
    fn end(&self) -> u64 {
        if self.rows.len() < self.floor { u64::MAX } else { self.limit().0 }
    }

    /// Where the row is now, if it is kept.
    #[inline(always)]
    fn push(&mut self, item: u64) -> Option<usize> {
        if self.rows.len() >= self.floor {
            let (limit, full) = self.limit();
            if item >= limit {
                return None;
            }
            if full {
                self.rows.pop();
            }
        }
        let at = self.rows.partition_point(|&other| other < item);
        self.rows.insert(at, item);
        self.first = self.first.min(at);
        Some(at)
    }

    /// [`Nearest::push`] of all rows of a round, [`Nearest::tighten`] and [`Nearest::trim`].
    #[inline(always)]
    fn take(&mut self, isa: Isa, items: &mut [u64], k: usize, growth: f32, base: f32) {
        let first = merge(isa, &mut self.rows, items);
        self.first = self.first.min(first);
        if first < k {
            self.tighten(k, growth, base);
        } else {
            self.trim();
        }
    }

    /// Leaves out what is beyond the bound or the width.
    #[inline(always)]
    fn trim(&mut self) {
        while self.rows.len() > self.floor
            && (self.rows.len() > self.width
                || self.rows.last().is_some_and(|&row| row >= self.bound))
        {
            self.rows.pop();
        }
        self.first = self.first.min(self.rows.len());
    }

    /// Bounds the rows by so many times the distance of the `k`-th, which is its value plus `base`.
    #[inline(always)]
    fn tighten(&mut self, k: usize, growth: f32, base: f32) {
        let Some(&last) = self.rows.get(k - 1) else { return };
        let value = value_of(last) + base;
        // A damaged record may have no value.
        if !value.is_nan() {
            // Rounding of codes may leave less than nothing of a short distance, and that of the sum may
            // put the bound before the `k`-th.
            self.bound = item(growth * value.max(0.0) - base, 0).max(last);
        }
        self.trim();
    }

    /// The nearest unexpanded row.
    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        while self.rows.get(self.first).is_some_and(|&row| row & EXPANDED != 0) {
            self.first += 1;
        }
        self.rows.get(self.first).copied()
    }

    /// The unexpanded rows.
    #[inline(always)]
    fn unexpanded(&self) -> impl Iterator<Item = u64> {
        let rows = self.rows[self.first.min(self.rows.len())..].iter();
        rows.copied().filter(|&row| row & EXPANDED == 0)
    }
}

/// The best rows seen.
#[derive(Debug, Default)]
pub(crate) struct Beam {
    /// Those that may answer.
    near: Nearest,
    /// The others, which lead to them.
    others: Nearest,
    /// A bit for each row that was seen: few enough to stay in the second-level cache for millions.
    seen: Vec<u64>,
    /// The rows that were seen, in that order, of which those from `scored` are not scored yet.
    met: Vec<u32>,
    scored: usize,
    /// Rows that may answer and have copies, each copy after the other, and the copies that were seen.
    originals: Vec<u32>,
    copies: Vec<u32>,
}

impl Beam {
    fn start(&mut self, reach: &Reach<'_>, rows: usize) {
        self.near.start(reach.most);
        self.near.floor = reach.kept;
        self.others.start(reach.others);
        let seen = self.met.drain(..).chain(self.copies.drain(..));
        seen.for_each(|row| self.seen[row as usize / 64] = 0);
        self.scored = 0;
        self.originals.clear();
        if self.seen.len() < rows.div_ceil(64) {
            self.seen.resize(rows.div_ceil(64), 0);
        }
    }

    /// Marks a row; whether it is new to this walk.
    #[inline(always)]
    fn see(&mut self, row: u32) -> bool {
        let (seen, bit) = (&mut self.seen[row as usize / 64], 1 << (row % 64));
        let new = *seen & bit == 0;
        *seen |= bit;
        new
    }

    /// Notes a row to be scored, if it is new to this walk.
    #[inline(always)]
    fn meet(&mut self, row: u32) -> bool {
        let new = self.see(row);
        if new {
            self.met.push(row);
        }
        new
    }

    /// No row of a greater value is kept.
    #[inline(always)]
    fn cut(&self, reach: &Reach<'_>) -> f32 {
        let others = if reach.allowed.is_some() { self.others.end() } else { 0 };
        let end = self.near.end().max(others);
        if end == u64::MAX { f32::INFINITY } else { value_of(end) }
    }

    #[inline(always)]
    fn push(&mut self, item: u64, reach: &Reach<'_>, base: f32) {
        if !reach.may_answer(row_of(item)) {
            self.others.push(item);
        } else {
            self.push_near(item, reach, base);
        }
    }

    /// Where a row that may answer is now, if it is kept.
    #[inline(always)]
    fn push_near(&mut self, item: u64, reach: &Reach<'_>, base: f32) -> Option<usize> {
        let at = self.near.push(item)?;
        if at < reach.k {
            self.near.tighten(reach.k, reach.growth, base);
            self.bound_others();
        }
        Some(at)
    }

    /// Others beyond the bound of those that may answer would never be expanded.
    #[inline(always)]
    fn bound_others(&mut self) {
        self.others.bound = self.near.bound;
        self.others.trim();
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
        // The last of the rows that are looked for: what is farther leads to none of them, as little as
        // others beyond the bound, which are not kept.
        let last = self.near.rows.get(reach.most - 1).copied().unwrap_or(u64::MAX);
        let end = last.min(near.unwrap_or(u64::MAX));
        if self.others.next().is_some_and(|other| other < end) {
            return Some(&mut self.others);
        }
        near.map(|_| &mut self.near)
    }

    /// Marks the nearest unexpanded row, and gives what it was.
    #[inline(always)]
    fn expand(&mut self, reach: &Reach<'_>) -> Option<u64> {
        let list = self.next(reach)?;
        let row = &mut list.rows[list.first];
        let item = *row;
        *row |= EXPANDED;
        list.first += 1;
        Some(item)
    }

    /// The rows that may answer, nearest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.near.rows.iter().map(|&row| row_of(row))
    }

    /// Whether others were left out for their number, and all that may answer are farther than those
    /// that were kept: then the walk did not come to where the answers lie. (Those beyond the bound are
    /// farther than the `k`-th that may.)
    fn is_lost(&self) -> bool {
        let full = self.others.rows.len() == self.others.width;
        let last = self.others.rows.last().filter(|_| full);
        let nearest = self.near.rows.first().copied().unwrap_or(u64::MAX);
        last.is_some_and(|last| nearest > *last)
    }

    /// Asks the memory for the links of the rows that are expanded next.
    #[inline(always)]
    fn prefetch_links(&self, graph: &Graph) {
        let mut others = self.others.unexpanded().peekable();
        let mut near = self.near.unexpanded().peekable();
        for _ in 0..WIDTH {
            let next = match (near.peek(), others.peek()) {
                (Some(&row), Some(&other)) if other < row => others.next(),
                (None, Some(_)) => others.next(),
                _ => near.next(),
            };
            let Some(row) = next else { break };
            graph.prefetch(row_of(row));
        }
    }

    /// Expands the nearest few rows and asks the memory for the first records of what they link to.
    #[inline(always)]
    fn expand_some(&mut self, lane: &Lane<'_>, graph: &Graph, reach: &Reach<'_>, base: f32) {
        let mut met = self.met.len();
        self.met.resize(met + WIDTH * DEGREE, 0);
        let (mut chosen, mut count) = ([0; WIDTH], 0);
        while count < WIDTH
            && let Some(item) = self.expand(reach)
        {
            chosen[count] = item;
            count += 1;
        }
        // The links of the nearest, which was seen last, may still be on their way.
        let mut asked = 0;
        for (i, &item) in chosen[..count].iter().rev().enumerate() {
            // Whether a link leads to a row that was not seen can hardly be foreseen: nothing branches
            // by it. What leads to no row is taken as one to the row itself, which was seen.
            let (row, mut has_copies) = (row_of(item), false);
            for link in graph.row(row) {
                let link = link.load(Ordering::Relaxed);
                has_copies |= link >= MARK && link != NONE;
                let link = if (link as usize) < lane.rows { link } else { row };
                self.met[met] = link;
                met += usize::from(self.see(link));
            }
            if has_copies {
                self.note_copies(item, lane, graph, reach, base);
            }
            if lane.alone || i + 1 == count {
                let rows = &self.met[self.scored..met];
                lane.ask(rows, asked);
                asked = rows.len();
            }
        }
        self.met.truncate(met);
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
        let cut = self.cut(reach);
        let mut found = [0; WIDTH * DEGREE];
        let mut kept = 0;
        lane.each(target, rows, |row, value| {
            found[kept] = item(value, row);
            kept += usize::from(!(value > cut));
        });
        self.take(lane.isa, &mut found[..kept], reach, target.apart);
        self.scored = met.len();
        self.met = met;
        self.prefetch_links(graph);
        self.next(reach).is_some()
    }

    /// [`Beam::push`] of all rows of a round.
    #[inline(always)]
    fn take(&mut self, isa: Isa, items: &mut [u64], reach: &Reach<'_>, base: f32) {
        if reach.allowed.is_none() {
            return self.near.take(isa, items, reach.k, reach.growth, base);
        }
        // Which may answer can hardly be foreseen: nothing branches by it.
        let mut near = 0;
        for at in 0..items.len() {
            let item = items[at];
            items.swap(near, at);
            near += usize::from(reach.may_answer(row_of(item)));
        }
        let (near, others) = items.split_at_mut(near);
        self.near.take(isa, near, reach.k, reach.growth, base);
        self.bound_others();
        // Their bound is that of those that may answer: no `k`-th of their own tightens it.
        self.others.take(isa, others, 0, 1.0, 0.0);
    }

    /// The next copy of a row that may answer.
    fn next_copy(
        &mut self,
        mut row: u32,
        lane: &Lane<'_>,
        graph: &Graph,
        reach: &Reach<'_>,
    ) -> Option<u32> {
        loop {
            row = graph.copy(row).filter(|&copy| (copy as usize) < lane.rows)?;
            // A crafted file may lead in a ring.
            if !self.see(row) {
                return None;
            }
            self.copies.push(row);
            if reach.may_answer(row) {
                return Some(row);
            }
        }
    }

    /// Notes that a row which is expanded has copies. If it may not answer, the first that may stands
    /// for it.
    #[cold]
    #[inline(never)]
    fn note_copies(
        &mut self,
        item: u64,
        lane: &Lane<'_>,
        graph: &Graph,
        reach: &Reach<'_>,
        base: f32,
    ) {
        let mut row = row_of(item);
        if !reach.may_answer(row) {
            let Some(copy) = self.next_copy(row, lane, graph, reach) else { return };
            row = copy;
            let Some(at) = self.push_near(beside(item, row), reach, base) else { return };
            self.near.rows[at] |= EXPANDED;
        }
        self.originals.push(row);
    }

    /// Adds the copies of rows that may answer, each behind its original: as many as those rows can be.
    fn add_copies(&mut self, lane: &Lane<'_>, graph: &Graph, reach: &Reach<'_>) {
        if self.originals.is_empty() {
            return;
        }
        let (mut at, mut room) = (0, reach.most);
        while room > 0
            && let Some(&item) = self.near.rows.get(at)
        {
            at += 1;
            let mut row = row_of(item);
            if !self.originals.contains(&row) {
                continue;
            }
            while room > 0
                && let Some(copy) = self.next_copy(row, lane, graph, reach)
            {
                self.near.rows.insert(at, beside(item, copy));
                row = copy;
                at += 1;
                room -= 1;
            }
        }
    }

    /// Starts from the heads that were found.
    fn enter(&mut self, lane: &Lane<'_>, graph: &Graph, start: &Start, reach: &Reach<'_>) {
        for &head in &start.heads {
            let row = graph.heads()[row_of(head) as usize];
            if (row as usize) < lane.rows && self.meet(row) {
                self.push(beside(head, row), reach, start.target.apart);
            }
        }
        self.scored = self.met.len();
    }
}

/// What a walk goes to, and where it starts.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) target: Target,
    /// The nearest head, or heads, as [`item`]s of their places among all; none before it was looked
    /// for them.
    heads: Few<u64, ENTRIES>,
}

impl Start {
    /// The place of the nearest head: after a build, heads that follow each other lie near each other.
    fn place(&self) -> Option<u32> {
        self.heads.first().map(|&head| row_of(head))
    }

    fn copy(&mut self, other: &Self) {
        self.target.copy(&other.target);
        self.heads.clone_from(&other.heads);
    }

    /// Keeps a head if it is among the nearest of so many.
    #[inline(always)]
    fn push(&mut self, head: u64, width: usize) {
        if self.heads.len() == width {
            if self.heads.last().is_none_or(|&last| head >= last) {
                return;
            }
            self.heads.pop();
        }
        let at = self.heads.partition_point(|&other| other < head);
        self.heads.insert(at, head);
    }
}

/// Looks for the heads that are nearest to a target.
fn find_heads(lane: &Lane<'_>, graph: &Graph, start: &mut Start) {
    let lifted = lane.lift > 0.0 && lane.zero_bias.is_none();
    let by_product = lifted && start.target.height.is_none();
    let width = if by_product { ENTRIES } else { 1 };
    let values = lane.values_of_block(&start.target, &graph.heads.records);
    let mut cut = f32::INFINITY;
    for (some, values) in values.chunks(BLOCK).enumerate() {
        // Most are farther, and many are soon compared. (`all` would compare them one by one.)
        if values.iter().filter(|&&value| value > cut).count() == values.len() {
            continue;
        }
        for (place, &value) in (some * BLOCK..).zip(values) {
            start.push(item(value, place as u32), width);
        }
        let last = start.heads.last().filter(|_| start.heads.len() == width);
        cut = last.map_or(f32::INFINITY, |&last| value_of(last));
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
    start: Start,
    /// Which of the walks it is; none where it is done.
    number: Option<usize>,
    /// Whether rows are to be scored, rather than expanded.
    met: bool,
}

impl Walks {
    /// Walks `n` times to the rows nearest to a target. `aim` sets the target of a walk, or its whole
    /// start, if there is one, and `found` gets what it came to, until it says that it is enough.
    pub(crate) fn run(
        &mut self,
        lane: &Lane<'_>,
        graph: &Graph,
        n: usize,
        reach: Reach<'_>,
        mut aim: impl FnMut(usize, &mut Start) -> bool,
        mut found: impl FnMut(usize, &mut Beam, &Target) -> bool,
    ) {
        self.walks.iter_mut().for_each(|walk| walk.number = None);
        let (mut begun, mut done) = (0, 0);
        while done < n {
            for walk in &mut self.walks {
                let Walk { beam, start, number, met } = walk;
                match *number {
                    None if begun < n => {
                        let i = begun;
                        begun += 1;
                        start.heads.clear();
                        if !aim(i, start) {
                            done += 1;
                            continue;
                        }
                        if start.heads.is_empty() {
                            find_heads(lane, graph, start);
                        }
                        beam.start(&reach, lane.rows);
                        beam.enter(lane, graph, start, &reach);
                        (*number, *met) = (Some(i), false);
                    }
                    None => {}
                    Some(i) if *met => {
                        *met = false;
                        if !beam.score(lane, graph, &start.target, &reach) {
                            (*number, done) = (None, done + 1);
                            if !found(i, beam, &start.target) {
                                return;
                            }
                        }
                    }
                    Some(_) => {
                        beam.expand_some(lane, graph, &reach, start.target.apart);
                        *met = true;
                    }
                }
            }
        }
    }
}

thread_local! {
    /// Kept from call to call: marks of all rows are dear to make. None while a search has them: a
    /// monitor that it asks may search as well.
    static WALKS: RefCell<Option<Box<Walks>>> = const { RefCell::new(None) };
}

/// A search for the `k` rows nearest to each of some queries among those that a walk finds.
///
/// The answers are none where the walk cannot answer: a query beyond codes, fewer than there are, or
/// a walk that did not come to where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) corpus: Corpus<'a>,
    pub(crate) lane: &'a Lane<'a>,
    pub(crate) graph: &'a Graph,
    pub(crate) k: usize,
    pub(crate) reach: Reach<'a>,
}

impl Search<'_> {
    /// The answers to one query after another by `found(query, answers)`, until it says that it is
    /// enough.
    pub(crate) fn run(&self, queries: &Rows<'_>, found: impl FnMut(usize, Option<List>) -> bool) {
        let wide = exact::widen(queries);
        let query = |i: usize| &wide[i * self.corpus.dim..][..self.corpus.dim];
        let aim = |i: usize, start: &mut Start| self.aim(query(i), &mut start.target);
        self.walk(&wide, aim, found);
    }

    /// The answers to many queries, in the order of the heads that they start from: what one comes to
    /// lies in the cache for the next. One takes about so many `operations`.
    ///
    /// # Errors
    ///
    /// `Interrupted` if the monitor says so.
    pub(crate) fn run_in_order(
        &self,
        queries: &Rows<'_>,
        threads: usize,
        operations: u64,
        stages: &mut Stages<'_>,
    ) -> Result<Vec<Option<List>>> {
        let (n, dim) = (queries.len(), self.corpus.dim);
        let tasks = n.div_ceil(TASK);
        let task = |task: usize| task * TASK..n.min((task + 1) * TASK);
        let [starting, walking] = [operations / 8, operations - operations / 8];
        let starts = stages.run(threads, tasks, n as u64 * starting, |t, worker| {
            let wide = exact::widen(&queries.slice(task(t).start, task(t).len()));
            let aim = |query: &[f64]| {
                let mut start = Start::default();
                self.aim(query, &mut start.target).then_some(start)
            };
            let mut starts: Vec<Option<Start>> = wide.chunks_exact(dim).map(aim).collect();
            starts.iter_mut().flatten().for_each(|start| find_heads(self.lane, self.graph, start));
            worker.advance(starts.len() as u64 * starting);
            starts
        })?;
        let starts: Vec<Option<Start>> = starts.into_iter().flatten().collect();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| starts[i].as_ref().and_then(Start::place));
        let lists = stages.run(threads, tasks, n as u64 * walking, |t, worker| {
            let order = &order[task(t)];
            let mut wide = Buffer::filled(order.len() * dim, 0.0);
            for (&i, wide) in order.iter().zip(wide.chunks_exact_mut(dim)) {
                queries.read(i, wide);
            }
            let aim = |i: usize, start: &mut Start| match &starts[order[i]] {
                Some(begun) => {
                    start.copy(begun);
                    true
                }
                None => false,
            };
            let mut lists = vec![None; order.len()];
            self.walk(&wide, aim, |i, list| {
                lists[i] = list;
                worker.advance(walking)
            });
            lists
        })?;
        let mut found = vec![None; n];
        for (i, list) in order.into_iter().zip(lists.into_iter().flatten()) {
            found[i] = list;
        }
        Ok(found)
    }

    /// Makes a query the target, if it has codes.
    fn aim(&self, query: &[f64], target: &mut Target) -> bool {
        let Lane { encoder, isa, .. } = *self.lane;
        let Some(floats) = encoder.query_floats(query) else { return false };
        self.lane.aim_at_query(&encoder.walk_code(isa, &floats), &floats, target);
        true
    }

    fn walk(
        &self,
        queries: &[f64],
        aim: impl FnMut(usize, &mut Start) -> bool,
        mut found: impl FnMut(usize, Option<List>) -> bool,
    ) {
        let Self { corpus, lane, graph, k, reach } = *self;
        let n = queries.len() / corpus.dim;
        // Without any where the thread is ending.
        let walks = WALKS.try_with(RefCell::take).ok().flatten();
        let mut walks = walks.unwrap_or_default();
        let mut wide = Buffer::filled(corpus.dim, 0.0);
        walks.run(lane, graph, n, reach, aim, |i, beam, _| {
            corpus.count(|counts| {
                counts.walked += 1;
                counts.scored += (graph.heads().len() + beam.met.len()) as u64;
            });
            beam.add_copies(lane, graph, &reach);
            if beam.is_lost() {
                return found(i, None);
            }
            let judge = Judge::new(corpus.metric, &queries[i * corpus.dim..][..corpus.dim]);
            // A page that is not known holds up all that follows, several no longer than one.
            let first = beam.rows().take((k + reach.spare).min(STARTS));
            first.for_each(|row| corpus.prefetch_start(row));
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
                corpus.read(row, &mut wide);
                let kept = nearest.push(Neighbor { distance: judge.distance(&wide), row });
                late += usize::from(kept && judged >= k);
                judged += 1;
            }
            corpus.count(|counts| counts.judged += judged as u64);
            found(i, (judged >= k).then(|| nearest.into_sorted()))
        });
        WALKS.try_with(|kept| kept.replace(Some(walks))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Rows beyond the cut are none that a beam would have kept, whatever their values.
    #[test]
    fn what_is_beyond_the_cut_would_not_have_been_kept() {
        let mut random = Random(8);
        let half = Selection::of_bits(&[0b0101_0101; 25], 200);
        for turn in 0..300_usize {
            let isa = Isa::available()[turn % Isa::available().len()];
            let allowed = (turn % 3 > 0).then_some(&half);
            let mut reach = Reach::new(allowed, 0.5, 3, 3 + turn % 9, turn % 2 == 0);
            reach.others = turn % 4 * 3;
            let (mut beam, mut by_rounds) = (Beam::default(), Beam::default());
            beam.start(&reach, 200);
            by_rounds.start(&reach, 200);
            let mut items = Vec::new();
            for row in 0..200 {
                let value = match random.next() % 40 {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2 => -f32::INFINITY,
                    any => any as f32 / 4.0 - 2.0,
                };
                let skipped = value > beam.cut(&reach);
                let before = (beam.near.rows.clone(), beam.others.rows.clone());
                beam.push(item(value, row), &reach, 2.0);
                if !value.is_nan() {
                    items.push(item(value, row));
                }
                let after = (&beam.near.rows, &beam.others.rows);
                assert!(!skipped || after == (&before.0, &before.1), "turn {turn}, row {row}");
            }
            // In rounds the same are kept. (The bound of a NaN, which a file may hold, is none.)
            beam.start(&reach, 200);
            items.iter().for_each(|&item| beam.push(item, &reach, 2.0));
            for round in items.chunks_mut(1 + turn % 64) {
                by_rounds.take(isa, round, &reach, 2.0);
            }
            assert_eq!(beam.near.rows, by_rounds.near.rows, "turn {turn}");
            assert_eq!(beam.others.rows, by_rounds.others.rows, "turn {turn}");
            assert!(beam.others.rows.iter().all(|&other| other < beam.near.bound));
        }
    }

    /// What is kept in the end is what would be kept of all rows at once.
    #[test]
    fn a_bounded_list_keeps_what_lies_within_and_the_nearest_of_the_rest() {
        let mut random = Random(7);
        for turn in 0..500_usize {
            let isa = Isa::available()[turn % Isa::available().len()];
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
                let end = list.end();
                let at = list.push(item);
                assert_eq!(at.is_some(), item < end, "turn {turn}");
                if at.is_some_and(|at| at < k) {
                    list.tighten(k, growth, base);
                }
            }
            let mut by_rounds = Nearest { floor, ..Nearest::default() };
            by_rounds.start(width);
            for items in seen.clone().chunks_mut(1 + turn % 64) {
                by_rounds.take(isa, items, k, growth, base);
                assert!(by_rounds.rows[..by_rounds.first].iter().all(|row| row & EXPANDED != 0));
                if by_rounds.next().is_some() {
                    by_rounds.rows[by_rounds.first] |= EXPANDED;
                }
            }
            let by_rounds: Vec<u64> = by_rounds.rows.iter().map(|row| row & !EXPANDED).collect();
            let mut sorted = seen;
            sorted.sort_unstable();
            let far = (value_of(sorted[k - 1]) + base).max(0.0);
            let bound = item(growth * far - base, 0).max(sorted[k - 1]);
            assert_eq!(list.bound, bound, "turn {turn}");
            let within = sorted.partition_point(|&item| item < bound);
            sorted.truncate(within.clamp(floor, width));
            assert_eq!((&list.rows, &by_rounds), (&sorted, &sorted), "turn {turn}");
        }
    }
}
