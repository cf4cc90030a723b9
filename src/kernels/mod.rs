//! Arithmetic, and the one place that asks the processor what it can do.
//!
//! The instruction set is chosen once, at first use. `OMENDB_ISA` forces a lower one, so that
//! every kernel this processor can run is tested on it. Kernels own neither threads nor memory.

#![allow(unsafe_code)] // intrinsics and prefetches; every block names what makes it sound

pub(crate) mod float;
pub(crate) mod halves;
pub(crate) mod int8;
pub(crate) mod matmul;
pub(crate) mod merge;

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The instruction sets there are kernels for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the target has (SSE2 on x86-64, NEON on aarch64).
    Portable,
    /// aarch64 with the 8-bit dot product (`sdot`).
    Neon,
    /// x86-64 with AVX2, FMA and F16C, which came before them.
    Avx2,
    /// AVX2 with the 8-bit dot product (`vpdpbusd`, 256 bits).
    AvxVnni,
    /// AVX-512 with the 8-bit dot product (`vpdpbusd`, 512 bits).
    Avx512,
}

const ALL: [(Isa, &str); 5] = [
    (Isa::Portable, "portable"),
    (Isa::Neon, "neon"),
    (Isa::Avx2, "avx2"),
    (Isa::AvxVnni, "avxvnni"),
    (Isa::Avx512, "avx512"),
];

impl Isa {
    /// The name that `OMENDB_ISA` takes.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(isa, _)| *isa == self).map_or("", |(_, name)| name)
    }

    /// Those that this processor can run, slowest first.
    pub fn available() -> Vec<Self> {
        ALL.iter().map(|(isa, _)| *isa).filter(|isa| isa.is_available()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        match self {
            Self::Portable => true,
            Self::Neon => false,
            Self::Avx2 => avx2,
            Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
            Self::Avx512 => {
                avx2 && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            Self::Avx2 | Self::AvxVnni | Self::Avx512 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// The instruction set in use: the best there is, or the one that `OMENDB_ISA` names.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if `OMENDB_ISA` names none, or one this processor lacks.
    pub fn current() -> Result<Self> {
        Self::chosen().clone()
    }

    fn chosen() -> &'static Result<Self> {
        static CURRENT: OnceLock<Result<Isa>> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let available = Self::available();
            let Some(wanted) = std::env::var_os("OMENDB_ISA").filter(|name| !name.is_empty())
            else {
                return Ok(available.last().copied().unwrap_or(Self::Portable));
            };
            let wanted = wanted.to_string_lossy().to_lowercase();
            available.iter().copied().find(|isa| isa.name() == wanted).ok_or_else(|| {
                let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                Error::invalid(format!(
                    "OMENDB_ISA is '{wanted}', but this processor runs {}",
                    names.join(", ")
                ))
            })
        })
    }
}

/// The instruction set in use, for kernels that any choice serves.
///
/// A wrong `OMENDB_ISA` was refused when the index was made, before any kernel ran.
pub(crate) fn isa() -> Isa {
    match Isa::chosen() {
        Ok(isa) => *isa,
        Err(_) => Isa::Portable,
    }
}

/// Asks the memory for the cache line at `pointer`; harmless whatever it points to.
#[inline(always)]
pub(crate) fn prefetch(pointer: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch faults on no address, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}
