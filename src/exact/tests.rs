//! The certificate and the three ways against a plain float64 twin.
//!
//! The twin is [`Judge`] over all rows and a sort. Radii are the rounded distances of rows, to the
//! bit, so that each search has a row exactly on its edge: a bound that is too low by what its
//! margin is for loses that row. With fewer than 1,024 rows codes never give up to floats.

use std::sync::Arc;

use super::cells::{GO, KNOWN, goes};
use super::*;
use crate::codes::Scratch;
use crate::corpus::{CHUNK, Chunk, rows_of};
use crate::kernels::float::Judge;
use crate::metric::Metric;
use crate::random::Random;
use crate::selection::Selection;
use crate::threads::{Silent, Stages};

const SEED: u64 = 20_240_229;
const PRODUCTS: [Metric; 4] =
    [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::InnerProduct];

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Between 0 and 1, never 0.
    fn share(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / 2f64.powi(53)
    }

    fn sign(&mut self) -> f64 {
        if self.next() & 1 == 0 { 1.0 } else { -1.0 }
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.share().ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }

    fn normals(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Rows, coded by what was learned from the first of them.
struct Set {
    metric: Metric,
    dim: usize,
    rows: Rows<'static>,
    chunks: Vec<Arc<Chunk>>,
    encoder: Option<Encoder>,
}

impl Set {
    /// `lessons` rows are learned from; axes are taken from `axes_min_rows` of them.
    fn new(metric: Metric, rows: Rows<'static>, lessons: usize, axes_min_rows: usize) -> Self {
        let dim = rows.dim();
        let encoder =
            Encoder::learn_with(metric, dim, &[rows.slice(0, lessons)], false, axes_min_rows);
        // A file gives back what was learned, to the bit.
        let bytes = encoder.as_ref().map(Encoder::to_bytes);
        let again = bytes.and_then(|bytes| Encoder::from_bytes(metric, dim, &bytes));
        assert_eq!(format!("{again:?}"), format!("{encoder:?}"));
        let mut scratch = Scratch::default();
        let mut chunk = |start: usize| {
            let rows = rows.slice(start, CHUNK.min(rows.len() - start));
            let encoder = encoder.as_ref();
            // In pieces that cut panels, as rows that are added later do.
            let mut codes = None;
            for end in (0..rows.len()).step_by(111).skip(1).chain([rows.len()]) {
                let so_far = rows.slice(0, end);
                codes = encoder.and_then(|e| e.encode(&so_far, codes.as_ref(), &mut scratch));
            }
            Arc::new(Chunk::new(rows, codes))
        };
        let chunks = (0..rows.len()).step_by(CHUNK).map(&mut chunk).collect();
        Self { metric, dim, rows, chunks, encoder }
    }

    fn from_values(metric: Metric, values: Vec<f64>, dim: usize) -> Self {
        let rows = Rows::from_vec(values, dim).unwrap();
        let lessons = rows.len();
        Self::new(metric, rows, lessons, usize::MAX)
    }

    fn has_axes(&self) -> bool {
        self.encoder.as_ref().is_some_and(Encoder::has_rest)
    }

    fn row(&self, row: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.dim];
        self.rows.read(row, &mut out);
        out
    }

    fn corpus<'a>(&'a self, allowed: Option<&'a Selection>, isa: Isa) -> Corpus<'a> {
        let (metric, dim, chunks) = (self.metric, self.dim, &self.chunks[..]);
        let (rows, encoder) = (rows_of(chunks), self.encoder.as_ref());
        Corpus { metric, dim, chunks, rows, encoder, allowed, isa, tally: None }
    }

    /// Every row by its distance: what the definition says.
    fn twin(&self, query: &[f64]) -> Vec<Neighbor> {
        let judge = Judge::new(self.metric, query);
        let distance = |row| judge.distance(&self.row(row));
        let mut all: Vec<Neighbor> = (0..self.rows.len())
            .map(|row| Neighbor { distance: distance(row), row: row as u32 })
            .collect();
        all.sort_unstable();
        all
    }

    fn search(
        &self,
        queries: &Rows,
        goal: Goal,
        allowed: Option<&Selection>,
        isa: Isa,
        threads: usize,
    ) -> Vec<Vec<Neighbor>> {
        let corpus = self.corpus(allowed, isa);
        let lists = search(corpus, queries, goal, threads, &mut Silent).unwrap();
        lists.into_iter().map(List::take).collect()
    }

    /// Compares searches of every kind with the twin.
    fn check(&self, queries: Vec<f64>, random: &mut Random, name: &str) {
        let n = self.rows.len();
        let queries = Rows::from_vec(queries, self.dim).unwrap();
        let mut query = vec![0.0; self.dim];
        let twins: Vec<Vec<Neighbor>> = (0..queries.len())
            .map(|i| {
                queries.read(i, &mut query);
                self.twin(&query)
            })
            .collect();
        let mut some = Selection::none(n);
        (0..n).filter(|_| random.next() & 1 == 0).for_each(|row| some.insert(row));
        // The nearest rows of the first query are forbidden.
        twins[0][..n / 4].iter().for_each(|nearest| some.remove(nearest.row as usize));
        // So few that they are copied together before they are swept, a whole stretch among them.
        let mut few = Selection::none(n);
        (0..n).filter(|row| random.below(4) == 0 || row / 32 == 2).for_each(|row| few.insert(row));
        for (allowed, isa) in [None, Some(&some), Some(&few)]
            .into_iter()
            .flat_map(|allowed| Isa::available().into_iter().map(move |isa| (allowed, isa)))
        {
            let there = |neighbor: &&Neighbor| {
                allowed.is_none_or(|allowed| allowed.contains(neighbor.row as usize))
            };
            let ranked = |i: usize| twins[i].iter().filter(there).copied();
            for k in [1, 10, 30] {
                let threads = 1 + random.below(2);
                let found = self.search(&queries, Goal::Nearest(k), allowed, isa, threads);
                for (i, found) in found.iter().enumerate() {
                    let expected: Vec<Neighbor> = ranked(i).take(k).collect();
                    self.compare(found, &expected, &format!("{name} {isa:?} query {i} k={k}"));
                }
            }
            for i in 0..queries.len() {
                let rank = [0, random.below(12), random.below(n / 8)][i % 3];
                let edge = ranked(i).nth(rank).unwrap().distance;
                for radius in [edge, edge.next_down()] {
                    let one = queries.slice(i, 1);
                    let found = self.search(&one, Goal::Within(radius), allowed, isa, 1);
                    let expected: Vec<Neighbor> =
                        ranked(i).take_while(|neighbor| neighbor.distance <= radius).collect();
                    let name = format!("{name} {isa:?} query {i} within {radius:e}");
                    self.compare(&found[0], &expected, &name);
                }
            }
        }
    }

    fn compare(&self, found: &[Neighbor], expected: &[Neighbor], name: &str) {
        let bits = |list: &[Neighbor]| -> Vec<(u32, u64)> {
            list.iter().map(|neighbor| (neighbor.row, neighbor.distance.to_bits())).collect()
        };
        let (metric, n, dim) = (self.metric, self.rows.len(), self.dim);
        let width = self.encoder.as_ref().map(Encoder::width);
        assert_eq!(
            bits(found),
            bits(expected),
            "{name}: {metric} {n} x {dim}, coded {width:?}, seed {SEED}"
        );
    }
}

