"""What the machine can do, and what a process has used of its memory."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from worker.product import product

PEAK_SHAPES = [(2048, 512, 2048), (2048, 512, 2816), (2048, 1024, 2816), (2048, 2048, 2048)]
"""(rows, inner, columns) of products; the fastest counts."""


def gemm_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the fastest product, torch's own or ours, the best of five."""
    best = 0.0
    for rows, inner, columns in PEAK_SHAPES:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        for multiply in [lambda x, w: x @ w.t(), product] * 5:
            spent = seconds(lambda x=left, w=right, f=multiply: f(x, w), device)
            best = max(best, 2 * rows * inner * columns / spent)
    return best


def seconds(job: Callable[[], object], device: torch.device) -> float:
    _settle(device)
    started = time.perf_counter()
    job()
    _settle(device)
    return time.perf_counter() - started


def forget_peak(device: torch.device) -> None:
    """From here on `peak_bytes` counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def held_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS")


def _status(name: str) -> int:
    """getrusage would count what the parent held when it made this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
