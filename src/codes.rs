//! 8-bit codes of rows, and the certificate that makes them exact.
//!
//! **Space.** A row `x` becomes `z = (u − μ)·g`: `u` is `x`, or `x/‖x‖` for the cosine; `μ` is a
//! mean and `g` a power of two that brings numbers near 1. Distances are read off a *score*,
//! larger is closer:
//!
//! | metric | query | score |
//! |---|---|---|
//! | euclidean | `(q − μ)·g` | `⟨q,z⟩ − ‖z‖²/2 = (‖q‖² − g²·d²)/2` |
//! | inner product, cosine | `q·h`, `q/‖q‖` | `⟨q,z⟩`, the product less a constant of the query |
//!
//! **Principal axes.** Real embeddings hold most of their energy in a part of their dimensions.
//! Where a probe says that it pays, only the first `width` principal axes are coded: `y = P·z`.
//! What is left out, `r = z − Pᵀy`, is known by its norm alone. Every multiplication saved in
//! the sweep is one that no exact search by a full matrix product can save. The norm itself is
//! coded too, as four more dimensions of `‖r‖/2`: then the product of two codes holds the term
//! `‖rq‖‖r‖ ≥ ⟨rq,r⟩` of the bound, row by row, at the price of one more step.
//!
//! **Certificate.** `y`, its rest included, is coded as `ŷ = A·c`, `c` in −127…127, and likewise
//! the query. Then (Cauchy–Schwarz on each rest)
//!
//! `⟨q,z⟩ ≤ ⟨ŷq,ŷ⟩ + ‖yq‖·‖y−ŷ‖ + ‖yq−ŷq‖·‖ŷ‖ + η·‖q‖·‖z‖`
//!
//! where η bounds the rounding of everything: `z` and `q` to float32, the float32 product with
//! `P` (Higham's γ, times `√width` for the norm over its rows), the departure of `P` from
//! orthonormality (measured in float64), the float32 test in the kernel, and the float64 sums
//! that the verdict itself rounds, so that no row is ruled out which a rounded verdict might
//! have let in. Norms of rows enter divided by the row's step `A`, as maxima over a panel: the
//! whole margin is then one whole number for a query and a panel, added to the sums before they
//! start, and costs the sweep nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::kernels::Isa;
use crate::kernels::float;
use crate::kernels::int8::{
    self, Block, GROUP, Group, LIMIT, MOST_OF_FOUR, Ratios, STEP, record_bytes,
};
use crate::kernels::matmul;
use crate::metric::Metric;
use crate::region::{Region, Slice};
use crate::rows::{LARGEST, Rows};
use crate::scratch::{Buffer, One};

/// Rows that are projected together: their floats stay in a core's second-level cache.
const BLOCK: usize = 1024;
/// Rows that are looked at to learn the mean, the axes and how well they prune; two such sets.
const SAMPLE: usize = 2048;
/// Rows of the second set that play the query.
const PROBES: usize = 16;
/// The number of axes is a multiple of this, and so of a step.
const AXES: usize = 32;
/// The share of the rows' energy that axes may leave out where walks go by their codes alone: a sweep
/// judges what codes cannot tell, a walk takes their order as it is.
const LEFT_OUT: f32 = 0.075;
/// Below these, learning axes costs more than the sweep it would shorten, or the graph's build.
const AXES_MIN_ROWS: usize = 100_000;
const AXES_MIN_ROWS_OF_GRAPH: usize = 50_000;
const AXES_MIN_DIM: usize = 96;
/// Sums of products of 8-bit codes stay inside 32 bits up to here, margin and offset included.
const MAX_WIDTH: usize = 16_384;
/// A row whose squared norm is smaller has lost digits to underflow: it is judged, not coded.
const SMALLEST_SQUARE: f64 = 1e-280;
/// Rows near a mean beyond this could have codes, and those that have some are not looked at for numbers
/// that are refused.
const FARTHEST_MEAN: f64 = LARGEST / 2.0;
/// Numbers of the sample are at most 1 when centred and scaled; beyond this a row is far from it.
const FAR: f32 = 4.0;
/// Added to every norm: the smallest step, 2⁻¹² of it, still has a reciprocal in float32.
const TINY: f64 = 1e-30;
/// Margins of 8-bit codes as a share of ‖q‖‖z‖, query and row together, for the probe alone.
const PROBE_MARGIN: f32 = 0.018;
/// What one verdict costs, in multiply-adds of the sweep (measured: about 120 ns at 384
/// dimensions, where a core does 200 multiply-adds a nanosecond).
const VERDICT_COST: f64 = 24_000.0;

/// How rows become codes: learned once from a sample, the same for every row.
#[derive(Debug)]
pub(crate) struct Encoder {
    metric: Metric,
    mean: Vec<f64>,
    mean_norm: f64,
    unit: f64,
    /// `width × dim`, orthonormal rows; none where every dimension is coded as it is.
    axes: Option<Vec<f32>>,
    /// Codes of the axes, for walks.
    coded_axes: Block,
    width: usize,
    /// The η of the certificate.
    slack: f64,
    /// The part of η that enters the norm of a row's rest.
    axes_slack: f64,
    /// η of the float products of the fallback.
    float_slack: f64,
}

