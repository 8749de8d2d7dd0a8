"""What there is to say of OpenVINO's compiled models: options as read back, and what differs from the request."""

from __future__ import annotations

from typing import Any

from harness.backends._inputs import files_in_words
from harness.backends.openvino.compiled import DEVICE, CompiledModels
from harness.errors import BuildError
from harness.records import EngineFacts

READ_BACK = (
    "INFERENCE_PRECISION_HINT",
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "EXECUTION_DEVICES",
)
NOT_READ_BACK = ("SNIPPETS_MODE",)  # OpenVINO takes it and does not tell it
NOT_TOLD = "not told"


def facts_of_models(models: CompiledModels, sizes: tuple[int, ...], build_ns: int) -> EngineFacts:
    """Return what there is to say of the static models of some batch sizes; options as read back."""
    compiled = models.of_size(sizes[0])
    read = {name: _read(compiled, name) for name in READ_BACK}
    capabilities = [str(item) for item in models.core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
    asked, threads = str(models.config["INFERENCE_PRECISION_HINT"]), models.config.get("INFERENCE_NUM_THREADS")
    notes = [
        f"build time covers {len(sizes)} static engines (batch {', '.join(map(str, sizes))})",
        f"engine size is that of the exported model for batch {sizes[0]}",
    ]
    if read["INFERENCE_PRECISION_HINT"] not in (asked, NOT_TOLD):
        notes.append(
            f"asked INFERENCE_PRECISION_HINT={asked}, reads back {read['INFERENCE_PRECISION_HINT']}: "
            f"this CPU does {', '.join(capabilities)}"
        )
    if threads is not None and read["INFERENCE_NUM_THREADS"] not in (str(threads), NOT_TOLD):
        notes.append(f"asked {threads} threads, got {read['INFERENCE_NUM_THREADS']}")
    return EngineFacts(
        build_ns=build_ns,
        engine_bytes=_exported_bytes(models, sizes[0]),
        options={
            "device": models.device,
            "extensions": files_in_words(models.extensions),
            **read,
            **{name: str(models.config[name]) for name in NOT_READ_BACK if name in models.config},
            "OPTIMIZATION_CAPABILITIES": " ".join(capabilities),
        },
        versions={"openvino": str(models.ov.__version__).partition("-")[0]},
        notes=tuple(notes),
    )


def _read(compiled: Any, name: str) -> str:
    """Return a property, or that the device does not tell it: HETERO and AUTO know few of their parts' own."""
    try:
        value = compiled.get_property(name)
    except RuntimeError:
        return NOT_TOLD
    return ", ".join(map(str, value)) if isinstance(value, list) else _property_text(value)


def _property_text(value: Any) -> str:
    """Return a property as the text it is set by: `f32` rather than `<Type: 'float32'>`."""
    return str(value.get_type_name()) if hasattr(value, "get_type_name") else str(value).rpartition(".")[2]


def _exported_bytes(models: CompiledModels, size: int) -> int | None:
    """Return the size of the exported model, None for a device that exports none."""
    try:
        return len(models.exported(size))
    except BuildError:
        return None
