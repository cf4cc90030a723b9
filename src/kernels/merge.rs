//! Numbers put into an ascending list, some at once.
//!
//! A walk does it every round, with eight or ten new rows and the dozens that it has. One after another,
//! each waits for the move of the one before; sorted first by comparisons that no processor foresees,
//! half of the time is waiting. With AVX-512 nothing branches: eight numbers are sorted in a vector by a
//! network, and a vector of the list is merged with them, of which the lower half stays and the upper
//! goes on to the next (Batcher, "Sorting networks and their applications", 1968).

use super::Isa;

/// Numbers that are put in together, at most.
pub(crate) const MOST: usize = 64;
/// Up to so many are put in sooner without vectors: 21 ns for three among 37, 44 by vectors.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 4;

/// Puts `items`, in any order, into an ascending list; what `items` holds then means nothing.
///
/// Returns where the first of them is, or the end of the list if there are none.
///
/// # Panics
///
/// If there are more than [`MOST`].
#[inline(always)]
pub(crate) fn merge(isa: Isa, list: &mut Vec<u64>, items: &mut [u64]) -> usize {
    assert!(items.len() <= MOST);
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: what `isa` names is available.
        Isa::Avx512 if items.len() > FEW => unsafe { x86::merge_avx512(list, items) },
        _ => merge_plain(list, items),
    }
}

fn merge_plain(list: &mut Vec<u64>, items: &mut [u64]) -> usize {
    items.sort_unstable();
    // All are looked for before any is moved: a processor does that for several at once.
    let mut places = [0; MOST];
    let places = &mut places[..items.len()];
    for (place, &item) in places.iter_mut().zip(&*items) {
        *place = list.partition_point(|&other| other < item);
    }
    let mut end = list.len();
    list.extend_from_slice(items);
    for (i, (&item, &place)) in items.iter().zip(&*places).enumerate().rev() {
        list.copy_within(place..end, place + i + 1);
        list[place + i] = item;
        end = place;
    }
    places.first().copied().unwrap_or(end)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512i, _mm_cvtsi128_si64, _mm512_castsi512_si128, _mm512_mask_blend_epi64,
        _mm512_mask_loadu_epi64, _mm512_max_epu64, _mm512_min_epu64, _mm512_permutex_epi64,
        _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_shuffle_epi32,
        _mm512_shuffle_i64x2, _mm512_storeu_epi64,
    };

    use super::MOST;

    const LANES: usize = 8;

    /// Compares each number with another of the same vector. The lanes of the mask get the greater, or
    /// the smaller where the order is to be a descending one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn exchange<const UPPER: u8, const DOWN: bool>(a: __m512i, b: __m512i) -> __m512i {
        let (least, greatest) = (_mm512_min_epu64(a, b), _mm512_max_epu64(a, b));
        let (lower, upper) = if DOWN { (greatest, least) } else { (least, greatest) };
        _mm512_mask_blend_epi64(UPPER, lower, upper)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn reverse(a: __m512i) -> __m512i {
        _mm512_permutexvar_epi64(_mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), a)
    }

    /// Sorts what ascends and then descends.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sort_bitonic<const DOWN: bool>(a: __m512i) -> __m512i {
        let a = exchange::<0b1111_0000, DOWN>(a, _mm512_shuffle_i64x2::<0b01_00_11_10>(a, a));
        let a = exchange::<0b1100_1100, DOWN>(a, _mm512_permutex_epi64::<0b01_00_11_10>(a));
        exchange::<0b1010_1010, DOWN>(a, _mm512_shuffle_epi32::<0b01_00_11_10>(a))
    }

    /// Sorts each half, one up and one down.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sort_halves(a: __m512i) -> __m512i {
        let a = exchange::<0b0110_0110, false>(a, _mm512_shuffle_epi32::<0b01_00_11_10>(a));
        let a = exchange::<0b0011_1100, false>(a, _mm512_permutex_epi64::<0b01_00_11_10>(a));
        exchange::<0b0101_1010, false>(a, _mm512_shuffle_epi32::<0b01_00_11_10>(a))
    }

    /// The first numbers from a place on; where there are no more, what comes last.
    ///
    /// # Safety
    ///
    /// So many, one to [`LANES`], are readable at `from`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u64, count: usize) -> __m512i {
        let there = u8::MAX >> (LANES - count);
        // SAFETY: the contract; no more is read than the mask says.
        unsafe { _mm512_mask_loadu_epi64(_mm512_set1_epi64(-1), there, from.cast()) }
    }

    /// [`super::merge`] by vectors.
    #[target_feature(enable = "avx512f")]
    pub(super) fn merge_avx512(list: &mut Vec<u64>, items: &[u64]) -> usize {
        // All are sorted and looked for before any is put in, which others wait for. Those that are put
        // in before move a place on, never back.
        let mut sorted = [(_mm512_set1_epi64(-1), 0); MOST / LANES];
        for ((some, place), items) in sorted.iter_mut().zip(items.chunks(LANES)) {
            // SAFETY: so many are there.
            let halves = sort_halves(unsafe { load(items.as_ptr(), items.len()) });
            // The greatest first: so it is two halves of a bitonic order with what ascends.
            *some = sort_bitonic::<true>(halves);
            let least = _mm_cvtsi128_si64(_mm512_castsi512_si128(reverse(*some))) as u64;
            *place = list.partition_point(|&other| other < least);
        }
        let mut first = list.len();
        // What is written ends before the next vector but one.
        list.reserve(items.len() + 2 * LANES);
        for (&(mut some, place), items) in sorted.iter().zip(items.chunks(LANES)) {
            first = first.min(place);
            let (len, numbers) = (list.len(), list.as_mut_ptr());
            let mut at = place / LANES * LANES;
            while at < len {
                // SAFETY: from `at` on so many are in the list, and there is room for a whole vector.
                unsafe {
                    let others = load(numbers.add(at), (len - at).min(LANES));
                    let low = sort_bitonic::<false>(_mm512_min_epu64(others, some));
                    some = sort_bitonic::<true>(_mm512_max_epu64(others, some));
                    _mm512_storeu_epi64(numbers.add(at).cast(), low);
                }
                at += LANES;
            }
            // SAFETY: `at` is less than a vector behind the end, and there is room for another. With it
            // all are written, what comes last behind the others.
            unsafe {
                _mm512_storeu_epi64(numbers.add(at).cast(), reverse(some));
                list.set_len(len + items.len());
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_list_holds_what_it_held_and_what_came_in_order() {
        let mut random = Random(3);
        for isa in Isa::available() {
            for turn in 0..2_000_u64 {
                let most = [3, 40, u64::MAX][turn as usize % 3];
                let mut number = || match random.next() % 20 {
                    0 => u64::MAX,
                    _ => random.next() % most,
                };
                let mut list: Vec<u64> = (0..turn % 150).map(|_| number()).collect();
                let mut items: Vec<u64> = (0..turn % (MOST as u64 + 1)).map(|_| number()).collect();
                list.sort_unstable();
                let least = items.iter().copied().min();
                let place = least.map_or(list.len(), |least| list.partition_point(|&n| n < least));
                let mut wanted = [&list[..], &items].concat();
                wanted.sort_unstable();
                assert_eq!(merge(isa, &mut list, &mut items), place, "{isa:?}, turn {turn}");
                assert_eq!(list, wanted, "{isa:?}, turn {turn}");
            }
        }
    }
}
