//! The 8-bit matrix product of the sweep, with its threshold test fused in.
//!
//! Rows come in panels of 32, interleaved four dimensions at a time: step `s` of a panel is 128
//! bytes, the bytes `4s..4s+4` of row 0, then of row 1, and so on. One 32-bit word of a query
//! then meets 16 rows in one AVX-512 instruction. Row bytes are codes plus 128 (unsigned), query
//! bytes are signed, as `vpdpbusd` and `vpmaddubsw` want them. The 32-bit sums never leave the
//! registers unless a row passes its query's threshold.
//!
//! 12 queries × 32 rows fill 24 of 32 AVX-512 registers and load 14 words for 24 products. AVX2
//! has 16 registers and no 8-bit dot product: `vpmaddubsw` adds two products in 16 bits, which
//! holds for 255 · 63 · 2, so there queries keep 7 bits.

/// Rows of a panel.
pub(crate) const PANEL: usize = 32;
/// Dimensions of one step.
pub(crate) const STEP: usize = 4;
/// Bytes of one step of a panel.
const STEP_BYTES: usize = PANEL * STEP;
/// Queries of a tile, at most.
pub(crate) const TILE: usize = 12;

/// One step of a panel, on a cache line of its own: an AVX-512 load that crosses two costs twice.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Step(pub(crate) [u8; STEP_BYTES]);

use std::time::Instant;

use super::Isa;

/// The largest code of a query; see the header for AVX2's.
pub(crate) fn query_limit(isa: Isa) -> i8 {
    if isa == Isa::Avx2 { 63 } else { 127 }
}

/// Up to [`TILE`] queries, as a kernel reads them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tile {
    /// Number of queries.
    pub(crate) len: usize,
    /// `words[s * len + q]`: the four codes of query `q` at step `s`.
    pub(crate) words: Vec<i32>,
    /// What turns a sum into score units. Not looked at where there are no biases: there the
    /// thresholds are divided by it instead, which saves a multiplication for each sum.
    pub(crate) scale: [f32; TILE],
    /// 128 · the sum of the query's codes: what the rows' offset of 128 adds to a sum.
    pub(crate) offset: [i32; TILE],
    /// Added to the sum of the query before it starts: the margin of the panel at hand.
    pub(crate) margin: [i32; TILE],
    /// A row passes if `scale · factor · sum + bias` (`factor · sum` without biases) reaches it.
    pub(crate) threshold: [f32; TILE],
}

/// What a kernel needs to know of a panel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub(crate) codes: &'a [Step],
    /// A factor for each row.
    pub(crate) factors: &'a [f32; PANEL],
    /// A bias for each row, or none.
    pub(crate) biases: Option<&'a [f32; PANEL]>,
}

/// What a kernel leaves: for each query, which rows passed, and if any did, all sums.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) masks: [u32; TILE],
    pub(crate) sums: [[i32; PANEL]; TILE],
}

impl Passed {
    pub(crate) fn new() -> Self {
        Self { masks: [0; TILE], sums: [[0; PANEL]; TILE] }
    }
}

