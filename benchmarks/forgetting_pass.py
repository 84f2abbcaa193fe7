"""The forgetting pass against its peers and against the machine, interleaved, in one run.

Run: python -m benchmarks.forgetting_pass [--shape A] [--dtype float32] [--windows 8] [--llama]

Prints medians and spreads. A GPU is used where there is one.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from benchmarks.pass_llama import Llama
from benchmarks.pass_machine import forget_peak, gemm_peak, held_bytes, peak_bytes, seconds
from benchmarks.pass_peers import naive
from benchmarks.pass_shapes import SHAPES, make_adapter, make_base, make_model, make_windows
from worker.cache import Cache
from worker.model import Base, pick_device, tuned
from worker.score import BasePass, score_base, score_candidate
from worker.windows import Windows

KL = (0.006, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--many", type=int, default=8, help="candidates of the K column")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama", action="store_true", help="build llama.cpp and time it too")
    parser.add_argument("--memory", choices=["naive", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="forgetting-pass-") as work:
        bench = Bench(arguments, Path(work))
        if arguments.memory:
            print_row(str(bench.memory(arguments.memory)))
        else:
            bench.run()


class Bench:
    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        self.arguments, self.work = arguments, work
        self.shape = SHAPES[arguments.shape]
        self.device = pick_device()
        self.dtype = getattr(torch, arguments.dtype)
        self.windows = make_windows(self.shape, arguments.windows)
        self.folders = []
        for kl in KL:
            copy = make_model(self.shape, torch.float32, self.device)
            self.folders.append(make_adapter(copy, work / f"adapter-{kl}", kl=kl))
        del copy
        self.base = make_base(make_model(self.shape, self.dtype, self.device), work)
        self.n_passes = 0

    def run(self) -> None:
        arguments = self.arguments
        positions = self.windows.n_positions
        twin = self.other_model(self.folders[0])
        base_pass = self.base_pass()
        llama = Llama.made(self.base.model, twin, self.windows, self.work, arguments)
        sides: dict[str, Callable[[], object]] = {
            "naive": lambda: naive(self.base.model, twin, self.windows),
            "ours, warm": lambda: self.warm(base_pass, self.folders[0]),
            "ours, cold": self.cold,
            f"ours, K = {arguments.many} cold": lambda: self.cold(arguments.many),
            "body alone": self.body,
        }
        if llama is not None:
            sides |= {"llama.cpp, warm": llama.warm, "llama.cpp, cold": llama.cold}
        spent: dict[str, list[float]] = {name: [] for name in [*sides, "peak"]}
        for repeat in range(arguments.repeats):
            for name, job in sides.items():
                took = job() if name.startswith("llama") else seconds(job, self.device)
                spent[name].append(float(took))  # type: ignore[arg-type]
            spent["peak"].append(gemm_peak(self.dtype, self.device))
            told = ", ".join(f"{name} {spent[name][-1]:.2f} s" for name in sides)
            sys.stderr.write(f"repeat {repeat + 1} of {arguments.repeats}: {told}\n")
        self.show(spent, positions, base_pass, llama)

    def show(
        self,
        spent: dict[str, list[float]],
        positions: int,
        base_pass: BasePass,
        llama: Llama | None,
    ) -> None:
        arguments, shape = self.arguments, self.shape
        middle = {name: statistics.median(values) for name, values in spent.items()}
        print_row(f"{arguments.shape}, {arguments.dtype}, {positions} positions", str(self.device))
        print_row("side", "us per scored token and adapter", "spread", "against naive")
        print_row(*["---"] * 4)
        for name, values in spent.items():
            if name == "peak":
                continue
            scored = positions * (arguments.many if "K = " in name else 1)
            if name.startswith("llama") and llama is not None:
                scored = llama.n_scored
            each = [1e6 * value / scored for value in values]
            ratio = statistics.median(spent["naive"]) / positions * 1e6 / statistics.median(each)
            spread = f"{min(each):.0f} to {max(each):.0f}"
            print_row(name, f"{statistics.median(each):.0f}", spread, f"{ratio:.2f}")
        tokens = len(self.windows.ids)
        body = 2 * shape.body_params * tokens
        head = 2 * shape.head_params * positions
        limit = (body + head) / middle["peak"]
        print_row("fraction of GEMM peak, warm", f"{limit / middle['ours, warm']:.2f}")
        alone = body / middle["peak"] / middle["body alone"]
        print_row("the base's body alone", f"{alone:.2f}")
        print_row("peak GFLOP/s", f"{middle['peak'] / 1e9:.0f}")
        self.show_errors(base_pass)
        kept = sum(array.nbytes for array in base_pass.rows.values()) / positions
        print_row("bytes cached per position", f"{kept:.0f}", f"4 d + {kept - 4 * shape.width:.0f}")
        used = {side: self.memory_apart(side) for side in ("naive", "ours")}
        for side, count in used.items():
            print_row(f"peak memory above the weights, {side}", f"{count / 1e6:.0f} MB")
        if llama is not None:
            print_row("llama.cpp wrote", f"{llama.written / llama.n_scored:.0f} bytes per position")

    def show_errors(self, base_pass: BasePass) -> None:
        few = make_windows(self.shape, min(2, self.arguments.windows))
        part = self.base_pass(few)
        for folder in self.folders:
            exact = naive(
                make_model(self.shape, self.dtype, self.device).double(),
                self.other_model(folder).double(),
                few,
                double=True,
            ).mean()
            ours = self.warm(part, folder, few).mean()
            plain = naive(self.base.model, self.other_model(folder), few).mean()
            print_row(
                f"relative error at KL {exact:.4f}",
                f"ours {ours / exact - 1:+.1e}",
                f"naive {plain / exact - 1:+.1e}",
                f"noise floor {abs(part.noise_kl) / exact:.1e}",
            )

    def other_model(self, folder: Path) -> Any:
        return PeftModel.from_pretrained(
            make_model(self.shape, self.dtype, self.device), folder
        ).eval()

    def base_pass(self, windows: Windows | None = None) -> BasePass:
        self.n_passes += 1
        return score_base(
            self.base,
            self.windows if windows is None else windows,
            corpus_digest=str(self.n_passes),
            route="identity",
            cache=Cache(self.work / "cache", max_bytes=1),
        )

    def warm(
        self, base_pass: BasePass, folder: Path, windows: Windows | None = None
    ) -> NDArray[np.float64]:
        base: Base = self.base
        with tuned(base, folder) as model:
            return score_candidate(model, windows or self.windows, base_pass)["kl"]

    def cold(self, candidates: int = 1) -> None:
        base_pass = self.base_pass()
        for _ in range(candidates):
            self.warm(base_pass, self.folders[0])

    @torch.inference_mode()
    def body(self) -> None:
        ids = torch.from_numpy(self.windows.ids.astype(np.int64)).view(len(self.windows), -1)
        for batch in ids.to(self.device).split(8):
            self.base.model.model(input_ids=batch, use_cache=False)

    def memory(self, side: str) -> int:
        """Bytes at the peak above what is held when the weights are there."""
        twin = self.other_model(self.folders[0]) if side == "naive" else None
        forget_peak(self.device)
        before = held_bytes(self.device)
        if twin is not None:
            naive(self.base.model, twin, self.windows)
        else:
            self.cold(2)
        return peak_bytes(self.device) - before

    def memory_apart(self, side: str) -> int:
        """`memory` in a process of its own."""
        given = self.arguments
        command = [sys.executable, "-m", "benchmarks.forgetting_pass", "--memory", side]
        command += ["--shape", given.shape, "--dtype", given.dtype]
        command += ["--windows", str(max(8, given.windows)), "--threads", str(given.threads)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(said.strip(" |\n"))


def print_row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