/// Values of `n` rows of some kind.
type Maker = fn(&mut Random, usize, usize) -> Vec<f64>;

const MAKERS: [(&str, Maker); 13] = [
    ("gaussian", |random, n, dim| random.normals(n * dim)),
    ("decaying spectrum", decaying),
    ("shared heads", heads),
    ("huge offset", |random, n, dim| {
        random.normals(n * dim).into_iter().map(|x| 1e7 + 1e-3 * x).collect()
    }),
    ("one huge constant column", |random, n, dim| {
        let mut values = random.normals(n * dim);
        values.iter_mut().step_by(dim).for_each(|x| *x = 2f64.powi(30));
        values
    }),
    ("mixed scales", |random, n, dim| {
        let row = |random: &mut Random| {
            let scale = 10f64.powf(18.0 * random.share() - 9.0);
            random.normals(dim).into_iter().map(move |x| x * scale)
        };
        (0..n).flat_map(|_| row(random)).collect()
    }),
    ("small integers", |random, n, dim| {
        (0..n * dim).map(|_| random.below(7) as f64 - 3.0).collect()
    }),
    ("half steps", |random, n, dim| {
        let mut values = Vec::new();
        for _ in 0..n {
            // All errors of a row point one way; a tail that only float64 sees. Four such numbers of
            // one sign keep to what codes may come to, so that the step is 1.
            let half = 0.499 * random.sign() * (1.0 + 1e-9 * random.normal());
            values.push(127.0);
            values.extend((1..dim).map(|_| random.below(85) as f64 - 42.0 + half));
        }
        values
    }),
    ("duplicates and zeros", |random, n, dim| {
        let mut values = random.normals(n * dim);
        for row in 1..n {
            let from = random.below(row) * dim;
            match random.below(4) {
                0 => values.copy_within(from..from + dim, row * dim),
                1 => values[row * dim..(row + 1) * dim].fill(0.0),
                _ => {}
            }
        }
        values
    }),
    ("nearly identical", |random, n, dim| {
        let base = random.normals(dim);
        (0..n * dim)
            .map(|i| base[i % dim] * (1.0 + 2f64.powi(-52) * random.below(9) as f64))
            .collect()
    }),
    ("sorted, each nearer than the last", |random, n, dim| {
        let scale = |row: usize| 10.0 * (1.0 - row as f64 / n as f64);
        (0..n * dim).map(|i| scale(i / dim) * (1.0 + 0.1 * random.normal())).collect()
    }),
    ("some giants", |random, n, dim| {
        let mut values = random.normals(n * dim);
        for row in (0..n).filter(|row| row % 97 == 5) {
            values[row * dim..(row + 1) * dim].iter_mut().for_each(|x| *x *= 1e9);
        }
        values
    }),
    ("each of one sign", |random, n, dim| {
        // The largest codes everywhere, which sums of products must have room for.
        let signs: Vec<f64> = (0..n).map(|_| random.sign()).collect();
        (0..n * dim).map(|i| signs[i / dim] * (1.0 + 1e-3 * random.normal())).collect()
    }),
];

