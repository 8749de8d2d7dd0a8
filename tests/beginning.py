"""What holds before any test's import: imported first by conftest.py, and by processes that it starts through them."""

import atexit
import os
import shutil
import sys
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: tests run side by side, a CPU each
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    # Tests start some hundred processes, whole runs and workers; each would compile every module anew.
    compiled = tempfile.mkdtemp(prefix="harness-tests-bytecode-")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = compiled
    sys.dont_write_bytecode = False
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
