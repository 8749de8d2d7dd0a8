"""No file, however damaged or made to harm, gives more than one line. benchmarks/fuzz.py does it for longer."""

import tempfile
from pathlib import Path

import pytest
from fuzz_readers import HOSTILE, damaged, readers, try_reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EDITS = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
)
NAMES = (
    "run.json",
    "records.jsonl",
    "record",
    "summary.json",
    "predictions",
    "times",
    "cache note",
    "card",
    "harness.toml",
    "idx",
    "idx.gz",
    "batches",
    "packed array",
    "image",
    "npz",
    "npy",
    "labels.csv",
    "labels.json",
    "pixels.csv",
    "coco",
    "parquet",
)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    found = readers(tmp_path_factory.mktemp("sound"))
    assert tuple(found) == NAMES
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_in_one_line(known, name):
    @settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(edits=EDITS)
    def fuzz(edits):
        with tempfile.TemporaryDirectory() as folder:
            try_reader(known[name], damaged(known[name], edits), Path(folder))

    fuzz()


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_file_is_read(known, name, tmp_path):
    refusal = try_reader(known[name], known[name].sound, tmp_path)
    assert refusal == "" or (name == "card" and "mlp.onnx cannot be read" in refusal)


@pytest.mark.parametrize("name", ["run.json", "record", "predictions", "times", "summary.json"])
@pytest.mark.parametrize("which", range(len(HOSTILE)))
def test_a_value_that_means_harm_is_refused_in_one_line_whatever_its_digest(known, name, which, tmp_path):
    for step in range(6):
        try_reader(known[name], damaged(known[name], [(5, (step + 0.5) / 6, which)]), tmp_path)
