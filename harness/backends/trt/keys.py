"""What a plan, its timings and its calibration are kept under, and what is kept beside a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backends._cuda.device import Gpu
from harness.backends.trt.build import Plan
from harness.backends.trt.options import TrtOptions
from harness.specs import ModelTensors
from harness.store.cache import sha256_of_file

OPTION_PREFIX = "option."
# Of what the adapter makes of an artifact and its options: flags, profiles, network, calibrator. Raise it with every
# change that lets the same request build another plan or calibration table; those stored before are then never used.
PLAN_REVISION = 4
PLAN_NOTES = (
    "build_ns",
    "calibration_batch",
    "calibration_table",
    "calibration_method",
    "notes",
    "log_errors",
)  # kept beside a plan, with its options


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKey:
    """What the cache keys need to know of the GPU; empty where plans are built without one."""

    name: str = ""
    compute_capability: str = ""
    driver: str = ""
    cuda_version: str = ""

    @classmethod
    def of(cls, gpu: Gpu | None) -> DeviceKey:
        """Return what there is to know of a GPU."""
        if gpu is None:
            return cls()
        return cls(
            name=gpu.name,
            compute_capability=gpu.compute_capability,
            driver=gpu.driver,
            cuda_version=gpu.cuda_version,
        )


def options_key(options: TrtOptions) -> dict[str, object]:
    """Return every builder option by value; files by their content."""
    digests = [sha256_of_file(Path(path)) if Path(path).is_file() else path for path in options.plugins]
    ranges = options.ranges_file
    return {
        "tf32": options.tf32,
        "workspace_bytes": options.workspace_bytes,
        "optimization_level": options.optimization_level,
        "tactic_sources": sorted(options.tactic_sources) if options.tactic_sources is not None else None,
        "int8_only": options.int8_only,
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
        "profiles": [list(profile) for profile in options.profiles],
        "plugins": digests,
        "ranges": sha256_of_file(Path(ranges)) if ranges and Path(ranges).is_file() else ranges,
        "quantile": options.quantile,
        "cutoff": options.cutoff,
        "calibration_batch": options.calibration_batch,
    }


def tensors_key(tensors: ModelTensors) -> list[list[object]]:
    """Return what decides the profiles of a model of any graph."""
    return [
        [one.name, one.dtype, one.shape, one.batch_axis, one.free_axes, one.min_shape, one.max_shape, bool(one.state)]
        for one in tensors.inputs
    ]


def meta_of_plan(plan: Plan) -> dict[str, str]:
    """Return what is kept beside a plan."""
    meta = {OPTION_PREFIX + name: value for name, value in plan.options.items()}
    return {
        **meta,
        "build_ns": str(plan.build_ns),
        "calibration_batch": str(plan.calibration_batch),
        "calibration_table": plan.calibration_table,
        "calibration_method": plan.calibration_method,
        "notes": "\n".join(plan.notes),
        "log_errors": "\n".join(plan.log_errors),
    }


def plan_of_file(data: bytes) -> Plan:
    """Return the plan of a file that says nothing of how it was built."""
    return Plan(data=data, build_ns=0)


def plan_from_meta(meta: dict[str, str], data: bytes) -> Plan:
    """Return a plan from its bytes and what was kept beside them."""
    return Plan(
        data=data,
        build_ns=int(meta["build_ns"]),
        options={k.removeprefix(OPTION_PREFIX): v for k, v in meta.items() if k.startswith(OPTION_PREFIX)},
        calibration_batch=int(meta["calibration_batch"]),
        calibration_table=meta["calibration_table"],
        calibration_method=meta["calibration_method"],
        notes=tuple(line for line in meta["notes"].split("\n") if line),
        log_errors=tuple(line for line in meta["log_errors"].split("\n") if line),
    )