/// Gaussian rows whose variance falls fast along turned axes.
fn decaying(random: &mut Random, n: usize, dim: usize) -> Vec<f64> {
    let mut values = random.normals(n * dim);
    let mirror = random.normals(dim);
    let square: f64 = mirror.iter().map(|x| x * x).sum();
    for row in values.chunks_exact_mut(dim) {
        row.iter_mut().enumerate().for_each(|(j, x)| *x *= 0.93f64.powi(j as i32) + 1e-4);
        let product: f64 = row.iter().zip(&mirror).map(|(x, m)| x * m).sum();
        row.iter_mut().zip(&mirror).for_each(|(x, m)| *x -= 2.0 * product / square * m);
    }
    values
}

/// Groups that agree where the variance is: what axes leave out decides inside a group.
fn heads(random: &mut Random, n: usize, dim: usize) -> Vec<f64> {
    let heads = decaying(random, n / 20 + 1, dim);
    let mut values = Vec::new();
    for _ in 0..n {
        let head = &heads[random.below(n / 20 + 1) * dim..][..dim];
        values.extend(head.iter().map(|x| 5.0 * x + 0.02 * random.normal()));
    }
    values
}

/// Queries near, on, beside and far from rows.
fn queries(random: &mut Random, values: &[f64], dim: usize) -> Vec<f64> {
    let n = values.len() / dim;
    let typical = values.iter().map(|x| x.abs()).sum::<f64>() / values.len() as f64;
    let mut queries = Vec::new();
    for kind in 0..9 {
        let row = random.below(n) * dim;
        let row = &values[row..row + dim];
        queries.extend(random.normals(dim).into_iter().zip(row).map(|(noise, x)| match kind {
            0 => *x,
            1 => x * (1.0 + 1e-3 * noise),
            2 => x + 0.3 * typical * noise,
            3 => 0.0,
            4 => typical,
            5 => 100.0 * typical * noise,
            6 => 1e-9 * typical * noise,
            7 => -x,
            _ => noise.signum(),
        }));
    }
    queries
}

