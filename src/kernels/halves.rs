//! Numbers of half precision in float64, by the hardware: a third of what shifts and masks take.
//!
//! No rounding is done either way, so the bits are those of the plain loop in `rows.rs`, which stands in
//! where this hardware is not.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    _mm_loadu_si128, _mm256_castps256_ps128, _mm256_cvtph_ps, _mm256_cvtps_pd,
    _mm256_extractf128_ps, _mm256_storeu_pd,
};

/// Numbers converted at once.
#[cfg(target_arch = "x86_64")]
const WIDTH: usize = 8;

/// Whether [`widen`] may be called.
#[inline]
pub(crate) fn are_quick() -> bool {
    cfg!(target_arch = "x86_64") && super::isa() >= super::Isa::Avx2
}

/// Widens as many numbers as `out` has room for.
///
/// # Safety
///
/// They [`are_quick`], and can be read from `halves` on, aligned or not.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
pub(crate) unsafe fn widen(halves: *const u16, out: &mut [f64]) {
    let (parts, tail) = out.as_chunks_mut();
    for (i, part) in parts.iter_mut().enumerate() {
        // SAFETY: by the contract these numbers can be read.
        unsafe { widen_part(halves.add(WIDTH * i), part) };
    }
    if !tail.is_empty() {
        let (mut last, mut wide) = ([0; WIDTH], [0.0; WIDTH]);
        // SAFETY: the contract again; they are fewer than `last` has room for.
        unsafe {
            let rest = halves.add(WIDTH * parts.len());
            std::ptr::copy_nonoverlapping(
                rest.cast::<u8>(),
                last.as_mut_ptr().cast(),
                2 * tail.len(),
            );
            widen_part(last.as_ptr(), &mut wide);
        }
        tail.copy_from_slice(&wide[..tail.len()]);
    }
}

/// # Safety
///
/// Eight numbers can be read.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
#[inline]
unsafe fn widen_part(halves: *const u16, out: &mut [f64; WIDTH]) {
    // SAFETY: by the contract, and `out` has room for two times four.
    unsafe {
        let floats = _mm256_cvtph_ps(_mm_loadu_si128(halves.cast()));
        let low = _mm256_cvtps_pd(_mm256_castps256_ps128(floats));
        let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(floats));
        _mm256_storeu_pd(out.as_mut_ptr(), low);
        _mm256_storeu_pd(out.as_mut_ptr().add(WIDTH / 2), high);
    }
}

/// # Safety
///
/// As it would be elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn widen(_halves: *const u16, _out: &mut [f64]) {
    unreachable!("they are not quick here");
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_every_length_is_widened() {
        if !are_quick() {
            return;
        }
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let same = |halves: &[u16], wide: &[f64]| {
            halves.iter().zip(wide).all(|(&bits, &wide)| {
                let expected = half::f16::from_bits(bits).to_f64();
                expected.to_bits() == wide.to_bits() || expected.is_nan() && wide.is_nan()
            })
        };
        let mut wide = vec![0.0; halves.len()];
        // SAFETY: they are quick, and as many as there is room for.
        unsafe { widen(halves.as_ptr(), &mut wide) };
        assert!(same(&halves, &wide));
        for len in 0..40 {
            let mut bytes = vec![0; 2 * len + 1];
            for (i, half) in halves[15_350..15_350 + len].iter().enumerate() {
                bytes[2 * i + 1..2 * i + 3].copy_from_slice(&half.to_ne_bytes());
            }
            let mut wide = vec![f64::NAN; len];
            // SAFETY: as above, from an odd address.
            unsafe { widen(bytes.as_ptr().add(1).cast(), &mut wide) };
            assert!(same(&halves[15_350..], &wide), "{len}");
        }
    }
}
