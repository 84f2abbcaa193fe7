"""Wall-clock of a gate against the full pass, side by side, the base's pass cached and not.

An adapter is trained on the tiny base for a minute, the full pass over all articles of WikiText-103
test measures it, and gates ask whether it is above a limit that makes its true value the given
multiple. Run: python -m benchmarks.gate_wall
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from service.schemas.gate import GateResult
from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec, FinetuneSpec, GateSpec
from service.settings import Settings
from worker.run import execute

ROOT = Path(__file__).parent.parent
BASE = ROOT / "demo" / "tiny_base"
DATA = Path(os.environ.get("FORGETTING_DATA", ROOT.parent / "shared" / "data"))
RATIOS = (0.5, 0.9, 1.1)
SCORING = ("scoring_base", "scoring_tuned")
EVALUATION = {"corpus": "wikitext-103-raw-test.txt", "context": 128}


class Bench:
    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.settings = Settings(
            home=folder / "home",
            model_roots=[BASE.parent, folder],
            data_roots=[data],
            allow_hub=False,
        )
        self.n_runs = 0

    def run(self, spec: Any, *, cold: bool = False) -> tuple[Any, float]:
        """The result, and CPU seconds; cold: nothing in the cache, and nothing left in it."""
        self.n_runs += 1
        name = f"run-{self.n_runs}"
        settings = self.settings
        if cold:
            settings = settings.model_copy(update={"cache_dir": self.folder / f"cache-{name}"})
        began = time.process_time()
        result = execute(spec, self.folder / name, lambda event: None, settings=settings)
        return result, time.process_time() - began

    def train(self) -> str:
        """Name of an adapter of rank 16 after 20 steps."""
        spec = FinetuneSpec.model_validate(
            {
                "base_model": BASE.name,
                "dataset": {"path": "orca-sample.jsonl"},
                "training": {
                    **{"max_steps": 20, "batch_size": 8, "max_length": 128},
                    **{"learning_rate": 3e-3, "loss_on": "all", "lora": {"r": 16}},
                    "checkpoints": "final",
                },
                # Measured on little: the full pass comes by itself.
                "evaluation": {"corpus": "advbench.csv", "context": 128, "at": "final"},
            }
        )
        self.run(spec)
        return f"run-{self.n_runs}/artifacts/checkpoints/step-000020"


def full(adapter: str) -> EvaluateSpec:
    body = {"type": "evaluate", "base_model": BASE.name, "adapters": [{"path": adapter}]}
    return EvaluateSpec.model_validate({**body, "evaluation": EVALUATION})


def gate(adapter: str, limit: float) -> GateSpec:
    body = full(adapter).model_dump(exclude={"type"})
    policy = {"checks": [{"id": "kl", "metric": "kl", "fail_above": limit}]}
    return GateSpec.model_validate({**body, "type": "gate", "policy": policy})


def table(bench: Bench, adapter: str) -> Iterator[str]:
    yield (
        "| base's pass | true / limit | verdict | windows | loading, s | scoring, s | full pass, s "
        "| ratio | CPU s, gate / full |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for cached in (False, True):
        whole, whole_cpu = bench.run(full(adapter))  # the first one makes the base's pass
        assert isinstance(whole, Result)
        reference = scoring(whole)
        for ratio in RATIOS:
            asked = gate(adapter, whole.kl.value / ratio)
            found, cpu = bench.run(asked, cold=not cached)
            assert isinstance(found, GateResult)
            spent = scoring(found)
            yield (
                f"| {'cached' if cached else 'none'} | {ratio:g} | {found.verdict} "
                f"| {found.n_scored:,} ({found.fraction:.1%}) "
                f"| {found.cost.seconds['loading']:.1f} | {spent:.1f} | {reference:.1f} "
                f"| {spent / reference:.3f} | {cpu:.1f} / {whole_cpu:.1f} |"
            )


def scoring(result: Result | GateResult) -> float:
    return sum(result.cost.seconds[phase] for phase in SCORING)


def main(show: Callable[[str], None]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.data)
        for line in table(bench, bench.train()):
            show(line)


if __name__ == "__main__":
    main(lambda line: print(line, flush=True))  # noqa: T201
