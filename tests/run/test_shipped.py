"""The engine you ship: `harness export` writes one with its card, `--engine` scores and times it as it is."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from graph_nets import graph_spec, write_net
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import BackendUnavailable, BuildError, ConfigError, DataError
from harness.models import load_card, load_engine
from harness.models.card_text import card_text, engine_spec
from harness.models.feeds import seeded_feeds
from harness.options.values import HarnessOptions
from harness.run.exporting import export_case
from harness.run.plan import plan_run
from harness.specs import BuildOptions, Case, DatasetRequest, ModelSpec, Precision, ShippedEngine, TimingPlan
from harness.store.runs import load_run
from harness.worker.exporting import exported
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest

MODELS = Path(__file__).parents[2] / "models"
SUFFIXES = [("ort", ".ort"), ("ort", ".onnx"), ("openvino", ".blob")]
GRAPH_CARD = """
[model]
file = "net.blob"
[engine]
backend = "openvino"
precision = "fp16"
inputs = {inputs}
outputs = ["scores"]
"""


def request_of(model, backend, tmp_path, *, size=2):
    precision = model.engine.precision if model.engine else Precision.FP32
    recipe = "given" if model.engine else "none"
    return CaseRequest(
        case=Case(model=model.name, backend=backend, precision=precision, recipe=recipe),
        model=model,
        data=DatasetRequest(score_images=8),
        build=BuildOptions(cache_dir=str(tmp_path / "cache")),
        timing=TimingPlan(batch_sizes=(size,)),
        score_batch=size,
    )


def export_to(request, path):
    """Write the engine of a case and its card, as the command does; return what its outputs were."""
    case = OpenCase(request)
    try:
        case.prepare()
        written = exported(case, str(path))
        feeds = feeds_of(request)
        outputs = case.engine.run(feeds)
    finally:
        case.close()
    text = card_text(
        engine_spec(
            request.model, request.case, sha256=written.sha256, runtime=written.runtime, batch_size=written.batch_size
        ),
        file=path.name,
        provenance="",
    )
    path.with_suffix(".toml").write_text(text)
    return outputs


def feeds_of(request):
    if request.model.tensors is not None:
        return seeded_feeds(request.model.tensors, 1)
    images = np.random.default_rng(0).random((2, *request.model.input_shape), dtype=np.float32)
    return {request.model.input_name: images}


def outputs_of_engine(path, tmp_path):
    model = load_engine(path)
    request = request_of(model, model.engine.backend, tmp_path)
    case = OpenCase(request)
    try:
        prepared = case.prepare()
        assert (
            prepared.artifact.sha256 == prepared.artifact.source_sha256 == prepared.engine.file.sha256 == model.sha256
        )
        return case.engine.run(feeds_of(request)), case.engine.layers()
    finally:
        case.close()


@pytest.mark.parametrize(("backend", "suffix"), SUFFIXES)
@pytest.mark.parametrize("graph", [False, True])
def test_an_exported_engine_gives_the_same_outputs_bit_by_bit(tmp_path, backend, suffix, graph):
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    model = load_card(MODELS / "mlp.toml")
    if graph:
        model = graph_spec(write_net(tmp_path, "text"), shapes=(("ids", (1, 7)), ("mask", (1, 7))))
    path = tmp_path / f"mine{suffix}"
    expected = export_to(request_of(model, backend, tmp_path, size=1 if graph else 2), path)
    found, layers = outputs_of_engine(path, tmp_path)
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    assert layers


def test_openvino_ir_is_compiled_as_it_is(tmp_path):
    openvino = pytest.importorskip("openvino")
    request = request_of(load_card(MODELS / "mlp.toml"), "openvino", tmp_path)
    path = tmp_path / "mine.blob"
    expected = export_to(request, path)
    read = openvino.Core().read_model(str(MODELS / "mlp.onnx"))
    openvino.save_model(read, str(tmp_path / "mine.xml"), compress_to_fp16=False)
    card = path.with_suffix(".toml")
    kept = [line for line in card.read_text().splitlines() if not line.startswith("sha256")]
    card.write_text("\n".join(kept).replace("mine.blob", "mine.xml"))
    model = load_engine(tmp_path / "mine.xml")
    case = OpenCase(request_of(model, "openvino", tmp_path))
    try:
        assert case.prepare().artifact.source_sha256 == model.sha256
        assert case.engine.run(feeds_of(request))["probabilities"].tobytes() == expected["probabilities"].tobytes()
    finally:
        case.close()
    (tmp_path / "mine.bin").unlink()
    with pytest.raises(DataError, match="do not lie beside it"):
        load_engine(tmp_path / "mine.xml")


def test_a_backend_without_engine_files_gives_the_prepared_model(tmp_path):
    pytest.importorskip("onnxruntime")
    case = OpenCase(request_of(load_card(MODELS / "mlp.toml"), "ort", tmp_path))
    case.prepare()
    case._engine = SimpleNamespace(facts=case.engine.facts)  # one that writes nothing
    written = exported(case, str(tmp_path / "mine.onnx"))
    case.close()
    assert not written.is_engine
    assert (tmp_path / "mine.onnx").read_bytes() == (MODELS / "mlp.onnx").read_bytes()


def test_the_command_writes_what_a_run_takes_back(pytester, monkeypatch):
    pytest.importorskip("onnxruntime")
    root = pytest.importorskip("harness").__path__[0].rpartition("/")[0]
    for name in ("suites", "models"):
        (pytester.path / name).symlink_to(f"{root}/{name}", target_is_directory=True)
    pytester.makeconftest('pytest_plugins = ("harness.plugin",)')
    words = "--score-images=300 --timing-rounds=6 --engine-cache=cache"
    options = f"-p no:cacheprovider --import-mode=importlib --baseline-dir=baselines {words}"
    pytester.makeini(f"[pytest]\naddopts = {options}")
    path = pytester.path / "out" / "mine.ort"
    call = CliRunner().invoke(app, ["export", "mlp-ort-fp32", "-o", str(path), "--model=mlp", "--engine-cache=cache"])
    assert call.exit_code == 0, call.output
    assert f"take it by --engine={path}" in call.output
    result = pytester.runpytest_inprocess("suites/", "--backend=ort", f"--engine={path}")
    assert result.ret == 0, result.stdout.str()
    _, records = load_run(pytester.path / "reports" / "latest")
    (record,) = records
    assert record.case.id == "mine-ort-fp32-given"
    assert record.accuracy.top1 > 0.9
    assert record.valid_latencies
    assert {latency.reference_case for latency in record.latencies} == {""}
    assert f"--engine={path}" in record.command
    assert "--model" not in record.command
    assert record.effective_precision.main == "fp32"
    again = CliRunner().invoke(app, ["export", "mlp-ort-fp32", "-o", str(path.with_suffix(".onnx")), "--model=mlp"])
    assert again.exit_code == 2
    assert "is the card of another file" in again.output


def test_an_engine_of_any_graph_is_timed_and_compared_with_nothing(pytester):
    pytest.importorskip("openvino")
    root = pytest.importorskip("harness").__path__[0].rpartition("/")[0]
    (pytester.path / "suites").symlink_to(f"{root}/suites", target_is_directory=True)
    pytester.makeconftest('pytest_plugins = ("harness.plugin",)')
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider --import-mode=importlib --timing-rounds=6")
    model = graph_spec(write_net(pytester.path, "text"), shapes=(("ids", (1, 7)), ("mask", (1, 7))))
    path = pytester.path / "mine.blob"
    export_to(request_of(model, "openvino", pytester.path, size=1), path)
    result = pytester.runpytest_inprocess("suites/", f"--engine={path}", "--backend=openvino", "--score-images=8")
    assert result.ret == 0, result.stdout.str()
    (record,) = load_run(pytester.path / "reports" / "latest")[1]
    assert record.invariance
    assert record.valid_latencies
    assert not record.tensor_drifts


def shipped(tmp_path, text, name="net.blob"):
    (tmp_path / name).write_bytes(b"no engine at all")
    (tmp_path / "net.toml").write_text(text)
    return tmp_path / name


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ('["ids:int64"]', "expected NAME:TYPE:DIMS"),
        ('["ids:text:1x7"]', "expected NAME:TYPE:DIMS"),
        ('["ids:int64:1x0"]', "expected NAME:TYPE:DIMS"),
        ("[]", "has no inputs"),
        ('["ids:int64:1x7"]\n[graph]\nshapes = ["ids:1x7"]', r"no outputs|stand in \[engine\] inputs"),
        ('["ids:int64:1x7"]\noutputs = []\n[graph]\nstate = ["rate=scores"]', "no input 'rate'|no outputs"),
    ],
)
def test_a_card_that_says_too_little_is_refused_by_its_key(tmp_path, inputs, says):
    text = GRAPH_CARD.format(inputs=inputs)
    if inputs.count("\n"):
        text = text.replace('outputs = ["scores"]\n', "")
    with pytest.raises(DataError, match=says):
        load_engine(shipped(tmp_path, text))


def test_an_engine_is_trusted_by_its_option_alone(tmp_path):
    file = shipped(tmp_path, GRAPH_CARD.format(inputs='["ids:int64:1x7", "rate:float32:scalar"]'))
    with pytest.raises(DataError, match=f"trust it by --engine={file}"):
        load_card(tmp_path / "net.toml")
    model = load_engine(file)
    assert model.engine == ShippedEngine(backend="openvino", precision=Precision.FP16)
    assert model.tensors.shapes(1) == {"ids": (1, 7), "rate": ()}
    assert (model.timing_only, model.is_onnx) == (True, False)


def test_what_is_no_engine_with_a_card_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_engine(tmp_path / "net.blob")
    (tmp_path / "net.blob").write_bytes(b"1")
    with pytest.raises(DataError, match=r"needs a card beside it, net.toml"):
        load_engine(tmp_path / "net.blob")
    shipped(tmp_path, '[model]\nfile = "net.blob"\n[graph]\n')
    with pytest.raises(DataError, match=r"no table \[engine\]; a model goes to --model"):
        load_engine(tmp_path / "net.blob")
    file = shipped(tmp_path, GRAPH_CARD.format(inputs='["ids:int64:1x7"]'))
    file.rename(tmp_path / "net.plan")
    (tmp_path / "net.blob").write_bytes(b"1")
    with pytest.raises(DataError, match=r"net.toml is the card of net.blob"):
        load_engine(tmp_path / "net.plan")


def test_an_engine_whose_backend_takes_no_part_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    file = shipped(tmp_path, GRAPH_CARD.format(inputs='["ids:int64:1x7"]'))
    with pytest.raises(BackendUnavailable, match="is an engine of openvino: add openvino to --backend"):
        plan_run(HarnessOptions(backends=("ort",), engines=(str(file),)), probe=False)
    plan = plan_run(HarnessOptions(backends=("ort", "openvino"), engines=(str(file),)), probe=False)
    assert [case.id for case in plan.cases] == ["net-openvino-fp16-given"]


@pytest.mark.parametrize(("backend", "suffix"), SUFFIXES)
def test_a_file_that_the_runtime_refuses_is_an_error_that_says_what_built_it(tmp_path, backend, suffix):
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    (tmp_path / f"mine{suffix}").write_bytes(b"no engine of any runtime")
    model = load_card(MODELS / "mlp.toml")
    engine = ShippedEngine(backend=backend, precision=Precision.FP32, runtime="some runtime 1.2.3")
    model = replace(model, engine=engine, onnx_path=str(tmp_path / f"mine{suffix}"), sha256="")
    with pytest.raises(BuildError, match=r"its card says that some runtime 1\.2\.3 built it"):
        OpenCase(request_of(model, backend, tmp_path)).prepare()


def test_a_backend_that_loads_none_says_so(tmp_path):
    pytest.importorskip("cv2")
    engine = ShippedEngine(backend="opencv", precision=Precision.FP32)
    model = replace(load_card(MODELS / "mlp.toml"), engine=engine)
    prepared = OpenCase(request_of(model, "opencv", tmp_path)).prepare()
    assert not prepared.support.supported
    assert re.search("opencv loads no engine from a file", prepared.support.reason)


def test_a_card_keeps_what_its_model_was_trained_on(tmp_path):
    model: ModelSpec = load_card(MODELS / "mlp.toml")
    (tmp_path / "mlp.onnx").write_bytes(b"1")
    text = card_text(replace(model, sha256="", max_drop={"int8": 0.01}), file="mlp.onnx", provenance="")
    (tmp_path / "mlp.toml").write_text(text)
    again = load_card(tmp_path / "mlp.toml")
    for name in ("trained_on", "floors", "accuracy", "scale", "input_shape", "label_offset", "expects_int8_loss"):
        assert getattr(again, name) == getattr(model, name), name
    assert again.max_drop == {"int8": 0.01}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("out", "--output=out: has no ending; give a file: .plan, .blob, .ort or .onnx"),
        ("there", "--output=there: is a folder; give a file in it: .plan, .blob, .ort or .onnx"),
        ("mine.toml", "--output=mine.toml: the card gets this name; give the file another ending"),
        ("file/mlp.ort", "file: is no folder"),
    ],
)
def test_a_target_that_cannot_be_written_is_told_before_anything_is_built(tmp_path, monkeypatch, target, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("harness.run.exporting.plan_run", lambda options: pytest.fail("planned"))
    with pytest.raises(ConfigError, match=re.escape(told)):
        export_case("mlp-ort-fp32", Path(target), HarnessOptions(root=tmp_path))