/// Buffers that encoding reuses from block to block.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    row: Vec<f64>,
    centred: Vec<f32>,
    projected: Vec<f32>,
    swept: Vec<f32>,
    codes: Vec<i8>,
}

/// The codes of some rows: records of [`int8`], and the largest ratios of each eight.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    len: usize,
    /// Records of whole groups.
    records: Slice,
    ratios: Vec<Ratios>,
    /// Steps of a record.
    steps: usize,
}

/// A query in the space of the codes.
#[derive(Debug)]
pub(crate) struct QueryCode {
    pub(crate) codes: Buffer<i8>,
    pub(crate) scale: f32,
    /// What the ratios of a group are multiplied by to give its margin in whole steps.
    pub(crate) margin: Ratios,
}

/// How a query's scores and distances belong together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores {
    squared: bool,
    base: f64,
    gain: f64,
    slack: f64,
}

impl Scores {
    /// What a score is taken from to give a number in proportion to the distance or its square.
    pub(crate) fn base(&self) -> f32 {
        self.base as f32
    }

    /// A score that every row at most as far as `distance` reaches, rounding included.
    pub(crate) fn at_least(&self, distance: f64) -> f64 {
        if distance.is_infinite() {
            return -distance; // gain may be 0, and 0 · ∞ is no number
        }
        let distance = if self.squared { distance * distance } else { distance };
        let far = self.gain * distance;
        self.base - far - self.slack * (self.base.abs() + far.abs())
    }

    /// A score so far below one that some row is proven to reach that no rounding of distances
    /// can make them equal.
    pub(crate) fn below(&self, score: f64) -> f64 {
        score - self.slack * (2.0 * self.base.abs() + score.abs())
    }
}

/// The margin of the products of a row's codes with those of other rows, in steps of both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairMargin {
    rounding: f64,
    norm: f64,
}

impl PairMargin {
    /// The margin with a row of a group that has these ratios.
    pub(crate) fn of(self, other: Ratios) -> f64 {
        let margin = self.norm * f64::from(other.rounding) + self.rounding * f64::from(other.norm);
        margin * (1.0 + 1e-6)
    }
}

/// Some rows in float32, for the fallback.
#[derive(Debug, Default)]
pub(crate) struct RowFloats {
    pub(crate) floats: Vec<f32>,
    /// A number not below the norm of each row.
    pub(crate) norms: Vec<f32>,
    /// What is added to each row's product.
    pub(crate) biases: Vec<f32>,
}

/// A query in float32.
#[derive(Debug)]
pub(crate) struct QueryFloats {
    pub(crate) floats: Buffer<f32>,
    /// `η · ‖q‖`: times a row's norm, the margin of a float product.
    pub(crate) margin: f64,
    pub(crate) scores: Scores,
}

impl Encoder {
    /// Learns mean, scale and axes from a sample of `rows`, which a graph may be built of.
    ///
    /// `None` where codes cannot help: a metric that is not a product, or numbers so small that
    /// their squares underflow.
    pub(crate) fn learn(metric: Metric, dim: usize, blocks: &[Rows], graph: bool) -> Option<Self> {
        let axes_min_rows = if graph { AXES_MIN_ROWS_OF_GRAPH } else { AXES_MIN_ROWS };
        Self::learn_with(metric, dim, blocks, graph, axes_min_rows)
    }

    /// [`Encoder::learn`] with axes from `axes_min_rows` rows, so that tests can have them early.
    pub(crate) fn learn_with(
        metric: Metric,
        dim: usize,
        blocks: &[Rows],
        graph: bool,
        axes_min_rows: usize,
    ) -> Option<Self> {
        let n: usize = blocks.iter().map(Rows::len).sum();
        if !metric.is_product() || n == 0 {
            return None;
        }
        let mut encoder = Self::plain(metric, vec![0.0; dim]);
        // Evenly spaced rows: deterministic, and fair to data sorted by cluster.
        let count = n.min(2 * SAMPLE);
        let numbers: Vec<usize> = (0..count).map(|i| i * n / count).collect();
        let mut sample = Vec::with_capacity(count * dim);
        let (mut block, mut start) = (0, 0);
        let mut row = vec![0.0; dim];
        for number in numbers {
            while number >= start + blocks[block].len() {
                start += blocks[block].len();
                block += 1;
            }
            blocks[block].read(number - start, &mut row);
            let factor = encoder.factor(&row).unwrap_or(0.0);
            sample.extend(row.iter().map(|x| x * factor));
        }
        float::dispatch(
            #[inline(always)]
            || {
                for row in sample.chunks_exact(dim) {
                    for (mean, x) in encoder.mean.iter_mut().zip(row) {
                        *mean += x / count as f64;
                    }
                }
            },
        );
        if !(float::max_abs(&encoder.mean) <= FARTHEST_MEAN) {
            return None;
        }
        encoder.mean_norm = float::dot(&encoder.mean, &encoder.mean).sqrt();
        let mut most = 0.0f64;
        for row in sample.chunks_exact_mut(dim) {
            row.iter_mut().zip(&encoder.mean).for_each(|(x, mean)| *x -= mean);
            most = most.max(float::max_abs(row));
        }
        if most > 0.0 {
            // Outside this range squares underflow, or rows beyond the sample might overflow.
            if !(1e-140..=1e130).contains(&most) {
                return None;
            }
            encoder.unit = 2f64.powi(-(most.log2().ceil() as i32));
        }
        encoder.set_slack(0.0);
        if n >= axes_min_rows && (AXES_MIN_DIM..=1024.max(n / 64)).contains(&dim) {
            encoder.learn_axes(&sample, n, dim, graph);
        }
        (encoder.width <= MAX_WIDTH).then_some(encoder)
    }

