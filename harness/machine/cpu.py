"""What the CPU's instruction set means for INT8. Reads /proc/cpuinfo where there is one; no runtime is imported."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Best first: the flag as Linux names it, and our name. Source: Linux, arch/x86 and arch/arm64 cpufeatures.
X86_FLAGS = (
    ("amx_int8", "amx"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx_vnni", "avx_vnni"),
    ("avx512bw", "avx512"),
    ("avx2", "avx2"),
    ("sse4_1", "sse"),
)
ARM_FLAGS = (("i8mm", "neon_i8mm"), ("asimddp", "neon_dot"), ("asimd", "neon"), ("neon", "neon"))
# vpmaddubsw adds pairs of u8 x s8 products in int16, which two products of 255 x 127 overflow.
# Source: Intel Intrinsics Guide, _mm256_maddubs_epi16; onnxruntime.ai, "Quantize ONNX Models", section x86-64.
DOT_PRODUCT = frozenset({"amx", "avx512_vnni", "avx_vnni", "neon_i8mm", "neon_dot"})  # 4 products of int8 at once
SATURATING = frozenset({"avx512", "avx2", "sse", "unknown"})
FULL_WEIGHT_BITS = 8
REDUCED_WEIGHT_BITS = 7


def int8_isa() -> str:
    """Return the best INT8 instruction set of this CPU, for example avx512_vnni.

    One of amx, avx512_vnni, avx_vnni, avx512, avx2, sse, neon_i8mm, neon_dot, neon, or unknown.
    """
    if CPUINFO.exists():
        return isa_from_cpuinfo(CPUINFO.read_text())
    return isa_from_machine(platform.system(), platform.machine())


def isa_from_cpuinfo(text: str) -> str:
    """Return the best INT8 instruction set that the text of /proc/cpuinfo names."""
    flags: set[str] = set()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags.update(value.split())
    return isa_from_flags(flags)


def isa_from_flags(flags: Iterable[str]) -> str:
    """Return the best INT8 instruction set among Linux CPU flags."""
    present = set(flags)
    return next((name for flag, name in (*X86_FLAGS, *ARM_FLAGS) if flag in present), "unknown")


def isa_from_machine(system: str, machine: str) -> str:
    """Return what is certain of a CPU without /proc/cpuinfo: every Apple silicon has the dot product."""
    if machine.lower() in ("arm64", "aarch64"):
        return "neon_dot" if system == "Darwin" else "neon"
    return "unknown"


def int8_weight_bits(isa: str) -> int:
    """Return how many bits a weight may have before 8-bit kernels of `isa` saturate [bits]."""
    return REDUCED_WEIGHT_BITS if isa in SATURATING else FULL_WEIGHT_BITS


def has_dot_product(isa: str) -> bool:
    """Tell whether INT8 has instructions of its own, and so kernels that can be faster than FP32's."""
    return isa in DOT_PRODUCT
