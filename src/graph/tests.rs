//! The graph is the same on every machine and at any number of threads, and an edit that is
//! interrupted leaves it so.

use super::*;
use crate::codes::Scratch;
use crate::corpus::rows_of;
use crate::metric::Metric;
use crate::random::Random;
use crate::rows::Rows;
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
        let values = (0..rows * dim).map(|i| centres[i % (20 * dim)] + uniform()).collect();
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
        let (metric, dim, chunks) = (self.metric, self.dim, &self.chunks[..]);
        let (rows, encoder) = (rows_of(chunks), Some(&self.encoder));
        Lane::new(
            Corpus { metric, dim, chunks, rows, encoder, allowed: None, isa, tally: None },
            lift,
            &self.together,
            usize::MAX,
        )
        .unwrap()
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
            build(&data.lane(isa), 5, threads, &mut Stages::new(&mut Silent, 0)).unwrap()
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
    let graph = build(&lane, 5, 2, &mut Stages::new(&mut Silent, 0)).unwrap();
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
