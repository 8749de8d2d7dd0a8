"""Model cards, models by name or path, and the bundled files."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.datasets import open_dataset
from harness.errors import ConfigError, DataError
from harness.models import HEAVY_MODEL, bundled_models, find_model, heavy_model_path, load_card
from harness.models.preprocess import images_from_pixels
from harness.specs import ImageRange
from harness.tasks import collector_of

MODELS = Path(__file__).parents[2] / "models"
BUNDLED = ("lenet5", "lenet5_hard", "mlp", "mobilenet_digits")
CARD = """
[model]
file = "tiny.onnx"
sha256 = "{sha256}"
description = "four pixels"
how_trained = "by hand"
max_batch = 8

[input]
name = "x"
shape = [3, 2, 2]
layout = "NCHW"
scale = 1
mean = [0.1, 0.2, 0.3]
std = [1, 2, 4]

[output]
name = "y"
classes = 7
label_offset = 1
kind = "logits"

[[trained_on]]
dataset = "mnist"
split = "train"
first = 10
stop = 20

[accuracy]
mnist = 0.99

[floors]
mnist = 0.98

[max_drop]
int8 = 0.01
"""


@pytest.fixture
def card(tmp_path):
    (tmp_path / "tiny.onnx").write_bytes(b"not read")
    path = tmp_path / "tiny.toml"
    path.write_text(CARD.format(sha256=hashlib.sha256(b"not read").hexdigest()))
    return path


def edit(card, old, new):
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new))


def refused(card, kind=DataError):
    with pytest.raises(kind) as error:
        load_card(card)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_card_says_everything(card):
    spec = load_card(card)
    assert (spec.name, spec.onnx_path) == ("tiny", str(card.with_name("tiny.onnx").resolve()))
    assert (spec.input_name, spec.input_shape, spec.layout) == ("x", (3, 2, 2), "NCHW")
    assert (spec.scale, spec.mean, spec.std) == (1.0, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    assert (spec.output_name, spec.num_classes, spec.label_offset, spec.output_kind) == ("y", 7, 1, "logits")
    assert spec.trained_on == (ImageRange(dataset="mnist", split="train", first=10, stop=20),)
    assert (spec.accuracy, spec.floors, spec.max_drop) == ({"mnist": 0.99}, {"mnist": 0.98}, {"int8": 0.01})
    assert (spec.max_batch, spec.timing_only, spec.expects_int8_loss) == (8, False, False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("description", "descripton", "unknown field `descripton` - at `$.model`"),
        ("[output]", "[outptu]", "`outptu`"),
        ('name = "x"', "", "missing required field `name` - at `$.input`"),
        ("[3, 2, 2]", '"3x2x2"', "Expected `array`, got `str` - at `$.input.shape`"),
        ("classes = 7", "classes = 7.5", "at `$.output.classes`"),
        ("int8 = 0.01", "int8 = 1.5", "int8 = 1.5 is no fraction"),
        ("mnist = 0.99", "mnist = 99", "mnist = 99.0 is no fraction"),
        ("int8 = 0.01", "int4 = 0.01", "names 'int4'; expected one of fp16, bf16, int8"),
        ("[input]", "[input", "fix the card"),
        ("split =", "splitt =", "`splitt` - at `$.trained_on[0]`"),
    ],
)
def test_a_wrong_card_names_the_key(card, old, new, message):
    edit(card, old, new)
    text = refused(card)
    assert str(card) in text
    assert message in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"NCHW"', '"CHWN"', "CHWN"),
        ("std = [1, 2, 4]", "std = [1, 0, 4]", "std"),
        ('"logits"', '"softmax"', "softmax"),
        ("classes = 7", "classes = 1", "at least 2"),
        ("stop = 20", "stop = 5", "not a range"),
    ],
)
def test_a_contradictory_card_is_refused(card, old, new, message):
    edit(card, old, new)
    assert message in refused(card, ConfigError)


def test_another_file_than_the_card_s(card):
    card.with_name("tiny.onnx").write_bytes(b"changed")
    message = refused(card)
    assert "tiny.onnx" in message
    assert "is not the" in message
    assert "restore the file" in message


def test_a_card_without_its_file(card):
    card.with_name("tiny.onnx").unlink()
    assert "cannot be read" in refused(card)


def test_no_such_card(tmp_path):
    assert "no such model card" in refused(tmp_path / "absent.toml")


def test_models_are_found_by_name_card_or_file(card):
    folder = card.parent
    for name in ("tiny", str(card), str(card.with_name("tiny.onnx"))):
        assert find_model(name, folder).name == "tiny"
    other = folder / "other.onnx"
    other.write_bytes(b"?")
    assert find_model(str(other), folder) == other.resolve()
    card.rename(folder / "other.toml")  # a card of another file does not count
    assert find_model(str(other), folder) == other.resolve()


def test_the_heavy_model_is_looked_at_in_a_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_model(HEAVY_MODEL, MODELS) == heavy_model_path()
    assert tmp_path in heavy_model_path().parents


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet", "did you mean lenet5"),
        ("resnet101", "did you mean resnet101_112"),
        ("xyz", "there are: lenet5, lenet5_hard, mlp, mobilenet_digits, resnet101_112"),
        ("absent.onnx", "no such model file"),
        ("a/b", "no such model file"),
        ("absent.toml", "no such model card"),
    ],
)
def test_an_unknown_model_gets_a_hint(name, message):
    with pytest.raises(DataError, match=message):
        find_model(name, MODELS)


def test_a_folder_without_cards(tmp_path):
    with pytest.raises(DataError, match="no model cards"):
        bundled_models(tmp_path)


def test_the_bundled_models_are_there_and_small():
    specs = bundled_models(MODELS)
    assert tuple(spec.name for spec in specs) == BUNDLED
    for spec in specs:
        assert Path(spec.onnx_path).stat().st_size < 2_000_000
        assert (spec.input_shape, spec.num_classes, spec.max_batch) == ((1, 28, 28), 10, None)
        assert {r.dataset for r in spec.trained_on} == {"strokes", "mnist"}
        held_out = ImageRange(dataset="mnist", split="train", first=50_000, stop=60_000)
        assert not any(held_out.overlap(r) for r in spec.trained_on)
        assert all(spec.accuracy[name] > spec.floors[name] > spec.accuracy[name] - 0.01 for name in spec.floors)
    assert [spec.name for spec in specs if spec.expects_int8_loss] == ["lenet5_hard"]


def test_lenet5_is_as_good_as_asked():
    assert min(load_card(MODELS / "lenet5.toml").accuracy.values()) >= 0.988


def outputs(name, n_images):
    """Return softmax outputs of ONNX Runtime, without anything of the harness's backends, and the labels."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="scoring the bundled files needs onnxruntime")
    spec = load_card(MODELS / f"{name}.toml")
    pixels, labels = open_dataset("strokes", split="test").read(0, n_images)
    session = onnxruntime.InferenceSession(spec.onnx_path, providers=["CPUExecutionProvider"])
    return session.run([spec.output_name], {spec.input_name: images_from_pixels(pixels, spec)})[0], labels


