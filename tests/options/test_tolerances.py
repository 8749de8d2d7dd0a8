"""Tolerances: precedence, places they may be written, and refusals that name the nearest known name."""

import pytest

from harness.errors import ConfigError
from harness.options.tolerances import (
    ToleranceTable,
    fraction_from_text,
    load_tolerances,
    parse_tolerances,
    text_from_fraction,
    value_from_text,
)
from harness.specs import Case, ModelSpec, Precision, Tolerance

BACKENDS = ("ort", "openvino", "trt")
MODELS = ("lenet5", "dsnet")


def case(precision="int8", backend="openvino", model="lenet5"):
    return Case(model=model, backend=backend, precision=Precision(precision), recipe="none")


def model(**changes):
    spec = {
        "name": "lenet5",
        "onnx_path": "lenet5.onnx",
        "sha256": "",
        "input_name": "input",
        "input_shape": (1, 28, 28),
        "output_name": "output",
        "num_classes": 10,
    }
    return ModelSpec(**{**spec, **changes})


def loaded(tmp_path, text, name="harness.toml"):
    (tmp_path / name).write_text(text)
    return load_tolerances(tmp_path, backends=BACKENDS, models=MODELS)


def test_without_a_file_the_defaults_hold(tmp_path):
    table = load_tolerances(tmp_path, backends=BACKENDS)
    assert table.tolerance_for(case(), model(), "strokes") == Tolerance()


LADDER = """
[tolerance]
max_drop = 0.01
[tolerance.openvino]
max_drop = 0.02
[tolerance.int8]
max_drop = 0.03
[tolerance.openvino.int8]
max_drop = 0.04
[model.lenet5.tolerance]
max_drop = 0.05
[model.lenet5.tolerance.openvino.int8]
max_drop = 0.06
"""


@pytest.mark.parametrize(
    ("precision", "backend", "name", "expected"),
    [
        ("fp32", "ort", "dsnet", 0.01),
        ("fp32", "openvino", "dsnet", 0.02),
        ("int8", "ort", "dsnet", 0.03),
        ("int8", "openvino", "dsnet", 0.04),
        ("int8", "ort", "lenet5", 0.05),
        ("int8", "openvino", "lenet5", 0.06),
    ],
)
def test_the_narrower_table_wins(tmp_path, precision, backend, name, expected):
    table = loaded(tmp_path, LADDER)
    spec = model(name=name, max_drop={"int8": 0.001, "fp32": 0.001})
    assert table.tolerance_for(case(precision, backend, name), spec, "strokes").max_drop == expected


def test_command_line_beats_file_beats_card_beats_default(tmp_path):
    spec = model(max_drop={"int8": 0.02})
    assert ToleranceTable().tolerance_for(case(), spec, "strokes").max_drop == 0.02
    table = loaded(tmp_path, '[tolerance]\nmax_drop = "3%"\nalpha = 0.01\n')
    assert table.tolerance_for(case(), spec, "strokes").max_drop == 0.03
    found = table.tolerance_for(case(), spec, "strokes", command_line={"max_drop": 0.04, "alpha": None})
    assert (found.max_drop, found.alpha) == (0.04, 0.01)


def test_the_floor_of_a_card_is_fp32s_and_lower_for_lower_precisions(tmp_path):
    spec = model(floors={"strokes": 0.99}, max_drop={"int8": 0.01})

    def floor(precision, spec=spec, data="strokes"):
        return ToleranceTable().tolerance_for(case(precision), spec, data).floor

    assert floor("fp32") == 0.99
    assert floor("int8") == pytest.approx(0.98)
    assert floor("fp16") == pytest.approx(0.985)
    assert floor("fp32", data="mnist") is None
    assert floor("int8", model(floors={"strokes": 0.99}, expects_int8_loss=True)) is None
    assert loaded(tmp_path, "[tolerance]\nfloor = 0.9").tolerance_for(case(), spec, "strokes").floor == 0.9