/// Multiplies a panel by a tile: `sum = margin + Σ code · query code`, and tests every sum.
///
/// Returns a bit for each query that some row passed; `passed` is written for those.
///
/// # Panics
///
/// If the panel and the tile are of different lengths.
#[inline]
pub(crate) fn sweep(isa: Isa, panel: Panel<'_>, tile: &Tile, passed: &mut Passed) -> u32 {
    assert!((1..=TILE).contains(&tile.len));
    assert_eq!(panel.codes.len() * tile.len, tile.words.len());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::current` offers an instruction set only where the processor has it; the
        // lengths that the kernels rely on were asserted above.
        Isa::Avx512 => unsafe { x86::sweep_avx512(panel, tile, passed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::sweep_avxvnni(panel, tile, passed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::sweep_avx2(panel, tile, passed) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { arm::sweep_neon(panel, tile, passed) },
        _ => sweep_portable(panel, tile, passed),
    }
}

/// Plain loops: the reference the other kernels are tested against, and the fallback.
fn sweep_portable(panel: Panel<'_>, tile: &Tile, passed: &mut Passed) -> u32 {
    let mut hits = 0;
    for q in 0..tile.len {
        let mut sums = [tile.margin[q].wrapping_sub(tile.offset[q]); PANEL];
        for (s, step) in panel.codes.iter().enumerate() {
            let word = tile.words[s * tile.len + q].to_le_bytes().map(|b| i32::from(b as i8));
            for (sum, row) in sums.iter_mut().zip(step.0.as_chunks::<STEP>().0) {
                for (&code, word) in row.iter().zip(word) {
                    *sum += i32::from(code) * word;
                }
            }
        }
        test(panel, tile, q, &sums, passed, &mut hits);
    }
    hits
}

/// Tests the sums of query `q` in plain code.
#[inline(always)]
fn test(
    panel: Panel<'_>,
    tile: &Tile,
    q: usize,
    sums: &[i32; PANEL],
    passed: &mut Passed,
    hits: &mut u32,
) {
    let (scale, threshold) = (tile.scale[q], tile.threshold[q]);
    let mut mask = 0;
    for r in 0..PANEL {
        let value = match panel.biases {
            Some(biases) => sums[r] as f32 * (panel.factors[r] * scale) + biases[r],
            None => sums[r] as f32 * panel.factors[r],
        };
        mask |= u32::from(value >= threshold) << r;
    }
    if mask != 0 {
        passed.masks[q] = mask;
        passed.sums[q] = *sums;
        *hits |= 1 << q;
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)] // intrinsics
mod x86 {
    use std::arch::x86_64::*;

    use super::{PANEL, Panel, Passed, STEP_BYTES, Tile, test};

    /// # Safety
    ///
    /// The processor has the features named; `tile.words` holds `tile.len` words for each step
    /// of `panel.codes`, and `tile.len` is 1 to 12.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn sweep_avx512(panel: Panel<'_>, tile: &Tile, passed: &mut Passed) -> u32 {
        // SAFETY: `LEN` is `tile.len`; the rest is this function's own contract.
        unsafe {
            match tile.len {
                1 => tile_avx512::<1>(panel, tile, passed),
                2 => tile_avx512::<2>(panel, tile, passed),
                3 => tile_avx512::<3>(panel, tile, passed),
                4 => tile_avx512::<4>(panel, tile, passed),
                5 => tile_avx512::<5>(panel, tile, passed),
                6 => tile_avx512::<6>(panel, tile, passed),
                7 => tile_avx512::<7>(panel, tile, passed),
                8 => tile_avx512::<8>(panel, tile, passed),
                9 => tile_avx512::<9>(panel, tile, passed),
                10 => tile_avx512::<10>(panel, tile, passed),
                11 => tile_avx512::<11>(panel, tile, passed),
                _ => tile_avx512::<12>(panel, tile, passed),
            }
        }
    }

    /// # Safety
    ///
    /// As [`sweep_avx512`], and `tile.len` is `LEN`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn tile_avx512<const LEN: usize>(
        panel: Panel<'_>,
        tile: &Tile,
        passed: &mut Passed,
    ) -> u32 {
        let steps = panel.codes.len();
        let mut sums = [[_mm512_setzero_si512(); 2]; LEN];
        for q in 0..LEN {
            sums[q] = [_mm512_set1_epi32(tile.margin[q].wrapping_sub(tile.offset[q])); 2];
        }
        let (mut codes, mut words) = (panel.codes.as_ptr().cast::<u8>(), tile.words.as_ptr());
        for _ in 0..steps {
            // SAFETY: step `s` has 128 bytes of codes and `LEN` words, by the contract.
            unsafe {
                let low = _mm512_loadu_si512(codes.cast());
                let high = _mm512_loadu_si512(codes.add(64).cast());
                for (q, sums) in sums.iter_mut().enumerate() {
                    let word = _mm512_set1_epi32(*words.add(q));
                    sums[0] = _mm512_dpbusd_epi32(sums[0], low, word);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], high, word);
                }
                codes = codes.add(STEP_BYTES);
                words = words.add(LEN);
            }
        }
        // SAFETY: factors and biases are 32 floats.
        let factors = unsafe {
            let factors = panel.factors.as_ptr();
            [_mm512_loadu_ps(factors), _mm512_loadu_ps(factors.add(16))]
        };
        let mut hits = 0;
        for q in 0..LEN {
            let threshold = _mm512_set1_ps(tile.threshold[q]);
            let mut values = [_mm512_cvtepi32_ps(sums[q][0]), _mm512_cvtepi32_ps(sums[q][1])];
            if let Some(biases) = panel.biases {
                let scale = _mm512_set1_ps(tile.scale[q]);
                for half in 0..2 {
                    // SAFETY: as for the factors.
                    let bias = unsafe { _mm512_loadu_ps(biases.as_ptr().add(16 * half)) };
                    let factor = _mm512_mul_ps(factors[half], scale);
                    values[half] = _mm512_fmadd_ps(values[half], factor, bias);
                }
            } else {
                values =
                    [_mm512_mul_ps(values[0], factors[0]), _mm512_mul_ps(values[1], factors[1])];
            }
            let low = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values[0], threshold);
            let high = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values[1], threshold);
            if (low | high) != 0 {
                passed.masks[q] = u32::from(low) | u32::from(high) << 16;
                let out = passed.sums[q].as_mut_ptr();
                // SAFETY: `out` is 32 words.
                unsafe {
                    _mm512_storeu_si512(out.cast(), sums[q][0]);
                    _mm512_storeu_si512(out.add(16).cast(), sums[q][1]);
                }
                hits |= 1 << q;
            }
        }
        hits
    }

    /// The 256-bit kernel: 16 rows × 4 queries at a time, two halves of a panel.
    ///
    /// `$dot` adds the four products of each 32-bit lane to a sum.
    macro_rules! sweep_256 {
        ($name:ident, $tile:ident, $features:literal, $dot:expr) => {
            /// # Safety
            ///
            /// As `sweep_avx512`, for the features of this one.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(panel: Panel<'_>, tile: &Tile, passed: &mut Passed) -> u32 {
                let mut hits = 0;
                let mut first = 0;
                while first < tile.len {
                    // SAFETY: queries `first..first + LEN` are in the tile.
                    unsafe {
                        match tile.len - first {
                            1 => $tile::<1>(panel, tile, passed, first, &mut hits),
                            2 => $tile::<2>(panel, tile, passed, first, &mut hits),
                            3 => $tile::<3>(panel, tile, passed, first, &mut hits),
                            _ => $tile::<4>(panel, tile, passed, first, &mut hits),
                        }
                    }
                    first += 4;
                }
                hits
            }

            /// # Safety
            ///
            /// As above, and queries `first..first + LEN` are in the tile.
            #[target_feature(enable = $features)]
            unsafe fn $tile<const LEN: usize>(
                panel: Panel<'_>,
                tile: &Tile,
                passed: &mut Passed,
                first: usize,
                hits: &mut u32,
            ) {
                let steps = panel.codes.len();
                let mut all = [[0i32; PANEL]; LEN];
                for half in 0..2 {
                    let mut sums = [[_mm256_setzero_si256(); 2]; LEN];
                    for (q, sums) in sums.iter_mut().enumerate() {
                        let q = first + q;
                        *sums = [_mm256_set1_epi32(tile.margin[q].wrapping_sub(tile.offset[q])); 2];
                    }
                    let mut codes = panel.codes.as_ptr().cast::<u8>().wrapping_add(64 * half);
                    let mut words = tile.words.as_ptr().wrapping_add(first);
                    for _ in 0..steps {
                        // SAFETY: half a step is 64 bytes; the words of this step are in the
                        // tile, by the contract.
                        unsafe {
                            let low = _mm256_loadu_si256(codes.cast());
                            let high = _mm256_loadu_si256(codes.add(32).cast());
                            for (q, sums) in sums.iter_mut().enumerate() {
                                let word = _mm256_set1_epi32(*words.add(q));
                                sums[0] = $dot(sums[0], low, word);
                                sums[1] = $dot(sums[1], high, word);
                            }
                        }
                        codes = codes.wrapping_add(STEP_BYTES);
                        words = words.wrapping_add(tile.len);
                    }
                    for (all, sums) in all.iter_mut().zip(sums) {
                        let out = all.as_mut_ptr().wrapping_add(16 * half);
                        // SAFETY: `all` has 32 words, of which these are 16.
                        unsafe {
                            _mm256_storeu_si256(out.cast(), sums[0]);
                            _mm256_storeu_si256(out.add(8).cast(), sums[1]);
                        }
                    }
                }
                for (q, sums) in all.iter().enumerate() {
                    test(panel, tile, first + q, sums, passed, hits);
                }
            }
        };
    }

    sweep_256!(sweep_avx2, tile_avx2, "avx2,fma", |sum, codes, word| {
        // 255 · 63 · 2 fits 16 bits, so `vpmaddubsw` does not saturate.
        let pairs = _mm256_maddubs_epi16(codes, word);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    });

    sweep_256!(sweep_avxvnni, tile_avxvnni, "avx2,fma,avxvnni", |sum, codes, word| {
        _mm256_dpbusd_avx_epi32(sum, codes, word)
    });
}

#[cfg(target_arch = "aarch64")]
#[allow(clippy::wildcard_imports)] // intrinsics
mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::{PANEL, Panel, Passed, STEP_BYTES, Tile, test};

    /// `sdot` by hand: its intrinsic is not stable.
    ///
    /// # Safety
    ///
    /// The processor has the 8-bit dot product.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sdot(mut sum: int32x4_t, codes: int8x16_t, word: int8x16_t) -> int32x4_t {
        // SAFETY: registers only.
        unsafe {
            asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) codes,
                 in(vreg) word, options(pure, nomem, nostack));
        }
        sum
    }

    /// Two queries × 32 rows at a time: 16 of 32 registers hold sums.
    ///
    /// # Safety
    ///
    /// The processor has NEON and the 8-bit dot product; `tile.words` holds `tile.len` words for
    /// each step of `panel.codes`.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn sweep_neon(panel: Panel<'_>, tile: &Tile, passed: &mut Passed) -> u32 {
        let mut hits = 0;
        let steps = panel.codes.len();
        let flip = vdupq_n_u8(128);
        let mut first = 0;
        while first < tile.len {
            // An odd last query is done twice rather than by a kernel of its own.
            let queries = [first, (first + 1).min(tile.len - 1)];
            // `sdot` takes signed codes: flipping the top bit removes the offset of 128, so the
            // tile's correction for it is not needed.
            let mut sums = queries.map(|q| [vdupq_n_s32(tile.margin[q]); PANEL / 4]);
            let mut codes = panel.codes.as_ptr().cast::<u8>();
            for s in 0..steps {
                let words = queries
                    .map(|q| vreinterpretq_s8_s32(vdupq_n_s32(tile.words[s * tile.len + q])));
                for block in 0..PANEL / 4 {
                    // SAFETY: a step has 128 bytes, eight blocks of 16.
                    unsafe {
                        let bytes = veorq_u8(vld1q_u8(codes.add(16 * block)), flip);
                        let bytes = vreinterpretq_s8_u8(bytes);
                        sums[0][block] = sdot(sums[0][block], bytes, words[0]);
                        sums[1][block] = sdot(sums[1][block], bytes, words[1]);
                    }
                }
                codes = codes.wrapping_add(STEP_BYTES);
            }
            for (q, sums) in queries.into_iter().zip(sums) {
                let mut all = [0i32; PANEL];
                for (block, sum) in sums.into_iter().enumerate() {
                    // SAFETY: `all` has 32 words, of which these are four.
                    unsafe { vst1q_s32(all.as_mut_ptr().add(4 * block), sum) };
                }
                test(panel, tile, q, &all, passed, &mut hits);
            }
            first += 2;
        }
        hits
    }
}

/// Multiply-adds a second, both operations counted, of the sweep alone: random codes, thresholds
/// that let about one sum in ten thousand pass, no verdicts. For `benches/sweep.rs`.
pub(crate) fn rate(isa: Isa, rows: usize, dim: usize, queries: usize) -> f64 {
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    let (steps, panels) = (dim.div_ceil(STEP), rows.div_ceil(PANEL));
    let codes: Vec<Step> =
        (0..steps * panels).map(|_| Step(std::array::from_fn(|_| random() as u8))).collect();
    let limit = i32::from(query_limit(isa));
    let mut tiles: Vec<Tile> = (0..queries.div_ceil(TILE))
        .map(|_| {
            let mut tile = Tile { len: TILE, scale: [1.0; TILE], ..Tile::default() };
            for _ in 0..steps {
                for q in 0..TILE {
                    let word = std::array::from_fn(|_| random() as i32 % (limit + 1) - limit / 2);
                    tile.offset[q] += 128 * word.iter().sum::<i32>();
                    tile.words.push(i32::from_le_bytes(word.map(|code| code as u8)));
                }
            }
            tile
        })
        .collect();
    // A sum of products of uniform numbers is nearly normal; 3.7 deviations leave one in 10⁴.
    let deviation = 128.0 / 3f32.sqrt() * limit as f32 / 12f32.sqrt() * (dim as f32).sqrt();
    let (factors, mut passed) = ([1.0; PANEL], Passed::new());
    let mut hits = 0;
    let start = Instant::now();
    for panel in codes.chunks_exact(steps) {
        for tile in &mut tiles {
            tile.margin = [(0.02 * deviation) as i32; TILE];
            tile.threshold = [3.7 * deviation; TILE];
            let panel = Panel { codes: panel, factors: &factors, biases: None };
            hits += sweep(isa, panel, tile, &mut passed);
        }
    }
    std::hint::black_box(hits);
    let products = tiles.len() * TILE * panels * PANEL * steps * STEP;
    2.0 * products as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, so that a failure repeats.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.0 >> 33
        }
    }

    #[test]
    fn every_kernel_gives_the_sums_of_the_portable_one() {
        let mut random = Random(7);
        for isa in Isa::available() {
            let limit = i64::from(query_limit(isa));
            for (len, steps) in (1..=TILE).flat_map(|len| [1, 2, 7, 96].map(|steps| (len, steps))) {
                // Extremes are the rule here, since they are what saturates.
                let mut byte = || [255, 1, random.next() as u8][random.next() as usize % 3];
                let codes: Vec<Step> =
                    (0..steps).map(|_| Step(std::array::from_fn(|_| byte()))).collect();
                let mut code = || {
                    let any = random.next() as i64 % (2 * limit + 1) - limit;
                    [limit, -limit, any][random.next() as usize % 3] as i8
                };
                let bytes: Vec<i8> = (0..len * steps * STEP).map(|_| code()).collect();
                let words = bytes.as_chunks::<4>().0.iter();
                let words = words.map(|w| i32::from_le_bytes(w.map(|b| b as u8))).collect();
                let mut tile = Tile { len, words, ..Tile::default() };
                for q in 0..len {
                    let sum: i32 = (0..steps)
                        .flat_map(|s| tile.words[s * len + q].to_le_bytes())
                        .map(|b| i32::from(b as i8))
                        .sum();
                    tile.offset[q] = 128 * sum;
                    tile.scale[q] = 1.0 + q as f32;
                    tile.margin[q] = q as i32 * 1000;
                    tile.threshold[q] = random.next() as f32 - 1e9;
                }
                let factors = std::array::from_fn(|r| 1.0 + r as f32);
                let bias = std::array::from_fn(|r| r as f32 * 1e5);
                for biases in [None, Some(&bias)] {
                    let panel = Panel { codes: &codes, factors: &factors, biases };
                    let (mut expected, mut got) = (Passed::new(), Passed::new());
                    let hits = sweep_portable(panel, &tile, &mut expected);
                    assert_eq!(sweep(isa, panel, &tile, &mut got), hits, "{isa:?}");
                    for q in (0..len).filter(|q| hits >> q & 1 == 1) {
                        assert_eq!(got.sums[q], expected.sums[q], "{isa:?} {len} {steps} {q}");
                    }
                }
            }
        }
    }
}
