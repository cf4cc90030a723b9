//! Float64 distances, defined so that every instruction set gives the same bits.
//!
//! A sum runs in 32 lanes: lane `j` adds elements `j, j+32, j+64, …` in order; then the upper half
//! of the lanes is added to the lower half until one is left. Products are rounded before they are
//! added (no fused multiply-add, which not every machine has). 32 lanes are four AVX-512 registers,
//! enough to hide the latency of an addition, so the compiler vectorises one plain loop for every
//! instruction set without changing a bit; pulp gives it the instruction set to do so with.

use std::hint::black_box;
use std::sync::OnceLock;

use pulp::Arch;

#[cfg(target_arch = "x86_64")]
use super::{Isa, isa};
use crate::metric::Metric;

const LANES: usize = 32;
/// Short vectors are as long as this once zeros are added to them, which change no distance.
pub(crate) const UNIT: usize = 8;

/// pulp's token for the instruction set in use.
fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        if isa() >= Isa::Avx2 {
            let wide = pulp::x86::V4::try_new().filter(|_| isa() == Isa::Avx512).map(Arch::V4);
            return wide.or_else(|| pulp::x86::V3::try_new().map(Arch::V3)).unwrap_or(Arch::Scalar);
        }
        Arch::Scalar
    })
}

/// `out[g] = ⟨x, y⟩` over dimensions `group · g..group · (g + 1)`, in float32.
pub(crate) fn partial_products(x: &[f32], y: &[f32], group: usize, out: &mut [f32]) {
    dispatch(
        #[inline(always)]
        || {
            for ((x, y), out) in x.chunks(group).zip(y.chunks(group)).zip(&mut *out) {
                let mut sum = [0.0; 8];
                for (x, y) in x.chunks(8).zip(y.chunks(8)) {
                    for (sum, (x, y)) in sum.iter_mut().zip(x.iter().zip(y)) {
                        *sum += x * y;
                    }
                }
                *out = sum.iter().sum();
            }
        },
    );
}

