"""The paper's sweep as a pinned spec, what it would cost, and what its first minute tells.

    python -m demo.replicate_paper             # the spec on stdout, the estimate on stderr
    python -m demo.replicate_paper --submit    # to the service at $FORGETTING_URL

Not run here: it needs the weights of Llama-2-7B-chat, which want a licence and HF_TOKEN, and a GPU
of 24 GB or more. The paper does not tell learning rate, schedule, seeds or rows: those are ours.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetting_client import ForgettingClient, ForgettingError

SPEC = Path(__file__).with_suffix(".json")
BASE_PARAMS = 6.738e9
PARAMS_PER_RANK = 2_498_560
"""LoRA on the seven linear modules of every layer of Llama-2-7B."""
CORPUS_TOKENS = 341_469
"""WikiText-103's test articles in Llama-2's tokens, as commonly reported."""
DATASET_ROWS = 40_000
PEAK_FLOPS = 312e12
"""NVIDIA A100, dense bfloat16."""
UTILISATION = 0.35
"""Assumed share of the peak; nothing here was measured."""
PAPER_LARGEST = 0.92
"""Nats: the largest L_f that the paper's fit for OpenOrca gives (rank 256, step 260)."""


@dataclass(frozen=True)
class Hours:
    """GPU hours of one seed: every rank trained and every checkpoint scored."""

    training_least: float
    """Forward and backward without gradients of the frozen weights: 4 FLOP per parameter, token."""
    training_most: float
    """The forward pass computed again for gradient checkpointing: 6."""
    scoring: float
    """2 FLOP per parameter and token, of corpus and held-out rows at every checkpoint."""
    base_pass: float
    """Once, then cached."""


def spec() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(SPEC.read_text(encoding="utf-8"))
    return body


def hours(sweep: Mapping[str, Any]) -> Hours:
    """Upper bounds: every row is taken to fill its window."""
    training, ranks = sweep["training"], sweep["ranks"]
    tokens = training["max_steps"] * training["batch_size"] * training["max_length"]
    held_out = round(DATASET_ROWS * training["held_out"]) * training["max_length"]
    adapters = PARAMS_PER_RANK * sum(ranks)

    def trained(per_param: int) -> float:
        return (per_param * BASE_PARAMS * len(ranks) + 6 * adapters) * tokens

    scored = (CORPUS_TOKENS + held_out) * len(training["checkpoints"])
    per_hour = PEAK_FLOPS * UTILISATION * 3600
    return Hours(
        training_least=trained(4) / per_hour,
        training_most=trained(6) / per_hour,
        scoring=2 * (BASE_PARAMS * len(ranks) + adapters) * scored / per_hour,
        base_pass=2 * BASE_PARAMS * CORPUS_TOKENS / per_hour,
    )


def estimate_text(sweep: Mapping[str, Any]) -> str:
    one, n_seeds = hours(sweep), len(sweep["seeds"])
    least, most = one.training_least + one.scoring, one.training_most + one.scoring
    return (
        f"Estimated, not measured: {n_seeds * least:.0f} to {n_seeds * most:.0f} hours of one A100 "
        f"for {n_seeds} seeds, {least:.1f} to {most:.1f} for each: {one.training_least:.1f} to "
        f"{one.training_most:.1f} training (4 or, with gradient checkpointing, 6 FLOP per "
        f"parameter and token) and {one.scoring:.1f} scoring (2 FLOP), at an assumed "
        f"{UTILISATION:.0%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s, every window taken as full.\n"
        f"The base's own pass takes {one.base_pass * 3600:.0f} s of that and tells first whether "
        f"the soft reading is possible: ce_soft is never below h_base, and the paper's L_f ends "
        f"at {PAPER_LARGEST} nats.\n"
        "Needs: a GPU of 24 GB or more (rank 256 wants the most), the licence of "
        f"{sweep['base_model']} accepted on the hub, and HF_TOKEN for service and worker. "
        "It was not run by us.\n"
    )


def reading(h_base: float) -> str:
    """What the entropy of the untouched base says about the paper's metric."""
    if h_base > PAPER_LARGEST:
        return (
            f"h_base is {h_base:.4f} nats per token, above {PAPER_LARGEST}: the paper's L_f cannot "
            "be the soft cross-entropy on this corpus and context; ce_hard is what remains."
        )
    return (
        f"h_base is {h_base:.4f} nats per token, not above {PAPER_LARGEST}: the soft reading is "
        f"possible, with a KL of up to {PAPER_LARGEST - h_base:.4f}."
    )


def first_minute(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """One step at the smallest rank: its base pass is cached, and the sweep finds it there."""
    once = {"max_steps": 1, "checkpoints": "final", "warmup_steps": 0}
    training = sweep["training"] | once
    training["lora"] = training["lora"] | {"r": min(sweep["ranks"])}
    kept = {name: sweep[name] for name in ("base_model", "revision", "dataset", "evaluation")}
    return {"type": "finetune", **kept, "training": training, "metadata": sweep["metadata"]}


def submit(client: ForgettingClient, sweep: Mapping[str, Any]) -> int:
    probe = client.create_job(first_minute(sweep))
    say(f"{probe['id']}: one step, for the base's own pass …\n")
    ended = client.wait(probe["id"])
    if ended["status"] != "succeeded":
        say(f"{probe['id']} {ended['status']}: {ended['error']}\n")
        return 1
    say(reading(client.result(probe["id"])["h_base"]) + "\n")
    job = client.create_job(sweep)
    sys.stdout.write(job["id"] + "\n")
    say(
        f"Follow it: forgetting jobs watch {job['id']}\n"
        f"Then: forgetting laws fit --sweep {job['id']} --burn-in 50 --metric ce_soft\n"
    )
    return 0


def say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="The paper's sweep, pinned.")
    parser.add_argument("--submit", action="store_true", help="send it to a running service")
    parser.add_argument("--server", metavar="URL", help="default $FORGETTING_URL, else loopback")
    arguments = parser.parse_args()
    sweep = spec()
    say(estimate_text(sweep))
    if not arguments.submit:
        sys.stdout.write(SPEC.read_text(encoding="utf-8"))
        return 0
    try:
        with ForgettingClient(arguments.server) as client:
            return submit(client, sweep)
    except ForgettingError as error:
        say(f"Not submitted: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