    fn plain(metric: Metric, mean: Vec<f64>) -> Self {
        Self {
            metric,
            mean_norm: float::dot(&mean, &mean).sqrt(),
            unit: 1.0,
            axes: None,
            coded_axes: Block::default(),
            width: mean.len(),
            mean,
            slack: 0.0,
            axes_slack: 0.0,
            float_slack: 0.0,
        }
    }

    /// Codes only what lies along these axes, if they are nearly orthonormal.
    fn take_axes(&mut self, axes: Vec<f32>, width: usize, defect: f64) -> Option<()> {
        if !(defect < 1e-3) {
            return None;
        }
        let steps = self.mean.len().div_ceil(STEP);
        let mut codes = vec![0; steps * STEP];
        let mut records = vec![0; width * record_bytes(steps)];
        let each = records.chunks_exact_mut(record_bytes(steps));
        for (axis, record) in axes.chunks_exact(self.mean.len()).zip(each) {
            let (factor, _) = quantize(axis, 1.0, LIMIT, &mut codes);
            int8::write_record(record, &codes, factor, 0.0);
        }
        self.coded_axes = Block::new(steps, records.chunks_exact(record_bytes(steps)));
        (self.axes, self.width) = (Some(axes), width);
        self.set_slack(defect);
        Some(())
    }

    fn set_slack(&mut self, defect: f64) {
        let dim = self.mean.len() as f64;
        // Higham's γ of a float32 sum, with room for γ's own denominator and for norms that are
        // a little above those of the vectors.
        let sum = 1.05 * (dim + 16.0) * 2f64.powi(-24);
        // ⟨q,z⟩ − ⟨yq,y⟩ − ⟨rq,r⟩ = ⟨Pq − yq, y⟩ + ⟨yq, Pz − y⟩ − ⟨yq, (PPᵀ − I)y⟩.
        self.axes_slack = match self.axes {
            Some(_) => 2.0 * sum * (self.width as f64).sqrt() + 1.05 * defect,
            None => 0.0,
        };
        self.slack = 2f64.powi(-18) + 2.0 * sum + self.axes_slack;
        self.float_slack = 2f64.powi(-18) + 2.0 * sum;
    }

    /// Takes principal axes if a probe says that the sweep gets cheaper by a quarter.
    fn learn_axes(&mut self, sample: &[f64], n: usize, dim: usize, graph: bool) {
        // Every second row teaches; the others, which the axes have not seen, are the probe.
        // For products queries are not centred, so that the axes must hold the mean as well.
        let mean: Vec<f64> =
            self.mean.iter().map(|x| if self.metric.is_euclidean() { 0.0 } else { *x }).collect();
        let (mut lessons, mut probe) = (Vec::new(), Vec::new());
        for pair in sample.chunks_exact(2 * dim) {
            let (lesson, other) = pair.split_at(dim);
            lessons.extend(lesson.iter().zip(&mean).map(|(x, m)| ((x + m) * self.unit) as f32));
            probe.extend(other.iter().map(|x| (x * self.unit) as f32));
        }
        let Some((axes, _)) = matmul::principal_axes(&lessons, dim) else { return };
        let width = self.probe(&probe, n, &axes, dim, graph);
        if width < dim {
            let axes = matmul::mix(&axes[..width * dim], dim);
            let defect = matmul::orthonormality_defect(&axes, dim);
            self.take_axes(axes, width, defect);
        }
    }

