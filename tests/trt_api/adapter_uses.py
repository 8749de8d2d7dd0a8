"""What the TensorRT adapter uses of TensorRT's API, read from its source: nothing is listed by hand."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

BACKENDS = Path(__file__).parents[2] / "harness" / "backends" / "trt"
FILES = (
    "api.py",
    "build.py",
    "calibrator.py",
    "context.py",
    "engine.py",
    "lanes.py",
    "loaded.py",
    "tensor_engine.py",
    "tensor_lane.py",
)
# The last word of an expression -> TensorRT's class, in the files above.
CLASS_OF = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_runtime": "Runtime",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "registry": "IPluginRegistry",
    "layer": "ILayer",
    "constant": "IConstantLayer",
    "tensor": "ITensor",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
}
CLASS_IN_FUNCTION = {("parser_error", "error"): "ParserError"}
MODULE_WORDS = ("trt", "module")
MODULE = ""


@dataclass
class Uses:
    """Members by (class, name); class "" is the module itself."""

    members: dict = field(default_factory=dict)  # (class, name) -> "file:line"
    guarded: set = field(default_factory=set)  # looked for with hasattr
    calls: list = field(default_factory=list)  # (class, name, number of positional arguments, keywords, place)


class _Reader(ast.NodeVisitor):
    def __init__(self, file, uses):
        self._file, self._uses, self._function, self._aliases = file, uses, "", {}

    def visit_FunctionDef(self, node):
        outer, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = outer

    def visit_Assign(self, node):
        value = self._named(node.value)
        if value and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self._aliases[node.targets[0].id] = value
        self.generic_visit(node)

    def visit_Attribute(self, node):
        owner = self._class_of(node.value)
        if owner is not None and not node.attr.startswith("__"):
            self._uses.members.setdefault((owner, node.attr), f"{self._file}:{node.lineno}")
        self.generic_visit(node)

    def visit_Call(self, node):
        function = node.func
        if isinstance(function, ast.Name) and function.id == "hasattr" and isinstance(node.args[1], ast.Constant):
            owner = self._class_of(node.args[0])
            if owner is not None:
                self._uses.guarded.add((owner, node.args[1].value))
        if isinstance(function, ast.Attribute) and (owner := self._class_of(function.value)) is not None:
            keywords = tuple(word.arg for word in node.keywords)
            place = f"{self._file}:{node.lineno}"
            self._uses.calls.append((owner, function.attr, len(node.args), keywords, place))
        self.generic_visit(node)

    def _class_of(self, node):
        """Return the class that an expression is, "" for the module, None for anything else."""
        named = self._named(node)
        if named is not None:
            return named
        word = _last_word(node)
        if word in MODULE_WORDS:
            return MODULE
        return CLASS_IN_FUNCTION.get((self._function, word), CLASS_OF.get(word))

    def _named(self, node):
        """Return X for `trt.X`, or for a variable that was given it."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if isinstance(node, ast.Attribute) and _last_word(node.value) in MODULE_WORDS:
            return node.attr
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            outer = self._named(node.value)
            return f"{outer}.{node.attr}" if outer is not None and node.attr[0].isupper() else None
        return None


def _last_word(node):
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def adapter_uses(files=None):
    """Read all of the adapter's files that touch TensorRT objects."""
    uses = Uses()
    for path in files or [BACKENDS / name for name in FILES]:
        _Reader(path.name, uses).visit(ast.parse(path.read_text()))
    return uses
