"""Everything the TensorRT adapter uses exists in the real bindings of 8.6, 10.16 and 11.4, or is looked for first.

The bindings come from PyPI (1 MB each) and are imported without TensorRT itself, beside stand-ins for its libraries.
`tox -e trt-api` runs this and does not let it skip.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from adapter_uses import MODULE, adapter_uses
from stub_libraries import make_stub_libraries

from harness.backends.trt.api import CALIBRATORS

REQUIRED = os.environ.get("HARNESS_REQUIRE_TRT_API") == "1"
ROOT = Path(__file__).parents[2]
VERSIONS = {
    "8.6": ("tensorrt-bindings==8.6.1", "tensorrt_bindings"),
    "10.16": ("tensorrt-cu13-bindings==10.16.1.11", "tensorrt_bindings"),
    "11.4": ("tensorrt-cu13-bindings==11.4.0.106", "tensorrt_bindings"),
}
TOOLS = ("gcc", "nm", "readelf")
# Members used only where a capability was found -> what `TrtApi` calls it. The capability is evaluated on the real
# bindings, so a member that is missing although its capability is there fails.
NEEDS = {
    ("BuilderFlag", "FP16"): "weak",
    ("BuilderFlag", "INT8"): "weak",
    ("BuilderFlag", "BF16"): "bf16_flag",
    ("IBuilderConfig", "int8_calibrator"): "weak",
    ("IBuilderConfig", "set_calibration_profile"): "weak",
    ("ITensor", "dynamic_range"): "weak",
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"): "strong",
    ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"): "explicit_batch",
}
USES = adapter_uses()


def _refuse(reason):
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module", params=VERSIONS)
def bindings(request, tmp_path_factory):
    """Download one version's bindings, import them in a process of their own, and return what they offer."""
    requirement, module = VERSIONS[request.param]
    if not REQUIRED:
        pytest.skip("takes bindings from PyPI: run tox -e trt-api, or set HARNESS_REQUIRE_TRT_API=1")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        _refuse(f"{', '.join(missing)} not installed")
    folder = tmp_path_factory.mktemp("bindings")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    got = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False)
    if got.returncode:
        if request.param == "8.6" and sys.version_info >= (3, 12):
            pytest.skip("the bindings of TensorRT 8.6 end with CPython 3.11")
        _refuse(f"pip download {requirement}: {got.stderr.strip().splitlines()[-1]}")
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(folder)
    make_stub_libraries(folder / module)
    asked = [*USES.members, *((MODULE, name) for name in CALIBRATORS.values())]
    child = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "describe_bindings.py"), str(folder), module],
        input=json.dumps(asked),
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return request.param, json.loads(child.stdout)


def test_the_adapters_source_is_read():
    assert ("ICudaEngine", "deserialize_cuda_engine") not in USES.members
    for member in (
        ("Runtime", "deserialize_cuda_engine"),
        ("IExecutionContext", "execute_async_v3"),
        ("IBuilderConfig", "int8_calibrator"),
        ("BuilderFlag", "TF32"),
        ("ParserError", "desc"),
        (MODULE, "OnnxParser"),
    ):
        assert member in USES.members
    assert ("ICudaEngine", "device_memory_size_v2") in USES.guarded
    assert len(USES.members) > 80


def test_a_name_that_no_version_has_is_found(tmp_path):
    source = tmp_path / "adapter.py"
    source.write_text("def f(api, config):\n    config.set_magic(api.trt.BuilderFlag.MAGIC)\n")
    uses = adapter_uses([source])
    assert uses.members == {
        ("IBuilderConfig", "set_magic"): "adapter.py:2",
        (MODULE, "BuilderFlag"): "adapter.py:2",
        ("BuilderFlag", "MAGIC"): "adapter.py:2",
    }


def test_capabilities(bindings):
    version, found = bindings
    assert found["version"].startswith(version)
    assert (found["weak"], found["strong"], found["rtx"]) == {
        "8.6": (True, False, False),
        "10.16": (True, True, False),
        "11.4": (False, True, False),
    }[version]
    assert (found["bf16"], found["bf16_flag"]) == {
        "8.6": (False, False),
        "10.16": (True, True),
        "11.4": (True, False),
    }[version]
    assert (
        found["calibrators"]
        == {
            "8.6": ["trt-entropy", "trt-entropy2", "trt-minmax", "trt-legacy", "trt-search", "trt-ranges"],
            "10.16": ["trt-entropy", "trt-entropy2", "trt-minmax", "trt-legacy", "trt-search", "trt-ranges"],
            "11.4": [],
        }[version]
    )
    assert (
        found["flags"]
        == {
            "8.6": {"none": 1, "trt-entropy2": 1, "runtime": 1},
            "10.16": {"none": 0b11, "trt-entropy2": 1, "runtime": 1},
            "11.4": {"none": 1, "trt-entropy2": 0, "runtime": 0},
        }[version]
    )
    assert found["tactics"] == "EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS"


