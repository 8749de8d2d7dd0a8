"""BF16 in TensorRT: which versions can, by type or by flag, and what the builder is told."""

import enum
from types import SimpleNamespace

import pytest

from harness.backends.trt.adapter import TrtBackend
from harness.backends.trt.api import TrtApi
from harness.backends.trt.build import configure, options_in_words
from harness.backends.trt.options import TrtOptions
from harness.errors import BuildError
from harness.records import Artifact
from harness.specs import Case, Precision

# What each family has. Source: the bindings themselves, tests/trt_api.
FAMILIES = {
    "8.6": {"flags": "FP16 INT8 TF32", "types": "FLOAT HALF", "networks": "EXPLICIT_BATCH"},
    "10.16": {"flags": "FP16 INT8 BF16 TF32", "types": "FLOAT HALF BF16", "networks": "EXPLICIT_BATCH STRONGLY_TYPED"},
    "11.4": {"flags": "TF32", "types": "FLOAT HALF BF16", "networks": "STRONGLY_TYPED"},
}


def api_of(version):
    family = FAMILIES[version]
    module = SimpleNamespace(
        __version__=version,
        BuilderFlag=enum.IntEnum("BuilderFlag", family["flags"]),
        DataType=enum.IntEnum("DataType", family["types"]),
        NetworkDefinitionCreationFlag=enum.IntEnum("NetworkDefinitionCreationFlag", family["networks"], start=0),
        ProfilingVerbosity=SimpleNamespace(DETAILED=2),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        TacticSource=enum.IntEnum("TacticSource", "CUBLAS"),
    )
    return TrtApi(module)


class Config:
    """The builder's settings."""

    builder_optimization_level = 3
    hardware_compatibility_level = SimpleNamespace(name="NONE")

    def __init__(self):
        self.flags = set()

    def set_flag(self, flag):
        self.flags.add(flag.name)

    def clear_flag(self, flag):
        self.flags.discard(flag.name)

    def get_flag(self, flag):
        return flag.name in self.flags

    def get_memory_pool_limit(self, kind):
        return 1

    def get_tactic_sources(self):
        return 0


def artifact(precision, recipe):
    return Artifact(model="m", precision=precision, recipe=recipe, onnx_path="", sha256="", source_sha256="")


@pytest.mark.parametrize(
    ("version", "recipe", "reason"),
    [
        ("8.6", "cast", "TensorRT 8.6 has no BF16"),
        ("8.6", "runtime", "TensorRT 8.6 has no builder flag BF16"),
        ("10.16", "cast", ""),
        ("10.16", "runtime", ""),
        ("11.4", "cast", ""),
        ("11.4", "runtime", "TensorRT 11.4 has no builder flag BF16"),
    ],
)
def test_what_each_version_can(version, recipe, reason, monkeypatch):
    backend = TrtBackend("trt", "tensorrt", "")
    monkeypatch.setattr(backend, "api", lambda: api_of(version))
    case = Case(model="m", backend="trt", precision=Precision.BF16, recipe=recipe, device="cuda:0")
    support = backend.supports(case)
    assert support.supported == (not reason)
    assert support.reason.startswith(reason)
    if reason:
        with pytest.raises(BuildError, match=reason):
            configure(api_of(version), Config(), artifact(Precision.BF16, recipe), TrtOptions())


@pytest.mark.parametrize(
    ("version", "precision", "recipe", "typing", "flags"),
    [
        ("10.16", Precision.BF16, "cast", "strong", "none"),
        ("10.16", Precision.BF16, "runtime", "weak", "BF16"),
        ("11.4", Precision.BF16, "cast", "strong", "none"),
        ("8.6", Precision.FP16, "cast", "weak", "FP16"),
        ("8.6", Precision.INT8, "qdq-minmax", "weak", "FP16|INT8"),
    ],
)
def test_what_the_builder_is_told(version, precision, recipe, typing, flags):
    """BF16 without FP16 beside it: the layers left over run in FP32, as in the cast file."""
    api, config, asked = api_of(version), Config(), artifact(precision, recipe)
    configure(api, config, asked, TrtOptions())
    words = options_in_words(api, config, asked, ((1, 1, 1),))
    assert (words["typing"], words["flags"]) == (typing, flags)
    assert api.is_strong(recipe) == (typing == "strong")