/// Zeros behind short vectors change no bit, and none of an earlier call is left there.
#[test]
fn brief_answers_have_the_bits_of_the_definition() {
    let mut random = Random(SEED);
    let metrics = PRODUCTS.into_iter().chain([Metric::Manhattan, Metric::Chebyshev]);
    let dims = || (1..28).chain([67, 700]);
    for (metric, dim) in metrics.flat_map(|metric| dims().map(move |dim| (metric, dim))) {
        let (queries, n) = [(1, 1), (1, 2 + random.below(50 / dim + 2)), (3, 7)][dim % 3];
        let values = random.normals(n * dim);
        let narrow = values.iter().map(|&x| x as f32).collect();
        let narrow = Set::new(metric, Rows::from_vec::<f32>(narrow, dim).unwrap(), n, usize::MAX);
        let set = Set::from_values(metric, values, dim);
        let asked = Rows::from_vec(random.normals(queries * dim), dim).unwrap();
        let mut some = Selection::none(n);
        (0..n).filter(|row| row % 2 == 0).for_each(|row| some.insert(row));
        for (set, allowed) in [(&set, None), (&narrow, None), (&set, Some(&some))] {
            let there = |near: &Neighbor| allowed.is_none_or(|a| a.contains(near.row as usize));
            let mut query = vec![0.0; dim];
            let mut twins = Vec::new();
            for i in 0..queries {
                asked.read(i, &mut query);
                twins.push(set.twin(&query).into_iter().filter(there).collect::<Vec<_>>());
            }
            let corpus = set.corpus(allowed, Isa::current().unwrap());
            let far = twins[0][twins[0].len() / 2].distance;
            for goal in [Goal::Nearest(3), Goal::Within(far)] {
                let mut found = Vec::new();
                assert!(is_brief(&corpus, &asked));
                brief(&corpus, &asked, goal, |near| found.push(near.to_vec())).unwrap();
                assert_eq!(found.len(), queries);
                for (found, twin) in found.iter().zip(&twins) {
                    let within = |near: &&Neighbor| near.distance <= far;
                    let expected: Vec<Neighbor> = match goal {
                        Goal::Nearest(k) => twin.iter().take(k).copied().collect(),
                        Goal::Within(_) => twin.iter().take_while(within).copied().collect(),
                    };
                    set.compare(found, &expected, "brief");
                }
            }
        }
    }
}

#[test]
fn adversarial_rows_get_the_twins_answers() {
    for (case, (name, maker)) in MAKERS.into_iter().enumerate() {
        let mut random = Random(SEED + case as u64);
        for (n, dim, scale) in [(700, 33, 1.0), (523, 128, 1e-120)] {
            let values = maker(&mut random, n, dim);
            let queries = queries(&mut random, &values, dim);
            let values: Vec<f64> = values.into_iter().map(|x| x * scale).collect();
            let queries: Vec<f64> = queries.into_iter().map(|x| x * scale).collect();
            for metric in PRODUCTS {
                let set = Set::from_values(metric, values.clone(), dim);
                set.check(queries.clone(), &mut random, name);
            }
        }
    }
}

