"""INT8 instruction sets, from flags as /proc/cpuinfo lists them."""

import pytest

from harness.machine import cpu
from harness.machine.cuda_driver import fast_precisions


@pytest.mark.parametrize(
    ("flags", "isa", "weight_bits"),
    [
        ("avx2 avx512bw avx512_vnni amx_int8", "amx", 8),
        ("avx2 avx512bw avx512_vnni", "avx512_vnni", 8),
        ("avx2 avx_vnni", "avx_vnni", 8),
        ("avx2 avx512bw", "avx512", 7),
        ("sse4_1 avx2", "avx2", 7),
        ("sse4_1", "sse", 7),
        ("fpu", "unknown", 7),
        ("asimd asimddp i8mm", "neon_i8mm", 8),
        ("asimd asimddp", "neon_dot", 8),
        ("asimd", "neon", 8),
    ],
)
def test_the_best_set_decides(flags, isa, weight_bits):
    assert cpu.isa_from_flags(flags.split()) == isa
    assert cpu.int8_weight_bits(isa) == weight_bits


@pytest.mark.parametrize("label", ["flags\t\t", "Features\t"])
def test_flags_are_read_from_cpuinfo(label):
    text = (
        f"processor\t: 0\nmodel name\t: A CPU: with avx2 in its name\n{label}: fpu asimd avx_vnni\n\nprocessor\t: 1\n"
    )
    assert cpu.isa_from_cpuinfo(text) == "avx_vnni"
    assert cpu.isa_from_cpuinfo("processor\t: 0\nmodel name\t: avx2\n") == "unknown"


def test_machines_without_cpuinfo(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(cpu.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "arm64")
    assert cpu.int8_isa() == "neon_dot"
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    assert cpu.int8_isa() == "unknown"
    assert cpu.isa_from_machine("Linux", "aarch64") == "neon"


def test_this_machine_answers(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("flags : avx2 avx512_vnni\n")
    monkeypatch.setattr(cpu, "CPUINFO", info)
    assert cpu.int8_isa() == "avx512_vnni"


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ((), ()),
        (("",), ()),
        (("5.2",), ("fp32",)),
        (("6.0",), ("fp32", "fp16")),
        (("6.1",), ("fp32", "int8")),
        (("7.5",), ("fp32", "fp16", "int8")),
        (("9.0",), ("fp32", "fp16", "bf16", "int8")),
        (("10.0",), ("fp32", "fp16", "bf16", "int8")),
        (("9.0", "6.1"), ("fp32", "int8")),
    ],
)
def test_what_gpus_have_fast_kernels_for(capabilities, fast):
    assert fast_precisions(capabilities) == fast
