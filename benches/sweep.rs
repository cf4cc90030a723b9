//! The rate of the 8-bit sweep beside that of a bare dot-product loop, on one core.
//!
//! `cargo bench --bench sweep [-- --json]`. Three things alternate: a loop of nothing but the
//! instruction that the sweep is made of, on registers; the sweep (panels, tiles, margins,
//! thresholds); and a whole search in Gaussian rows, verdicts and all. The medians of the ratios
//! say what the sweep, and what a search, leaves of the processor's peak.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use omendb::{Index, Isa, Metric, Options, Rows, Run, measure};

const ROUNDS: usize = 9;

/// Multiply-adds a second of the bare loop, both operations counted.
#[cfg(target_arch = "x86_64")]
fn peak(isa: Isa) -> f64 {
    use std::arch::asm;
    const LOOPS: u64 = 2_000_000;
    const PRODUCTS: u64 = 24;
    let start = Instant::now();
    // SAFETY: the instruction set is available (`isa` is the one in use); only registers that are
    // declared are touched.
    #[allow(unsafe_code)]
    let bytes = unsafe {
        match isa {
            Isa::Avx512 => {
                asm!(
                    "2:",
                    "vpdpbusd zmm0, zmm30, zmm31", "vpdpbusd zmm1, zmm30, zmm31",
                    "vpdpbusd zmm2, zmm30, zmm31", "vpdpbusd zmm3, zmm30, zmm31",
                    "vpdpbusd zmm4, zmm30, zmm31", "vpdpbusd zmm5, zmm30, zmm31",
                    "vpdpbusd zmm6, zmm30, zmm31", "vpdpbusd zmm7, zmm30, zmm31",
                    "vpdpbusd zmm8, zmm30, zmm31", "vpdpbusd zmm9, zmm30, zmm31",
                    "vpdpbusd zmm10, zmm30, zmm31", "vpdpbusd zmm11, zmm30, zmm31",
                    "vpdpbusd zmm12, zmm30, zmm31", "vpdpbusd zmm13, zmm30, zmm31",
                    "vpdpbusd zmm14, zmm30, zmm31", "vpdpbusd zmm15, zmm30, zmm31",
                    "vpdpbusd zmm16, zmm30, zmm31", "vpdpbusd zmm17, zmm30, zmm31",
                    "vpdpbusd zmm18, zmm30, zmm31", "vpdpbusd zmm19, zmm30, zmm31",
                    "vpdpbusd zmm20, zmm30, zmm31", "vpdpbusd zmm21, zmm30, zmm31",
                    "vpdpbusd zmm22, zmm30, zmm31", "vpdpbusd zmm23, zmm30, zmm31",
                    "dec {n}", "jnz 2b",
                    n = inout(reg) LOOPS => _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                    out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
                    out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                    out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                    out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                    options(nomem, nostack)
                );
                64
            }
            Isa::Avx2 => {
                // What AVX2 has instead: two instructions to multiply and one to add.
                asm!(
                    "2:",
                    "vpmaddubsw ymm8, ymm14, ymm15", "vpmaddwd ymm8, ymm8, ymm13", "vpaddd ymm0, ymm0, ymm8",
                    "vpmaddubsw ymm9, ymm14, ymm15", "vpmaddwd ymm9, ymm9, ymm13", "vpaddd ymm1, ymm1, ymm9",
                    "vpmaddubsw ymm10, ymm14, ymm15", "vpmaddwd ymm10, ymm10, ymm13", "vpaddd ymm2, ymm2, ymm10",
                    "vpmaddubsw ymm11, ymm14, ymm15", "vpmaddwd ymm11, ymm11, ymm13", "vpaddd ymm3, ymm3, ymm11",
                    "vpmaddubsw ymm8, ymm14, ymm15", "vpmaddwd ymm8, ymm8, ymm13", "vpaddd ymm4, ymm4, ymm8",
                    "vpmaddubsw ymm9, ymm14, ymm15", "vpmaddwd ymm9, ymm9, ymm13", "vpaddd ymm5, ymm5, ymm9",
                    "vpmaddubsw ymm10, ymm14, ymm15", "vpmaddwd ymm10, ymm10, ymm13", "vpaddd ymm6, ymm6, ymm10",
                    "vpmaddubsw ymm11, ymm14, ymm15", "vpmaddwd ymm11, ymm11, ymm13", "vpaddd ymm7, ymm7, ymm11",
                    "dec {n}", "jnz 2b",
                    n = inout(reg) LOOPS * 3 => _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _,
                    out("ymm5") _, out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _,
                    out("ymm10") _, out("ymm11") _,
                    options(nomem, nostack)
                );
                32
            }
            _ => return f64::NAN,
        }
    };
    (2 * LOOPS * PRODUCTS * bytes) as f64 / start.elapsed().as_secs_f64()
}

#[cfg(not(target_arch = "x86_64"))]
fn peak(_: Isa) -> f64 {
    f64::NAN
}

/// Gaussian enough for the purpose: the sum of four uniform numbers.
fn gaussian(count: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), omendb::Error> {
    let json = std::env::args().any(|argument| argument == "--json");
    let isa = Isa::current()?;
    let (queries, k) = (480, 10);
    let mut first = None;
    for (rows, dim, metric) in [
        (60_000, 384, Metric::Cosine),
        (100_000, 128, Metric::Euclidean),
        (100_000, 768, Metric::InnerProduct),
    ] {
        let data = Rows::from_vec(gaussian(rows * dim, 1), dim)?;
        let index = Index::new(data, metric)?;
        let questions = Rows::from_vec(gaussian(queries * dim, 2), dim)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let bare = peak(isa);
            // As many queries at a time as a search has in a block.
            let sweep = measure::sweep(isa, rows, dim, 96);
            let start = Instant::now();
            let run = Run::new().threads(1);
            black_box(index.search_with(&questions, k, Options::new(), run)?);
            let search = (2 * rows * queries * dim) as f64 / start.elapsed().as_secs_f64();
            rounds.push([bare, sweep, search]);
        }
        let [bare, sweep, search] = [0, 1, 2].map(|i| median(rounds.iter().map(|r| r[i] / 1e9)));
        let share = median(rounds.iter().map(|r| r[1] / r[0]));
        let whole = median(rounds.iter().map(|r| r[2] / r[0]));
        eprintln!(
            "{rows} x {dim} {metric}, {}: bare loop {bare:.0} Gop/s; sweep {sweep:.0}, a share of \
             {share:.2}; whole search {search:.0}, {whole:.2}",
            isa.name()
        );
        first.get_or_insert_with(|| {
            format!(
                "{{\"sweep_gops\": {sweep:.1}, \"search_gops\": {search:.1}, \"peak_gops\": \
                 {bare:.1}, \"share\": {share:.3}, \"isa\": \"{}\"}}\n",
                isa.name()
            )
        });
    }
    if json && let Some(line) = first {
        let written = std::io::stdout().write_all(line.as_bytes());
        written.map_err(|error| omendb::Error::InvalidParameter(error.to_string()))?;
    }
    Ok(())
}