    /// The number of axes at which sweep and verdicts together cost least; `dim` for all. Those of a
    /// graph leave no more of the rows' energy out than [`LEFT_OUT`].
    fn probe(&self, rows: &[f32], all: usize, axes: &[f32], dim: usize, graph: bool) -> usize {
        let n = rows.len() / dim;
        if n < 2 * PROBES {
            return dim;
        }
        let mut coordinates = vec![0.0; n * dim];
        matmul::products(&mut coordinates, rows, axes, dim);
        // Queries are rows; for products they are not centred, so their mean comes back.
        let mut queries = coordinates[..PROBES * dim].to_vec();
        if !self.metric.is_euclidean() {
            let mean: Vec<f32> = self.mean.iter().map(|x| (x * self.unit) as f32).collect();
            let mut shift = vec![0.0; dim];
            matmul::products(&mut shift, &mean, axes, dim);
            for query in queries.chunks_exact_mut(dim) {
                query.iter_mut().zip(&shift).for_each(|(q, s)| *q += s);
            }
        }
        let groups = dim.div_ceil(AXES);
        let parts = |x: &[f32]| -> Vec<f32> {
            x.chunks(AXES).map(|part| float::square_norm(part) as f32).collect()
        };
        // tails[j]: the norm of what the axes before `AXES · j` leave out.
        let tails = |parts: &[f32]| -> Vec<f32> {
            let mut sum = 0.0;
            let mut tails: Vec<f32> = parts
                .iter()
                .rev()
                .map(|part| {
                    sum += part;
                    sum.sqrt()
                })
                .collect();
            tails.reverse();
            tails
        };
        let row_tails: Vec<Vec<f32>> =
            coordinates.chunks_exact(dim).map(|row| tails(&parts(row))).collect();
        let beyond = (all as f32 / (10 * n) as f32).ln().max(0.0);
        let mut survivors = vec![0u64; groups];
        let mut partial = vec![0.0; n * groups];
        for (q, query) in queries.chunks_exact(dim).enumerate() {
            let query_tails = tails(&parts(query));
            // partial[i][j]: the score over the first `AXES · (j + 1)` axes.
            for ((row, partial), tails) in
                coordinates.chunks_exact(dim).zip(partial.chunks_exact_mut(groups)).zip(&row_tails)
            {
                let mut sum =
                    if self.metric.is_euclidean() { -0.5 * tails[0] * tails[0] } else { 0.0 };
                float::partial_products(row, query, AXES, partial);
                partial.iter_mut().for_each(|partial| {
                    sum += *partial;
                    *partial = sum;
                });
            }
            // The nearest but itself of two thousand, and what an exponential tail of scores
            // would add up to the tenth of all rows.
            let others = || (0..n).filter(|&i| i != q);
            let mut scores: Vec<f32> = others().map(|i| partial[(i + 1) * groups - 1]).collect();
            let (better, eighth, _) = scores.select_nth_unstable_by(7, |a, b| b.total_cmp(a));
            let first = better.iter().copied().fold(*eighth, f32::max);
            let nearest = first + (first - *eighth) / 8f32.ln() * beyond;
            for i in others() {
                let margin = PROBE_MARGIN * query_tails[0] * row_tails[i][0];
                for j in 1..groups {
                    let rest = query_tails[j] * row_tails[i][j];
                    let best = partial[i * groups + j - 1] + rest + margin;
                    survivors[j] += u64::from(best >= nearest);
                }
            }
        }
        let pairs = (PROBES * (n - 1)) as f64;
        let cost = |j: usize| (AXES * j) as f64 + survivors[j] as f64 / pairs * VERDICT_COST;
        let Some(best) = (1..groups).min_by(|&a, &b| cost(a).total_cmp(&cost(b))) else {
            return dim;
        };
        let left_out = |j: usize| row_tails.iter().map(|tails| tails[j] * tails[j]).sum::<f32>();
        let coarse = |&j: &usize| graph && left_out(j) > LEFT_OUT * left_out(0);
        let least = (1..groups).take_while(coarse).count() + 1;
        let width = AXES * best.max(least);
        if cost(best) < 0.75 * dim as f64 && 4 * width <= 3 * dim { width } else { dim }
    }

    /// What a vector is multiplied by first; `None` for one that only a verdict can tell.
    pub(crate) fn factor(&self, x: &[f64]) -> Option<f64> {
        if self.metric != Metric::Cosine {
            return Some(1.0);
        }
        let square = float::dot(x, x);
        if square == 0.0 {
            return Some(0.0);
        }
        // Any number beyond those that rows may hold makes the square larger than this.
        (SMALLEST_SQUARE..=LARGEST * LARGEST).contains(&square).then(|| 1.0 / square.sqrt())
    }

    /// Bytes the encoder holds.
    pub(crate) fn nbytes(&self) -> usize {
        let axes = self.axes.as_ref().map_or(0, |axes| axes.len() * 4);
        self.mean.len() * 8 + axes + self.coded_axes.nbytes()
    }

    /// Dimensions that are coded.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Dimensions that are swept: those coded, and the rest.
    pub(crate) fn swept(&self) -> usize {
        self.width + if self.axes.is_some() { STEP } else { 0 }
    }

