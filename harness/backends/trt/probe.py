"""Can a TensorRT module be used here? Asked so that neither a missing driver nor a crash harms the asker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from harness.backends._child import run_child
from harness.backends._cuda.probing import availability
from harness.machine.cuda_driver import DriverProbe, probe_driver
from harness.records import Availability

# Run in a process of its own: TensorRT 8.6 without a driver dies inside Runtime(), and the lean runtimes of 10.x and
# 11.x hand out an object that dies when it is first looked at.
CHILD = """
import importlib, json, sys
found = {}
module = importlib.import_module(sys.argv[1])
found[sys.argv[1]] = module.__version__
print(json.dumps({"step": "import", "versions": found}), flush=True)
logger = module.Logger(module.Logger.ERROR)
builder = module.Builder(logger)
builder.max_threads
print(json.dumps({"step": "Builder", "versions": found}), flush=True)
runtime = module.Runtime(logger)
runtime.max_threads
print(json.dumps({"step": "Runtime", "versions": found}), flush=True)
if hasattr(module, "IRuntimeCache"):  # TensorRT for RTX also builds where the GPU is none that it runs on
    errors = []
    class Log(module.ILogger):
        def __init__(self):
            module.ILogger.__init__(self)
        def log(self, severity, text):
            if int(severity) <= int(module.ILogger.Severity.ERROR):
                errors.append(" ".join(text.split()))
    log = Log()
    builder = module.Builder(log)
    network = builder.create_network(0)
    source = network.add_input("x", module.DataType.FLOAT, (1, 4))
    network.mark_output(network.add_activation(source, module.ActivationType.RELU).get_output(0))
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    runtime = module.Runtime(log)
    if plan is None or runtime.deserialize_cuda_engine(plan) is None:
        raise RuntimeError(errors[0] if errors else "no engine could be built and loaded")
print(json.dumps({"step": "engine", "versions": found}), flush=True)
missing = []
for name in sys.argv[2:]:
    try:
        part = importlib.import_module(name)
    except ImportError as error:
        missing.append(f"{name}: {error}")
    else:
        found[name] = str(getattr(part, "VERSION_TEXT", getattr(part, "__version__", "")))
if missing and len(missing) == len(sys.argv[2:]):
    raise ImportError("no CUDA for Python (" + "; ".join(missing) + ")")
print(json.dumps({"step": "done", "versions": found}), flush=True)
"""
STEPS = {
    "": "imported",
    "import": "Builder was made",
    "Builder": "Runtime was made",
    "Runtime": "a small engine was built and loaded",
    "engine": "CUDA for Python was imported",
}


def probe_module(module: str, *, others: tuple[str, ...] = ()) -> tuple[dict[str, str], str]:
    """Use a TensorRT module in a child process; return versions and the reason why not, "" when it works.

    `others` are modules imported after it, at least one of which must be there (`pycuda`, `cuda.bindings`).
    """
    if importlib.util.find_spec(module) is None:
        return {}, f"the Python module {module} is not installed"
    end = run_child(CHILD, module, *others)
    step: str = end.answers[-1]["step"] if end.answers else ""
    versions: dict[str, str] = end.answers[-1]["versions"] if end.answers else {}
    return versions, "" if step == "done" else end.reason(module, f"when {STEPS[step]}")


def probe_backend(
    name: str,
    module: str,
    *,
    install_hint: str,
    needs: tuple[str, ...],
    driver: Callable[[], DriverProbe] = probe_driver,
) -> Availability:
    """Return the availability of a TensorRT backend: first the driver, then the module in a child process."""
    found = driver()
    reason = found.reason
    if not reason:
        versions, reason = probe_module(module, others=needs)
    elif importlib.util.find_spec(module) is None:
        versions, reason = {}, f"{reason}; nor is the Python module {module} installed"
    else:
        versions, reason = {}, f"{reason}; engines of {name} run on NVIDIA GPUs only"
    told = {name: version for name, version in versions.items() if version}  # pycuda.driver has none
    return availability(name, found, versions=told, reason=reason, install_hint=install_hint)