def test_calibrators_can_be_made_and_answer(bindings):
    _, found = bindings
    algorithms = {
        "trt-entropy": "ENTROPY_CALIBRATION",
        "trt-entropy2": "ENTROPY_CALIBRATION_2",
        "trt-minmax": "MINMAX_CALIBRATION",
        "trt-legacy": "LEGACY_CALIBRATION",
        "trt-search": "LEGACY_CALIBRATION",
    }
    assert set(found["made"]) == set(found["calibrators"]) - {"trt-ranges"}
    for recipe, answers in found["made"].items():
        assert answers == [8, [2], algorithms[recipe], "before", "after", 0.5, 0.25]


def test_every_member_exists_or_is_looked_for(bindings):
    _, found = bindings
    absent = []
    for (owner, name), place in USES.members.items():
        exists = f"{owner}.{name}" in found["members"]
        needs = NEEDS.get((owner, name))
        if needs is not None:
            assert exists or not found[needs], f"{place}: {owner}.{name}"
        elif not exists and (owner, name) not in USES.guarded and not _has_sibling(owner, name, found):
            absent.append(f"{place}: {owner or 'module'}.{name}")
    assert not absent


def _has_sibling(owner, name, found):
    """The other branch of a hasattr: `device_memory_size` where there is no `device_memory_size_v2`, and so on."""
    siblings = {
        ("ICudaEngine", "device_memory_size"): "device_memory_size_v2",
        ("IPluginRegistry", "plugin_creator_list"): "all_creators",
    }
    other = siblings.get((owner, name))
    return other is not None and (owner, other) in USES.guarded and f"{owner}.{other}" in found["members"]


def test_every_call_fits_its_signature(bindings):
    _, found = bindings
    wrong, checked = [], 0
    for owner, name, n_positional, keywords, place in USES.calls:
        signatures = _signatures(found["members"].get(f"{owner}.{name}", ""), name)
        if signatures:
            checked += 1
            if not any(_fits(one, n_positional, keywords) for one in signatures):
                wrong.append(f"{place}: {owner}.{name} with {n_positional} arguments {keywords}: {signatures}")
    assert not wrong
    assert checked > 30


def _signatures(text, name):
    """Return the parameter lists that pybind11 writes into a docstring, without self."""
    lists = re.findall(rf"(?:^|\n)\s*(?:\d+\. )?(?:{name}|__init__)\((.*)\) -> ", text)
    return [[part.strip() for part in _split(one) if part.split(":")[0].strip() != "self"] for one in lists]


def _split(text):
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and not depth:
            parts.append(text[start:index])
            start = index + 1
    return [part for part in [*parts, text[start:]] if part.strip()]


def _fits(parameters, n_positional, keywords):
    names = [part.split(":")[0].strip() for part in parameters]
    optional = {
        name
        for name, part in zip(names, parameters, strict=True)
        if "=" in part.split(":", 1)[-1].split(">")[-1] or "=" in part
    }
    given = {*names[:n_positional], *keywords}
    return n_positional <= len(names) and set(keywords) <= set(names) and {*names} - optional <= given


@pytest.mark.parametrize(
    ("parameters", "n_positional", "keywords", "fits"),
    [
        (["a: int", "b: int = 0"], 1, (), True),
        (["a: int", "b: int"], 1, (), False),
        (["a: int"], 2, (), False),
        (["a: int", "b: int"], 1, ("b",), True),
        (["a: int"], 1, ("c",), False),
    ],
)
def test_the_signature_check_can_fail(parameters, n_positional, keywords, fits):
    assert _fits(parameters, n_positional, keywords) == fits


@pytest.mark.parametrize("bindings", ["8.6"], indirect=True)
def test_the_fake_offers_nothing_that_8_6_lacks(bindings):
    """The adapter's logic is tested on tests/fake_cuda/fake_tensorrt.py; it must not be kinder than the real one."""
    _, found = bindings
    text = (ROOT / "tests" / "fake_cuda" / "fake_tensorrt.py").read_text()
    offered = set(re.findall(r"^    def ([a-z]\w+)\(", text, re.MULTILINE)) & {name for _, name in USES.members}
    assert offered
    assert offered <= {key.rpartition(".")[2] for key in found["members"]}
