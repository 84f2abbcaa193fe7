"""The policy's JSON Schema that the client ships, and its own words about policies, against the
service's `Policy`: what one accepts, the other does."""

import copy
import json
from typing import Any

import pytest
from forgetting_client.command.gate_exit import CODES
from forgetting_client.policy_check import baseline_kind, check, faults_of, kind_of, schema
from forgetting_client.policy_file import BadPolicy, parse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.laws.verdict import EXIT_CODES, Verdict
from service.policy_schema import policy_schema
from service.schemas import candidates, policy
from service.schemas.policy import Policy

GOOD = {
    "version": 1,
    "corpus": "wikitext-103",
    "alpha": 0.01,
    "on_inconclusive": "warn",
    "max_windows": 500,
    "checks": [
        {"id": "mean", "metric": "kl", "fail_above": 0.08, "warn_above": 0.05, "clip": 20},
        {"id": "tail", "metric": "kl_percentiles.p99", "fail_above": 1.0},
        {"id": "agree", "metric": "same_top", "fail_below": 0.85, "warn_below": 0.9},
        {"id": "law", "metric": "law_residual_z", "warn_above": 2, "informational": True},
        {"id": "prod", "metric": "ce_soft", "baseline": "prod", "max_increase": 0.01},
    ],
    "baselines": {
        "prod": {"path": "adapters/prod"},
        "best": {"job": f"job_{'0' * 26}", "step": 140},
        "sent": {"id": f"adp_{'0' * 26}"},
    },
    "measured_on": {"base": "sha256:0", "context": 512},
}
REFUSED: list[tuple[str, Any]] = [
    ("checks.0.fail_above", 0),
    ("checks.0.fail_above", -0.1),
    ("checks.0.fail_above", 9e-10),
    ("checks.0.clip", 1 + 1e-10),
    ("checks.0.fail_above", 1001),
    ("checks.0.warn_above", 0.08),
    ("checks.0.clip", 1),
    ("checks.0.id", "two words"),
    ("checks.0.id", "agree"),
    ("checks.0.metric", "kll"),
    ("checks.0.unknown", 1),
    ("checks.1.fail_below", 0.5),
    ("checks.1.fail_above", 9e-10),
    ("checks.2.fail_below", 1.0),
    ("checks.2.fail_below", 1 - 1e-10),
    ("checks.2.fail_below", 9e-10),
    ("checks.2.warn_below", 0.85),
    ("checks.3.warn_above", 1e9),
    ("checks.4.baseline", "none"),
    ("checks.4.max_increase", None),
    ("checks.4.max_increase", 9e-10),
    ("checks", []),
    ("alpha", 0.21),
    ("alpha", 0),
    ("on_inconclusive", "maybe"),
    ("max_windows", 0),
    ("version", 2),
    ("context", 1),
    ("baselines.prod", "adapters/prod"),
    ("baselines.best.job", "job_1"),
    ("baselines.best.path", "x"),
    ("baselines.two words", {"path": "x"}),
    ("measured_on.context", "512 tokens"),
    ("measured_on.base", ""),
    ("thresholds", {}),
]
VALUES = st.one_of(
    st.none(),
    st.integers(-2, 2000),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(
        ["kl", "same_top", "kl_percentiles.p99", "law_residual", "prod", "fail", "x y"]
    ),
    st.just([]),
    st.just({}),
)
FIELDS = ["id", "metric", "fail_above", "warn_above", "fail_below", "warn_below", "max_increase"]
FIELDS += ["baseline", "clip"]
PATHS = [
    *(f"checks.{i}.{name}" for i in range(5) for name in FIELDS),
    *(f"checks.{i}" for i in range(5)),
    *(f"baselines.{name}{rest}" for name in GOOD["baselines"] for rest in ("", ".step", ".path")),
    *(name for name in GOOD if name != "checks"),
    *("max_windows", "context", "split", "measured_on.context", "measured_on.base", "other"),
]


def changed(body: Any, path: str, value: Any) -> Any:
    whole = body = copy.deepcopy(body)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        body = body[step]
    body[last] = value
    return whole


def admitted(body: Any) -> bool:
    try:
        Policy.model_validate(body)
    except ValidationError:
        return False
    return True


def test_the_shipped_schema_is_that_of_the_service() -> None:
    assert schema() == policy_schema()


def test_every_verdict_has_the_exit_code_of_the_service() -> None:
    assert {Verdict(word): code for word, code in CODES.items()} == EXIT_CODES


def test_a_good_policy_is_good_to_both() -> None:
    assert list(faults_of(GOOD)) == []
    assert admitted(GOOD)
    assert [kind_of(one) for one in GOOD["checks"]] == [policy._kind(one) for one in GOOD["checks"]]
    for one in GOOD["baselines"].values():
        assert baseline_kind(one) == candidates._kind(one)


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_a_bad_policy_is_bad_to_both_and_blamed_where_it_is(path: str, value: Any) -> None:
    body = changed(GOOD, path, value)
    assert not admitted(body)
    text = json.dumps(body, indent=2)
    with pytest.raises(BadPolicy) as bad:
        check(parse(text))
    fault = bad.value.faults[0]
    blamed = {fault.param for fault in bad.value.faults}
    assert path in blamed or (path == "checks.0.id" and "checks.2.id" in blamed), blamed
    line = text.splitlines()[fault.line - 1]
    assert line[fault.column - 1] not in " ,", fault.shown()


@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=3))
def test_the_client_and_the_service_agree(changes: list[tuple[str, Any]]) -> None:
    body: Any = GOOD
    for path, value in changes:
        try:
            body = changed(body, path, value)
        except (KeyError, TypeError):  # what stood there before is gone
            continue
    assert (not list(faults_of(body))) == admitted(body)
    read = parse(json.dumps(body))
    assert read.body == body
