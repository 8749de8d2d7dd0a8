"""What there is to say of OpenVINO's compiled models: options as read back, and what differs from the request."""

from __future__ import annotations

import io
from typing import Any

from harness.backends.openvino.compiled import DEVICE, CompiledModels
from harness.records import EngineFacts

READ_BACK = (
    "INFERENCE_PRECISION_HINT",
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
)


def facts_of_models(models: CompiledModels, sizes: tuple[int, ...], build_ns: int) -> EngineFacts:
    """Return what there is to say of the static models of some batch sizes; options as read back."""
    compiled = models.of_size(sizes[0])
    read = {name: _property_text(compiled.get_property(name)) for name in READ_BACK}
    capabilities = [str(item) for item in models.core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
    asked = str(models.config["INFERENCE_PRECISION_HINT"])
    notes = [
        f"build time covers {len(sizes)} static engines (batch {', '.join(map(str, sizes))})",
        f"engine size is that of the exported model for batch {sizes[0]}",
    ]
    if read["INFERENCE_PRECISION_HINT"] != asked:
        notes.append(
            f"asked INFERENCE_PRECISION_HINT={asked}, reads back {read['INFERENCE_PRECISION_HINT']}: "
            f"this CPU does {', '.join(capabilities)}"
        )
    if int(read["INFERENCE_NUM_THREADS"]) != models.config["INFERENCE_NUM_THREADS"]:
        notes.append(f"asked {models.config['INFERENCE_NUM_THREADS']} threads, got {read['INFERENCE_NUM_THREADS']}")
    return EngineFacts(
        build_ns=build_ns,
        engine_bytes=_exported_bytes(compiled),
        options={**read, "OPTIMIZATION_CAPABILITIES": " ".join(capabilities)},
        versions={"openvino": str(models.ov.__version__).partition("-")[0]},
        notes=tuple(notes),
    )


def _property_text(value: Any) -> str:
    """Return a property as the text it is set by: `f32` rather than `<Type: 'float32'>`."""
    return str(value.get_type_name()) if hasattr(value, "get_type_name") else str(value).rpartition(".")[2]


def _exported_bytes(compiled: Any) -> int:
    exported = compiled.export_model()
    return len(exported.getbuffer() if isinstance(exported, io.BytesIO) else exported)
