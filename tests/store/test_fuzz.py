"""No file, however damaged or made to harm, gives more than one line. benchmarks/fuzz.py does it for longer."""

import tempfile
from pathlib import Path

import pytest
from fuzz_readers import HOSTILE, damaged, readers, try_reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "fuzz_corpus"  # inputs that were not refused in one line once: READER-NUMBER
EDITS = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
)
JSON_NAMES = (
    "run.json",
    "record",
    "predictions",
    "times",
    "summary.json",
    "shards.json",
    "INT8 ranges",
    "timing calibration",
    "images.json",
    "samples",
    "fire_drill.json",
    "operators",
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
    "graph card",
    "waivers",
    "fleet.toml",
    "lock file",
    "shards.json",
    "INT8 table",
    "INT8 ranges",
    "timing calibration",
    "records.jsonl.gz",
    "images.json",
    "samples",
    "fire_drill.json",
    "operators",
    "night",
    "outputs",
    "prototxt",
    "caffemodel",
    "onnx",
    "jpeg",
    "png of 16 bits",
    "png of a palette",
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


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_once_raised_is_refused_in_one_line_or_read(known, path, tmp_path):
    try_reader(known[path.name.rpartition("-")[0].replace("_", " ")], path.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_file_is_read(known, name, tmp_path):
    refusal = try_reader(known[name], known[name].sound, tmp_path)
    assert refusal == "" or (name == "card" and "mlp.onnx cannot be read" in refusal)


@pytest.mark.parametrize("name", JSON_NAMES)
@pytest.mark.parametrize("which", range(len(HOSTILE)))
def test_a_value_that_means_harm_is_refused_in_one_line_whatever_its_digest(known, name, which, tmp_path):
    for step in range(6):
        try_reader(known[name], damaged(known[name], [(5, (step + 0.5) / 6, which)]), tmp_path)
