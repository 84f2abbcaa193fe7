"""The published schema of a policy, the client's copy of it, and the service's own mind agree."""

import json
from pathlib import Path
from typing import Any

import forgetting_client
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from service.policy_schema import LIMITS, policy_schema
from service.schemas import policy
from service.schemas.policy import Policy
from tests.gate_results import policy as policy_of

MEAN = {"id": "a", "metric": "kl", "fail_above": 0.08}
MANY: list[Any] = [
    MEAN,
    {"id": "b", "metric": "kl_percentiles.p99", "warn_above": 1.0},
    {"id": "c", "metric": "same_top", "fail_below": 0.9, "warn_below": 0.95},
    {"id": "d", "metric": "law_residual_z", "fail_above": -1.0, "informational": True},
    {"id": "e", "metric": "kl", "baseline": "prod", "max_increase": 0.01, "clip": 5},
]
REFUSED: list[tuple[dict[str, Any], list[str | int], str]] = [
    ({"checks": []}, ["checks"], "non-empty"),
    ({"checks": [{**MEAN, "fail_abov": 1}]}, ["checks", 0], "'fail_abov' was unexpected"),
    ({"checks": [{**MEAN, "fail_above": 0}]}, ["checks", 0, "fail_above"], "minimum of 1e-09"),
    ({"checks": [{**MEAN, "metric": "kll"}]}, ["checks", 0, "metric"], "'kll' is not one of"),
    ({"checks": [{"id": "a", "metric": "kl"}]}, ["checks", 0], "'fail_above' is a required"),
    ({"checks": [{"id": "a", "fail_above": 1}]}, ["checks", 0], "'metric' is a required"),
    (
        {"checks": [{"id": "a", "metric": "same_top", "fail_above": 0.9}]},
        ["checks", 0],
        "'fail_above' was unexpected",
    ),
    (
        {"checks": [{"id": "a", "metric": "kl", "max_increase": 0.9}]},
        ["checks", 0],
        "'baseline' is a required",
    ),
    ({"checks": [MEAN], "alpha": 0.5}, ["alpha"], "maximum of 0.2"),
    (
        {"checks": [MEAN], "baselines": {"prod": {"job": "job_1"}}},
        ["baselines", "prod", "job"],
        "does not match",
    ),
    (
        {"checks": [MEAN], "baselines": {"a b": {"path": "x"}}},
        ["baselines"],
        "'a b' does not match",
    ),
    (
        {"checks": [MEAN], "baselines": {"prod": {"pth": "x"}}},
        ["baselines", "prod"],
        "'path' is a required",
    ),
]


def told(body: Any) -> list[tuple[list[str | int], str]]:
    """Every fault with its place; those inside a choice one by one."""
    pending = list(Draft202012Validator(policy_schema()).iter_errors(body))
    found = []
    while pending:
        error = pending.pop()
        pending += error.context or []
        found.append((list(error.absolute_path), error.message))
    return found


def test_the_clients_copy_is_the_services() -> None:
    copy = Path(forgetting_client.__file__).parent / "policy.schema.json"
    assert json.loads(copy.read_text()) == policy_schema(), "run `make format`"


def test_it_is_the_models_own_but_for_its_choices() -> None:
    ours, models = policy_schema(), Policy.model_json_schema()
    Draft202012Validator.check_schema(ours)
    assert ours["$defs"] == models["$defs"]
    ours["properties"]["checks"]["items"] = models["properties"]["checks"]["items"]
    choices = models["properties"]["baselines"]["patternProperties"]
    ours["properties"]["baselines"]["patternProperties"] = choices
    assert ours["properties"] == models["properties"]


def test_every_kind_of_check_is_chosen() -> None:
    kinds = {one.__name__ for one in policy._Checked.__subclasses__()}
    assert kinds == {*LIMITS, "IncreaseCheck"}


def test_what_the_service_takes_the_schema_takes() -> None:
    baselines = {
        "prod": {"path": "x"},
        "old": {"job": f"job_{'0' * 26}"},
        "up": {"id": f"adp_{'0' * 26}"},
    }
    body = policy_of(*MANY, baselines=baselines, alpha=0.01, measured_on={"context": 512})
    assert told(body) == []
    whole = Policy.model_validate(body).model_dump(mode="json", exclude_none=True)
    assert told(whole) == []


@pytest.mark.parametrize(("body", "place", "said"), REFUSED)
def test_what_it_refuses_is_told_of_the_kind_that_was_meant(
    body: Any, place: list[str | int], said: str
) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(body)
    faults = told(body)
    assert any(where == place and said in message for where, message in faults), faults
    assert len(faults) <= 4  # of one kind, not of all five
