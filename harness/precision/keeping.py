"""Nodes that stay in float although their model is converted: chosen by patterns of their names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from harness.errors import DataError, Unsupported
from harness.models.onnx_graph import node_id
from harness.precision.recipe import NOTHING, TENSORRT, Recipe
from harness.specs import Precision

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

N_NEAR = 5


def matching_nodes(model: ModelProto, patterns: Sequence[str], *, name: str) -> tuple[str, ...]:
    """Return the nodes whose name holds a match of one of some regular expressions, in the model's order.

    A node without a name goes by its first output; `name` is the model's, for messages.
    Raises: DataError for a pattern that matches none, with near names.
    """
    names = tuple(node_id(node) for node in model.graph.node)
    for pattern in patterns:
        if not any(re.search(pattern, one) for one in names):
            near = get_close_matches(pattern, names, n=N_NEAR, cutoff=0.3) or names[:N_NEAR]
            raise DataError(
                f"--keep-float={pattern}: no node of model {name} has such a name; near ones are: {', '.join(near)}"
            )
    return tuple(one for one in names if any(re.search(pattern, one) for pattern in patterns))


def can_keep(recipe: Recipe) -> bool:
    """Tell whether a recipe lets nodes be named that stay in float: another's runtime decides alone."""
    return recipe.writes != NOTHING or recipe.quantizes_in == TENSORRT


def check_keeps(recipe: Recipe, *, name: str) -> None:
    """Refuse a recipe whose runtime decides alone what it quantizes. Raises: Unsupported."""
    if recipe.precision is Precision.FP32 or can_keep(recipe):
        return
    raise Unsupported(f"model {name}: recipe {recipe.name} leaves no say in what it converts; --keep-float has no hold")


def is_kept(node: NodeProto, kept: Iterable[str]) -> bool:
    """Tell whether a node of a prepared graph is one of those kept, or was fused from one."""
    own = node_id(node)
    return any(own == name or own.startswith(f"{name}/") for name in kept)


def name_kept(model: ModelProto, kept: Sequence[str]) -> list[str]:
    """Return the names of the kept nodes of a prepared graph; those without a name get one, for converters."""
    found = [node for node in model.graph.node if is_kept(node, kept)]
    for node in found:
        node.name = node_id(node)
    return [node.name for node in found]
