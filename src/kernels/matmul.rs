//! Float matrix products and principal axes; the only file that names faer.
//!
//! Always one thread: threads belong to the caller.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par, Side};

/// `out[i][j] = ⟨lhs[i], rhs[j]⟩` for row-major blocks of `dim` columns.
///
/// Any order of summation, with or without fused multiply-add: the error of an element is at
/// most `γ ⟨|lhs[i]|, |rhs[j]|⟩`, `γ = dim·u / (1 − dim·u)`, `u = 2⁻²⁴`
/// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
pub(crate) fn products(out: &mut [f32], lhs: &[f32], rhs: &[f32], dim: usize) {
    let (rows, columns) = (lhs.len() / dim, rhs.len() / dim);
    let out = MatMut::from_row_major_slice_mut(out, rows, columns);
    let lhs = MatRef::from_row_major_slice(lhs, rows, dim);
    let rhs = MatRef::from_row_major_slice(rhs, columns, dim);
    matmul(out, Accum::Replace, lhs, rhs.transpose(), 1.0, Par::Seq);
}

/// The principal axes of centred rows, most energy first, and the energy of each.
///
/// `axes` is row-major, `dim × dim`, one axis a row; orthonormal to working precision, which
/// [`orthonormality_defect`] measures. `None` if the decomposition did not converge.
pub(crate) fn principal_axes(rows: &[f32], dim: usize) -> Option<(Vec<f32>, Vec<f32>)> {
    let n = rows.len() / dim;
    let rows = MatRef::from_row_major_slice(rows, n, dim);
    let mut covariance = faer::Mat::<f32>::zeros(dim, dim);
    matmul(
        covariance.as_mut(),
        Accum::Replace,
        rows.transpose(),
        rows,
        1.0 / n.max(1) as f32,
        Par::Seq,
    );
    faer::set_global_parallelism(Par::Seq);
    let eigen = covariance.self_adjoint_eigen(Side::Lower).ok()?;
    // Eigenvalues come in ascending order.
    let energy = (0..dim).rev().map(|i| eigen.S()[i]).collect();
    let axes =
        (0..dim).rev().flat_map(|i| (0..dim).map(move |j| (i, j))).map(|(i, j)| eigen.U()[(j, i)]);
    Some((axes.collect(), energy))
}

/// Other axes of the same space, each an even mixture of all.
///
/// On principal axes most energy lies on the first few, so that a step fit for them is coarse for
/// all others; on mixed ones coordinates are about equally large. The mixture is the orthonormal
/// cosine transform DCT-IV.
pub(crate) fn mix(axes: &[f32], dim: usize) -> Vec<f32> {
    let rows = axes.len() / dim;
    let angle = std::f64::consts::PI / rows as f64;
    let transform = faer::Mat::<f64>::from_fn(rows, rows, |i, j| {
        (angle * (i as f64 + 0.5) * (j as f64 + 0.5)).cos() * (2.0 / rows as f64).sqrt()
    });
    let axes: Vec<f64> = axes.iter().copied().map(f64::from).collect();
    let mut mixed = vec![0.0; axes.len()];
    matmul(
        MatMut::from_row_major_slice_mut(&mut mixed, rows, dim),
        Accum::Replace,
        transform.as_ref(),
        MatRef::from_row_major_slice(&axes, rows, dim),
        1.0,
        Par::Seq,
    );
    mixed.into_iter().map(|x| x as f32).collect()
}

/// `‖P·Pᵀ − I‖` (Frobenius) of the rows of `axes`, computed in float64.
pub(crate) fn orthonormality_defect(axes: &[f32], dim: usize) -> f64 {
    let rows = axes.len() / dim;
    let axes: Vec<f64> = axes.iter().copied().map(f64::from).collect();
    let axes = MatRef::from_row_major_slice(&axes, rows, dim);
    let mut gram = faer::Mat::<f64>::identity(rows, rows);
    matmul(gram.as_mut(), Accum::Add, axes, axes.transpose(), -1.0, Par::Seq);
    gram.norm_l2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_every_shape_equal_plain_loops() {
        for (rows, columns, dim) in [(1, 1, 1), (3, 5, 7), (17, 33, 64), (256, 12, 130)] {
            let lhs: Vec<f32> = (0..rows * dim).map(|i| (i % 13) as f32 - 6.0).collect();
            let rhs: Vec<f32> = (0..columns * dim).map(|i| (i % 11) as f32 - 5.0).collect();
            let mut out = vec![f32::NAN; rows * columns];
            products(&mut out, &lhs, &rhs, dim);
            for i in 0..rows {
                for j in 0..columns {
                    let expected: f32 = (0..dim).map(|d| lhs[i * dim + d] * rhs[j * dim + d]).sum();
                    assert!((out[i * columns + j] - expected).abs() < 1e-3);
                }
            }
        }
    }

    #[test]
    fn axes_are_orthonormal_and_sorted_by_energy() {
        let dim = 12;
        let rows: Vec<f32> = (0..200 * dim)
            .map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) / (1 + i % dim) as f32)
            .collect();
        let (axes, energy) = principal_axes(&rows, dim).unwrap();
        assert!(orthonormality_defect(&axes, dim) < 1e-5);
        assert!(orthonormality_defect(&mix(&axes[..7 * dim], dim), dim) < 1e-5);
        assert!(energy.is_sorted_by(|a, b| a >= b));
        assert!((axes[0].abs() - 1.0).abs() < 0.1, "the first coordinate has the most energy");
    }
}