#[test]
fn axes_of_a_graph_hold_nearly_all_that_rows_are_made_of() {
    let (n, dim) = (6000, 256);
    let mut random = Random(SEED);
    for decay in [40.0, 60.0] {
        let scale = |i: usize| (-(i as f64) / (2.0 * decay)).exp();
        // Groups of near rows, so that few axes tell a sweep enough.
        let mut values: Vec<f32> = Vec::new();
        for _ in 0..n / 20 {
            let centre = random.normals(dim);
            for _ in 0..20 {
                let near = random.normals(dim);
                values.extend((0..dim).map(|i| (scale(i) * (centre[i] + 0.3 * near[i])) as f32));
            }
        }
        let rows = Rows::from_vec(values, dim).unwrap();
        let width = |graph: bool| {
            let rows = [rows.slice(0, n)];
            Encoder::learn_with(Metric::Euclidean, dim, &rows, graph, 0).unwrap().width()
        };
        let left_out = |width: usize| (-(width as f64) / decay).exp();
        assert!(width(false) < width(true), "this test means nothing");
        // The share is measured on a sample.
        assert!(left_out(width(true)) < 0.12);
        assert!(left_out(width(true) - 64) > 0.075, "too many");
    }
}

#[test]
fn axes_and_their_rests_get_the_twins_answers() {
    let mut with_axes = 0;
    for (case, name) in ["as learned", "strangers", "strangers on a mean"].into_iter().enumerate() {
        let mut random = Random(SEED + 100 + case as u64);
        // As many rows as the probe looks at, so that it sees how few survive.
        let (n, lessons, dim) = (4700, 4096, 160);
        let mut values = decaying(&mut random, n, dim);
        if case > 0 {
            // What was learned says nothing of the later rows: they are all rest, or equal the
            // first rows but for their rest.
            for row in lessons..n {
                let from = random.below(200) * dim;
                let strange = random.normals(dim);
                let share = if row % 3 == 0 { 0.0 } else { 1.0 };
                for j in 0..dim {
                    values[row * dim + j] = share * values[from + j] + 0.2 * strange[j];
                }
            }
        }
        if case == 2 {
            values.iter_mut().enumerate().for_each(|(i, x)| *x += ((i % dim) as f64).sin());
        }
        let mut queries = queries(&mut random, &values, dim);
        // Queries that the axes hardly see.
        queries.extend(random.normals(2 * dim));
        queries.extend_from_slice(&values[(n - 1) * dim..]);
        for metric in PRODUCTS {
            for narrow in [false, true] {
                let rows = if narrow {
                    let floats: Vec<f32> = values.iter().map(|&x| x as f32).collect();
                    Rows::from_vec(floats, dim)
                } else {
                    Rows::from_vec(values.clone(), dim)
                };
                let set = Set::new(metric, rows.unwrap(), lessons, 4096);
                with_axes += usize::from(set.has_axes());
                set.check(queries.clone(), &mut random, name);
            }
        }
    }
    assert_eq!(with_axes, 24, "the probe must take axes for this test to mean anything");
}

#[test]
fn rows_that_codes_cannot_tell_apart_fall_back_to_floats() {
    let mut random = Random(SEED + 200);
    let (n, dim) = (2600, 64);
    // Two crowds opposite each other, and queries at right angles to the way between them: all
    // scores are small differences of large products.
    let base = random.normals(dim);
    let mut values = Vec::new();
    for row in 0..n {
        let sign = if row % 2 == 0 { 1.0 } else { -1.0 };
        values.extend(base.iter().map(|x| sign * x + 3e-7 * random.normal()));
    }
    let square: f64 = base.iter().map(|x| x * x).sum();
    let mut queries = random.normals(9 * dim);
    for query in queries.chunks_exact_mut(dim) {
        let product: f64 = query.iter().zip(&base).map(|(q, b)| q * b).sum();
        query.iter_mut().zip(&base).for_each(|(q, b)| *q -= product / square * b);
    }
    for metric in PRODUCTS {
        let set = Set::from_values(metric, values.clone(), dim);
        set.check(queries.clone(), &mut random, "crowds");
    }
}

