"""Libraries that let TensorRT's Python bindings be imported without TensorRT: every C function returns 0."""

import subprocess
from pathlib import Path

FOREIGN = ("libnv", "libtensorrt", "libcu")
PYTHON_OR_SYSTEM = ("Py", "_Py", "_Z", "dl", "pthread")
PARSERS = ("nvcaffeparser", "nvuffparser")  # the only C++ symbols named; up to 8.6


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _is_of_tensorrt(symbol):
    return not symbol.startswith(PYTHON_OR_SYSTEM) or any(parser in symbol for parser in PARSERS)


def make_stub_libraries(folder):
    """Put stand-ins for the libraries that `tensorrt*.so` in a folder needs beside it; return their names."""
    binding = next(iter(sorted(Path(folder).glob("tensorrt*.so"))))
    needed = [
        line.split("[")[1].split("]")[0]
        for line in _output("readelf", "-d", binding).splitlines()
        if "(NEEDED)" in line
    ]
    names = [name for name in needed if name.startswith(FOREIGN)]
    fields = [line.split() for line in _output("nm", "-D", "--undefined-only", binding).splitlines()]
    undefined = {f[-1] for f in fields if f[-2] == "U" and "@" not in f[-1]}
    symbols = sorted(name for name in undefined if _is_of_tensorrt(name))
    source = Path(folder) / "stub.c"
    for index, name in enumerate(names):
        functions = [f"void *{symbol}(void) {{ return 0; }}" for symbol in symbols] if index == 0 else []
        source.write_text("\n".join(["int harness_stub;", *functions]) + "\n")
        flags = ["-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{name}"]
        subprocess.run(["gcc", *flags, "-o", str(Path(folder) / name), str(source)], check=True)
    return names
