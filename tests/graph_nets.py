"""Small nets of any graph, in ONNX's text form, and their specs as a worker reads them."""

import onnx
import onnx.parser

from harness.models.inspection import inspect_onnx
from harness.specs import InputsAsked

# Two int inputs: rows of a table, masked and summed.
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, length] ids, int64[batch, length] mask) => (float[batch, 3] scores)
<float[5, 3] table = {1, 0, 0, 0, 1, 0, 0, 0, 1, 2, 2, 2, 0.5, 0.25, 0.125}>
{
  rows = Gather <axis = 0> (table, ids)
  weights = Cast <to = 1> (mask)
  axis = Constant <value = int64[1] {2}> ()
  wide = Unsqueeze (weights, axis)
  masked = Mul (rows, wide)
  one = Constant <value = int64[1] {1}> ()
  scores = ReduceSum <keepdims = 0> (masked, one)
}
"""
# A running sum: the state's batch axis is its second, the rate is a scalar.
STATEFUL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 4] frame, float[2, batch, 4] state, int64 rate) => (float[batch, 4] out, float[2, batch, 4] next)
{
  scale = Cast <to = 1> (rate)
  scaled = Mul (frame, scale)
  next = Add (state, scaled)
  zero = Constant <value = int64 {0}> ()
  out = Gather <axis = 0> (next, zero)
}
"""
# An image of any size, whose output has its size.
SIZED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 1, h, w] x) => (float[m, 1, k, l] y)
<float[1, 1, 3, 3] weights = {0.1, -0.9, 0.3, 1.1, 1.7, 0.7, 0.2, -0.6, 0.15}>
{
  c = Conv <pads = [1, 1, 1, 1]> (x, weights)
  y = Sigmoid (c)
}
"""
# How many outputs there are depends on the values.
CHOSEN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 6] x) => (int64[r, k] places)
{
  half = Constant <value = float {0.5}> ()
  large = Greater (x, half)
  places = NonZero (large)
}
"""
NETS = {"text": TEXT, "stateful": STATEFUL, "sized": SIZED, "chosen": CHOSEN}


def write_net(folder, name, text=None):
    """Write a net of this file, or of another text, and return its path."""
    path = folder / f"{name}.onnx"
    onnx.save(onnx.parser.parse_model(text or NETS[name]), str(path))
    return path


def graph_spec(path, **asked):
    """Return what a worker reads of a net; `asked`: fields of InputsAsked."""
    return inspect_onnx(path, inputs=InputsAsked(**asked), is_scored=False)