#[test]
fn many_chunks_in_strides_and_parts_get_the_twins_answers() {
    let mut random = Random(SEED + 300);
    let (n, dim) = (9300, 16);
    let values = MAKERS[10].1(&mut random, n, dim);
    let queries = queries(&mut random, &values, dim);
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let set = Set::from_values(metric, values.clone(), dim);
        set.check(queries.clone(), &mut random, "strides");
    }
}

#[test]
fn all_rows_against_all_get_the_twins_answers() {
    let mut random = Random(SEED + 21);
    let (n, dim, k) = (CHUNK + 500, 32, 7);
    for metric in [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine] {
        for axes_min_rows in [100, usize::MAX] {
            let set = Set::new(
                metric,
                Rows::from_vec(decaying(&mut random, n, dim), dim).unwrap(),
                n,
                axes_min_rows,
            );
            let removed: Vec<usize> = (0..n).filter(|row| row % 9 == 4).collect();
            let mut allowed = Selection::all(n);
            removed.iter().for_each(|&row| allowed.remove(row));
            let twin = |row: usize| -> Vec<Neighbor> {
                let all = set.twin(&set.row(row)).into_iter();
                let other = |near: &Neighbor| {
                    near.row as usize != row && allowed.contains(near.row as usize)
                };
                all.filter(other).take(k).collect()
            };
            let twins: Vec<_> = (0..n).map(twin).collect();
            for isa in Isa::available() {
                let corpus = set.corpus(Some(&allowed), isa);
                let monitor = &mut Silent;
                let mut stages = Stages::new(monitor, 1);
                let cells = Cells::new(corpus, 3, 2, &mut stages).unwrap().unwrap();
                let seeds = cells.candidates(corpus, 2, 2 * k, 2, &mut stages).unwrap();
                let lists = pairs(corpus, corpus, k, seeds, true, 2, &mut stages).unwrap();
                assert_eq!(lists.len(), n);
                for (row, list) in lists.iter().enumerate() {
                    let Some(list) = list else {
                        assert!(!corpus.is_allowed(row), "{metric:?}: row {row} was given up");
                        continue;
                    };
                    set.compare(list, &twins[row], &format!("{metric:?}, {isa:?}, row {row}"));
                }
            }
        }
    }
}

#[test]
fn a_row_is_compared_with_all_that_either_of_the_two_visits() {
    let mut random = Random(SEED + 22);
    let (n, dim) = (2 * CHUNK + 100, 24);
    let rows = Rows::from_vec(decaying(&mut random, n, dim), dim).unwrap();
    let set = Set::new(Metric::Euclidean, rows, n, usize::MAX);
    let mut allowed = Selection::all(n);
    (0..n).filter(|row| row % 5 == 1).for_each(|row| allowed.remove(row));
    let corpus = set.corpus(Some(&allowed), Isa::available()[0]);
    let monitor = &mut Silent;
    let mut stages = Stages::new(monitor, 1);
    let cells = Cells::new(corpus, 0, 1, &mut stages).unwrap().unwrap();
    assert!(cells.len() > 70);
    let pairs: Vec<(u32, u32)> =
        (0..n as u32).flat_map(|row| (0..n as u32).map(move |other| (row, other))).collect();
    let needed = cells.visits(corpus, &pairs, 1, &mut stages).unwrap();
    // To the own cell alone, in one go and in several, to all whose order is known and to more.
    for visits in [1, 4, 5, KNOWN, 70] {
        let all = cells.candidates(corpus, visits, n, 3, &mut stages).unwrap();
        let few = cells.candidates(corpus, visits, 10, 1, &mut stages).unwrap();
        let same = cells.candidates(corpus, visits, 10, 8, &mut stages).unwrap();
        let mut missed = 0;
        for row in (0..n as u32).step_by(7) {
            let (mut found, mut best) = (Vec::new(), Vec::new());
            all.of(row, &mut found);
            few.of(row, &mut best);
            let mut again = Vec::new();
            same.of(row, &mut again);
            assert_eq!(again, best, "threads must not matter");
            found.sort_unstable();
            let compared: Vec<u32> = (0..n as u32)
                .filter(|&other| {
                    other != row && needed[row as usize * n + other as usize] <= visits
                })
                .filter(|&other| [row, other].iter().all(|&r| corpus.is_allowed(r as usize)))
                .collect();
            assert_eq!(found, compared, "row {row}, {visits} visits");
            // The best by score are the nearest of those, but for what codes cannot tell apart.
            assert_eq!(best.len(), compared.len().min(10));
            let near = set.twin(&set.row(row as usize)).into_iter();
            let near = near.filter(|near| compared.contains(&near.row)).take(5);
            missed += near.filter(|near| !best.contains(&near.row)).count();
        }
        assert!(missed < n / 350, "{missed} of {} near rows", 5 * n / 7);
    }
}

