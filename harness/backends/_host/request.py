"""What a runner is opened from, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.backends._host.conversion import Converted
from harness.backends._host.engine import Runner
from harness.backends._host.graph import single_tensors
from harness.errors import BuildError
from harness.models.onnx_graph import NodeIndex, index_nodes
from harness.protocols import CalibrationSet
from harness.records import Artifact, Calibration, TensorSpec
from harness.specs import BuildOptions, ImageRange

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """What a runner is opened from."""

    artifact: Artifact
    model: ModelProto  # of the artifact
    input: TensorSpec
    output: TensorSpec
    nodes: NodeIndex
    batch_sizes: tuple[int, ...]
    options: BuildOptions
    calibration: CalibrationSet | None
    label: str  # for messages

    @property
    def subject(self) -> str:
        """Return what is converted, for a message."""
        return f"{self.label}: {self.artifact.onnx_path}"

    @property
    def images(self) -> CalibrationSet:
        """Return the calibration images of a runtime that quantizes while it builds. Raises: BuildError."""
        if self.calibration is None:
            raise BuildError(f"{self.label}: recipe {self.artifact.recipe} needs calibration images; none were given")
        return self.calibration

    def calibrated_by(self, method: str, batch_size: int) -> Calibration:
        """Return which images calibrated the engine, and how."""
        unnamed = ImageRange(dataset="unnamed", split="", first=0, stop=self.images.n_images)
        known = getattr(self.images, "images", None)  # not in the protocol: sets of the worker know their range
        return Calibration(
            images=known if isinstance(known, ImageRange) else unnamed,
            fingerprint=self.images.fingerprint,
            batch_size=batch_size,
            method=method,
        )


def request_for(
    artifact: Artifact,
    model: ModelProto,
    backend: str,
    *,
    batch_sizes: tuple[int, ...],
    options: BuildOptions,
    calibration: CalibrationSet | None,
) -> OpenRequest:
    """Return what a runner of an artifact is opened from. Raises: BuildError for a model that is no classifier."""
    label = f"{artifact.model}-{backend}-{artifact.precision}"
    source, target = single_tensors(model, label)
    return OpenRequest(
        artifact=artifact,
        model=model,
        input=source,
        output=target,
        nodes=index_nodes(model),
        batch_sizes=batch_sizes,
        options=options,
        calibration=calibration,
        label=label,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A runner and what there is to say of it."""

    runner: Runner
    engine_bytes: int
    options: Mapping[str, str]  # as read back, or said to be as asked
    notes: tuple[str, ...] = ()
    converted: Converted | None = None  # what it was opened from, where a converter made that
    calibration: Calibration | None = None  # of a runtime that quantizes while it builds
