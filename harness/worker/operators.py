"""Nets of one operator each on a backend, against ONNX's reference evaluator."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends import load_backend
from harness.errors import HarnessError, Unsupported
from harness.models.onnx_graph import one_line
from harness.models.operator_nets import OperatorNet, operator_nets
from harness.models.operator_reference import reference_outputs, write_net
from harness.protocols import Backend, Progress, RunsTensors
from harness.records import Artifact, OperatorOutcome
from harness.specs import DEFAULT_RECIPES, Case, Precision
from harness.store.cache import sha256_of_file
from harness.worker.requests import OperatorsRequest

OK, WRONG, UNSUPPORTED, ERROR = "ok", "wrong", "unsupported", "error"
# Largest accepted difference, of the reference's largest value (at least 1). FP16's serves runtimes that compute such
# files in BF16, whose values have 8 bits; INT8's is six of the 127 steps of an output that is quantized again.
TOLERANCES = {Precision.FP32: 2e-4, Precision.FP16: 3e-2, Precision.INT8: 5e-2}
# How runtimes say that they have no such operator, type or operator set; any other failure is an error.
NOT_THERE = re.compile(
    r"not (?:yet )?(?:support|implement)|unsupported|NOT_IMPLEMENTED|Could not find an implementation|[Nn]o conversion"
    r"|only \*guarantees\* support|under development|[Nn]o Op registered|not a registered function",
)


def operator_names(precision: Precision) -> tuple[str, ...]:
    """Return the names of the nets of a precision, in their order."""
    return tuple(net.name for net in operator_nets(precision))


def outcomes(request: OperatorsRequest, progress: Progress) -> Iterator[OperatorOutcome]:
    """Yield what a backend makes of each net asked; `progress` is told of a net before it runs."""
    backend, asked = load_backend(request.backend), set(request.nets)
    support = backend.supports(_case(request, "operators"))
    done = 0
    for net in operator_nets(request.precision):
        if asked and net.name not in asked:
            continue
        progress(done, len(asked))
        done += 1
        if support.supported:
            yield _outcome(backend, net, request, support.int8_weight_bits)
        else:
            yield OperatorOutcome(net=net.name, operator=net.operator, state=UNSUPPORTED, reason=support.reason)


def _case(request: OperatorsRequest, model: str) -> Case:
    precision = request.precision
    recipe = DEFAULT_RECIPES[precision.value]
    return Case(model=model, backend=request.backend, precision=precision, recipe=recipe, device=request.device)


def _outcome(backend: Backend, net: OperatorNet, request: OperatorsRequest, weight_bits: int) -> OperatorOutcome:
    made = OperatorOutcome(net=net.name, operator=net.operator, state=OK)
    try:
        expected = reference_outputs(net)
        found = _run(backend, net, request, weight_bits)
    except Unsupported as error:
        return replace(made, state=UNSUPPORTED, reason=one_line(error))
    except HarnessError as error:
        state = UNSUPPORTED if NOT_THERE.search(str(error)) else ERROR
        return replace(made, state=state, reason=" ".join(str(error).split())[:300])
    except Exception as error:  # a runtime's own: it costs this net
        return replace(made, state=ERROR, reason=f"{type(error).__name__}: {one_line(error)}"[:300])
    return _judged(made, expected, found, TOLERANCES[request.precision])


def _judged(
    made: OperatorOutcome, expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]], limit: float
) -> OperatorOutcome:
    largest = 0.0
    for name, wanted in expected.items():
        got = found.get(name)
        if got is None or got.shape != wanted.shape:
            shape = "is missing" if got is None else f"has shape {list(got.shape)}"
            return replace(made, state=WRONG, reason=f"output {name} {shape}; expected {list(wanted.shape)}")
        largest = max(largest, difference(wanted, got))
    if largest <= limit:
        return replace(made, error=largest)
    if np.isinf(largest):
        return replace(made, state=WRONG, reason="whole numbers differ, or NaN and Inf stand elsewhere")
    return replace(made, state=WRONG, error=largest, reason=f"differs by {largest:.3g} of the largest value")


def difference(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the largest difference over the largest expected value, or over 1 where that is more.

    Whole numbers and truth values differ by 0 or infinitely; NaN equals NaN alone.
    """
    if not expected.size:
        return 0.0
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else np.inf
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)) or not np.array_equal(
        a[~np.isfinite(a)], b[~np.isfinite(b)], equal_nan=True
    ):
        return np.inf
    finite = np.isfinite(a)
    if not finite.any():
        return 0.0
    return float(np.abs(a - b)[finite].max() / max(1.0, float(np.abs(a[finite]).max())))


def _run(backend: Backend, net: OperatorNet, request: OperatorsRequest, weight_bits: int) -> Mapping[str, NDArray[Any]]:
    with tempfile.TemporaryDirectory(prefix="harness-operator-") as folder:
        path = Path(folder) / f"{net.operator}.onnx"
        options = replace(request.build, tensors=write_net(net, request.precision, path))
        digest = sha256_of_file(path)
        artifact = Artifact(
            model=net.operator,
            precision=request.precision,
            recipe=DEFAULT_RECIPES[request.precision.value],
            onnx_path=str(path),
            sha256=digest,
            source_sha256=digest if request.precision is Precision.FP32 else "",
            weight_bits=weight_bits if request.precision is Precision.INT8 else 32,
        )
        with backend.build(artifact, device=request.device, batch_sizes=(1,), options=options) as engine:
            if not isinstance(engine, RunsTensors):
                raise Unsupported(f"{request.backend} takes one float32 image and gives one row an image")
            return dict(engine.run(net.feeds))
