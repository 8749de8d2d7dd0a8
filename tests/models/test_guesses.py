"""What a model is likely for, by its shapes: hints in a card, and what a card of any graph says of itself."""

import pytest
from graph_nets import graph_spec, write_net

from harness.models import load_card
from harness.models.card_text import card_text
from harness.models.guesses import guessed_task, likely_states, picture_input, untold_numbers

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
PICTURE = "float[n, 3, 64, 96] image"
LINE = "float[n, 3, 48, 320] image"


def tensors_of(folder, inputs, outputs):
    """Return what a file with these ends says; nothing of it is run."""
    names = [one.split()[-1] for one in outputs]
    first = inputs[0].split()[-1]
    body = " ".join(f"{name} = Shrink ({first})" for name in names)
    text = f"{HEAD} ({', '.join(inputs)}) => ({', '.join(outputs)}) {{ {body} }}"
    return graph_spec(write_net(folder, "net", text)).tensors


@pytest.mark.parametrize(
    ("ends", "task", "setting"),
    [
        ([PICTURE, "float[n, 3549, 6] y"], "detection", 'format = "rows"'),
        ([PICTURE, "float[n, 84, 8400] y"], "detection", 'format = "yolo"'),
        ([PICTURE, "float[n, 84, boxes] y"], "detection", 'format = "yolo"'),
        ([LINE, "float[n, 40, 6625] y"], "tokens", 'decode = "ctc"'),
        ([LINE, "float[n, steps, 97] y"], "tokens", 'decode = "ctc"'),
        ([PICTURE, "float[n, 2, 64, 96] y"], "segmentation", 'layout = "CHW"'),
        (["int64[n, 7] ids", "float[n, 214] y"], "classification", ""),
        (["float[n, 7] row", "float[n, 1] y"], "regression", ""),
        (["float[n, 7] row", "float[n, 12, 3] y"], "", ""),
        (["int64[n, 7] ids", "int64[n, 7] y"], "", ""),
    ],
)
def test_a_task_is_guessed_by_the_shape_of_the_first_output(tmp_path, ends, task, setting):
    guess = guessed_task(tensors_of(tmp_path, ends[:1], ends[1:]))
    assert (guess.task if guess else "") == task
    assert setting in "\n".join(guess.settings if guess else ())


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("float[n, 3, 64, 96] x", True),
        ("uint8[n, 64, 96, 3] x", True),
        ("float[n, 64, 96, 7] x", False),
        ("float[n, 3, 1, 512] x", False),
        ("float[n, 512] x", False),
    ],
)
def test_only_what_lies_as_pictures_do_is_prepared_as_one(tmp_path, text, is_one):
    assert (picture_input(tensors_of(tmp_path, [text], ["float[n, 2] y"])) is not None) == is_one


def test_a_state_and_numbers_without_a_meaning_are_told(tmp_path):
    ends = ["float[1, 64] x", "float[2, 1, 16] h", "int64 rate"], ["float[1, 1] y", "float[2, 1, 16] next"]
    tensors = tensors_of(tmp_path, *ends)
    assert likely_states(tensors) == (("h", "next"),)
    assert untold_numbers(tensors) == ("rate",)
    assert likely_states(tensors_of(tmp_path, ["float[1, 64] x"], ["float[1, 64] y"])) == (), "the first is no state"


def test_a_card_of_any_graph_holds_no_word_of_pictures_where_there_are_none(tmp_path):
    spec = graph_spec(write_net(tmp_path, "text"), shapes=(("ids", (1, 7)), ("mask", (1, 7))))
    text = card_text(spec, file="text.onnx", provenance="")
    assert "[input]" not in text
    assert "timing_only" not in text
    assert '# task = "classification"  # a guess: output scores is ? x 3' in text
    (tmp_path / "text.toml").write_text(text)
    assert load_card(tmp_path / "text.toml").task == "raw"
