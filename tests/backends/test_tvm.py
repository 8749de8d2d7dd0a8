"""TVM: why its cases are untuned."""

import onnx_nets
import pytest

from harness.machine.child import run_python

WRITES_A_MODULE = """
import onnx, tvm
from tvm.relax.frontend.onnx import from_onnx
shapes = {"image": [1, 1, 8, 8]}
module = from_onnx(onnx.load(sys.argv[1]), shape_dict=shapes, keep_params_in_input=False)
tvm.ir.save_json(module)
"""


def test_tuning_cannot_begin_because_a_module_cannot_be_written(tmp_path):
    """MetaSchedule hands modules to its builders as JSON. Once this fails, try `static_shape_tuning` again."""
    pytest.importorskip("tvm")
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx")
    end = run_python("import sys\n" + WRITES_A_MODULE, str(path), limit_s=300.0)
    assert end.returncode == -11, "a module can be written: docs/backends.md says that it cannot"