#[test]
fn each_visit_after_the_first_is_in_one_go() {
    for visits in 0..5 * KNOWN {
        let goes: Vec<_> = goes(visits).collect();
        assert!(goes.iter().cloned().flatten().eq(1..visits));
        for go in goes {
            assert!(go.len() <= GO, "the lists of visitors take memory");
            assert_eq!(go.start / KNOWN, (go.end - 1) / KNOWN, "found apart: {go:?}");
        }
    }
}

/// Rows in pairs of opposites, so that their mean is exactly 0.
fn opposites(random: &mut Random, n: usize, row: impl Fn(&mut Random) -> Vec<f64>) -> Vec<f64> {
    let mut values = Vec::new();
    for _ in 0..n / 2 {
        let row = row(random);
        values.extend_from_slice(&row);
        values.extend(row.iter().map(|x| -x));
    }
    values
}

#[test]
fn rows_and_queries_far_below_the_scale_keep_their_margins() {
    let dim = 20;
    for exponent in [-18, -20, -22, -24, -28, -32, -35, -36, -37, -38, -39, -44, -60] {
        let mut random = Random(SEED + 400);
        let scale = 10f64.powi(exponent);
        // The scale is that of 64 rows along the first dimension, which no query looks along.
        let mut values = opposites(&mut random, 64, |_| {
            let mut row = vec![0.0; dim];
            row[0] = 1.0;
            row
        });
        values.extend(opposites(&mut random, 600, |random| {
            let mut row: Vec<f64> = random.normals(dim).iter().map(|x| x * scale).collect();
            row[0] = 0.0;
            row
        }));
        for metric in PRODUCTS {
            let set = Set::from_values(metric, values.clone(), dim);
            for size in [1.0, scale.sqrt(), scale, 1e3 * scale] {
                let query = |random: &mut Random| {
                    let mut query: Vec<f64> = (0..dim).map(|_| random.sign() * size).collect();
                    query[0] = 0.0;
                    query
                };
                let queries = (0..6).flat_map(|_| query(&mut random)).collect();
                set.check(queries, &mut random, &format!("rows of {scale:e}, queries of {size:e}"));
            }
        }
    }
}

#[test]
fn the_widest_codes_hold_their_sums_and_what_float32_rounds_off() {
    // Scores of rows with the query are 0 but for what the rows lose on the way to float32, all of
    // which points the query's way.
    let (n, dim) = (128, 1 << 14);
    let mut random = Random(SEED + 500);
    let values = opposites(&mut random, n, |random| {
        let tail = 2f64.powi(-25) * (0.8 + 0.19 * random.share());
        (0..dim).map(|j| if j % 2 == 0 { 126.0 * (1.0 + tail) } else { -126.0 }).collect()
    });
    let alternating = (0..dim).map(|j| if j % 2 == 0 { 1.0 } else { -1.0 });
    let queries: Vec<f64> = std::iter::repeat_n(1.0, dim).chain(alternating).collect();
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let set = Set::from_values(metric, values.clone(), dim);
        set.check(queries.clone(), &mut random, "widest");
    }
}

#[test]
fn a_query_on_the_mean_sees_norms_alone() {
    // Products with it are 0, and so is their margin: what is left is the rounding of norms.
    let (n, dim) = (600, 40);
    let mut random = Random(SEED + 550);
    let values = opposites(&mut random, n, |random| random.normals(dim));
    for metric in PRODUCTS {
        let set = Set::from_values(metric, values.clone(), dim);
        set.check(vec![0.0; 12 * dim], &mut random, "on the mean");
    }
}

