//! What the network runs on.

/// Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX). Without it, bf16 is emulated and slower than f32.
pub fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
