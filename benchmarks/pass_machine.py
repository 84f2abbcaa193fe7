"""What the machine can do, and what a process has used of its memory."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

PEAK_SHAPES = [(2048, 512, 2048), (2048, 512, 2816), (2048, 1024, 2816), (2048, 2048, 2048)]
"""(rows, inner, columns) of products; the fastest counts."""


def gemm_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the fastest product, the best of five."""
    best = 0.0
    for rows, inner, columns in PEAK_SHAPES:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        for _ in range(5):
            spent = seconds(lambda x=left, w=right: x @ w.t(), device)
            best = max(best, 2 * rows * inner * columns / spent)
    return best


def seconds(job: Callable[[], object], device: torch.device) -> float:
    _settle(device)
    started = time.perf_counter()
    job()
    _settle(device)
    return time.perf_counter() - started


def peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def held_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
