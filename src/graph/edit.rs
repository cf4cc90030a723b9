//! Links for rows that come, and repairs around rows that go.
//!
//! A row that comes is walked to, and linked to what the walk found, pruned; those link back, and
//! are pruned again where they are full. Pruning leaves a few places free, so that most links back cost
//! nothing. Rows that come together are also compared with each other, since no walk can find them.
//! A copy of a row is no more than the next of its copies, and takes its place when it goes.
//! Around a row that goes, each row that was linked to it takes over its links, pruned (Singh et
//! al., `FreshDiskANN`, 2021).
//!
//! Few links are written where they are, while searches read them. What they were is kept until the
//! edit is done, so that one that is interrupted leaves every link as it was. An edit of many rows works on
//! a copy of all links, or searches meanwhile would find as little as after half of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::build::{Link, Scratch, distances, nearest_within, originals, prune, reach};
use super::search::{Reach, Start, Walks};
use super::{DEGREE, Graph, HEADS, Heads, Lane, NONE, PRUNED, Target, pack};
use crate::corpus::CHUNK;
use crate::error::Result;
use crate::random::Random;
use crate::selection::Selection;
use crate::threads::{Silent, Stages, run};

/// Rows that are inserted together.
const BATCH: usize = 1024;
/// The beam of the walk to a new row.
const WIDTH: usize = 40;
/// Neighbours that rows of a batch propose to each other.
const TOGETHER: usize = 8;
/// Candidates of a repair, at most.
const CANDIDATES: usize = 96;
/// Rows of a task.
const TASK: usize = 64;
/// Up to here every edit proves that all rows can be reached; beyond, after so large a share of
/// the rows was edited as makes the proof cheap beside the edits.
const ALWAYS_PROVEN: usize = 1 << 16;
const PROVEN_SHARE: usize = 16;

/// Edits of so large a share of the rows work on a copy: it takes a few hundredths of such an edit's time.
const COPIED_SHARE: usize = 256;

/// One edit of a graph, which is undone unless it is finished.
pub(crate) struct Edit<'a, 'b> {
    graph: Graph,
    lane: &'a Lane<'b>,
    live: Option<&'a Selection>,
    /// What links were, in the order of writing.
    journal: Vec<(u32, [u32; DEGREE])>,
    edited: usize,
    done: bool,
}

impl Drop for Edit<'_, '_> {
    fn drop(&mut self) {
        if !self.done {
            for (row, links) in self.journal.iter().rev() {
                self.graph.set(*row, *links);
            }
        }
    }
}

impl<'a, 'b> Edit<'a, 'b> {
    /// Starts an edit of `graph`, of so many rows, for the rows of `lane`, of which `live` are there.
    pub(crate) fn new(
        graph: &Graph,
        lane: &'a Lane<'b>,
        live: Option<&'a Selection>,
        edited: usize,
        beyond: usize,
    ) -> Self {
        let mut graph = graph.clone();
        graph.beyond = beyond;
        if edited >= lane.rows / COPIED_SHARE {
            graph.copy_links();
        }
        graph.grow(lane.rows);
        graph.together = Arc::clone(lane.together);
        Self { graph, lane, live, journal: Vec::new(), edited: 0, done: false }
    }

    fn is_live(&self, row: u32) -> bool {
        self.live.is_none_or(|live| live.contains(row as usize))
    }

    /// Notes the links of a row, which are about to be written.
    fn note(&mut self, row: u32) {
        let links = self.graph.row(row).each_ref().map(|link| link.load(Ordering::Relaxed));
        self.journal.push((row, links));
    }

    fn set_links(&mut self, row: u32, links: impl Iterator<Item = u32>) {
        self.note(row);
        self.graph.set_links(row, links);
    }

    fn add_copy(&mut self, copy: u32, original: u32) {
        self.note(copy);
        self.note(original);
        self.graph.add_copy(copy, original);
    }

    /// About how many multiply-adds it takes to insert a row, for progress.
    pub(crate) fn work(lane: &Lane<'_>) -> u64 {
        1000 * lane.padded as u64
    }

