"""Real models: the sets are what they say they are, and the table holds what was measured."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from comparison_records import record_with
from onnx import helper
from sample_records import class_scores, sample_record, source_record

from harness.records import Outcome, Verdict
from harness.report.model import rows_of_cases

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytest.importorskip("PIL", reason="needs Pillow")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("real_models")


@pytest.fixture
def sets(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("real_sets")


def arrays(write, tmp_path, *, n_samples=4, seed=0, **options):
    path = tmp_path / f"{seed}.npz"
    write(path, n_samples, seed, **options)
    with np.load(path) as found:
        return dict(found)


@pytest.mark.parametrize("kind", ["write_angles", "write_words", "write_regions"])
def test_a_seed_gives_one_set_and_another_seed_another(sets, tmp_path, kind):
    write = getattr(sets, kind)
    first, again, other = (arrays(write, tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first["x"].dtype == np.float32
    assert np.array_equal(first["x"], again["x"])
    assert np.array_equal(first["labels"], again["labels"])
    assert not np.array_equal(first["x"], other["x"])


def test_every_other_line_is_turned(sets, tmp_path, monkeypatch):
    image = sets.line_of_text("Lamp", np.random.default_rng(0))
    monkeypatch.setattr(sets, "line_of_text", lambda text, random: image)
    found = arrays(sets.write_angles, tmp_path, n_samples=2)
    assert found["labels"].tolist() == [0, 1]
    width = min(sets.ANGLE_WIDTH, -(-sets.TEXT_HEIGHT * image.width // image.height))
    upright, turned = found["x"][:, :, :, :width]
    np.testing.assert_allclose(upright[:, ::-1, ::-1], turned, atol=0.02)
    assert not np.allclose(upright, turned, atol=0.02)


def test_words_are_those_of_their_pictures(sets, tmp_path, monkeypatch):
    drawn, line = [], sets.line_of_text
    monkeypatch.setattr(sets, "line_of_text", lambda text, random: (drawn.append(text), line(text, random))[1])
    assert arrays(sets.write_words, tmp_path)["labels"].tolist() == drawn


def test_regions_lie_on_ink(sets, tmp_path):
    found = arrays(sets.write_regions, tmp_path)
    for pixels, mask in zip(found["x"], found["labels"], strict=True):
        assert 0 < mask.mean() < 0.3
        assert pixels.mean(axis=0)[mask == 1].mean() < pixels.mean(axis=0)[mask == 0].mean()
    assert sets.shrunk((0, 0, 100, 20)) == (7, 7, 93, 13)  # 2000 * 0.84 / 240


def test_boxes_keep_apart_and_within(sets):
    random = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in random.integers(20, 60, (30, 2))]
    boxes = sets.placed_boxes([*sizes, (400, 5)], (200, 160), random, gap=4)
    assert 3 < len(boxes) < 30
    assert all(0 < left < right < 200 and 0 < top < bottom < 160 for left, top, right, bottom in boxes)
    for place, one in enumerate(boxes):
        for other in boxes[:place]:
            gaps = [max(one[axis] - other[axis + 2], other[axis] - one[axis + 2]) for axis in (0, 1)]
            assert max(gaps) >= 4


def test_boxes_of_characters_hold_all_ink(sets, tmp_path):
    from PIL import Image

    path = tmp_path / "set" / "annotations.json"
    sets.write_characters(path, 3, 0)
    found = json.loads(path.read_text())
    for image in found["images"]:
        with Image.open(path.parent / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
            dark = np.asarray(opened).max(axis=2) < 120
        boxes = [one["bbox"] for one in found["annotations"] if one["image_id"] == image["id"]]
        assert len(boxes) >= 2
        for left, top, width, height in boxes:
            own = dark[top : top + height, left : left + width]
            assert own.any()
            dark[top : top + height, left : left + width] = False
        assert not dark.any()


def test_the_ends_of_a_file_are_stripped_and_padded(sets):
    short = sets.ends_of(b" \n ab ")
    assert short[:4].tolist() == [97, 98, 32, 256]
    assert short[-6:].tolist() == [256, 32, 10, 32, 97, 98]
    content = b"\n" + bytes(range(48, 58)) * 1000 + b"\n"
    long = sets.ends_of(content)
    assert bytes(long[:1024].tolist()) == content[1:1025]
    assert bytes(long[1024:].tolist()) == content[-1025:-1]


def test_files_of_known_types_come_in_turn_and_no_file_twice(sets, tmp_path):
    root = tmp_path / "root"
    for number in range(4):
        for folder in ("a", "site-packages"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"{folder}{number}.py").write_text(f"{folder}{number} = 1\n" * 40)
    parts = [sets.kinds_of_files([root], part)["python"] for part in (0, 1)]
    assert [[file.name for file in files] for files in parts] == [["a0.py", "a2.py"], ["a1.py", "a3.py"]]
    labels = ["png", "unknown", "python", "zip"]
    found = arrays(sets.write_files, tmp_path, n_samples=6, labels=labels, roots=[root])
    assert found["labels"].tolist() == [0, 2, 3] * 2
    assert bytes(found["bytes"][0][1:4].tolist()) == b"PNG"
    assert bytes(found["bytes"][2][:2].tolist()) == b"PK"
    with pytest.raises(ValueError, match="no kind of file"):
        sets.write_files(tmp_path / "none.npz", 2, 0, labels=["unknown"], roots=[root])


def test_every_kind_of_file_that_is_made_is_made(sets):
    starts = {"bmp": b"BM", "gif": b"GIF8", "gzip": b"\x1f\x8b", "jpeg": b"\xff\xd8", "npy": b"\x93NUMPY",
              "pdf": b"%PDF", "pickle": b"\x80", "sqlite": b"SQLite format 3", "wav": b"RIFF", "webp": b"RIFF",
              "csv": b"id,name", "png": b"\x89PNG", "tiff": b"II", "zip": b"PK"}  # fmt: skip
    assert {kind: make(np.random.default_rng(0))[: len(starts[kind])] for kind, make in sets.MADE.items()} == starts


def test_convolutions_behind_a_concat_are_named(script):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "Conv_1"),
        helper.make_node("Concat", ["a", "x"], ["c"], "join", axis=1),
        helper.make_node("Conv", ["c", "w"], ["d"], "p2o.Conv.2"),
        helper.make_node("Conv", ["d", "c"], ["e"], "Conv_3"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert script.convolutions_after_concat(model) == ["p2o.Conv.2"]


def test_a_package_says_its_version(script, tmp_path):
    (tmp_path / "a" / "my_vad-6.2.dist-info").mkdir(parents=True)
    (tmp_path / "b" / "my-ocr-0.1").mkdir(parents=True)
    (tmp_path / "b" / "my-ocr-0.1" / "PKG-INFO").touch()
    versions = [script.version_of(SimpleNamespace(package=name), tmp_path) for name in ("my-vad", "my-ocr", "other")]
    assert versions == ["6.2", "0.1", ""]


def test_a_missing_file_says_which_package_to_unpack(script, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no silero_vad.*\.onnx; unpack the wheel of silero-vad there"):
        script.file_of(script.SUBJECTS[0], tmp_path)


def test_cards_are_read(script, tmp_path, monkeypatch):
    from harness.models import load_card
    from harness.tasks import find_sample_task

    for subject in (*script.SUBJECTS, *script.REMEDIES):
        if subject.card:
            (tmp_path / "net.onnx").write_bytes(b"net")
            (tmp_path / "net.toml").write_text(f'[model]\nfile = "net.onnx"\n{subject.card}')
            spec = load_card(tmp_path / "net.toml")
            known = {setting.name for setting in find_sample_task(spec.task).settings}
            assert set(spec.task_settings) <= known | {"metric", "output"}


def test_a_row_holds_metric_verdict_and_its_reason(script, monkeypatch, capsys, tmp_path):
    red = Verdict(gate="metric", outcome=Outcome.REGRESSED, code="lost_metric", message="lost", is_failure=True)
    source = source_record(class_scores(200), backend="openvino")
    lower = sample_record(class_scores(200, wrong=range(20)), backend="openvino", verdicts=(red,), reason="it lost")
    monkeypatch.setattr(script, "load_run", lambda folder: SimpleNamespace(cases=(source, lower)))
    subject = replace(script.SUBJECTS[0], name="net", package="none", file="net.onnx")
    assert script.print_tables([subject], tmp_path, tmp_path) == 0
    told = capsys.readouterr().out
    assert "| net | none | `net.onnx` | 200 | top-1 |" in told
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if "openvino" in line]
    assert [len(row) for row in rows[:2]] == [len(script.HEADINGS)] * 2
    assert rows[1][7].startswith("90")
    assert rows[1][8].endswith(": lost_metric")
    assert f"- {lower.case.id}: it lost" in told


def test_a_case_without_times_or_metric_has_dashes(script):
    (row,) = rows_of_cases([record_with(None)])
    cells = script.cells_of(row)
    assert len(cells) == len(script.HEADINGS)
    assert cells[7] == script.MISSING