/// A plain loop, to be compiled for the instruction set in use.
///
/// pulp takes closures too, but through `FnOnce`, whose shim is not inlined: the loop would be
/// compiled for the baseline then, three times slower.
struct Loop<F>(F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Loop<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Runs a plain loop compiled for the instruction set in use.
///
/// The closure must be `#[inline(always)]`: only what is inlined here is compiled so.
#[inline(always)]
pub(crate) fn dispatch<R>(body: impl FnMut() -> R) -> R {
    match arch() {
        Arch::Scalar => plain(body),
        wide => wide.dispatch(Loop(body)),
    }
}

/// The way into an instruction set and back takes longer than it saves on so many numbers.
pub(crate) const FEW_NUMBERS: usize = 64;

/// Out of line: a caller that another instruction set is taken from need not make this ready.
#[inline(never)]
fn plain<R>(mut body: impl FnMut() -> R) -> R {
    body()
}

#[inline(always)]
fn lanes(q: &[f64], x: &[f64], term: impl Fn(f64, f64) -> f64) -> [f64; LANES] {
    assert_eq!(q.len(), x.len());
    let (qs, q_tail) = q.as_chunks::<LANES>();
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let mut sum = [0.0; LANES];
    for (q, x) in qs.iter().zip(xs) {
        for j in 0..LANES {
            sum[j] += term(q[j], x[j]);
        }
    }
    let mut sum = apart(sum);
    for (j, (&q, &x)) in q_tail.iter().zip(x_tail).enumerate() {
        sum[j] += term(q, x);
    }
    sum
}

/// The sums of a loop, which is compiled without a view to what becomes of them: LLVM (22) would rather
/// vectorise what [`fold`] adds, and take pairs of lanes from all over for it, half as fast.
#[inline(always)]
fn apart<T>(sums: T) -> T {
    black_box(sums)
}

#[inline(always)]
fn fold<const N: usize>(mut sum: [f64; N]) -> f64 {
    let mut half = N / 2;
    while half > 0 {
        let (low, high) = sum.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    sum[0]
}

/// The sum of the terms.
#[inline(always)]
fn total(q: &[f64], x: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    // The other lanes would be zeros, which change nothing.
    if let (Ok(q), Ok(x)) = (<&[f64; UNIT]>::try_from(q), <&[f64; UNIT]>::try_from(x)) {
        return fold(std::array::from_fn::<_, UNIT, _>(
            #[inline(always)]
            |j| 0.0 + term(q[j], x[j]),
        ));
    }
    fold(lanes(q, x, term))
}

/// `q·x`, as a term of [`lanes`].
#[inline(always)]
fn product(q: f64, x: f64) -> f64 {
    q * x
}

/// `(q − x)²`, as a term of [`lanes`].
#[inline(always)]
fn square(q: f64, x: f64) -> f64 {
    (q - x) * (q - x)
}

/// `⟨q, x⟩`.
pub(crate) fn dot(q: &[f64], x: &[f64]) -> f64 {
    dispatch(
        #[inline(always)]
        || total(q, x, product),
    )
}

/// The largest magnitude; NaN or infinite exactly if some number is.
pub(crate) fn max_abs(x: &[f64]) -> f64 {
    dispatch(
        #[inline(always)]
        || {
            // `x - x` is 0 for a finite number and NaN for any other, and a sum keeps a NaN, which a
            // maximum would lose.
            let poison = fold(lanes(
                x,
                x,
                #[inline(always)]
                #[allow(clippy::eq_op)] // 0, or NaN
                |x, _| x - x,
            ));
            let mut most = [0.0f64; LANES];
            let (chunks, tail) = x.as_chunks::<LANES>();
            for x in chunks {
                for j in 0..LANES {
                    most[j] = if x[j].abs() > most[j] { x[j].abs() } else { most[j] };
                }
            }
            tail.iter().fold(most.into_iter().fold(0.0, f64::max), |most, x| most.max(x.abs()))
                + poison
        },
    )
}

/// One query and the metric, resolved once for many rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    metric: Metric,
    query: &'a [f64],
    /// `⟨q, q⟩`, for the cosine.
    square: f64,
}

impl<'a> Judge<'a> {
    #[inline]
    pub(crate) fn new(metric: Metric, query: &'a [f64]) -> Self {
        let square = if metric == Metric::Cosine { dot(query, query) } else { 0.0 };
        Self { metric, query, square }
    }

    /// The distance of a row, as the public API gives it.
    pub(crate) fn distance(&self, row: &[f64]) -> f64 {
        dispatch(
            #[inline(always)]
            || self.distance_here(row),
        )
    }

    /// The distances of few rows that lie one after another, by `found(row, distance)`.
    #[inline(always)]
    pub(crate) fn distances(&self, rows: &[f64], mut found: impl FnMut(usize, f64)) {
        let dim = self.query.len();
        assert!(dim > 0);
        if rows.len() > FEW_NUMBERS {
            return self.distances_of_more(rows, found);
        }
        // What cuts into equal parts divides first, which takes as long as a short distance.
        let (mut row, mut rest) = (0, rows);
        while let Some((here, others)) = rest.split_at_checked(dim) {
            found(row, self.distance_of_few(here));
            (row, rest) = (row + 1, others);
        }
    }

    #[inline(never)] // what calls it would make all metrics ready
    fn distances_of_more(&self, rows: &[f64], mut found: impl FnMut(usize, f64)) {
        dispatch(
            #[inline(always)]
            || {
                let (mut row, mut rest) = (0, rows);
                while let Some((here, others)) = rest.split_at_checked(self.query.len()) {
                    found(row, self.distance_here(here));
                    (row, rest) = (row + 1, others);
                }
            },
        );
    }

    #[inline(never)] // in a loop, what any metric may need would be made ready before it
    fn distance_of_few(&self, row: &[f64]) -> f64 {
        if self.metric == Metric::Euclidean {
            return total(self.query, row, square).sqrt();
        }
        self.other_of_few(row)
    }

    /// [`Judge::distance_of_few`] apart from the metric that most use, for which it need not jump by a
    /// table.
    #[inline(never)]
    fn other_of_few(&self, row: &[f64]) -> f64 {
        self.distance_here(row)
    }

    /// The same inside of [`dispatch`].
    #[inline(always)]
    fn distance_here(&self, row: &[f64]) -> f64 {
        let q = self.query;
        match self.metric {
            Metric::SqEuclidean => total(q, row, square),
            Metric::Euclidean => total(q, row, square).sqrt(),
            Metric::Manhattan => total(
                q,
                row,
                #[inline(always)]
                |q, x| (q - x).abs(),
            ),
            // Adding +0.0 turns −0.0 into +0.0, so that orthogonal rows have one distance.
            Metric::InnerProduct => -total(q, row, product) + 0.0,
            Metric::Chebyshev => chebyshev(q, row),
            Metric::Cosine => {
                let [dot, square] = products(q, row);
                cosine(dot, self.square, square)
            }
        }
    }
}

/// `⟨q, x⟩` and `⟨x, x⟩`, each as [`lanes`] and [`fold`] define it.
///
/// Half of the lanes at a time: the sums of all would fill the sixteen registers of AVX2.
#[inline(always)]
fn products(q: &[f64], x: &[f64]) -> [f64; 2] {
    const HALF: usize = LANES / 2;
    let (qs, q_tail) = q.as_chunks::<LANES>();
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let mut sums = [[0.0; LANES]; 2];
    for half in 0..2 {
        let (mut dot, mut square) = ([0.0; HALF], [0.0; HALF]);
        for (q, x) in qs.iter().zip(xs) {
            let (q, x) = (&q.as_chunks::<HALF>().0[half], &x.as_chunks::<HALF>().0[half]);
            for j in 0..HALF {
                dot[j] += q[j] * x[j];
                square[j] += x[j] * x[j];
            }
        }
        sums[0].as_chunks_mut().0[half] = dot;
        sums[1].as_chunks_mut().0[half] = square;
    }
    let [mut dot, mut square] = apart(sums);
    for (j, (&q, &x)) in q_tail.iter().zip(x_tail).enumerate() {
        dot[j] += q * x;
        square[j] += x * x;
    }
    [fold(dot), fold(square)]
}

#[inline(always)]
fn chebyshev(q: &[f64], x: &[f64]) -> f64 {
    // Maxima are exact, so the order of lanes does not matter; NaN loses every comparison.
    let mut most = [0.0f64; LANES];
    let (qs, q_tail) = q.as_chunks::<LANES>();
    let (xs, x_tail) = x.as_chunks::<LANES>();
    for (q, x) in qs.iter().zip(xs) {
        for j in 0..LANES {
            let term = (q[j] - x[j]).abs();
            most[j] = if term > most[j] { term } else { most[j] };
        }
    }
    for (q, x) in q_tail.iter().zip(x_tail) {
        most[0] = most[0].max((q - x).abs());
    }
    most.into_iter().fold(0.0, f64::max)
}

/// `1 − dot / √(qq·xx)`: the root of one product, so that a row has distance 0 from itself
/// (`√(a²) = a` in IEEE arithmetic, but `√a·√a` may differ); two roots where it would leave the
/// range of float64.
#[inline(always)]
fn cosine(dot: f64, qq: f64, xx: f64) -> f64 {
    let product = qq * xx;
    let norms =
        if (1e-290..=1e290).contains(&product) { product.sqrt() } else { qq.sqrt() * xx.sqrt() };
    // A zero vector has no direction: distance 1 to everything, as in scikit-learn.
    if norms == 0.0 { 1.0 } else { (1.0 - dot / norms).max(0.0).min(2.0) }
}

/// `((x · factor) − mean) · unit` in float64, rounded to float32; returns the squared norm of
/// what was written.
pub(crate) fn centre(x: &[f64], factor: f64, mean: &[f64], unit: f64, out: &mut [f32]) -> f64 {
    assert!(x.len() == mean.len() && x.len() == out.len());
    dispatch(
        #[inline(always)]
        || {
            for ((out, &x), &mean) in out.iter_mut().zip(x).zip(mean) {
                *out = ((x * factor - mean) * unit) as f32;
            }
            square_norm_lanes(out)
        },
    )
}

#[inline(always)]
fn square_norm_lanes(x: &[f32]) -> f64 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut sum = [0.0; LANES];
    for x in chunks {
        let x = x.map(f64::from);
        for j in 0..LANES {
            sum[j] += x[j] * x[j];
        }
    }
    let mut sum = apart(sum);
    for (j, &x) in tail.iter().enumerate() {
        sum[j] += f64::from(x) * f64::from(x);
    }
    fold(sum)
}

