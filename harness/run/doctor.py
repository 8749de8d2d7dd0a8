"""What is usable here: backends, devices, data sets, models. Data for `harness doctor`; nothing fails."""

from __future__ import annotations

from pathlib import Path

from harness.backends import add_backend_dir, list_backends
from harness.datasets import dataset_names
from harness.datasets.download import cache_root
from harness.machine.environment import collect_environment
from harness.models import bundled_models
from harness.options.values import HarnessOptions
from harness.run.plan import one_line, probe_backends


def doctor_lines(options: HarnessOptions, *, models_dir: Path = Path("models")) -> list[str]:
    """Return the report, line by line."""
    for folder in options.extension_dirs:
        add_backend_dir(folder)
    environment = collect_environment(checkout=Path(options.root))
    lines = [
        f"machine   {environment.machine}",
        f"          {environment.os}, Python {environment.python}, best INT8 instructions: {environment.cpu_isa}",
        "versions  " + ", ".join(f"{name} {version}" for name, version in environment.versions.items()),
        "",
        "backends",
    ]
    for found in probe_backends(list_backends(), options):
        if found.usable:
            devices = ", ".join(
                f"{device} ({name})" for device, name in zip(found.devices, found.device_names, strict=False)
            ) or ", ".join(found.devices)
            versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
            lines.append(f"  {found.backend:<12} usable   {versions} on {devices}")
        else:
            lines.append(f"  {found.backend:<12} no       {one_line(found)}")
    lines += ["", "data sets"]
    lines += [f"  {name:<16} {dataset_state(name)}" for name in dataset_names()]
    lines += ["", "models"]
    lines += [
        f"  {spec.name:<18} {'x'.join(map(str, spec.input_shape))} -> {spec.num_classes} classes  {spec.description}"
        for spec in bundled_models(models_dir)
    ]
    return lines


def dataset_state(name: str) -> str:
    """Say whether a data set can be opened without the network, and what it needs otherwise."""
    if name == "strokes":
        return "usable: drawn here, any size"
    if name == "trt-batches":
        return "usable: needs --data-dir, the folder that holds batch0, batch1, ..."
    folder = cache_root() / "datasets" / name
    if folder.is_dir() and any(folder.iterdir()):
        return f"usable: in {folder}"
    return "not here: downloaded at first use, or give its files by --data-dir"
