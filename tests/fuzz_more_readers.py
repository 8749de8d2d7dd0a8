"""More readers for tests/fuzz_readers.py: what a project, a fleet or a model's owner writes, and what runs leave."""

import io
import struct

import numpy as np
from caffe_files import LENET, caffemodel
from comparison_records import accuracy_with, latency_with, record_with
from fuzz_reader import Reader
from graph_nets import write_net
from PIL import Image
from render_records import make_run
from sample_records import class_scores, sample_record

from harness.datasets._decode import decode_image, read_file
from harness.fleet.bisect_command import locks_of
from harness.fleet.fleet_file import read_fleet
from harness.measure.samples import OutputsFile, read_outputs
from harness.models import load_card
from harness.models.importers.caffe.net import read_net
from harness.models.importers.caffe.weights import read_weights
from harness.models.inspection import inspect_onnx
from harness.options.file import read_settings
from harness.options.tolerances import load_tolerances
from harness.options.waivers import load_waivers
from harness.precision.tables import read_table
from harness.records import (
    INJECTED,
    CalibrationNight,
    CaseSamples,
    FireDrill,
    OperatorOutcome,
    TimingCalibration,
)
from harness.specs import InputsAsked
from harness.store.baseline_files import json_from_baseline, samples_from_json, samples_from_record, subject_from_files
from harness.store.drills import FILE as DRILL
from harness.store.drills import load_fire_drill, save_fire_drill
from harness.store.nights import read_series, write_night
from harness.store.operator_lists import OperatorList, read_list, write_list
from harness.store.runs import load_run, write_records
from harness.store.shard_plans import PlannedShard, ShardPlan, read_plan, write_plan
from harness.store.timing_calibrations import load_calibration, save_calibration

DEVICE = "a device"
SHAPES = (("ids", (1, 7)), ("mask", (1, 7)))
GRAPH_CARD = b"""[model]
file = "text.onnx"
[graph]
shapes = ["ids:1x7", "mask:1x7"]
input_range = ["mask:0..1"]
[preprocess]
resize = [8, 8]
fit = "letterbox"
[output]
task = "tokens"
[task]
charset = "abc"
"""
WAIVERS = b"""[[waiver]]
case = "mlp-*-int8"
gate = "fp32"
reason = "known"
link = "https://tracker/1"
expires = 2026-12-31
[tolerance.int8]
max_drop = "1%"
[model."mlp".tolerance]
max_slowdown = "3%"
"""
FLEET = b"""[run]
precision = ["fp32"]
[[device]]
name = "h100"
type = "NVIDIA H100"
run = { backend = ["trt"], device = "cuda:0" }
"""
LOCK = b"# made by hand\n--index-url https://mirror/simple\nnumpy==2.0.1 --hash=sha256:00\nonnxruntime==1.20.0\n"


def more_readers(folder):
    """Return name -> Reader; sound files are made in a folder."""
    return {**_of_projects(folder), **_of_stores(folder), **_of_models(folder)}


def _of_projects(folder):
    one = f"TRT-8600-EntropyCalibration2\nx: {struct.pack('>f', 0.5).hex()}\n".encode()
    night = CaseSamples(
        case_id="a-b-fp32",
        batch_size=1,
        builds=(0, 1),
        medians_ns=(1e5, 1e5),
        round_cvs=(0.01, 0.02),
        log_ratios=((0.001, -0.002),) * len(INJECTED),
    )
    calibration = TimingCalibration(
        device_type=DEVICE,
        max_slowdown=0.02,
        alpha=0.001,
        nights=(CalibrationNight(measured_at="2026-11-26T01:00:00+00:00", driver="", versions={}, cases=(night,)),),
    )
    calibrated = save_calibration(folder, calibration)
    record = record_with(accuracy_with(n=40))
    shard = PlannedShard(number=0, device="d", device_type=DEVICE, model="m", run={"threads": 2}, cases=(record.case,))
    write_plan(ShardPlan(commit="0" * 40, shards=(shard,)), folder / "shards.json")
    return {
        "graph card": Reader(GRAPH_CARD, load_card, "text.toml", {"text.onnx": _net(folder)}),
        "waivers": Reader(WAIVERS, read_waivers, "harness.toml", {}),
        "fleet.toml": Reader(FLEET, read_fleet, "fleet.toml", {}),
        "lock file": Reader(LOCK, lambda p: locks_of(str(p), str(p)), "requirements.txt", {}),
        "shards.json": Reader((folder / "shards.json").read_bytes(), read_plan, "shards.json", {}, is_json=True),
        "INT8 table": Reader(one, read_table, "table.cache", {}),
        "INT8 ranges": Reader(b'{"x": 0.5, "y": 3}', read_table, "ranges.json", {}, is_json=True),
        "timing calibration": Reader(
            calibrated.read_bytes(),
            lambda p: load_calibration(p.parents[1], DEVICE),
            f"calibrations/{calibrated.name}",
            {},
            is_json=True,
        ),
    }


