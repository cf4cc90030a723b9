//! The graph is the same on every machine and at any number of threads, and an edit that is
//! interrupted leaves it so.

use super::*;
use crate::codes::Scratch;
use crate::corpus::rows_of;
use crate::metric::Metric;
use crate::random::Random;
use crate::rows::Rows;
use crate::selection::Selection;
use crate::threads::{Monitor, Silent, Stages};

struct Data {
    metric: Metric,
    dim: usize,
    chunks: Vec<Arc<Chunk>>,
    encoder: Encoder,
    together: Arc<Together>,
}

impl Data {
    /// Rows around some centres, so that leaves and links have something to find.
    fn new(metric: Metric, rows: usize, dim: usize) -> Self {
        let mut random = Random(7);
        let mut uniform = || (random.next() >> 11) as f64 / 2f64.powi(53) - 0.5;
        let centres: Vec<f64> = (0..20 * dim).map(|_| 4.0 * uniform()).collect();
        Self::of(
            metric,
            (0..rows * dim).map(|i| centres[i % (20 * dim)] + uniform()).collect(),
            dim,
        )
    }

    fn of(metric: Metric, values: Vec<f64>, dim: usize) -> Self {
        let rows = Rows::from_vec::<f64>(values, dim).unwrap();
        let blocks: Vec<Rows> = (0..rows.len())
            .step_by(CHUNK)
            .map(|start| rows.slice(start, CHUNK.min(rows.len() - start)))
            .collect();
        let encoder = Encoder::learn(metric, dim, &blocks, true).unwrap();
        let mut scratch = Scratch::default();
        let chunk = |rows: Rows<'static>| {
            let codes = encoder.encode(&rows, None, &mut scratch);
            Arc::new(Chunk::new(rows, codes))
        };
        let chunks: Vec<_> = blocks.into_iter().map(chunk).collect();
        let together = Arc::new(Together::new(&chunks));
        Self { metric, dim, chunks, encoder, together }
    }

    fn lane(&self, isa: Isa) -> Lane<'_> {
        let codes = self.chunks.iter().filter_map(|chunk| chunk.codes(&self.encoder));
        let lift = self.encoder.lift(codes);
        Lane::new(self.corpus(isa), lift, &self.together, usize::MAX).unwrap()
    }

    fn corpus(&self, isa: Isa) -> Corpus<'_> {
        let (metric, dim, chunks) = (self.metric, self.dim, &self.chunks[..]);
        let (rows, encoder) = (rows_of(chunks), Some(&self.encoder));
        Corpus { metric, dim, chunks, rows, encoder, allowed: None, isa, tally: None }
    }
}

