"""Environments for workers, made without the network: empty venvs that may share this environment's packages."""

import subprocess
import sys
import sysconfig
from pathlib import Path


def make_environment(folder, *, shares=True, modules=None):
    """Make a venv and return its Python. `shares`: it finds this environment's packages; `modules`: name -> source."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = Path(folder).glob("lib/*/site-packages")
    if shares:
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, source in (modules or {}).items():
        (site / f"{name}.py").write_text(source)
    return str(Path(folder) / "bin" / "python")
