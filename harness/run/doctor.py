"""What is usable here: backends, devices, data sets, models. Data for `harness doctor`; nothing fails."""

from __future__ import annotations

from pathlib import Path

from harness.backends import list_backends
from harness.datasets import dataset_names, dataset_state, path_kinds
from harness.machine.environment import collect_environment
from harness.machine.telemetry import SILENCED
from harness.models import bundled_models
from harness.options.discovery import add_extension_dir
from harness.options.values import HarnessOptions
from harness.run.folders import models_folder
from harness.run.probing import one_line, probe_backends


def doctor_lines(options: HarnessOptions) -> list[str]:
    """Return the report, line by line."""
    for folder in options.extension_dirs:
        add_extension_dir(folder)
    environment = collect_environment(checkout=Path(options.root))
    lines = [
        f"machine   {environment.machine}",
        f"          {environment.os}, Python {environment.python}, best INT8 instructions: {environment.cpu_isa}",
        f"          type of device in records and fleet.toml: {environment.device_type}; of a GPU: its name",
        f"telemetry of {', '.join(SILENCED)} is switched off in all workers",
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
            fast = f"; fast kernels for {', '.join(found.fast_precisions)}" if found.fast_precisions else ""
            lines.append(f"  {found.backend:<12} usable   {versions} on {devices}{fast}")
        else:
            lines.append(f"  {found.backend:<12} no       {one_line(found)}")
    lines += ["", "data sets"]
    lines += [f"  {name:<16} {dataset_state(name)}" for name in dataset_names()]
    lines += ["", "data by path"]
    lines += [f"  {reads:<48} {readiness}" for reads, readiness in path_kinds().items()]
    lines += ["", "models"]
    lines += [
        f"  {spec.name:<18} {'x'.join(map(str, spec.input_shape))} -> {spec.num_classes} classes  {spec.description}"
        for spec in bundled_models(models_folder(Path(options.root).absolute()))
    ]
    return lines