fn links(graph: &Graph, rows: usize) -> Vec<Vec<u32>> {
    (0..rows as u32).map(|row| graph.links(row).collect()).collect()
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_graph() {
    for (metric, rows, dim) in [
        (Metric::Euclidean, 9000, 20),
        (Metric::InnerProduct, 5000, 36),
        // Long enough codes to be refined, and few enough rows to be one leaf.
        (Metric::Cosine, 5000, 260),
        (Metric::Cosine, 700, 33),
    ] {
        let data = Data::new(metric, rows, dim);
        let graph = |isa: Isa, threads: usize| {
            build(&data.lane(isa), None, 5, threads, &mut Stages::new(&mut Silent, 0)).unwrap()
        };
        let expected = graph(Isa::Portable, 1);
        let check = expected.check(rows, |_| true, || true);
        assert_eq!((check.unreachable, check.dangling), (0, 0), "{metric}");
        for isa in Isa::available() {
            for threads in [1, 3] {
                let got = graph(isa, threads);
                assert_eq!(got.heads(), expected.heads(), "{metric} {isa:?}");
                assert_eq!(links(&got, rows), links(&expected, rows), "{metric} {isa:?}");
            }
        }
    }
}

/// Stops at the first look.
struct Stop;

impl Monitor for Stop {
    fn poll(&mut self, _done: u64, _total: u64) -> bool {
        false
    }
}

#[test]
fn an_edit_that_is_interrupted_or_forgotten_leaves_every_link_as_it_was() {
    let data = Data::new(Metric::Euclidean, 9000, 100);
    let lane = data.lane(Isa::Portable);
    let graph = build(&lane, None, 5, 2, &mut Stages::new(&mut Silent, 0)).unwrap();
    let before = links(&graph, 9000);
    let rows: Vec<u32> = (100..6100).collect();
    // In place, as few rows would be edited, and in a copy.
    for edited in [0, rows.len()] {
        let mut silent = Silent;
        let mut stages = Stages::new(&mut silent, 1);
        let mut edit = Edit::new(&graph, &lane, None, edited, 0);
        edit.remove(&rows, 2, &mut stages).unwrap();
        assert_eq!(links(&graph, 9000) == before, edited > 0);
        assert!(edit.insert(&rows, 1, &mut Stages::new(&mut Stop, 1)).is_err());
        drop(edit);
        assert_eq!(links(&graph, 9000), before);
        let mut edit = Edit::new(&graph, &lane, None, edited, 0);
        assert!(edit.remove(&rows, 1, &mut Stages::new(&mut Stop, 1)).is_err());
        drop(edit);
        assert_eq!(links(&graph, 9000), before);
    }
    let mut silent = Silent;
    let mut stages = Stages::new(&mut silent, 1);
    let mut edit = Edit::new(&graph, &lane, None, rows.len(), 0);
    edit.remove(&rows, 2, &mut stages).unwrap();
    edit.insert(&rows, 2, &mut stages).unwrap();
    let edited = edit.finish();
    let check = edited.check(9000, |_| true, || true);
    assert_eq!((check.unreachable, check.dangling), (0, 0));
}

/// The copies of a row, in the order in which each leads to the next.
fn copies(graph: &Graph, row: u32) -> Vec<u32> {
    std::iter::successors(graph.copy(row), |&copy| graph.copy(copy)).collect()
}

#[test]
fn copies_are_linked_by_the_one_before_and_by_nothing_else() {
    const ROWS: u32 = 4000;
    let mut random = Random(3);
    let mut values: Vec<f64> = (0..ROWS * 20).map(|_| (random.next() >> 40) as f64).collect();
    // Rows 4000 to 5999 are those from 0 to 19 again and again.
    values.extend(values[..20 * 20].repeat(100));
    let data = Data::of(Metric::Euclidean, values, 20);
    let (lane, mut silent) = (data.lane(Isa::Portable), Silent);
    let mut stages = Stages::new(&mut silent, 1);
    let graph = build(&lane, None, 5, 2, &mut stages).unwrap();
    let all = |row: u32| (0..100).map(move |i| ROWS + 20 * i + row);
    for row in 0..20 {
        assert_eq!(copies(&graph, row), all(row).collect::<Vec<_>>());
        assert!(all(row).all(|copy| graph.links(copy).next().is_none()));
    }
    let linked = |graph: &Graph, to: u32| links(graph, 6000).into_iter().flatten().any(|l| l == to);
    assert!((ROWS..6000).all(|copy| !linked(&graph, copy)));

    // Without the first ten and half of all copies, those of row 3 but the last and all of row 4 among them.
    let mut gone: Vec<u32> = (0..10).chain((ROWS..6000).filter(|row| row % 40 < 20)).collect();
    gone.extend(all(3).filter(|row| row % 40 >= 20 && row / 20 < 299).chain(all(4)));
    gone.sort_unstable();
    gone.dedup();
    let stays = |row: &u32| gone.binary_search(row).is_err();
    let live: Vec<bool> = (0..6000).map(|row| stays(&row)).collect();
    let live = Selection::of_flags(&live);
    let mut edit = Edit::new(&graph, &lane, Some(&live), gone.len(), 0);
    edit.remove(&gone, 2, &mut stages).unwrap();
    let fewer = edit.finish();
    let check = fewer.check(6000, |row| stays(&row), || true);
    assert_eq!((check.unreachable, check.dangling, check.rows), (0, 0, 6000 - gone.len()));
    for row in 0..20 {
        let mut left = all(row).filter(stays);
        let first = if row < 10 { left.next() } else { Some(row) };
        assert_eq!(
            first.map_or(Vec::new(), |first| copies(&fewer, first)),
            left.collect::<Vec<_>>()
        );
        assert!(first.is_none_or(|first| linked(&fewer, first)));
    }

    // What comes back is a copy of what stayed, or of the first that comes.
    let mut edit = Edit::new(&fewer, &lane, None, gone.len(), 0);
    edit.insert(&gone, 2, &mut stages).unwrap();
    let again = edit.finish();
    let check = again.check(6000, |_| true, || true);
    assert_eq!((check.unreachable, check.dangling, check.rows), (0, 0, 6000));
    for row in 0..20 {
        let first = if row >= 10 { row } else { all(row).find(stays).unwrap_or(row) };
        let mut group = copies(&again, first);
        group.push(first);
        group.sort_unstable();
        assert_eq!(group, std::iter::once(row).chain(all(row)).collect::<Vec<_>>());
    }

    // A crafted file may have links behind the end.
    let mut links = pack([1, 2].into_iter(), Some(3));
    assert!(can_be_links(&links, 0, 6000));
    links[9] = 4;
    assert!(!can_be_links(&links, 0, 6000));

    // And may lead in a ring.
    let last = copies(&graph, 7).pop().unwrap();
    graph.set(last, pack(graph.links(last), Some(7)));
    assert!((0..6000).all(|row| {
        can_be_links(&graph.row(row).each_ref().map(|l| l.load(Ordering::Relaxed)), row, 6000)
    }));
    let ring: Vec<u32> = std::iter::once(7).chain(all(7)).collect();
    let mut edit = Edit::new(&graph, &lane, None, ring.len(), 0);
    edit.remove(&ring, 1, &mut stages).unwrap();
    edit.finish();
    let query = data.chunks[0].rows().slice(7, 1);
    let reach = Reach::new(None, 1.0, 200, 200, true);
    let corpus = data.corpus(Isa::Portable);
    let search = Search { corpus, lane: &lane, graph: &graph, k: 200, reach };
    let mut found = Vec::new();
    search.run(&query, |_, list| {
        found.extend(
            list.iter().flat_map(|list| list.iter()).filter(|near| near.distance == 0.0).copied(),
        );
        true
    });
    found.sort_unstable_by_key(|near| near.row);
    assert_eq!(found.iter().map(|near| near.row).collect::<Vec<_>>(), ring);
}