/// `⟨x, x⟩` in float64.
pub(crate) fn square_norm(x: &[f32]) -> f64 {
    dispatch(
        #[inline(always)]
        || square_norm_lanes(x),
    )
}

/// Largest magnitude of float32 numbers; NaNs are passed over.
pub(crate) fn max_abs_f32(x: &[f32]) -> f32 {
    dispatch(
        #[inline(always)]
        || {
            let mut most = [0.0f32; 16];
            let (chunks, tail) = x.as_chunks::<16>();
            for x in chunks {
                for j in 0..16 {
                    most[j] = if x[j].abs() > most[j] { x[j].abs() } else { most[j] };
                }
            }
            tail.iter().fold(most.into_iter().fold(0.0, f32::max), |most, x| most.max(x.abs()))
        },
    )
}

/// Rounds `x / step` to whole numbers, which must lie in −128…127; returns the squared norm of
/// what the rounding lost, `Σ(x − step·code)²`, in units of `x`.
pub(crate) fn quantize(x: &[f32], step: f32, out: &mut [i8]) -> f64 {
    /// 1.5·2²³, where float32 counts in ones: adding it rounds to the nearest whole number, whose
    /// two's complement is then the lowest byte. Two additions on any instruction set.
    const ONES: f32 = 12_582_912.0;
    assert_eq!(x.len(), out.len());
    let inverse = 1.0 / step;
    dispatch(
        #[inline(always)]
        || {
            // In steps, between −½ and ½: squares of small numbers would underflow.
            let mut lost = [0.0f32; 16];
            let (xs, x_tail) = x.as_chunks::<16>();
            let (outs, out_tail) = out.as_chunks_mut::<16>();
            for (x, out) in xs.iter().zip(outs) {
                let scaled = x.map(|x| x * inverse);
                let rounded = scaled.map(|x| x + ONES);
                for j in 0..16 {
                    let rest = scaled[j] - (rounded[j] - ONES);
                    lost[j] += rest * rest;
                }
                *out = rounded.map(|x| x.to_bits() as i8);
            }
            let mut total: f64 = lost.into_iter().map(f64::from).sum();
            for (&x, out) in x_tail.iter().zip(out_tail) {
                let scaled = x * inverse;
                let rounded = scaled + ONES;
                let rest = scaled - (rounded - ONES);
                total += f64::from(rest * rest);
                *out = rounded.to_bits() as i8;
            }
            total * f64::from(step) * f64::from(step)
        },
    )
}

