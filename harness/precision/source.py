"""The file that every recipe starts from: the model's own, or one that has only the output that its card names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import DataError, Unsupported
from harness.models.onnx_graph import load_model, quantized_nodes
from harness.models.tensors import foreign_operators_of
from harness.specs import ModelSpec
from harness.store.cache import ContentCache

if TYPE_CHECKING:
    from onnx import ModelProto


def check_own_operators(spec: ModelSpec, recipe: str) -> None:
    """Refuse to convert a file with operators of domains that no runtime has. Raises: Unsupported, naming them."""
    if foreign := foreign_operators_of(spec.onnx_path):
        told = ", ".join(f"{operator} of domain {domain}" for domain, operator in foreign.items())
        raise Unsupported(
            f"model {spec.name}: recipe {recipe} cannot convert it: what types {told} takes is not in the file; "
            "it runs as it is, in fp32"
        )


def scored_source(spec: ModelSpec, *, source_sha256: str, cache_dir: str) -> tuple[ModelSpec, str]:
    """Return the card of a file whose only output is the named one, and the file's sha256.

    A file with one output, one of any graph, and OpenVINO IR, is returned as it is. Of several outputs, the others are
    left out of a copy in the cache: runtimes take "the output" for the first, and drop what feeds none.
    Raises: DataError when the file has no such input or output; the message lists those there are.
    """
    if not spec.is_onnx:
        return spec, source_sha256
    model = load_model(spec.onnx_path, with_weights=False)
    _check_quantized(model, spec)
    if spec.tensors is not None:  # all its outputs are compared
        return spec, source_sha256
    outputs, weights = [value.name for value in model.graph.output], {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    for noun, name, names in (("input", spec.input_name, inputs), ("output", spec.output_name, outputs)):
        if name not in names:
            there = f"its {noun}s are: {', '.join(names)}" if names else f"it has no {noun} at all"
            raise DataError(f"{spec.onnx_path}: it has no {noun} {name!r}, which its card names; {there}")
    if len(outputs) == 1:
        return spec, source_sha256
    key: dict[str, object] = {"source": source_sha256, "output": spec.output_name}
    cache = ContentCache(cache_dir, kind="sources")
    with cache.building(key):
        entry = cache.lookup(key).entry
        if entry is None:
            alone = _with_output(load_model(spec.onnx_path), spec.output_name)
            entry = cache.put(key, alone, name=f"{spec.name}.onnx", meta={})
    return replace(spec, onnx_path=entry.path), entry.sha256


def _check_quantized(model: ModelProto, spec: ModelSpec) -> None:
    """Refuse a file that its card takes for another kind: quantized twice, or not at all. Raises: DataError."""
    nodes = quantized_nodes(model)
    if nodes and not spec.is_quantized:
        raise DataError(
            f"{spec.onnx_path} is quantized already ({len(nodes)} such nodes, the first {nodes[0]}): write "
            "quantized = true under [model] in its card, and it runs as INT8, as given"
        )
    if spec.is_quantized and not nodes:
        raise DataError(f"{spec.onnx_path} holds no quantized node, which its card says; leave quantized out there")


def _with_output(model: ModelProto, name: str) -> bytes:
    kept = [value for value in model.graph.output if value.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    data: bytes = model.SerializeToString()
    return data
