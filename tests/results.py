"""Results as a worker would report them, with numbers that lie on both laws exactly."""

from typing import Any

from service.recipe import points_of
from service.schemas.result import Result
from service.store import Store

STEPS = (25, 50, 100)
"""All past the burn-in, which is a fifth of the run."""


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value * 0.9, value * 1.1]}


def forgetting(kl: float) -> dict[str, Any]:
    return {
        "kl": estimate(kl),
        "ce_soft": estimate(kl + 2.0),
        "ce_hard": estimate(kl + 1.0),
        "same_top": estimate(0.9),
        "same_top5": estimate(0.5),
        "nll_base": estimate(3.0),
        "nll_tuned": estimate(3.1),
        "kl_reverse": None,
        "h_base": 2.0,
        "kl_percentiles": {"max": 9.0, "median": kl},
        "delta_p": {"mean": -0.01, "rms": 0.1},
        "ppl": {"base": 20.0, "tuned": 22.0, "ln_ratio": 0.1},
        "by_confidence": [],
    }


def ft_loss_at(rank: int, step: int) -> float:
    return 2.0 + 0.8 * rank**-0.3 + 1.2 * step**-0.4


def result_body(*, rank: int = 8, steps: tuple[int, ...] = STEPS) -> dict[str, Any]:
    """A finetune job's result; KL = 1.5 - 0.4 * held-out loss."""
    checkpoints = []
    for step in steps:
        loss = ft_loss_at(rank, step)
        checkpoints.append(
            {
                "step": step,
                "adapter": f"checkpoints/step-{step:06d}",
                "rank": rank,
                "trainable_params": 1000 * rank,
                "ft_loss": {"train": loss, "heldout": loss},
                "forgetting": forgetting(1.5 - 0.4 * loss),
            }
        )
    last = checkpoints[-1]
    body = {
        **last["forgetting"],
        "documents": [document(0, 0.1), document(1, 0.3), document(2, 0.2)],
        "n_documents": 3,
        "n_windows": 9,
        "n_positions": 300,
        "ft_loss": last["ft_loss"],
        "checkpoints": checkpoints,
        "worst_windows": [window(1, 0.7), window(0, 0.9)],
        "worst_tokens": [token(0, 2.0), token(1, 5.0), token(1, 3.0)],
        "law": None,
        "engine": {"name": "transformers", "reason": "asked for"},
        "noise_floor": {"kl": 1e-7, "max_abs": 1e-6, "n_positions": 100},
        "parity": None,
        "provenance": provenance(),
        "cost": {
            "base_forward_tokens": 300,
            "tuned_forward_tokens": 900,
            "training_tokens": 5000,
            "seconds": {"training": 1.5},
        },
        "warnings": [],
    }
    return Result.model_validate(body).model_dump(mode="json")


def document(index: int, kl: float) -> dict[str, Any]:
    return {
        "index": index,
        "title": f"document {index}",
        "n_positions": 100,
        "kl": kl,
        "ce_soft": kl + 2.0,
        "ce_hard": kl + 1.0,
        "same_top": 0.9,
        "nll_base": 3.0,
        "nll_tuned": 3.1,
    }


def window(index: int, kl: float) -> dict[str, Any]:
    return {"document": index, "window": 0, "n_positions": 30, "kl": kl, "text": "some text"}


def token(index: int, kl: float) -> dict[str, Any]:
    return {
        "document": index,
        "position": 7,
        "token": " Paris",
        "context": "the capital is",
        "kl": kl,
        "base_top": " Paris",
        "tuned_top": " Rome",
        "p_base": 0.9,
        "p_tuned": 0.1,
    }


def provenance() -> dict[str, Any]:
    return {
        "base": f"sha256:{'a' * 64}",
        "tokenizer": f"sha256:{'b' * 64}",
        "adapter": f"sha256:{'c' * 64}",
        "corpus": f"sha256:{'d' * 64}",
        "dataset": f"sha256:{'e' * 64}",
        "context": 64,
        "begins_with_bos": True,
        "dtype": "float32",
        "device": "cpu",
        "engine": "transformers",
        "route": "identity",
        "scoring_version": 2,
        "window_rule": "made",
        "versions": {"torch": "2.13.0"},
        "seed": 17,
        "base_revision": None,
        "dataset_format": "text",
        "corpus_kind": "text",
    }


def run_next(
    store: Store,
    *,
    artifacts: tuple[dict[str, Any], ...] = (),
    artifacts_prefix: str | None = None,
) -> str:
    """Claims the oldest job, reports its checkpoints and finishes it, as a worker would."""
    claim = store.claim("worker-1")
    assert claim is not None
    body = result_body(rank=claim.spec["training"]["lora"]["r"])
    reports: list[dict[str, Any]] = [{"kind": "phase", "phase": "training"}]
    for kept in body["checkpoints"]:
        reports.append({"kind": "metric", "name": "train_loss", "step": kept["step"], "value": 2.0})
        reports.append({"kind": "checkpoint", "step": kept["step"], "adapter": kept["adapter"]})
    store.beat(claim, reports)
    store.finish(
        claim,
        body,
        points=points_of(claim.job_id, claim.spec, body),
        artifacts=artifacts,
        artifacts_prefix=artifacts_prefix,
    )
    return claim.job_id
