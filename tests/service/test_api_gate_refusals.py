"""What a gate names is there, stays there while it is needed, and can be measured."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.errors import AdapterUnreadable
from service.schemas.spec import GateSpec
from service.store import Store
from tests.gate_results import end_gate, gate_spec, policy
from tests.model_folders import write_adapter
from tests.refusals import Json, merged, refused
from tests.results import run_next
from tests.sent_adapters import files_of, send

MEAN = {"id": "mean", "metric": "kl", "fail_above": 0.08}
INCREASE = {"id": "prod", "metric": "kl", "baseline": "prod", "max_increase": 0.01}
RESIDUAL = {"id": "law", "metric": "law_residual", "fail_above": 0.1}
NOBODY = "0" * 26


def with_baseline(**baseline: object) -> Json:
    return {"policy": policy(INCREASE, baselines={"prod": baseline})}


REFUSED = [
    ({"adapters": [{"path": "none"}]}, "adapters.0.path"),
    ({"adapters": [{"path": "../tiny"}]}, "adapters.0.path"),
    ({"adapters": [{"job": f"job_{NOBODY}"}]}, "adapters.0.job"),
    ({"adapters": [{"id": f"adp_{NOBODY}"}]}, "adapters.0.id"),
    ({"adapters": [{"path": "tiny"}] * 2}, "adapters"),
    ({"adapters": []}, "adapters"),
    ({"base_model": "none"}, "base_model"),
    ({"type": "evaluate"}, "type"),
    ({"policy": {"checks": []}}, "policy.checks"),
    ({"policy": policy({**MEAN, "fail_above": 0})}, "policy.checks.0.fail_above"),
    ({"policy": policy({**MEAN, "fail_above": 1e-200})}, "policy.checks.0.fail_above"),
    (
        {"policy": policy({"id": "top", "metric": "same_top", "fail_below": 1e-17})},
        "policy.checks.0.fail_below",
    ),
    ({"policy": policy({**MEAN, "warn_above": 0.1})}, "policy.checks.0.warn_above"),
    ({"policy": policy({**MEAN, "metric": "kll"})}, "policy.checks.0.metric"),
    ({"policy": policy(MEAN, MEAN)}, "policy.checks.1.id"),
    ({"policy": policy(INCREASE)}, "policy.checks.0.baseline"),
    ({"policy": policy(MEAN, context=128)}, "evaluation.context"),
    (with_baseline(path="none"), "policy.baselines.prod.path"),
    (with_baseline(job=f"job_{NOBODY}"), "policy.baselines.prod.job"),
    (with_baseline(id=f"adp_{NOBODY}"), "policy.baselines.prod.id"),
    (with_baseline(path="tiny", rank=3), "policy.baselines.prod.rank"),
    (with_baseline(path="lora", run="r", step=1, group="g"), "policy.baselines.prod.run"),
    ({"policy": policy(MEAN, RESIDUAL)}, "policy.checks.1.metric"),
    (
        {"policy": policy(RESIDUAL), "dataset": {"path": "rows.jsonl"}, "max_length": 64},
        "policy.checks.0.metric",
    ),
    ({"evaluation": {"corpus": "none.txt"}}, "evaluation.corpus"),
]


@pytest.fixture
def gated(sqlite_api: TestClient, roots: Path) -> TestClient:
    write_adapter(roots / "models" / "lora")
    return sqlite_api


@pytest.mark.parametrize(("change", "param"), REFUSED)
def test_a_refusal_names_its_field(
    gated: TestClient, sqlite_store: Store, change: Json, param: str
) -> None:
    answer = gated.post("/v1/gates", json=merged(gate_spec(), change))
    problem = refused(answer, at="/gates")
    assert problem["param"] == param, problem
    assert sqlite_store.list_jobs()[0] == []


def test_a_residual_is_taken_where_it_can_be_had(gated: TestClient) -> None:
    informed = {"policy": policy(MEAN, {**RESIDUAL, "informational": True})}
    assert gated.post("/v1/gates", json=gate_spec(**informed)).status_code == 202
    point = {"path": "lora", "run": "mine", "step": 100, "group": "ours"}
    known = gate_spec(
        policy=policy(RESIDUAL), adapters=[point], dataset={"path": "rows.jsonl"}, max_length=64
    )
    assert gated.post("/v1/gates", json=known).status_code == 202


def test_a_jobs_adapter_has_the_residual_of_its_own_points(
    sqlite_api: TestClient, sqlite_store: Store, finetune: Json
) -> None:
    sqlite_api.post("/v1/jobs", json=finetune)
    job = run_next(sqlite_store)
    for step, status in ((None, 202), (50, 202)):
        spec = gate_spec(policy=policy(RESIDUAL), adapters=[{"job": job, "step": step}])
        assert sqlite_api.post("/v1/gates", json=spec).status_code == status
    spec = gate_spec(policy=policy(RESIDUAL), adapters=[{"job": job, "step": 7}])
    assert (
        refused(sqlite_api.post("/v1/gates", json=spec), at="/gates")["param"] == "adapters.0.step"
    )


@pytest.mark.parametrize("role", ["candidate", "baseline"])
def test_an_upload_stays_while_a_gate_needs_it(
    api: TestClient, store: Store, tmp_path: Path, role: str
) -> None:
    adapter = send(api, files_of(write_adapter(tmp_path / "mine"))).json()["id"]
    spec = gate_spec(adapters=[{"id": adapter}])
    if role == "baseline":
        spec = gate_spec(**with_baseline(id=adapter))
    path = f"/v1/adapters/{adapter}"
    gate = api.post("/v1/gates", json=spec).json()
    other = api.post("/v1/gates", json=gate_spec()).json()
    problem = refused(api.delete(path), status=409, at=path)
    assert (problem["code"], problem["details"]) == ("adapter_in_use", {"job": gate["job"]})
    assert end_gate(store) == gate["job"]
    assert api.get(f"/v1/gates/{other['id']}").json()["status"] == "queued"
    assert api.delete(path).status_code == 204
    # As if it had gone between admission and the job's own transaction.
    with pytest.raises(AdapterUnreadable) as caught:
        store.add_job(GateSpec.model_validate(spec))
    at = {"candidate": "adapters.0.id", "baseline": "policy.baselines.prod.id"}
    assert caught.value.param == at[role]
    assert len(store.list_jobs()[0]) == 2
