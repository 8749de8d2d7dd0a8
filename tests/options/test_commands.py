"""The command that repeats a case holds every option that shaped it; what differed from the defaults is told."""

import shlex
from dataclasses import replace

import pytest
from option_words import EVERY, NOT_REPEATED, SELECTING, every_word, options_of

from harness.options.commands import changed_options, changed_selection, command_of, selection_of, words_of
from harness.specs import Case, Precision

CASE = Case(model="own", backend="trt", precision=Precision.INT8, recipe="qdq-entropy", device="cuda:1")
SHAPING = sorted(set(EVERY) - NOT_REPEATED - SELECTING)
SELECTED = {
    "backends": ("trt",),
    "precisions": (Precision.INT8,),
    "models": ("/models/own.onnx",),
    "recipes": ("qdq-entropy",),
}


def repeated(options, root, case=CASE):
    words = shlex.split(command_of(case, options))
    assert words[:2] == ["pytest", "suites/"]
    return words[2:], options_of(*words[2:], root=root)


@pytest.mark.parametrize("flag", SHAPING)
def test_the_command_has_each_option_that_shaped_the_case(flag, tmp_path):
    options = options_of(*EVERY[flag][0], root=tmp_path)
    words, again = repeated(options, tmp_path)
    assert any(word.split("=")[0] == flag for word in words)
    assert changed_options(options)[flag] == changed_options(again)[flag]


def fields_but(options, *left_out):
    return {name: getattr(options, name) for name in options.__dataclass_fields__ if name not in left_out}


SHARD = ("shard", "shard_plan", "shard_attempt")
FILES = ("report_dir", "report_url", "engine_cache", "rebuild", "resume")
RUN_ONLY = ("update_baselines", "accept_regressions", *FILES, *SHARD)


def test_the_command_read_back_gives_equal_options(tmp_path):
    options = options_of(*every_word(), root=tmp_path)
    words, again = repeated(options, tmp_path)
    assert {word.split("=")[0] for word in words} == {*SHAPING, *SELECTING} - {"--engine"}
    left_out = (*SELECTED, *RUN_ONLY, "engines", "set_in_file")
    assert fields_but(again, *left_out) == fields_but(options, *left_out)
    for name, value in SELECTED.items():
        assert getattr(again, name) == value


def test_options_of_the_file_are_in_the_command_even_where_they_are_the_defaults(tmp_path):
    (tmp_path / "harness.toml").write_text(
        '[run]\nbatch_size = [4]\nthreads = 1\nstrict_verdicts = true\nmodel = ["mlp"]\nrecipe = ["qdq-entropy"]\n'
    )
    options = options_of("--batch-size=1,100", "--no-strict-verdicts", root=tmp_path)
    words, again = repeated(options, tmp_path)
    assert {"--batch-size=1,100", "--threads=1", "--no-strict-verdicts"} <= set(words)
    assert again.timing == options.timing
    assert again.strict is options.strict is False
    fp32 = Case(model="mlp", backend="ort", precision=Precision.FP32, recipe="none")
    words, again = repeated(options, tmp_path, case=fp32)
    assert again.recipes == ("none",)  # the file's recipe is of no FP32 case


def test_the_command_of_a_plain_case_is_short(tmp_path):
    case = Case(model="mlp", backend="ort", precision=Precision.FP16, recipe="cast")
    options = options_of(root=tmp_path)
    assert command_of(case, options) == "pytest suites/ --backend=ort --precision=fp16 --model=mlp"
    int8 = Case(model="mlp", backend="ort", precision=Precision.INT8, recipe="qdq-minmax")
    assert command_of(int8, options).endswith("--precision=int8 --model=mlp --recipe=qdq-minmax")


def test_pytests_strict_is_repeated_as_ours(tmp_path):
    options = options_of("--strict-verdicts", root=tmp_path)
    assert "--strict-verdicts" in command_of(CASE, options)


def test_the_case_of_an_engine_is_repeated_by_its_file(tmp_path):
    options = options_of("--model=net", "--engine=/out/net.plan", "--engine=/out/b.ort", root=tmp_path)
    case = Case(model="net", backend="trt", precision=Precision.FP16, recipe="given", device="cuda:0")
    words = shlex.split(command_of(case, options))
    assert [word for word in words if word.startswith(("--engine", "--model", "--recipe"))] == [
        "--engine=/out/net.plan"
    ]
    built = command_of(replace(case, recipe="cast"), options)
    assert "--engine" not in built
    assert "--model=net" in built


def test_what_differed_is_told_by_flag(tmp_path):
    options = options_of("--batch-size=1,8", "--cuda-tf32", "--trt-workspace=256", "--score-from=0", root=tmp_path)
    assert changed_options(options) == {"--batch-size": "1,8", "--cuda-tf32": "yes", "--trt-workspace": "256"}


def test_a_choice_of_cases_is_told_from_other_options(tmp_path):
    assert not changed_selection(options_of("--threads=2", "--device=cpu", root=tmp_path))
    for flag in SELECTING:
        options = options_of(*EVERY[flag][0], root=tmp_path)
        assert changed_selection(options)
        assert selection_of(changed_options(options)) != selection_of({})
    assert selection_of({"--device": "cuda:1"}) != selection_of({}) == selection_of({"--threads": "2"})


def test_words_are_made_of_fields():
    assert words_of(shard=3, report_dir="/runs", baseline="ignore") == [
        "--shard=3",
        "--report-dir=/runs",
        "--baseline=ignore",
    ]


def test_the_command_has_the_path_of_a_file_whose_name_no_case_may_have(tmp_path):
    options = options_of("--model=/models/PP-OCR v4.onnx", root=tmp_path)
    case = replace(CASE, model="PP_OCR_v4")
    assert "--model=/models/PP-OCR v4.onnx" in repeated(options, tmp_path, case)[0]
