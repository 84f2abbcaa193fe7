"""Gates as a worker would report them, made by hand."""

from typing import Any

from service.laws.verdict import Verdict, exit_code, overall
from service.schemas.gate import GateResult
from service.store import Store
from tests.results import provenance, token

Json = dict[str, Any]


def gate_spec(**changes: Any) -> Json:
    """Fits the roots of the service's tests, with a model as the candidate."""
    return {
        "base_model": "tiny",
        "adapters": [{"path": "tiny"}],
        "evaluation": {"corpus": "corpus.txt", "context": 64},
        "policy": policy(),
        **changes,
    }


def policy(*checks: Json, **changes: Any) -> Json:
    return {
        "checks": list(checks) or [{"id": "mean", "metric": "kl", "fail_above": 0.08}]
    } | changes


def check(verdict: str = "pass", **changes: Any) -> Json:
    value = {"pass": 0.031, "fail": 0.131}.get(verdict, 0.0801)
    value = changes.get("value") or value
    return {
        "id": "mean",
        "metric": "kl",
        "verdict": verdict,
        "reason": "decided by the test",
        "value": value,
        "limit": 0.08,
        "unit": "nats/token",
        "informational": False,
        "tested": "sequentially",
        "estimand": value,
        "estimand_limit": 0.08,
        "interval": {"low": value * 0.7, "high": value * 1.3},
        **changes,
    }


def gate_result(*checks: Json, **changes: Any) -> Json:
    """Of `checks`, with the verdict that they come to; 62 of 4,927 windows were scored."""
    judged = list(checks) or [check()]
    verdict = overall(Verdict(one["verdict"]) for one in judged if not one["informational"])
    lenient = changes.get("on_inconclusive", "fail")
    body = {
        "verdict": verdict,
        "exit_code": exit_code(verdict, on_inconclusive=lenient),
        "alpha": 0.05,
        "on_inconclusive": lenient,
        "checks": judged,
        "different": [],
        "n_scored": 62,
        "n_windows": 4927,
        "fraction": 62 / 4927,
        "n_positions_scored": 7874,
        "order": f"sha256:{'f' * 64}",
        "candidate": {"name": "tiny", "rank": 16, "trainable_params": 98_304},
        "worst_tokens": [token(1, 5.0), token(0, 2.0)],
        "engine": {"name": "transformers", "reason": "few windows are expected"},
        "noise_floor": {"kl": 1e-7, "max_abs": 1e-6, "n_positions": 100},
        "parity": None,
        "provenance": provenance(),
        "cost": {
            "base_forward_tokens": 0,
            "tuned_forward_tokens": 7_936,
            "tokens_saved": 622_720,
            "seconds": {"loading": 4.0, "scoring_tuned": 1.5},
            "seconds_saved": 117.7,
        },
        "warnings": [],
        **changes,
    }
    return GateResult.model_validate(body).model_dump(mode="json")


def end_gate(store: Store, *checks: Json, **changes: Any) -> str:
    """Claims the oldest job and finishes it with such a result; its id."""
    claim = store.claim("worker-1")
    assert claim is not None
    store.finish(claim, gate_result(*checks, **changes))
    return claim.job_id
