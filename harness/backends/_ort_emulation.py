"""Float emulation of a Q/DQ file: ONNX Runtime with its 8-bit kernels switched off.

Q/DQ nodes run as written, everything between them in FP32. A gap between this and an engine's own result is the
kernel's, not the calibration's. Not a backend to choose: its file has a leading underscore.
"""

from __future__ import annotations

from harness.backends.ort import OrtBackend

# Source: onnxruntime_session_options_config_keys.h, kOrtSessionOptionsDisableQuantQDQ.
BACKEND = OrtBackend("ort-emulation", {"session.disable_quant_qdq": "1"})
