"""What is done to a block of logits, in place: by C on a CPU, compiled by torch on a GPU, else by
plain torch. The three agree to float32's rounding; within one pass only one of them is used."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("reduction.c")
COMMAND = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
BUILD_SECONDS = 60


def exponentials_(block: Tensor, best: Tensor) -> Tensor:
    """(rows, width) float32 becomes exp(block - best); returns the rows' sums, float64 (rows,)."""
    library = _library() if block.device.type == "cpu" else None
    if library is None:
        return _on_device(_exponentials, block)(block, best)
    sums = torch.empty(len(block), dtype=torch.float64)
    best = best.contiguous()
    library.exponentials(*_matrix(block), best.data_ptr(), sums.data_ptr(), _threads())
    return sums


def largest_(block: Tensor, start: int, values: Tensor, ids: Tensor) -> None:
    """Bring `values` and `ids` (rows, k), the k largest logits so far in descending order, up to
    date with tokens start, start + 1, … of `block` (rows, width). Of equals the first stays."""
    library = _library() if block.device.type == "cpu" else None
    if library is None:
        _largest(block, start, values, ids)
        return
    k = values.shape[1]
    library.largest(*_matrix(block), start, k, values.data_ptr(), ids.data_ptr(), _threads())


def reduction_name(device: torch.device) -> str:
    """Which of them works there; they round differently, so it is part of the cache's key."""
    if device.type == "cuda":
        return "triton"
    return "torch" if _library() is None else "c"


def _exponentials(block: Tensor, best: Tensor) -> Tensor:
    return block.sub_(best[:, None]).exp_().sum(dim=1).double()


def _largest(block: Tensor, start: int, values: Tensor, ids: Tensor) -> None:
    k = values.shape[1]
    if k == 1:
        found, places = block.max(dim=1, keepdim=True)
        better = found > values
        values.copy_(torch.where(better, found, values))
        ids.copy_(torch.where(better, places + start, ids))
        return
    found, places = block.topk(min(k, block.shape[1]), dim=1)
    both = torch.cat([values, found], dim=1)
    ordered, order = both.sort(dim=1, descending=True, stable=True)
    known = torch.cat([ids, places + start], dim=1)
    values.copy_(ordered[:, :k])
    ids.copy_(known.gather(1, order[:, :k]))


Exponentials = Callable[[Tensor, Tensor], Tensor]


def _on_device(function: Exponentials, block: Tensor) -> Exponentials:
    return _compiled(function) if block.device.type == "cuda" else function


@cache
def _compiled(function: Exponentials) -> Exponentials:
    """One Triton kernel that reads the block once, where eager torch reads it four times."""
    return torch.compile(function, dynamic=True)


def _matrix(block: Tensor) -> tuple[int, int, int, int]:
    assert block.dtype == torch.float32
    assert block.stride(1) == 1
    return block.data_ptr(), block.shape[0], block.shape[1], block.stride(0)


def _threads() -> int:
    return torch.get_num_threads()


@cache
def _library() -> ctypes.CDLL | None:
    """The C, built once per machine; None where there is no compiler."""
    try:
        library = ctypes.CDLL(str(_built()))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, long, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.exponentials.argtypes = [pointer, long, long, long, pointer, pointer, number]
    library.largest.argtypes = [pointer, long, long, long, long, long, pointer, pointer, number]
    library.exponentials.restype = library.largest.restype = None
    return library


def _built() -> Path:
    """Named by what it was made of, and renamed into place, so that builders cannot mix."""
    facts = [SOURCE.read_text(), " ".join(COMMAND), platform.machine(), _cpu()]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgetting"
    built = folder / f"reduction-{name}.so"
    if built.is_file():
        return built
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / built.name
        command = [os.environ.get("CC") or "cc", *COMMAND, "-shared", "-fPIC"]
        subprocess.run(
            [*command, "-o", str(made), str(SOURCE), "-lm"],
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
