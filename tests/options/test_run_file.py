"""[run] of harness.toml: every option, precedence, and refusals of one line."""

import json

import pytest
from option_words import EVERY, every_word, options_of

from harness.errors import ConfigError

IN_FILE = {flag: value for flag, (_, value) in EVERY.items() if value is not None}


def toml_of(values):
    lines = [f"{flag.removeprefix('--').replace('-', '_')} = {json.dumps(value)}" for flag, value in values.items()]
    return "\n".join(("[run]", *lines, ""))


@pytest.mark.parametrize("flag", IN_FILE)
def test_the_file_and_the_command_line_say_the_same(flag, tmp_path):
    typed = options_of(*EVERY[flag][0], root=tmp_path)
    (tmp_path / "harness.toml").write_text(toml_of({flag: IN_FILE[flag]}))
    read = options_of(root=tmp_path)
    assert read == typed
    assert read.set_in_file == {flag}
    assert typed.set_in_file == frozenset()


def test_every_option_at_once(tmp_path):
    typed = options_of(*every_word(), root=tmp_path)
    (tmp_path / "harness.toml").write_text(toml_of(IN_FILE))
    elsewhere = [word for flag in set(EVERY) - set(IN_FILE) for word in EVERY[flag][0]]
    assert options_of(*elsewhere, root=tmp_path) == typed


def test_pyproject_serves_as_well(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.harness.run]\nthreads = 4\n")
    assert options_of(root=tmp_path).num_threads == 4


def test_the_command_line_beats_the_file_beats_the_default(tmp_path):
    (tmp_path / "harness.toml").write_text(
        '[run]\nthreads = 4\nrebuild = true\nbackend = ["ort"]\ntrt_profile = ["1:1:8"]\nscore_images = 5\n'
    )
    options = options_of("--threads=2", "--no-rebuild", "--backend=openvino", "--trt-profile=1:2:4", root=tmp_path)
    assert (options.num_threads, options.rebuild, options.backends) == (2, False, ("openvino",))
    assert options.settings == {"trt": {"profiles": ((1, 2, 4),)}}
    assert (options.data.score_images, options.score_batch) == (5, 100)


def test_paths_start_at_the_file(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "harness.toml").write_text(
        '[run]\ndata_dir = "digits"\nmodel = ["mlp", "./own.onnx"]\nextension_dir = "mine"\nreport_dir = "out"\n'
        'worker_python = "python3.12"\n'
    )
    options = options_of(root=tmp_path)
    assert options.data.data_dir == str(tmp_path / "digits")
    assert options.models == ("mlp", str(tmp_path / "own.onnx"))
    assert options.extension_dirs == (str(tmp_path / "mine"),)
    assert options.report_dir == str(tmp_path / "out")
    assert options.worker_python == "python3.12"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("bach_size = 1", "unknown name 'bach_size'; did you mean 'batch_size'?"),
        ("batch-size = 1", "unknown name 'batch-size'; did you mean 'batch_size'?"),
        ("trt_tf32 = true", "unknown name 'trt_tf32'"),
        ("threads = 'two'", "threads = two: expected a whole number"),
        ("threads = 2.5", "threads = 2.5: expected a whole number"),
        ("threads = true", "threads = True: expected a whole number"),
        ("threads = [1, 2]", "threads = [1, 2]: expected a whole number"),
        ("backend = [1]", "backend = [1]: expected a name or a list"),
        ("backend = []", "expected a name, found none"),
        ("batch_size = [1, 'x']", "batch_size = x: expected a whole number"),
        ("rebuild = 'yes'", "rebuild = 'yes': expected true or false"),
        ("split = 'all'", "split = all: choose from train, test"),
        ("trt_profile = [[1, 2, 3]]", "trt_profile = [[1, 2, 3]]: expected MIN:OPT:MAX"),
        ("max_drop = '1%'", "max_drop = '1%': write it in [tolerance] of the same file"),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_key(line, says, tmp_path):
    (tmp_path / "harness.toml").write_text(f"[run]\n{line}\n")
    with pytest.raises(ConfigError) as error:
        options_of(root=tmp_path)
    assert says in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'harness.toml'} [run]: ")
    assert "\n" not in str(error.value)


def test_a_run_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "harness.toml").write_text("run = 3\n")
    with pytest.raises(ConfigError, match="found 3; expected a table"):
        options_of(root=tmp_path)