    /// What a graph lifts rows to, so that all are of one length: the largest squared norm of some rows
    /// where products are their metric. For cosines, if some rows are zero, the squared length of all
    /// others: a zero row is as far from each as if they were at right angles, and would lie half as far
    /// otherwise. Otherwise 0.
    pub(crate) fn lift<'a>(&self, codes: impl Iterator<Item = &'a Codes>) -> f32 {
        let mut biases = codes.flat_map(|codes| {
            (0..codes.len).map(|row| {
                let group = codes.group(row / GROUP);
                group.bias(row % GROUP, codes.steps)
            })
        });
        match self.metric {
            Metric::InnerProduct => -2.0 * biases.fold(0.0, f32::min),
            _ => match self.zero_bias() {
                Some(zero) if biases.any(|bias| bias.to_bits() == zero.to_bits()) => {
                    (self.unit * self.unit) as f32
                }
                _ => 0.0,
            },
        }
    }

    /// The bias of a row of zeros, by which it is known; of cosines alone.
    pub(crate) fn zero_bias(&self) -> Option<f32> {
        (self.metric == Metric::Cosine).then(|| {
            let zeros = Buffer::filled(self.mean.len(), 0.0);
            let mut out = Buffer::filled(self.mean.len(), 0.0);
            half_square(float::centre(&zeros, 0.0, &self.mean, self.unit, &mut out))
        })
    }

    /// Whether some row lies far outside what was learned from.
    pub(crate) fn is_far(&self, rows: &Rows) -> bool {
        let (mut wide, mut centred) = (Vec::new(), vec![0.0; self.mean.len()]);
        (0..rows.len()).any(|row| {
            self.centre_row(rows, row, &mut wide, &mut centred).is_none()
                || float::max_abs_f32(&centred) > FAR
        })
    }

    /// Whether the mean of these rows is apart from the one that was learned by half of what the rows are
    /// from each other: much of each code's precision then goes to what all have in common.
    pub(crate) fn is_stale(&self, rows: impl Iterator<Item = Vec<f64>>) -> bool {
        let (mut sum, mut squares, mut count) = (vec![0.0; self.mean.len()], 0.0, 0.0);
        let mut centred = vec![0.0; self.mean.len()];
        for row in rows {
            let Some(factor) = self.factor(&row) else { continue };
            squares += float::centre(&row, factor, &self.mean, self.unit, &mut centred);
            sum.iter_mut().zip(&centred).for_each(|(sum, &x)| *sum += f64::from(x));
            count += 1.0;
        }
        let apart = float::dot(&sum, &sum) / (count * count);
        count > 0.0 && !(apart <= 0.25 * (squares / count - apart).max(0.0) + 1e-12)
    }

    /// Whether scores have a bias: half the squared norm of the row.
    pub(crate) fn is_euclidean(&self) -> bool {
        self.metric.is_euclidean()
    }

    /// Whether the last step of a code holds the norm of what the axes leave out.
    pub(crate) fn has_rest(&self) -> bool {
        self.axes.is_some()
    }

    pub(crate) fn steps(&self) -> usize {
        self.swept().div_ceil(STEP)
    }

    /// A number not below the norm of a row, given that of its floats, in a margin with η.
    ///
    /// The share of the mean makes η cover the verdict's own rounding, which for products grows
    /// with the vectors as they are, not as they are centred: `η·2e-8 > (dim+16)·2⁻⁵²`.
    fn reach(&self, norm: f64) -> f64 {
        let offset = if self.metric.is_euclidean() { 0.0 } else { 2e-8 * self.mean_norm };
        norm * (1.0 + 1e-6) + offset * self.unit + TINY
    }

    /// Room for the records of so many rows, all zeros.
    pub(crate) fn no_records(&self, rows: usize) -> Vec<u8> {
        let bytes = record_bytes(self.steps());
        vec![0; rows * bytes + Self::spare(rows, bytes)]
    }

    /// Bytes of zeros that follow the records of so many rows, of `bytes` bytes each.
    pub(crate) fn spare(rows: usize, bytes: usize) -> usize {
        (rows.next_multiple_of(GROUP) - rows) * bytes
    }

    /// What was learned, as [`Encoder::from_bytes`] reads it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            [self.unit].iter().chain(&self.mean).flat_map(|x| x.to_le_bytes()).collect();
        bytes.extend(self.axes.iter().flatten().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    /// What [`Encoder::to_bytes`] wrote; none if no encoder wrote it. Any mean, unit and axes that
    /// are accepted make codes that are certified: what was learned decides how fine they are.
    pub(crate) fn from_bytes(metric: Metric, dim: usize, bytes: &[u8]) -> Option<Self> {
        let (doubles, axes) = bytes.split_at_checked(8 * (dim + 1))?;
        let mut doubles = doubles.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x));
        let unit = doubles.next()?;
        let mean: Vec<f64> = doubles.collect();
        let (axes, rest) = axes.as_chunks();
        let axes: Vec<f32> = axes.iter().map(|&x| f32::from_le_bytes(x)).collect();
        let width = if axes.is_empty() { dim } else { axes.len() / dim };
        // The units that `learn` makes: powers of two in the range of what it accepts.
        let units = 2f64.powi(-434)..=2f64.powi(466);
        let is_unit = units.contains(&unit) && unit.to_bits().trailing_zeros() >= 52;
        if !metric.is_product()
            || !is_unit
            || !rest.is_empty()
            || !axes.len().is_multiple_of(dim * STEP)
            || width > dim.min(MAX_WIDTH)
            || mean.iter().any(|x| !(x.abs() <= FARTHEST_MEAN))
        {
            return None;
        }
        let mut encoder = Self::plain(metric, mean);
        encoder.unit = unit;
        encoder.set_slack(0.0);
        if !axes.is_empty() {
            let defect = matmul::orthonormality_defect(&axes, dim);
            encoder.take_axes(axes, width, defect)?;
        }
        Some(encoder)
    }

    /// Codes of `rows[start..]`, after those that `codes` holds already.
    ///
    /// `None` if some row is beyond codes, so that the whole chunk must be judged.
    pub(crate) fn encode(
        &self,
        rows: &Rows,
        before: Option<&Codes>,
        scratch: &mut Scratch,
    ) -> Option<Codes> {
        let steps = self.steps();
        let mut records = self.no_records(rows.len());
        let mut ratios = before.map_or_else(Vec::new, |before| before.ratios.clone());
        let mut first = 0;
        if let Some(before) = before {
            first = before.len;
            let known = first * record_bytes(steps);
            records[..known].copy_from_slice(&before.records[..known]);
        }
        ratios.resize(rows.len().div_ceil(GROUP), Ratios::default());
        while first < rows.len() {
            let block = first..rows.len().min(first + BLOCK);
            first = block.end;
            self.encode_block(rows, block, &mut records, &mut ratios, scratch)?;
        }
        Some(Codes { len: rows.len(), records: records.into(), ratios, steps })
    }

    fn encode_block(
        &self,
        rows: &Rows,
        block: Range<usize>,
        records: &mut [u8],
        ratios: &mut [Ratios],
        scratch: &mut Scratch,
    ) -> Option<()> {
        let dim = self.mean.len();
        let (first, count) = (block.start, block.len());
        let mut squares = [0.0; BLOCK];
        scratch.centred.resize(count * dim, 0.0);
        for (i, square) in squares[..count].iter_mut().enumerate() {
            let out = &mut scratch.centred[i * dim..(i + 1) * dim];
            *square = self.centre_row(rows, first + i, &mut scratch.row, out)?;
        }
        let floats = match &self.axes {
            None => &scratch.centred,
            Some(axes) => {
                scratch.projected.resize(count * self.width, 0.0);
                matmul::products(&mut scratch.projected, &scratch.centred, axes, dim);
                &scratch.projected
            }
        };
        scratch.codes.clear();
        scratch.codes.resize(self.steps() * STEP, 0);
        let bytes = record_bytes(self.steps());
        let records = records[first * bytes..].chunks_exact_mut(bytes);
        for ((i, (floats, &square)), record) in
            floats.chunks_exact(self.width).zip(&squares).enumerate().zip(records)
        {
            let norm = self.reach(square.sqrt());
            let floats = self.with_rest(floats, square, &mut scratch.swept);
            let (factor, lost) = quantize_row(floats, norm, &mut scratch.codes);
            int8::write_record(record, &scratch.codes, factor, half_square(square));
            let ratio = |norm: f64| (norm / f64::from(factor) * (1.0 + 1e-6)) as f32;
            let most = &mut ratios[(first + i) / GROUP];
            most.rounding = most.rounding.max(ratio(lost));
            most.norm = most.norm.max(ratio(norm * (1.0 + self.axes_slack) + lost));
        }
        Some(())
    }

    /// The coordinates that are swept: those on the axes, and the norm of what they leave out.
    fn with_rest<'a>(&self, floats: &'a [f32], square: f64, swept: &'a mut Vec<f32>) -> &'a [f32] {
        if self.axes.is_none() {
            return floats;
        }
        swept.clear();
        swept.extend_from_slice(floats);
        // Rounded up, so that four halves multiply to no less than the square.
        let half = (self.rest(square, floats) * 0.5 * (1.0 + 1e-6)) as f32;
        swept.extend([half; STEP]);
        swept
    }

    /// The norm of what the axes leave out of a vector, from above.
    fn rest(&self, square: f64, projected: &[f32]) -> f64 {
        let inside = float::square_norm(projected);
        (square - inside + (self.axes_slack + 1e-6) * square).max(0.0).sqrt()
    }

    /// Row `row` centred into `out`; its squared norm, or `None` if it is beyond codes.
    fn centre_row(
        &self,
        rows: &Rows,
        row: usize,
        wide: &mut Vec<f64>,
        out: &mut [f32],
    ) -> Option<f64> {
        wide.resize(self.mean.len(), 0.0);
        rows.read(row, wide);
        let factor = self.factor(wide)?;
        let square = float::centre(wide, factor, &self.mean, self.unit, out);
        // Far outside the sample's range float32 would overflow; so would NaN poison a panel.
        (square <= 1e30).then_some(square)
    }

    /// `rows[start..start + count]` as floats, for the fallback.
    ///
    /// `None` if some row is beyond float32.
    pub(crate) fn floats(
        &self,
        rows: &Rows,
        start: usize,
        count: usize,
        wide: &mut Vec<f64>,
        out: &mut RowFloats,
    ) -> Option<()> {
        let dim = self.mean.len();
        out.floats.resize(count * dim, 0.0);
        out.norms.resize(count, 0.0);
        out.biases.resize(count, 0.0);
        for (i, floats) in out.floats.chunks_exact_mut(dim).enumerate() {
            let square = self.centre_row(rows, start + i, wide, floats)?;
            out.norms[i] = (self.reach(square.sqrt()) * (1.0 + 1e-6)) as f32;
            out.biases[i] = self.bias(square);
        }
        Some(())
    }

    /// `−‖z‖²/2` from above, where the metric has it.
    fn bias(&self, square: f64) -> f32 {
        if self.metric.is_euclidean() { half_square(square) } else { 0.0 }
    }

    /// A query as floats, for the fallback; `None` if it is beyond float32.
    pub(crate) fn query_floats(&self, query: &[f64]) -> Option<QueryFloats> {
        let dim = self.mean.len();
        let mut floats = Buffer::filled(dim, 0.0);
        let zeros;
        let square = float::dot(query, query);
        let (factor, mean, unit) = match self.metric {
            Metric::Euclidean | Metric::SqEuclidean => (1.0, &self.mean[..], self.unit),
            _ => {
                // Products only need the direction; a power of two of the length would do as
                // well, but the cosine's factor is at hand.
                if square != 0.0 && square < SMALLEST_SQUARE {
                    return None;
                }
                zeros = Buffer::filled(dim, 0.0);
                (if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() }, &zeros[..], 1.0)
            }
        };
        let norm_square = float::centre(query, factor, mean, unit, &mut floats);
        if !(norm_square <= 1e30) {
            return None;
        }
        let scores = match self.metric {
            Metric::Euclidean | Metric::SqEuclidean => {
                let exact: f64 =
                    query.iter().zip(&self.mean).map(|(q, m)| ((q - m) * self.unit).powi(2)).sum();
                Scores {
                    squared: self.metric == Metric::Euclidean,
                    base: 0.5 * exact,
                    gain: 0.5 * self.unit * self.unit,
                    slack: (dim as f64 + 16.0) * 4e-16,
                }
            }
            metric => {
                let constant = float::dot(query, &self.mean) * factor;
                let one = if metric == Metric::Cosine { 1.0 } else { 0.0 };
                Scores {
                    squared: false,
                    // With a zero query every row is at distance 1, or 0, and at score 0.
                    base: self.unit * (one - constant),
                    gain: self.unit * if one > 0.0 { 1.0 } else { factor },
                    slack: 1e-14,
                }
            }
        };
        Some(QueryFloats { floats, margin: self.float_slack * reach_of_query(norm_square), scores })
    }

    /// How the scores of two rows, both coded as rows, and their distance belong together: the score of
    /// `j` from `i` is `⟨zᵢ,zⱼ⟩ − ‖zⱼ‖²/2 = (‖zᵢ‖² − ‖zᵢ − zⱼ‖²)/2`.
    ///
    /// Not for inner products, whose distances no `z` has.
    pub(crate) fn pair_scores(&self, row: &[f64]) -> Scores {
        let factor = self.factor(row).unwrap_or(0.0);
        let square: f64 =
            row.iter().zip(&self.mean).map(|(x, m)| ((x * factor - m) * self.unit).powi(2)).sum();
        let (square, unit) = (0.5 * square, self.unit * self.unit);
        let slack = (row.len() as f64 + 16.0) * 4e-16;
        let squared = self.metric == Metric::Euclidean;
        if self.metric == Metric::Cosine {
            // Of unit vectors, `‖u − v‖² = 2 · distance`. A distance is rounded as 1 is.
            return Scores { squared, base: square - 4.0 * slack * unit, gain: unit, slack };
        }
        Scores { squared, base: square, gain: 0.5 * unit, slack }
    }

    /// What bounds the products of a row's codes with those of others, given the ratios of its group.
    pub(crate) fn pair_margin(&self, ratios: Ratios) -> PairMargin {
        let (rounding, norm) = (f64::from(ratios.rounding), f64::from(ratios.norm));
        PairMargin { rounding: rounding + self.slack * norm, norm }
    }

    /// Row `row` as a query of other rows, with the scores of [`Encoder::pair_scores`], and its bias;
    /// `None` if it is beyond codes.
    pub(crate) fn row_floats(
        &self,
        rows: &Rows,
        row: usize,
        wide: &mut Vec<f64>,
    ) -> Option<(QueryFloats, f32)> {
        let mut floats = Buffer::filled(self.mean.len(), 0.0);
        let square = self.centre_row(rows, row, wide, &mut floats)?;
        let margin = self.float_slack * reach_of_query(square);
        let scores = self.pair_scores(wide);
        Some((QueryFloats { floats, margin, scores }, half_square(square)))
    }

    /// The codes of queries for a sweep.
    pub(crate) fn query_codes(&self, queries: &[&QueryFloats], isa: Isa) -> One<QueryCode> {
        let limit = int8::sweep_limit(isa);
        let Some(axes) = &self.axes else {
            return queries.iter().map(|q| self.query_code(&q.floats, &q.floats, limit)).collect();
        };
        let mut floats = Buffer::new();
        queries.iter().for_each(|query| floats.extend_from_slice(&query.floats));
        let mut projected = Buffer::filled(queries.len() * self.width, 0.0);
        matmul::products(&mut projected, &floats, axes, self.mean.len());
        let projected = projected.chunks_exact(self.width);
        queries.iter().zip(projected).map(|(q, p)| self.query_code(&q.floats, p, limit)).collect()
    }

    /// The codes of a query for a walk, without margin: its products with the axes are 8-bit ones,
    /// for which a quarter of the memory is read. The order of rows is not worse for it.
    pub(crate) fn walk_code(&self, isa: Isa, query: &QueryFloats) -> QueryCode {
        if self.axes.is_none() {
            return self.query_code(&query.floats, &query.floats, LIMIT);
        }
        let steps = self.mean.len().div_ceil(STEP);
        let norm = reach_of_query(float::square_norm(&query.floats));
        let mut codes = Buffer::filled(steps * STEP, 0);
        let (scale, _) = quantize(&query.floats, norm, LIMIT, &mut codes);
        let mut bytes = Buffer::new();
        int8::query_bytes(isa, codes.iter().map(|&code| code as u8), &mut bytes);
        let projected = self.coded_axes.products(isa, &bytes, scale);
        self.query_code(&query.floats, &projected, LIMIT)
    }

    fn query_code(&self, query: &[f32], floats: &[f32], limit: i8) -> QueryCode {
        let square = float::square_norm(query);
        let norm = reach_of_query(square);
        let mut swept = Buffer::new();
        let floats = self.with_rest(floats, square, &mut swept);
        let mut codes = Buffer::filled(self.steps() * STEP, 0);
        let (scale, lost) = quantize(floats, norm, limit, &mut codes);
        let margin = |norm: f64| (norm / f64::from(scale) * (1.0 + 1e-6)) as f32;
        QueryCode {
            codes,
            scale,
            margin: Ratios {
                rounding: margin(norm * (1.0 + self.axes_slack)),
                norm: margin(lost + self.slack * norm),
            },
        }
    }
}

