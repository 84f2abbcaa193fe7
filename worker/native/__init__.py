"""C, built once per machine with the machine's own instructions."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
COMMAND = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
BUILD_SECONDS = 60

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64
_DOUBLE, _INT = ctypes.c_double, ctypes.c_int
_MATRIX = [_POINTER, _LONG, _LONG, _LONG]  # first value, rows, width, values from row to row
_RMS_NORM = [_POINTER, _LONG, _LONG, _POINTER, _DOUBLE, _POINTER, _INT]
_SILU_TIMES = [_POINTER, _POINTER, _LONG, _INT]
FUNCTIONS = {
    "exponentials": [*_MATRIX, _POINTER, _POINTER, _INT],
    "largest": [*_MATRIX, _LONG, _LONG, _POINTER, _POINTER, _INT],
    "fold": [*_MATRIX, _LONG, _POINTER, _LONG, _LONG, *[_POINTER] * 6, _INT],
    "rms_norm_float": _RMS_NORM,
    "rms_norm_bfloat16": _RMS_NORM,
    "bfloat16_product": [_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _INT],
    "causal_attention": [*[_POINTER] * 5, _DOUBLE, _INT, _POINTER, _INT],
    "silu_times_float": _SILU_TIMES,
    "silu_times_bfloat16": _SILU_TIMES,
}
ANSWERING = {"bfloat16_product", "causal_attention"}
"""They return 0 where all went well."""


@cache
def native() -> ctypes.CDLL | None:
    """None where there is no compiler."""
    try:
        library = ctypes.CDLL(str(_built()))
    except (OSError, subprocess.SubprocessError):
        return None
    for name, arguments in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = _INT if name in ANSWERING else None
    return library


def threads() -> int:
    return torch.get_num_threads()


def _built() -> Path:
    """Named by what it was made of, and renamed into place, so that builders cannot mix."""
    facts = [source.read_text() for source in SOURCES]
    facts += [" ".join(COMMAND), platform.machine(), _cpu()]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgetting"
    built = folder / f"native-{name}.so"
    if built.is_file():
        return built
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / built.name
        command = [os.environ.get("CC") or "cc", *COMMAND, "-shared", "-fPIC"]
        sources = [str(source) for source in SOURCES if source.suffix == ".c"]
        subprocess.run(
            [*command, "-o", str(made), *sources, "-lm"],
            check=True,
            capture_output=True,
            timeout=BUILD_SECONDS,
        )
        made.rename(built)
    return built


def _cpu() -> str:
    """What -march=native looks at: a home directory may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
