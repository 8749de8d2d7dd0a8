"""Records with chosen metrics of samples, for the tests of gates, baselines and reports."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from comparison_records import record_with

from harness.protocols import Sample
from harness.records import SampleScores, Status
from harness.specs import Precision, Tolerance
from harness.tasks import find_sample_task


def scored(task, pairs, **options):
    """Scores of (output, target) pairs by a task."""
    collector = find_sample_task(task).collector(options)
    for i, (output, target) in enumerate(pairs):
        outputs = output if isinstance(output, dict) else {"out": np.asarray(output)}
        collector.add(outputs, Sample(id=f"s{i}", inputs={}, target=target))
    return SampleScores(
        task=task,
        source="mine/test",
        fingerprint="f" * 64,
        ids=tuple(f"s{i}" for i in range(len(pairs))),
        metrics=collector.scores(),
        settings={name: str(value) for name, value in options.items()},
        outputs_sha256="0" * 64,
    )


def class_scores(n=3000, *, wrong=(), n_classes=10):
    """Scores of one class a sample: sample i is of class i % n_classes; those in `wrong` are taken for the next."""
    return _class_scores(n, tuple(wrong), n_classes)


@lru_cache(maxsize=64)
def _class_scores(n, wrong, n_classes):
    labels = np.arange(n) % n_classes
    found = labels.copy()
    found[list(wrong)] = (found[list(wrong)] + 1) % n_classes
    return scored("classification", list(zip(np.eye(n_classes)[found], labels.tolist(), strict=True)))


def number_scores(errors, *, unit="cm"):
    """Scores of one number a sample with these errors; the targets differ."""
    targets = np.linspace(0, 1, len(errors))
    return scored("regression", list(zip(targets + np.asarray(errors), targets, strict=True)), unit=unit)


def text_scores(edits, *, length=10, **options):
    """Scores of recognized text: in sample i so many of its tokens are wrong."""
    target = [1, 2] * (length // 2)
    found = [[9] * n + target[n:] for n in edits]
    return scored("tokens", [(np.asarray(one), target) for one in found], decode="ids", **options)


def sample_record(samples, *, precision=Precision.INT8, backend="ort", max_drop=0.005, alpha=0.001, **changes):
    record = record_with(None, precision=precision, backend=backend, status=Status.NOT_JUDGED, weight_bits=8)
    record = replace(record, artifact=replace(record.artifact, precision=precision))
    tolerance = Tolerance(max_drop=max_drop, alpha=alpha)
    return replace(record, samples=samples, timing_only=True, tolerance=tolerance, **changes)


def source_record(samples, *, backend="ort", **changes):
    return sample_record(samples, precision=Precision.FP32, backend=backend, **changes)