/// `−‖z‖²/2` from above.
fn half_square(square: f64) -> f32 {
    (-0.5 * square * (1.0 - 2e-6)) as f32
}

/// A number not below the norm of a query, given the squared norm of its floats.
fn reach_of_query(norm_square: f64) -> f64 {
    norm_square.sqrt() * (1.0 + 1e-6) + TINY
}

/// Codes of a row, which keep to [`MOST_OF_FOUR`]; their step, and the norm of what rounding lost, from
/// above.
fn quantize_row(floats: &[f32], norm: f64, codes: &mut [i8]) -> (f32, f64) {
    let (step, lost) = quantize(floats, norm, LIMIT, codes);
    let most = int8::most_of_four(codes);
    if most <= MOST_OF_FOUR {
        return (step, lost);
    }
    // Rounding took up to one half from each of the four, and may add as much to each now.
    let step = step * f32::from(most + 2) / f32::from(MOST_OF_FOUR - 2);
    quantize_by(floats, step, codes)
}

/// Codes of a vector; their step, and the norm of what rounding lost, from above.
fn quantize(floats: &[f32], norm: f64, limit: i8, codes: &mut [i8]) -> (f32, f64) {
    // The floor keeps every ratio below 2¹² where the axes miss a vector entirely.
    let step = (float::max_abs_f32(floats) / f32::from(limit)).max(norm as f32 / 4096.0);
    quantize_by(floats, step, codes)
}