#[test]
fn means_far_beyond_the_spread_get_the_twins_answers() {
    let dim = 96;
    for size in [1e8, 1e15, 1e25, 1e45] {
        let mut random = Random(SEED + 600);
        let mut values: Vec<f64> = random.normals(512 * dim).iter().map(|x| x / size).collect();
        // A power of two, so that the mean of 512 of them is exact.
        let huge = 2f64.powf(size.log2().round());
        values.iter_mut().step_by(dim).for_each(|x| *x = huge);
        for metric in PRODUCTS {
            let rows = Rows::from_vec(values.clone(), dim).unwrap();
            let set = Set::new(metric, rows, 512, 64);
            let mut queries = random.normals(4 * dim);
            queries[0] = 0.0;
            queries[dim..2 * dim].iter_mut().for_each(|x| *x *= size);
            set.check(queries, &mut random, &format!("mean {size:e}"));
        }
    }
}

#[test]
fn extreme_radii_and_k_get_the_twins_answers() {
    let mut random = Random(SEED + 700);
    let (n, dim) = (300, 9);
    let values = MAKERS[8].1(&mut random, n, dim);
    for metric in PRODUCTS {
        let set = Set::from_values(metric, values.clone(), dim);
        let queries = queries(&mut random, &values, dim);
        let twins: Vec<Vec<Neighbor>> = queries.chunks(dim).map(|query| set.twin(query)).collect();
        let queries = Rows::from_vec(queries, dim).unwrap();
        for isa in Isa::available() {
            for radius in
                [f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -1.0, 1.0, 2.0, 1e300, -1e300]
            {
                let found = set.search(&queries, Goal::Within(radius), None, isa, 1);
                for (found, twin) in found.iter().zip(&twins) {
                    let count = twin.iter().filter(|neighbor| neighbor.distance <= radius).count();
                    set.compare(found, &twin[..count], &format!("radius {radius} {isa:?}"));
                }
            }
            for k in [n / 4, n - 1, n, n + 1] {
                let found = set.search(&queries, Goal::Nearest(k), None, isa, 2);
                for (found, twin) in found.iter().zip(&twins) {
                    set.compare(found, &twin[..k.min(n)], &format!("k={k} {isa:?}"));
                }
            }
        }
    }
}

#[test]
fn bytes_that_no_encoder_wrote_are_refused() {
    let rows = Rows::from_vec(decaying(&mut Random(SEED), 4700, 160), 160).unwrap();
    let set = Set::new(Metric::Euclidean, rows, 4096, 4096);
    assert!(set.has_axes());
    let good = set.encoder.unwrap().to_bytes();
    let refused = |dim: usize, bytes: &[u8], metric: Metric| {
        Encoder::from_bytes(metric, dim, bytes).is_none()
    };
    assert!(!refused(160, &good, Metric::Cosine));
    assert!(refused(160, &good, Metric::Chebyshev));
    for len in (0..good.len()).filter(|len| len % (160 * 4) != 8) {
        assert!(refused(160, &good[..len], Metric::Euclidean), "{len} bytes");
    }
    assert!(refused(159, &good, Metric::Euclidean), "another width");
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        refused(160, &bad, Metric::Euclidean)
    };
    for unit in [0.0f64, -1.0, 3.0, f64::NAN, f64::INFINITY, 1e-300, 2f64.powi(500)] {
        assert!(with(0, &unit.to_le_bytes()), "unit {unit}");
    }
    for mean in [f64::NAN, f64::NEG_INFINITY, 1e200] {
        assert!(with(8, &mean.to_le_bytes()), "mean {mean}");
    }
    for axis in [f32::NAN, 1e30, 1.5] {
        assert!(with(8 * 161 + 12, &axis.to_le_bytes()), "axis {axis}");
    }
}
