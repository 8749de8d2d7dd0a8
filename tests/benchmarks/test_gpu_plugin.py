"""The plug-in layer of benchmarks/gpu_plugin.cpp, called as TensorRT 8.6 would: by position in its virtual tables."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# A registry that keeps the creator it is given, and a "device" whose memory is the host's.
STAND_INS = r"""
#include <stdint.h>
#include <string.h>
void *kept;
static _Bool keep(void *registry, void *creator, const char *space) { kept = creator; return 1; }
static void *table[] = {(void *)keep};
static void *registry = table;
void *getPluginRegistry(void) { return &registry; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    memcpy((void *)to, (void *)from, bytes);
    return 0;
}
int cuMemsetD2D32Async(uint64_t to, size_t pitch, unsigned value, size_t width, size_t height, void *stream) {
    for (size_t row = 0; row < height; ++row)
        for (size_t k = 0; k < width; ++k) memcpy((char *)to + row * pitch + 4 * k, &value, 4);
    return 0;
}
"""
CHILD = """
import ctypes, json, sys
from ctypes import CDLL, CFUNCTYPE, POINTER, Structure, byref, c_bool, c_char_p, c_float, c_int32, c_size_t, c_void_p

class Field(Structure):
    _fields_ = [("name", c_char_p), ("data", c_void_p), ("type", c_int32), ("length", c_int32)]
class Fields(Structure):
    _fields_ = [("n", c_int32), ("fields", POINTER(Field))]
class Desc(Structure):
    _fields_ = [("n", c_int32), ("d", c_int32 * 8), ("type", c_int32), ("format", c_int32), ("scale", c_float)]

def call(this, position, result, *args):
    table = c_void_p.from_address(this).value
    function = CFUNCTYPE(result, c_void_p, *(type(arg) for arg in args))
    return function(c_void_p.from_address(table + 8 * position).value)(this, *args)

nvinfer, driver, library = sys.argv[1:]
registry = CDLL(nvinfer)
CDLL(driver)
CDLL(library, mode=ctypes.RTLD_GLOBAL)
creator = c_void_p.in_dll(registry, "kept").value

def create(value, column):
    value, column = c_float(value), c_int32(column)
    fields = (Field * 2)(
        Field(b"value", ctypes.addressof(value), 1, 1), Field(b"column", ctypes.addressof(column), 5, 1)
    )
    return call(creator, 4, c_void_p, c_char_p(b"x"), ctypes.pointer(Fields(2, fields)))

layer = create(2.5, 1)
data = ctypes.create_string_buffer(call(layer, 11, c_size_t))
call(layer, 12, None, data)
restored = call(creator, 5, c_void_p, c_char_p(b"x"), data, c_size_t(len(data)))
clone = call(restored, 14, c_void_p)
call(layer, 13, None)
call(restored, 13, None)
started = call(clone, 7, c_int32)

def run(rows, columns):
    source, target = (c_float * (rows * columns))(*range(rows * columns)), (c_float * (rows * columns))()
    desc = Desc(2, (rows, columns), 0, 0, -1.0)
    ends = [ctypes.pointer(c_void_p(ctypes.addressof(memory))) for memory in (source, target)]
    status = call(clone, 29, c_int32, ctypes.pointer(desc), ctypes.pointer(desc), *ends, c_void_p(), c_void_p())
    return status, list(target)

formats = (Desc * 2)(Desc(type=0, format=0), Desc(type=1, format=0))
print(json.dumps({
    "names": [call(creator, 1, c_char_p).decode(), call(clone, 1, c_char_p).decode()],
    "versions": [hex(call(creator, 0, c_int32)), hex(call(clone, 0, c_int32))],
    "fields": [call(creator, 3, POINTER(Fields))[0].fields[k].name.decode() for k in range(2)],
    "started": started,
    "formats": [call(clone, 26, c_bool, c_int32(k), formats, c_int32(1), c_int32(1)) for k in range(2)],
    "wide": run(3, 4),
    "narrow": run(2, 1),
    "bad": [create(1.0, -1), call(creator, 5, c_void_p, c_char_p(b"x"), data, c_size_t(3))],
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process found that loaded the library beside the stand-ins."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(BENCHMARKS))
    gpu_plugin = importlib.import_module("gpu_plugin")
    patch.delenv(gpu_plugin.PREBUILT, raising=False)
    folder = tmp_path_factory.mktemp("plugin")
    library = gpu_plugin.plugin_library(folder)
    patch.undo()
    if library is None or shutil.which("gcc") is None:
        pytest.skip("no C++ or no C compiler is installed: the library cannot be made")
    source = folder / "stand_ins.c"
    source.write_text(STAND_INS)
    paths = [folder / name for name in ("libnvinfer.so.8", "libcuda.so.1")]
    for path in paths:
        options = ["-w", "-shared", "-fPIC", f"-Wl,-soname,{path.name}"]
        subprocess.run(["gcc", *options, "-o", str(path), str(source)], check=True)
    command = [sys.executable, "-c", CHILD, *map(str, paths), str(library)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout)


def test_the_layer_registers_itself_under_its_name_and_kind(found):
    assert found["names"] == ["HarnessOverwrite", "HarnessOverwrite"]
    assert found["versions"] == [hex(8600), hex(3 << 24 | 8600)]  # 3: dynamic shapes
    assert found["fields"] == ["value", "column"]


def test_a_layer_restored_and_cloned_still_overwrites_its_column(found):
    assert found["started"] == 0
    status, values = found["wide"]
    wanted = np.arange(12, dtype=np.float32).reshape(3, 4)
    wanted[:, 1] = 2.5
    assert status == 0
    assert values == wanted.ravel().tolist()


def test_only_float32_a_column_that_exists_and_whole_data_are_taken(found):
    assert found["formats"] == [True, False]
    assert found["narrow"] == [1, [0.0, 0.0]]
    assert found["bad"] == [None, None]
