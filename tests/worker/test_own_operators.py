"""Operators of domains that no runtime has: libraries given by an option, and one line where none is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from graph_nets import graph_spec, write_net

from harness.backends import load_backend
from harness.backends._inputs import files_in_words
from harness.errors import BuildError, ConfigError, Unsupported
from harness.options.values import HarnessOptions
from harness.precision import prepare_artifact
from harness.protocols import TakesOperators
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, TimingPlan
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest

OWN = """
<ir_version: 8, opset_import: ["" : 17, "{domain}" : 1]>
g (float[1, 4] x) => (float[1, 4] low, float[1, 4] high)
{{
  y = Abs (x)
  low, high = {domain}.{operator} (y)
}}
"""
FLAGS = {"ort": "--ort-custom-ops", "openvino": "--openvino-extension"}


def case_of(path, backend, *, libraries=(), precision="fp32", recipe="none"):
    names = {"ort": "custom_ops", "openvino": "extensions"}
    settings = {backend: {names[backend]: libraries}} if libraries else {}
    request = CaseRequest(
        case=Case(model="own", backend=backend, precision=Precision(precision), recipe=recipe),
        model=replace(graph_spec(path), name="own"),
        data=DatasetRequest(score_images=2),
        build=BuildOptions(cache_dir=str(path.parent / "cache"), settings=settings),
        timing=TimingPlan(batch_sizes=(1,)),
    )
    return OpenCase(request)


@pytest.fixture
def own_net(tmp_path):
    return write_net(tmp_path, "own", OWN.format(domain="my.own", operator="Split"))


@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_backend_that_takes_libraries_says_by_which_option(own_net, backend):
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    with pytest.raises(BuildError) as error:
        case_of(own_net, backend).prepare()
    told = str(error.value)
    assert "no operators of domain my.own, as Split (low)" in told
    assert told.endswith(f"give the library that has them: {FLAGS[backend]}=LIB")


def test_a_backend_that_takes_none_is_unsupported(own_net):
    pytest.importorskip("cv2")
    request = replace(
        case_of(own_net, "ort").request,
        case=Case(model="own", backend="opencv", precision=Precision.FP32, recipe="none"),
    )
    prepared = OpenCase(request).prepare()
    assert not prepared.support.supported
    assert "opencv has no operators of domain my.own" in prepared.support.reason
    assert prepared.support.reason.endswith("takes no library of them")


@pytest.mark.parametrize("name", ["ort", "ort-cuda", "ort-trt", "openvino", "trt", "trt-rtx"])
def test_who_takes_libraries_names_an_option_that_there_is(name):
    from harness.options.table import all_rows

    backend = load_backend(name)
    assert isinstance(backend, TakesOperators)
    assert backend.library_flag in {row.flag for row in all_rows()}


@pytest.mark.parametrize(("precision", "recipe"), [("fp16", "cast"), ("bf16", "cast"), ("int8", "qdq-minmax")])
def test_recipes_that_convert_say_why_they_cannot(own_net, tmp_path, precision, recipe):
    with pytest.raises(Unsupported, match=rf"recipe {recipe} cannot convert it: .*Split \(low\) of domain my.own"):
        prepare_artifact(
            graph_spec(own_net), Precision(precision), recipe, calibration=None, cache_dir=str(tmp_path / "cache")
        )
    plain = graph_spec(write_net(tmp_path, "sized"), shapes=(("x", (1, 1, 9, 9)),))
    if precision == "fp16":
        pytest.importorskip("onnxruntime")
        prepare_artifact(plain, Precision.FP16, recipe, calibration=None, cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("group", ["ort", "openvino"])
def test_a_library_that_is_not_there_is_refused_before_the_run(group, tmp_path):
    names = {"ort": "custom_ops", "openvino": "extensions"}
    options = HarnessOptions(settings={group: {names[group]: (str(tmp_path / "none.so"),)}})
    with pytest.raises(ConfigError, match=rf"{FLAGS[group]}=.*none.so: no such file"):
        options.check_settings(())


def test_a_library_is_told_by_name_and_content(tmp_path):
    assert files_in_words(()) == "none"
    library = tmp_path / "own.so"
    library.write_bytes(b"first")
    first = files_in_words((str(library),))
    library.write_bytes(b"second")
    assert first.startswith("own.so ")
    assert files_in_words((str(library),)) != first


@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_without_a_library_the_options_read_back_say_none(tmp_path, backend):
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    path = write_net(tmp_path, "stateful")
    case = case_of(path, backend)
    try:
        options = case.prepare().engine.options
    finally:
        case.close()
    assert options[{"ort": "custom_ops", "openvino": "extensions"}[backend]] == "none"


def test_a_library_of_operators_runs_and_is_told(tmp_path):
    extensions = pytest.importorskip("onnxruntime_extensions", reason="needs a library of operators")
    pytest.importorskip("onnxruntime")
    path = write_net(tmp_path, "own", OWN.format(domain="ai.onnx.contrib", operator="NegPos"))
    library = extensions.get_library_path()
    case = case_of(path, "ort", libraries=(library,))
    try:
        prepared = case.prepare()
        outputs = case.engine.run({"x": np.array([[-1, 2, -3, 4]], np.float32)})
        assert case.engine.layers()
    finally:
        case.close()
    assert prepared.engine.options["custom_ops"].startswith(f"{Path(library).name} ")
    assert outputs["high"].tolist() == [[1, 2, 3, 4]]


def test_an_extension_of_openvino_is_told(tmp_path):
    tokenizers = pytest.importorskip("openvino_tokenizers", reason="needs an extension of OpenVINO")
    library = next(Path(tokenizers.__file__).parent.rglob("libopenvino_tokenizers.so"))
    path = write_net(tmp_path, "stateful")
    case = case_of(path, "openvino", libraries=(str(library),))
    try:
        assert case.prepare().engine.options["extensions"].startswith(f"{library.name} ")
    finally:
        case.close()


def test_functions_that_a_file_brings_along_are_its_own(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    g (float[1, 4] x) => (float[1, 4] y) { y = mine.Twice (x) }
    <domain: "mine", opset_import: ["" : 17]>
    Twice (a) => (b) { b = Add (a, a) }
    """
    pytest.importorskip("onnxruntime")
    path = tmp_path / "own.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    case = case_of(path, "ort")
    try:
        assert case.prepare().support.supported
    finally:
        case.close()