/// Which `products[i] + margin · norms[i] + biases[i]` reach the threshold, 32 to a mask; `false`
/// if none does.
pub(crate) fn passes(
    products: &[f32],
    margin: f32,
    norms: &[f32],
    biases: &[f32],
    threshold: f32,
    masks: &mut [u32],
) -> bool {
    assert!(products.len() == norms.len() && products.len() == biases.len());
    dispatch(
        #[inline(always)]
        || {
            masks.fill(0);
            let mut any = false;
            let parts = products.chunks(32).zip(norms.chunks(32)).zip(biases.chunks(32));
            for (mask, ((products, norms), biases)) in masks.iter_mut().zip(parts) {
                // First whether any does, which is one vector test; it is rare.
                let bound = |i: usize| products[i] + biases[i] + margin * norms[i];
                let (norms, biases) = (&norms[..products.len()], &biases[..products.len()]);
                let mut count = 0u32;
                for ((&product, &norm), &bias) in products.iter().zip(norms).zip(biases) {
                    count += u32::from(product + bias + margin * norm >= threshold);
                }
                if count != 0 {
                    any = true;
                    for i in 0..products.len() {
                        *mask |= u32::from(bound(i) >= threshold) << i;
                    }
                }
            }
            any
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, element by element.
    fn plain(term: impl Fn(usize) -> f64, dim: usize) -> f64 {
        let mut sum = [0.0; 32];
        for i in 0..dim {
            sum[i % 32] += term(i);
        }
        fold(sum)
    }

    #[test]
    fn every_length_gives_the_bits_of_the_definition() {
        for dim in 1..130 {
            let q: Vec<f64> = (0..dim).map(|i| ((i * 37 % 101) as f64 - 50.0) / 7.0).collect();
            let x: Vec<f64> = (0..dim).map(|i| ((i * 53 % 97) as f64 - 48.0) / 3.0).collect();
            let squares = plain(|i| (q[i] - x[i]) * (q[i] - x[i]), dim);
            let judge = |metric| Judge::new(metric, &q).distance(&x).to_bits();
            assert_eq!(judge(Metric::SqEuclidean), squares.to_bits());
            assert_eq!(judge(Metric::Euclidean), squares.sqrt().to_bits());
            let product = plain(|i| q[i] * x[i], dim);
            assert_eq!(judge(Metric::InnerProduct), (-product + 0.0).to_bits());
            let manhattan = plain(|i| (q[i] - x[i]).abs(), dim);
            assert_eq!(judge(Metric::Manhattan), manhattan.to_bits());
            let most = (0..dim).map(|i| (q[i] - x[i]).abs()).fold(0.0, f64::max);
            assert_eq!(judge(Metric::Chebyshev), most.to_bits());
        }
    }

    #[test]
    fn a_vector_is_at_cosine_distance_zero_from_itself_and_one_from_zero() {
        for scale in [1.0, 1e-160, 1e-90, 1e90, 1e149] {
            let x = [0.3 * scale, -1.7 * scale, 2.9 * scale];
            let judge = Judge::new(Metric::Cosine, &x);
            assert!(judge.distance(&x) < 1e-15, "{scale}");
            assert_eq!(judge.distance(&[0.0; 3]).to_bits(), 1.0f64.to_bits());
        }
    }

    #[test]
    fn what_is_not_finite_poisons_the_largest_magnitude() {
        for i in 0..20 {
            let mut x = [1.0; 20];
            assert_eq!(max_abs(&x).to_bits(), 1.0f64.to_bits());
            x[i] = f64::NAN;
            assert!(max_abs(&x).is_nan());
            x[i] = f64::NEG_INFINITY;
            assert!(!max_abs(&x).is_finite());
        }
    }

    #[test]
    fn codes_are_nearest_and_the_loss_is_what_they_miss() {
        let x: Vec<f32> = (0..77).map(|i| ((i * 29 % 83) as f32 - 41.0) / 41.3).collect();
        let step = max_abs_f32(&x) / 127.0;
        let mut codes = vec![0i8; 77];
        let lost = quantize(&x, step, &mut codes);
        let mut expected = 0.0;
        for (x, code) in x.iter().zip(codes) {
            let rest = f64::from(*x) - f64::from(step) * f64::from(code);
            assert!(rest.abs() <= f64::from(step) * 0.500_01);
            expected += rest * rest;
        }
        assert!((lost - expected).abs() <= 1e-5 * expected, "{lost} {expected}");
    }
}
