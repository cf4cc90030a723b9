//! Links for rows that come, and repairs around rows that go.
//!
//! A row that comes is walked to, and linked to what the walk found, pruned; those link back, and
//! are pruned again where they are full. Pruning leaves a few places free, so that most links back cost
//! nothing. Rows that come together are also compared with each other, since no walk can find them.
//! Around a row that goes, each row that was linked to it takes over its links, pruned (Singh et
//! al., `FreshDiskANN`, 2021).
//!
//! Few links are written where they are, while searches read them. What they were is kept until the
//! edit is done, so that one that is interrupted leaves every link as it was. An edit of many rows works on
//! a copy of all links, or searches meanwhile would find as little as after half of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::build::{Link, Scratch, distances, nearest_within, prune, reach};
use super::search::{Reach, Start, Walks};
use super::{DEGREE, Graph, HEADS, Heads, Lane, NONE, PRUNED, Target};
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
                self.graph.set_links(*row, links);
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
            graph.links.iter_mut().for_each(Graph::copy_links);
        }
        graph.grow(lane.rows);
        graph.together = Arc::clone(lane.together);
        Self { graph, lane, live, journal: Vec::new(), edited: 0, done: false }
    }

    fn is_live(&self, row: u32) -> bool {
        self.live.is_none_or(|live| live.contains(row as usize))
    }

    fn set(&mut self, row: u32, links: &[u32]) {
        let old = self.graph.row(row).iter().map(|link| link.load(Ordering::Relaxed));
        let mut before = [NONE; DEGREE];
        before.iter_mut().zip(old).for_each(|(slot, link)| *slot = link);
        self.journal.push((row, before));
        self.graph.set_links(row, links);
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
        let tasks = rows.len().div_ceil(TASK);
        let task = |task: usize| &rows[task * TASK..((task + 1) * TASK).min(rows.len())];
        let total = rows.len() as u64 * Self::work(lane);
        let together = nearest_within(lane, rows, TOGETHER);
        let links = stages.run(threads, tasks, total, |t, worker| {
            let mut scratch = Scratch::default();
            let mut all: Vec<Link> = Vec::new();
            let mut out = Vec::new();
            let rows = task(t);
            let mut made = vec![Vec::new(); rows.len()];
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
                all.clear();
                all.extend(distances(lane, target, &found));
                all.extend_from_slice(&together[t * TASK + i]);
                all.sort_unstable_by_key(|link| link.order(row));
                all.dedup_by_key(|link| link.row);
                prune(lane, &all, DEGREE / 2, &mut scratch, &mut out);
                made[i].clone_from(&out);
                worker.advance(Self::work(lane))
            });
            made
        })?;
        let links: Vec<Vec<Link>> = links.into_iter().flatten().collect();
        // Back: sorted by the row that is linked to, so that each is written once.
        let mut back: Vec<(u32, Link)> = Vec::new();
        for (&row, links) in rows.iter().zip(&links) {
            self.set(row, &numbers(links));
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
                if links.len() + group.len() <= DEGREE {
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
                (row, numbers(&out))
            };
            groups.iter().map(links).collect::<Vec<_>>()
        })?;
        for (row, links) in written.into_iter().flatten() {
            self.set(row, &links);
        }
        // A new row that nobody keeps a link to takes the last place of the nearest.
        for (&row, links) in rows.iter().zip(&links) {
            let kept = |link: &Link| self.graph.links(link.row).any(|back| back == row);
            if let Some(nearest) = links.first()
                && !links.iter().any(kept)
            {
                let mut all: Vec<u32> = self.graph.links(nearest.row).take(DEGREE - 1).collect();
                all.push(row);
                self.set(nearest.row, &all);
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
        let stays = |row: u32| {
            !gone.contains(row as usize) && live.is_none_or(|live| live.contains(row as usize))
        };
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
                if gone.contains(row as usize)
                    || !graph.links(row).any(|link| gone.contains(link as usize))
                {
                    continue;
                }
                // Its own links first, then those of the links that go.
                let mut others: Vec<u32> = Vec::new();
                others.extend(graph.links(row).filter(|&link| stays(link)));
                for lost in graph.links(row).filter(|&link| gone.contains(link as usize)) {
                    others.extend(graph.links(lost).filter(|&o| o != row && stays(o)));
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
                made.push((row, all));
            }
            made
        })?;
        for (row, links) in repaired.into_iter().flatten() {
            self.set(row, &numbers(&links));
        }
        rows.iter().for_each(|&row| self.set(row, &[]));
        self.heads(&gone);
        self.edited += rows.len();
        Ok(())
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
        let spare = spare.into_iter().filter(|&row| {
            self.is_live(row) && !gone.contains(row as usize) && !heads.contains(&row)
        });
        kept.extend(spare.take(lost));
        if kept.is_empty() {
            let all = (0..self.lane.rows as u32).filter(|&row| self.is_live(row));
            kept.extend(all.filter(|&row| !gone.contains(row as usize)).take(1));
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

/// The rows of some links.
fn numbers(links: &[Link]) -> Vec<u32> {
    links.iter().map(|link| link.row).collect()
}
