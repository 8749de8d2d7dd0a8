"""The file that every recipe starts from: the model's own, or one that has only the output that its card names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import DataError, Unsupported
from harness.models.onnx_graph import export_facts, load_model, model_digest, quantized_nodes
from harness.models.output_shapes import baked_batch, is_column, output_dimensions
from harness.models.tensors import foreign_operators_of
from harness.precision.keeping import check_keeps, matching_nodes
from harness.precision.recipe import Recipe
from harness.specs import ModelSpec, Precision
from harness.store.cache import ContentCache

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a recipe starts from."""

    spec: ModelSpec  # of the file with the scored output alone
    sha256: str  # of that file
    given_sha256: str  # of the model as given
    exported: dict[str, str]  # what the model's file says of itself
    kept_float: tuple[str, ...]  # nodes that are not converted


def open_source(spec: ModelSpec, recipe: Recipe, keep_float: Sequence[str], *, cache_dir: str) -> Source:
    """Check a model's file and return what a recipe starts from.

    Raises: as `scored_source`; DataError for another digest than the card's, or a pattern of `keep_float` that matches
    no node; Unsupported for a recipe that cannot keep nodes.
    """
    given, exported = _checked_digest(spec), _exported(spec)
    kept = _kept(spec, recipe, keep_float)
    scored, sha256 = scored_source(spec, source_sha256=given, cache_dir=cache_dir)
    return Source(spec=scored, sha256=sha256, given_sha256=given, exported=exported, kept_float=kept)


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
    left out of a copy in the cache: runtimes take "the output" for the first, and drop what feeds none. N x classes
    x 1 x 1 becomes N x classes there.
    Raises: DataError when the file has no such input or output, with those there are, or bakes a batch in.
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
    _check_batch(model, spec)
    has_axes_behind = is_column(output_dimensions(model, spec.output_name))
    if len(outputs) == 1 and not has_axes_behind:
        return spec, source_sha256
    key: dict[str, object] = {"source": source_sha256, "output": spec.output_name}
    key |= {"flattened": True} if has_axes_behind else {}
    cache = ContentCache(cache_dir, kind="sources")
    with cache.building(key):
        entry = cache.lookup(key).entry
        if entry is None:
            alone = _with_output(load_model(spec.onnx_path), spec.output_name)
            if has_axes_behind:
                _flatten(alone, spec.output_name)
            entry = cache.put(key, alone.SerializeToString(), name=f"{spec.name}.onnx", meta={})
    return replace(spec, onnx_path=entry.path), entry.sha256


def _checked_digest(spec: ModelSpec) -> str:
    """Return the sha256 of the model with its external data. Raises: DataError when it is not the card's."""
    found = model_digest(spec.onnx_path)
    if spec.sha256 and found != spec.sha256:
        raise DataError(
            f"{spec.onnx_path}: the sha256 of model and external data is {found[:12]}..., not the "
            f"{spec.sha256[:12]}... of its card; restore the files, or write the card anew if the change is meant"
        )
    return found


def _exported(spec: ModelSpec) -> dict[str, str]:
    if not spec.is_onnx:
        return {}
    baked = {"batch": f"{spec.max_batch}, baked in ({spec.baked_by})"} if spec.baked_by else {}
    return export_facts(load_model(spec.onnx_path, with_weights=False)) | baked


def _kept(spec: ModelSpec, recipe: Recipe, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the nodes that stay in float. Raises: DataError for a pattern without one; Unsupported."""
    if not patterns or not spec.is_onnx:
        return ()
    nodes = matching_nodes(load_model(spec.onnx_path, with_weights=False), patterns, name=spec.name)
    check_keeps(recipe, name=spec.name)
    return () if recipe.precision is Precision.FP32 else nodes


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


def _check_batch(model: ModelProto, spec: ModelSpec) -> None:
    """Refuse a card that leaves the batch free where the graph bakes one in. Raises: DataError."""
    baked = None if spec.max_batch else baked_batch(model, spec.input_name, spec.output_name, path=spec.onnx_path)
    if baked is not None:
        size, node = baked
        raise DataError(
            f"{spec.onnx_path}: batch {size} is baked in ({node}) although its input's batch is free: write "
            f"max_batch = {size} under [model] in its card, or export it with a free batch there"
        )


def _with_output(model: ModelProto, name: str) -> ModelProto:
    kept = [value for value in model.graph.output if value.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


def _flatten(model: ModelProto, name: str) -> None:
    """Make N x classes of an output with axes of size 1 behind; the output keeps its name."""
    import onnx

    inner = f"{name}/unflattened"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, one in enumerate(names):
                if one == name:
                    names[place] = inner
    model.graph.node.append(onnx.helper.make_node("Flatten", [inner], [name], name=f"{name}/Flatten", axis=1))
    for value in model.graph.output:
        sizes = value.type.tensor_type.shape
        if len(sizes.dim) > 2:
            del sizes.dim[2:]
