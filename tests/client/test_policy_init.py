"""Limits from good adapters, and the file that tells them: what it says must be able to work."""

import math
from pathlib import Path
from typing import Any

import pytest
from forgetting_client.command.limits import above, below, limits, rounded_up
from forgetting_client.command.policy_text import policy_text
from forgetting_client.policy_check import load

from service.schemas.policy import Policy
from tests.client.measured import measured

WHERE = {"corpus": "articles: 2026.txt", "split": "test", "context": 128}


def found(*values: float, half: float | None = 0.01) -> list[dict[str, Any]]:
    return [{"value": v, "ci95": None if half is None else (v - half, v + half)} for v in values]


def result(*kls: float) -> dict[str, Any]:
    body = measured(*kls)
    for one in body["checkpoints"]:
        one["forgetting"]["kl_percentiles"]["p99"] = 12 * one["forgetting"]["kl"]["value"]
    return body


def test_the_margin_rules_where_adapters_agree() -> None:
    one = above("kl", found(0.1, 0.1001), margin=1.25, floor=0.0)
    assert (one.which, one.fail) == (1, 0.13)  # 0.125125, rounded up
    assert one.worst < one.warn < one.fail


def test_the_spread_and_the_interval_rule_where_they_are_wide() -> None:
    one = above("kl", found(0.1, 0.2, half=0.05), margin=1.25, floor=0.0)
    spread = math.sqrt(0.005)
    assert one.fail == rounded_up(0.2 + math.sqrt((2 * spread) ** 2 + 0.05**2))


def test_one_adapter_has_no_spread() -> None:
    one = above("kl", found(0.1, half=None), margin=1.25, floor=0.0)
    assert (one.spread, one.half, one.fail) == (None, None, 0.13)


def test_no_limit_is_below_three_noise_floors() -> None:
    body = result(1e-4)
    body["noise_floor"]["kl"] = 1e-3
    assert limits(body, margin=1.25)[0].fail == 0.003


def test_agreement_is_a_floor_under_the_worst() -> None:
    one = below("same_top", found(0.9, 0.8), margin=1.25)
    assert one.worst == pytest.approx(0.8)
    assert one.fail < one.warn < one.worst


@pytest.mark.parametrize("value", [1.0, 0.999, 0.5, 0.04])
def test_agreement_limits_are_shares(value: float) -> None:
    one = below("same_top", found(value, half=None), margin=3.0)
    assert 0 < one.fail < one.warn <= value


@pytest.mark.parametrize("kls", [(0.08,), (0.02, 0.03), (0.0,), (1e-5, 4.0)])
def test_what_is_written_can_work(tmp_path: Path, kls) -> None:
    body = result(*kls)
    names = [f"./adapter {i}: yes" for i in range(len(kls))]
    made = limits(body, margin=1.25)
    file = tmp_path / "forgetting.yml"
    file.write_text(policy_text(body, names, made, evaluation=WHERE, margin=1.25))
    policy = Policy.model_validate(load(file).body)
    assert (policy.corpus, policy.context) == (WHERE["corpus"], 128)
    assert policy.measured_on.base == body["provenance"]["base"]
    assert [check.id for check in policy.checks] == ["forgetting", "agreement", "tail"]
    assert ("how far good ones differ is unknown" in file.read_text()) == (len(kls) == 1)