def _of_stores(folder):
    run, records = make_run(3, n_images=40)
    merged = folder / "merged"
    merged.mkdir()
    write_records(merged, type(run)(**{**_fields(run), "n_shards": 2}), records)
    drill = FireDrill(at="2026-11-27T00:00:00+00:00", version="1", n_plants=2, n_red=1, missed=("x",))
    outcome = OperatorOutcome(net="Add/same@14", operator="Add", state="ok", error=0.0)
    write_list(folder / "list.json", OperatorList(cell="ort-fp32", versions={}, outcomes=(outcome,)))
    sampled = sample_record(class_scores(40))
    samples = samples_from_record(sampled, accepted_by="me", accepted_at="2026-01-01T00:00:00+00:00")
    night = write_night(folder / "nights", run, [record_with(accuracy_with(n=40), latencies=(latency_with(),))])
    with OutputsFile(folder / "outputs.zip", ("a", "b")) as outputs:
        outputs.add({"a": np.zeros((2, 3), np.float32), "b": np.arange(4)})
    sampled_id = sampled.case.id
    return {
        "records.jsonl.gz": Reader(
            (merged / "records.jsonl.gz").read_bytes(),
            lambda p: load_run(p.parent),
            "records.jsonl.gz",
            {name: (merged / name).read_bytes() for name in ("run.json", "images.json")},
        ),
        "images.json": Reader(
            (merged / "images.json").read_bytes(),
            lambda p: load_run(p.parent),
            "images.json",
            {name: (merged / name).read_bytes() for name in ("run.json", "records.jsonl.gz")},
            is_json=True,
        ),
        "samples": Reader(
            json_from_baseline(samples),
            lambda p: subject_from_files([samples_from_json(p.read_bytes(), where="f", case_id=sampled_id)]),
            "samples.json",
            {},
            is_json=True,
        ),
        "fire_drill.json": Reader(
            save_fire_drill(folder, drill).read_bytes(),
            lambda p: "" if load_fire_drill(p.parent, version="1") else "not believed",
            DRILL,
            {},
            is_json=True,
        ),
        "operators": Reader((folder / "list.json").read_bytes(), read_list, "ort-fp32.json", {}, is_json=True),
        "night": Reader(
            night.read_bytes(),
            lambda p: read_series(p.parents[1], record_with(accuracy_with(n=40)).case.id),
            f"{night.parent.name}/{night.name}",
            {},
        ),
        "outputs": Reader(
            (folder / "outputs.zip").read_bytes(), lambda p: list(read_outputs(p, ("a", "b"))), "outputs.zip", {}
        ),
    }


def _of_models(folder):
    weights = caffemodel({"conv1": [np.zeros((2, 1, 5, 5), np.float32), np.zeros(2, np.float32)]})
    jpeg, deep, palette = io.BytesIO(), io.BytesIO(), io.BytesIO()
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    picture.save(jpeg, "JPEG")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(deep, "PNG")
    picture.convert("P").save(palette, "PNG")
    return {
        "prototxt": Reader(LENET.encode(), read_net, "net.prototxt", {}),
        "caffemodel": Reader(weights, read_weights, "net.caffemodel", {}),
        "onnx": Reader(_net(folder), read_graph, "text.onnx", {}),
        "jpeg": Reader(jpeg.getvalue(), read_picture, "a.jpg", {}),
        "png of 16 bits": Reader(deep.getvalue(), read_picture, "a.png", {}),
        "png of a palette": Reader(palette.getvalue(), read_picture, "a.png", {}),
    }


def read_picture(path):
    return decode_image(read_file(path), path)


def _net(folder):
    return write_net(folder, "text").read_bytes()


def _fields(value):
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def read_waivers(path):
    read_settings(path.parent)
    load_tolerances(path.parent, backends=("ort",))
    return load_waivers(path.parent, gates=("fp32",))


def read_graph(path):
    return inspect_onnx(path, inputs=InputsAsked(shapes=SHAPES), is_scored=False)