    /// Links new rows, ascending, which nothing is linked to yet.
    pub(crate) fn insert(
        &mut self,
        rows: &[u32],
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<()> {
        for rows in rows.chunks(BATCH) {
            self.insert_batch(rows, threads, stages)?;
        }
        self.edited += rows.len();
        Ok(())
    }

    fn insert_batch(
        &mut self,
        rows: &[u32],
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<()> {
        let (lane, graph, live) = (self.lane, &self.graph, self.live);
        let (rows, copies) = originals(lane, rows.iter().copied());
        let tasks = rows.len().div_ceil(TASK);
        let task = |task: usize| &rows[task * TASK..((task + 1) * TASK).min(rows.len())];
        let total = rows.len() as u64 * Self::work(lane);
        let together = nearest_within(lane, &rows, TOGETHER);
        let made = stages.run(threads, tasks, total, |t, worker| {
            let mut scratch = Scratch::default();
            let mut all: Vec<Link> = Vec::new();
            let mut out = Vec::new();
            let rows = task(t);
            // Of what row that is there each is a copy, or else its links.
            let mut made = vec![(None, Vec::new()); rows.len()];
            let aim = |i: usize, start: &mut Start| {
                lane.aim_at_row(rows[i], &mut start.target);
                true
            };
            let reach = Reach::all(WIDTH);
            Walks::default().run(lane, graph, rows.len(), reach, aim, |i, beam, target| {
                let row = rows[i];
                let found: Vec<u32> = beam
                    .rows()
                    .filter(|&r| r != row && live.is_none_or(|l| l.contains(r as usize)))
                    .collect();
                let copied = found.iter().filter(|&&r| lane.compare(r, row).is_eq()).min();
                if let Some(&original) = copied {
                    made[i].0 = Some(original);
                    return worker.advance(Self::work(lane));
                }
                all.clear();
                all.extend(distances(lane, target, &found));
                all.extend_from_slice(&together[t * TASK + i]);
                all.sort_unstable_by_key(|link| link.order(row));
                all.dedup_by_key(|link| link.row);
                prune(lane, &all, DEGREE / 2, &mut scratch, &mut out);
                made[i].1.clone_from(&out);
                worker.advance(Self::work(lane))
            });
            made
        })?;
        let mut linked: Vec<(u32, Vec<Link>)> = Vec::new();
        for (&row, (original, links)) in rows.iter().zip(made.into_iter().flatten()) {
            match original {
                Some(original) => self.add_copy(row, original),
                None => linked.push((row, links)),
            }
        }
        for group in &copies {
            group[1..].iter().rev().for_each(|&copy| self.add_copy(copy, group[0]));
        }
        // Back: sorted by the row that is linked to, so that each is written once.
        let mut back: Vec<(u32, Link)> = Vec::new();
        for &(row, ref links) in &linked {
            self.set_links(row, links.iter().map(|link| link.row));
            let to = |link: &Link| (link.row, Link { distance: link.distance, row });
            back.extend(links.iter().map(to));
        }
        back.sort_unstable_by_key(|(row, link)| (*row, link.order(*row)));
        let groups: Vec<&[(u32, Link)]> = back.chunk_by(|a, b| a.0 == b.0).collect();
        let graph = &self.graph;
        let written = run(threads, groups.len().div_ceil(TASK), 0, &mut Silent, |t, _| {
            let mut target = Target::default();
            let mut scratch = Scratch::default();
            let mut out = Vec::new();
            let groups = &groups[t * TASK..((t + 1) * TASK).min(groups.len())];
            let links = |group: &&[(u32, Link)]| {
                let row = group[0].0;
                let mut links: Vec<u32> = graph.links(row).collect();
                if links.len() + group.len() <= graph.room(row) {
                    // Most rows have room, and the order of links says nothing.
                    links.extend(group.iter().map(|(_, link)| link.row));
                    return (row, links);
                }
                lane.aim_at_row(row, &mut target);
                let mut all = distances(lane, &target, &links);
                all.extend(group.iter().map(|(_, link)| *link));
                all.sort_unstable_by_key(|link| link.order(row));
                all.dedup_by_key(|link| link.row);
                prune(lane, &all, PRUNED, &mut scratch, &mut out);
                (row, out.iter().map(|link| link.row).collect())
            };
            groups.iter().map(links).collect::<Vec<_>>()
        })?;
        for (row, links) in written.into_iter().flatten() {
            self.set_links(row, links.into_iter());
        }
        // A new row that nobody keeps a link to takes the last place of the nearest.
        for &(row, ref links) in &linked {
            let kept = |link: &Link| self.graph.links(link.row).any(|back| back == row);
            if let Some(nearest) = links.first()
                && !links.iter().any(kept)
            {
                let room = self.graph.room(nearest.row);
                let mut all: Vec<u32> = self.graph.links(nearest.row).take(room - 1).collect();
                all.push(row);
                self.set_links(nearest.row, all.into_iter());
            }
        }
        Ok(())
    }

    /// About how many multiply-adds it takes to take rows out, for progress.
    pub(crate) fn work_of_removal(lane: &Lane<'_>, rows: usize) -> u64 {
        lane.rows as u64 * 64 + rows as u64 * Self::work(lane)
    }

    /// Takes rows out: nothing links to them any more, and they link to nothing.
    pub(crate) fn remove(
        &mut self,
        rows: &[u32],
        threads: usize,
        stages: &mut Stages<'_>,
    ) -> Result<()> {
        let mut gone = Selection::none(self.lane.rows);
        rows.iter().for_each(|&row| gone.insert(row as usize));
        let (lane, graph, live) = (self.lane, &self.graph, self.live);
        let goes = |&row: &u32| gone.contains(row as usize);
        let stays = |row: u32| !goes(&row) && live.is_none_or(|live| live.contains(row as usize));
        let heirs = self.heirs(rows, goes);
        // Who takes the place of a row that goes, or the row itself.
        let heir =
            |row: u32| if goes(&row) { heirs.get(&row).copied().flatten() } else { Some(row) };
        // Copies that are none any more, and whose place they take.
        let is_original = |&&row: &&u32| graph.links(row).next().is_some();
        let place = |&row: &u32| heir(row).map(|heir| (heir, row));
        let places: HashMap<u32, u32> = rows.iter().filter(is_original).filter_map(place).collect();
        let chunks = graph.links.len();
        let total = Self::work_of_removal(lane, rows.len());
        let share = total / chunks.max(1) as u64 / CHUNK as u64;
        let repaired = stages.run(threads, chunks, total, |chunk, worker| {
            let mut target = Target::default();
            let mut scratch = Scratch::default();
            let mut out = Vec::new();
            let mut made = Vec::new();
            let first = (chunk * CHUNK) as u32;
            let last = ((chunk + 1) * CHUNK).min(lane.rows) as u32;
            for row in first..last {
                if !worker.advance(share) {
                    break;
                }
                let place = places.get(&row).copied().unwrap_or(row);
                if goes(&row)
                    || !graph.links(row).chain(graph.copy(row)).chain([place]).any(|l| goes(&l))
                {
                    continue;
                }
                let copy = graph.copy(row).and_then(heir);
                // Its own links first, then those of the links that go.
                let there = |&link: &u32| link != row && stays(link);
                let mut others: Vec<u32> =
                    graph.links(place).filter_map(heir).filter(there).collect();
                let mut lost = graph.links(place).filter(|&link| heir(link).is_none()).peekable();
                if lost.peek().is_none() {
                    made.push((row, pack(others.into_iter(), copy)));
                    continue;
                }
                for lost in lost {
                    others.extend(graph.links(lost).filter_map(heir).filter(there));
                }
                others.sort_unstable();
                others.dedup();
                lane.aim_at_row(row, &mut target);
                let mut all = distances(lane, &target, &others);
                all.sort_unstable_by_key(|link| link.order(row));
                all.truncate(CANDIDATES);
                if all.len() > PRUNED {
                    prune(lane, &all, PRUNED, &mut scratch, &mut out);
                    all.clone_from(&out);
                }
                made.push((row, pack(all.iter().map(|link| link.row), copy)));
            }
            made
        })?;
        let empty = rows.iter().map(|&row| (row, [NONE; DEGREE]));
        for (row, links) in repaired.into_iter().flatten().chain(empty) {
            self.note(row);
            self.graph.set(row, links);
        }
        self.heads(&gone);
        self.edited += rows.len();
        Ok(())
    }

    /// The next copy that stays of each row that goes and has copies.
    fn heirs(&self, rows: &[u32], goes: impl Fn(&u32) -> bool) -> HashMap<u32, Option<u32>> {
        let mut heirs = HashMap::new();
        for &row in rows.iter().filter(|&&row| self.graph.copy(row).is_some()) {
            let mut way = Vec::new();
            let mut at = Some(row);
            // Each is passed once, also where a crafted file leads in a ring.
            while let Some(row) = at.filter(|row| goes(row) && !heirs.contains_key(row)) {
                heirs.insert(row, None);
                way.push(row);
                at = self.graph.copy(row);
            }
            let heir = at.and_then(|row| if goes(&row) { heirs[&row] } else { Some(row) });
            way.into_iter().for_each(|row| {
                heirs.insert(row, heir);
            });
        }
        heirs
    }

    /// Replaces the heads that went.
    fn heads(&mut self, gone: &Selection) {
        let heads = self.graph.heads();
        if !heads.iter().any(|&head| gone.contains(head as usize)) {
            return;
        }
        let mut kept: Vec<u32> =
            heads.iter().copied().filter(|&head| !gone.contains(head as usize)).collect();
        let lost = heads.len() - kept.len();
        let mut random = Random(self.graph.seed ^ self.lane.rows as u64);
        let spare = random.sample((4 * lost).max(HEADS), self.lane.rows);
        // Copies do not, but for each to the next.
        let leads_on = |&row: &u32| self.graph.links(row).next().is_some();
        let spare = spare.into_iter().filter(leads_on);
        let spare = spare.filter(|&row| self.is_live(row) && !heads.contains(&row));
        kept.extend(spare.take(lost));
        if kept.is_empty() {
            let all = (0..self.lane.rows as u32).filter(|&row| self.is_live(row));
            let mut all = all.filter(|&row| !gone.contains(row as usize));
            kept.extend(all.clone().find(leads_on).or_else(|| all.next()));
        }
        self.graph.heads = Arc::new(Heads::new(self.lane, kept));
    }

    /// The edited graph, every row of which can be reached.
    pub(crate) fn finish(mut self) -> Graph {
        self.done = true;
        self.graph.unproven += self.edited;
        let rows = self.lane.rows;
        if rows <= ALWAYS_PROVEN || self.graph.unproven > rows / PROVEN_SHARE {
            let live = self.live;
            reach(self.lane, &mut self.graph, |row| {
                live.is_none_or(|live| live.contains(row as usize))
            });
            self.graph.unproven = 0;
        }
        self.graph.clone()
    }
}