/// The same by a given step.
fn quantize_by(floats: &[f32], step: f32, codes: &mut [i8]) -> (f32, f64) {
    let lost = float::quantize(floats, step, &mut codes[..floats.len()]);
    (step, lost.sqrt() * (1.0 + 1e-4))
}

impl Codes {
    pub(crate) fn nbytes(&self) -> usize {
        self.records.len() + size_of::<Ratios>() * self.ratios.capacity()
    }

    /// The records.
    pub(crate) fn records(&self) -> &Slice {
        &self.records
    }

    /// The same in the pieces of a region from a place on, if there is one and these are empty or hold
    /// nothing else.
    pub(crate) fn lie_in(self, place: Option<(&Arc<Region>, usize)>) -> Self {
        let place = place.filter(|(region, first)| region.fill(*first, &self.records));
        let moved = place.and_then(|(region, first)| Slice::new(region, first, self.records.len()));
        Self { records: moved.unwrap_or(self.records), ..self }
    }

    /// The record of a row, and all that follow it.
    pub(crate) fn record(&self, row: usize) -> &[u8] {
        &self.records[row * record_bytes(self.steps)..]
    }

    /// The ratios of a row's group.
    pub(crate) fn ratios(&self, row: usize) -> Ratios {
        self.ratios[row / GROUP]
    }

    /// Group `group` of the rows, the last filled up with zeros.
    pub(crate) fn group(&self, group: usize) -> Group<'_> {
        let bytes = GROUP * record_bytes(self.steps);
        Group {
            records: &self.records[group * bytes..],
            ratios: self.ratios[group],
            thresholds: None,
        }
    }
}