def test_pyproject_is_read_and_two_places_are_refused(tmp_path):
    text = '[project]\nname = "x"\n[tool.harness.tolerance.int8]\nmax_drop = 0.02\n'
    table = loaded(tmp_path, text, "pyproject.toml")
    assert table.tolerance_for(case(), model(), "strokes").max_drop == 0.02
    with pytest.raises(ConfigError, match="keep one"):
        loaded(tmp_path, "[tolerance]\nalpha = 0.01")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tolerance]\nmax_dorp = 0.1", ["max_dorp", "did you mean 'max_drop'"]),
        ("[tolerances]\nmax_drop = 0.1", ["tolerances", "did you mean 'tolerance'"]),
        ("[tolerance.openvin]\nmax_drop = 0.1", ["openvin", "did you mean 'openvino'"]),
        ("[tolerance.openvino.int4]\nmax_drop = 0.1", ["int4", "did you mean 'int8'"]),
        ("[tolerance.int8.openvino]\nmax_drop = 0.1", ["openvino", "[tolerance.int8]"]),
        ("[model.lenet.tolerance]\nmax_drop = 0.1", ["did you mean 'lenet5'"]),
        ("[model.lenet5]\nmax_drop = 0.1", ["model.lenet5", "max_drop"]),
        ("[tolerance]\nmax_drop = 0.5", ["means 50 %", "'0.5%'"]),
        ("[tolerance]\nmax_drop = nan", ["max_drop is nan"]),
        ("[tolerance]\nmax_drop = true", ["True"]),
        ("[tolerance]\nmax_drop = 'much'", ["much"]),
        ("[tolerance]\nalpha = 0", ["alpha is 0"]),
        ("[tolerance]\nmax_slowdown = -0.1", ["max_slowdown is -0.1"]),
        ("tolerance = 3", ["expected a table"]),
        ("[tolerance\n", ["is not TOML"]),
    ],
)
def test_mistakes_are_refused_by_name(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, text)
    for word in (*words, "harness.toml"):
        assert word in str(error.value)


def test_the_options_of_a_run_are_left_to_the_run(tmp_path):
    table = loaded(tmp_path, "[run]\nscore_images = 7\n[tolerance]\nalpha = 0.01")
    assert table.tolerance_for(case(), model(), "strokes").alpha == 0.01


def test_mistakes_on_the_command_line_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'max_drop'"):
        ToleranceTable().tolerance_for(case(), model(), "strokes", command_line={"max_dropp": 0.1})
    with pytest.raises(ConfigError, match="floor is 99"):
        ToleranceTable().tolerance_for(case(), model(), "strokes", command_line={"floor": 99.0})


def test_text_becomes_a_fraction():
    assert fraction_from_text("0.5%") == pytest.approx(0.005)
    assert fraction_from_text(" 0.005 ") == 0.005
    assert value_from_text("max_drop", "50%", where="--max-drop") == 0.5
    assert value_from_text("max_slowdown", "0.5", where="--max-slowdown") == 0.5
    with pytest.raises(ConfigError, match="--max-drop"):
        value_from_text("max_drop", "0.5", where="--max-drop")
    with pytest.raises(ConfigError, match="neither"):
        fraction_from_text("5 percent")


@pytest.mark.parametrize("value", [0.0, 0.003, 0.07, 0.2, 0.21, 0.5, 0.57, 0.999, 1.0])
def test_a_fraction_is_typed_again_as_it_was(value):
    assert value_from_text("max_drop", text_from_fraction(value), where="") == value


def test_any_model_name_is_taken_when_none_are_known():
    table = parse_tolerances({"model": {"own": {"tolerance": {"alpha": 0.01}}}}, backends=BACKENDS, source="x")
    assert table.tolerance_for(case(model="own"), model(name="own"), "strokes").alpha == 0.01
