"""The divergence kernel as a multiple of one bare head product, the floor of any exact scheme.

Run: python -m benchmarks.divergence [--device cuda] [--seconds 1]

Route `identity` makes one product per candidate, `logits` two; the rest is the reduction.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch

from worker.divergence import Head, Route, base_rows, compare
from worker.pace import pace_for

SHAPES = [(1024, 128), (32_000, 512), (32_000, 4096), (128_256, 2048)]  # (vocab, width)
ROUTES: list[Route] = ["identity", "logits"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="spent on each number")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print_row("vocab x width", *(f"{r}: {side}" for r in ROUTES for side in ("base", "tuned")))
    print_row(*["---"] * 5)
    for vocab, width in SHAPES:
        chunk = pace_for(device, vocab).chunk
        weight = torch.randn(vocab, width, device=device) / width**0.5
        base = torch.randn(chunk, width, device=device)
        tuned = base + 0.02 * torch.randn_like(base)
        targets = torch.randint(vocab, (chunk,), device=device)
        head = Head(weight)
        product = timed(lambda b=base, w=weight: b @ w.t(), device, arguments.seconds)
        found: list[float] = []
        for route in ROUTES:
            rows = base_rows(base, head, targets, chunk=chunk, route=route)
            other = head if route == "logits" else None
            jobs: list[Callable[[], object]] = [
                lambda b=base, h=head, t=targets, c=chunk, r=route: base_rows(
                    b, h, t, chunk=c, route=r
                ),
                lambda x=tuned, h=head, y=rows, c=chunk, o=other: compare(
                    x, h, y, chunk=c, base_head=o
                ),
            ]
            found += [timed(job, device, arguments.seconds) for job in jobs]
        print_row(f"{vocab} x {width}", *(f"{seconds / product:.2f}" for seconds in found))


def timed(job: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of one run, the best of as many as fit into `seconds` (two at least)."""
    job()
    best, until = float("inf"), time.perf_counter() + seconds
    for n in range(1000):
        if n >= 2 and time.perf_counter() > until:
            break
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def print_row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