@pytest.mark.parametrize("name", BUNDLED)
def test_a_card_s_accuracy_is_its_file_s(name):
    probabilities, labels = outputs(name, 2000)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    top1 = (probabilities.argmax(axis=1) == labels).mean()
    accuracy = load_card(MODELS / f"{name}.toml").accuracy["strokes"]
    n_expected = 2000 * accuracy
    assert abs(2000 * top1 - n_expected) <= 5 * np.sqrt(n_expected * (1 - accuracy))


def test_lenet5_hard_is_the_same_function():
    np.testing.assert_allclose(outputs("lenet5_hard", 500)[0], outputs("lenet5", 500)[0], atol=1e-5)


def test_finding_models_imports_no_runtime():
    code = (
        "import sys; from harness.models import bundled_models; bundled_models(sys.argv[1]); "
        "bad = {'onnx', 'onnxruntime', 'torch', 'google.protobuf'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(MODELS)], check=True)


@pytest.mark.parametrize("file", ["../tiny.onnx", "/etc/passwd", "sub/../../tiny.onnx", "a\\u0000b"])
def test_a_card_whose_file_leads_out_of_its_folder_is_refused(card, file):
    card.write_text(card.read_text().replace('file = "tiny.onnx"', f'file = "{file}"'))
    with pytest.raises(DataError, match="leads out of the card's folder"):
        load_card(card)


def test_a_card_of_values_nested_too_deep_is_one_line(card):
    card.write_text("x = " + "[" * 100_000)
    with pytest.raises(DataError, match=r"^[^\n]*docs/datasets.md lists its keys$"):
        load_card(card)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ('[output]\ntask = "tokens"\n', "task = 'tokens' .* add a table [graph]"),
        ('[task]\ncharset = "abc"\n', "[task] .* add a table [graph]"),
        ('[output]\ntask = "tokens"\n[task]\ncharsett = "abc"\n', "task = 'tokens' .* add a table [graph]"),
        ('[graph]\n[output]\ntask = "tokens"\n[task]\ncharsett = "abc"\n', "charsett: task tokens has no such key"),
        ("[output]\nclasses = 7\n", "missing required field `name` - at `$.input`"),
    ],
)
def test_a_card_without_a_graph_hides_no_other_fault(tmp_path, tables, told):
    (tmp_path / "tiny.onnx").write_bytes(b"not read")
    (tmp_path / "tiny.toml").write_text(f'[model]\nfile = "tiny.onnx"\n{tables}')
    with pytest.raises((ConfigError, DataError), match=re.escape(told).replace("\\ \\.\\*\\ ", " .* ")):
        collector_of(load_card(tmp_path / "tiny.toml"))


def test_a_card_is_called_as_its_file_is_where_no_name_may_hold_its_letters(tmp_path):
    (tmp_path / "PP-OCR v4.onnx").write_bytes(b"not read")
    (tmp_path / "PP-OCR v4.toml").write_text('[model]\nfile = "PP-OCR v4.onnx"\n[graph]\n')
    assert load_card(tmp_path / "PP-OCR v4.toml").name == "PP_OCR_v4"
    assert find_model(str(tmp_path / "PP-OCR v4.onnx"), MODELS).name == "PP_OCR_v4"
