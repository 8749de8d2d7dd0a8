"""`harness run` and `harness demo`: the suites from any folder, by the pytest of this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer

from harness.cli.runs import REPORTS, one_line_errors
from harness.errors import ConfigError
from harness.options.commands import words_of
from harness.options.file import settings_root
from harness.run.folders import suites_of

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["--help"]}
DEMO: dict[str, object] = {  # field of an option -> value
    "backends": ("ort", "openvino"),
    "precisions": ("fp32", "int8"),
    "models": ("lenet5",),
    "timing.batch_sizes": (1, 8),
    "timing.n_rounds": 8,
    "report_dir": REPORTS,
}


def suites_command(arguments: list[str], *, folder: Path) -> list[str]:
    """Return the command that runs the suites in a folder with some of pytest's and our arguments.

    Raises: ConfigError for settings that cannot be read.
    """
    root = settings_root(folder)
    words = [sys.executable, "-m", "pytest", str(suites_of(root)), f"--rootdir={root}", "-p", "harness.plugin"]
    return [*words, *arguments]


@one_line_errors
def run_suites(context: typer.Context) -> None:
    """Run the suites with pytest's and our arguments, as `pytest suites/` does in a checkout.

    Those of ./suites/ where harness.toml lies beside it, or else the bundled ones; so are models/. `harness run -h` is
    pytest's help, with all our options. The exit code is pytest's.
    """
    command = suites_command(context.args, folder=Path.cwd())
    sys.stdout.flush()
    os.execv(command[0], command)  # signals of a CI job go to pytest itself


@one_line_errors
def demo() -> None:
    """Run a small model at FP32 and INT8 on ONNX Runtime and OpenVINO, and say where the report is."""
    folder = Path.cwd()
    command = suites_command(words_of(**DEMO), folder=folder)
    end = subprocess.run(command, cwd=folder, check=False)
    page = folder / REPORTS / "latest" / "index.html"
    if end.returncode not in (0, 1) or not page.is_file():
        raise ConfigError("the demo did not run to its end; it needs pip install 'nn-engine-harness[cpu]'")
    typer.echo(f"Open {page}\nNext: harness init my.onnx")
    raise typer.Exit(end.returncode)
