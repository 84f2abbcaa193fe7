"""Gates over HTTP: a job by another name, and the view of what it came to."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.errors import LeaseLost
from service.policy_schema import policy_schema
from service.schemas.gate import GateResult
from service.store import Store
from tests.gate_results import check, end_gate, gate_result, gate_spec, policy
from tests.refusals import Json, refused
from tests.results import run_next
from tests.specs import ERROR


def submit(api: TestClient, **changes: Any) -> Json:
    answer = api.post("/v1/gates", json=gate_spec(**changes))
    assert answer.status_code == 202, answer.text
    gate: Json = answer.json()
    return gate


def test_a_gate_is_queued_shown_and_decided(api: TestClient, store: Store, bell) -> None:
    answer = api.post("/v1/gates", json=gate_spec())
    assert answer.status_code == 202
    gate = answer.json()
    assert answer.headers["Location"] == f"/v1/gates/{gate['id']}"
    assert gate["id"].removeprefix("gate_") == gate["job"].removeprefix("job_")
    assert bell.rung == [gate["job"]]
    assert (gate["status"], gate["base_model"], gate["corpus"]) == ("queued", "tiny", "corpus.txt")
    for name in ("verdict", "exit_code", "reason", "result", "error", "finished_at"):
        assert gate[name] is None
    assert gate["policy"]["checks"][0]["fail_above"] == 0.08
    assert api.get(f"/v1/gates/{gate['id']}").json() == gate
    assert end_gate(store, check("fail")) == gate["job"]
    ended = api.get(f"/v1/gates/{gate['id']}").json()
    assert ended["status"] == "succeeded"
    assert (ended["verdict"], ended["exit_code"]) == ("fail", 1)
    assert ended["reason"] == "fail: mean kl 0.131 is above 0.08 after 62 of 4,927 windows"
    assert ended["result"] == gate_result(check("fail"))
    assert api.get(f"/v1/gates/{gate['job']}").json() == ended


def test_a_gate_is_a_job_of_that_type(api: TestClient, store: Store) -> None:
    made = api.post("/v1/jobs", json=gate_spec(type="gate")).json()
    assert (made["type"], made["verdict"]) == ("gate", None)
    gate = api.get(f"/v1/gates/gate_{made['id'].removeprefix('job_')}").json()
    assert gate["job"] == made["id"]
    end_gate(store)
    assert api.get(f"/v1/jobs/{made['id']}").json()["verdict"] == "pass"
    assert [one["id"] for one in api.get("/v1/jobs?type=gate").json()["data"]] == [made["id"]]
    result = api.get(f"/v1/jobs/{made['id']}/result").json()
    assert GateResult.model_validate(result).verdict == "pass"
    tokens = api.get(f"/v1/jobs/{made['id']}/tokens", params={"limit": 1}).json()
    assert [one["kl"] for one in tokens["data"]] == [5.0]
    path = f"/v1/jobs/{made['id']}/tokens"
    for group in ("window", "document"):
        problem = refused(api.get(path, params={"group": group}), at=path)
        assert problem["param"] == "group"


def test_a_result_is_refused_before_its_time(api: TestClient) -> None:
    job = submit(api)["job"]
    path = f"/v1/jobs/{job}/result"
    assert refused(api.get(path), status=409, at=path)["code"] == "not_finished"


def test_what_was_not_measured_says_so(api: TestClient, store: Store) -> None:
    failed, cancelled = submit(api), submit(api)
    claim = store.claim("worker-1")
    assert claim is not None
    store.fail(claim, ERROR)
    api.post(f"/v1/jobs/{cancelled['job']}/cancel")
    said = {failed["id"]: "line 3 is no JSON", cancelled["id"]: "the job was cancelled"}
    for name, why in said.items():
        gate = api.get(f"/v1/gates/{name}").json()
        assert (gate["verdict"], gate["exit_code"]) == ("not_measurable", 4)
        assert gate["reason"] == f"not measurable: {why}"
        assert gate["result"] is None
    assert api.get(f"/v1/gates/{failed['id']}").json()["error"]["class"] == "user"
    again = api.post(f"/v1/jobs/{failed['job']}/resume").json()
    assert (again["status"], again["verdict"]) == ("queued", None)
    assert api.get(f"/v1/gates/{failed['id']}").json()["exit_code"] is None
    with pytest.raises(LeaseLost):
        store.finish(claim, gate_result())


@pytest.mark.parametrize("lenient", ["warn", "pass"])
def test_an_inconclusive_gate_may_exit_0_and_is_still_named_so(
    sqlite_api: TestClient, sqlite_store: Store, lenient: str
) -> None:
    gate = submit(sqlite_api, policy=policy(on_inconclusive=lenient))
    end_gate(sqlite_store, check("inconclusive"), on_inconclusive=lenient)
    ended = sqlite_api.get(f"/v1/gates/{gate['id']}").json()
    assert (ended["verdict"], ended["exit_code"]) == ("inconclusive", 0)
    assert ended["result"]["exit_code"] == 0


def test_the_same_key_makes_one_gate(api: TestClient, store: Store, bell) -> None:
    headers = {"Idempotency-Key": "once"}
    first = api.post("/v1/gates", json=gate_spec(), headers=headers)
    again = api.post("/v1/gates", json=gate_spec(type="gate"), headers=headers)
    as_job = api.post("/v1/jobs", json=gate_spec(type="gate"), headers=headers)
    assert first.json() == again.json()
    assert as_job.json()["id"] == first.json()["job"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == as_job.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert len(bell.rung) == len(store.list_jobs()[0]) == 1
    other = policy({"id": "mean", "metric": "kl", "fail_above": 0.09})
    answer = api.post("/v1/gates", json=gate_spec(policy=other), headers=headers)
    assert refused(answer, at="/gates")["code"] == "idempotency_key_reused"


def test_lists_come_in_pages_and_by_verdict(api: TestClient, store: Store, finetune: Json) -> None:
    api.post("/v1/jobs", json=finetune)
    run_next(store)
    made = [submit(api)["id"] for _ in range(4)]
    for verdict in ("pass", "fail", "pass"):
        end_gate(store, check(verdict))
    api.post(f"/v1/jobs/{made[3].replace('gate', 'job')}/cancel")
    page = api.get("/v1/gates", params={"limit": 3}).json()
    assert [one["id"] for one in page["data"]] == made[:0:-1]
    assert page["has_more"] is True
    assert page["data"][1]["result"] is None
    assert page["data"][1]["reason"].startswith("pass: mean kl 0.031 is within 0.08")
    rest = api.get("/v1/gates", params={"after": made[1]}).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([made[0]], False)
    wanted = {
        "pass": [made[2], made[0]],
        "fail": [made[1]],
        "not_measurable": [made[3]],
        "warn": [],
    }
    for verdict, ids in wanted.items():
        found = api.get("/v1/gates", params={"verdict": verdict}).json()["data"]
        assert [one["id"] for one in found] == ids
        assert {one["verdict"] for one in found} <= {verdict}
    absent = api.get("/v1/gates", params={"after": "gate_none"})
    assert refused(absent, status=404, at="/gates")["code"] == "not_found"
    unknown = api.get("/v1/gates", params={"verdict": "maybe"})
    assert refused(unknown, at="/gates")["param"] == "verdict"


def test_what_is_no_gate_is_told_what_it_is(
    sqlite_api: TestClient, sqlite_store: Store, finetune: Json
) -> None:
    job = sqlite_api.post("/v1/jobs", json=finetune).json()["id"]
    for name in (job, job.replace("job_", "gate_")):
        path = f"/v1/gates/{name}"
        problem = refused(sqlite_api.get(path), status=404, at=path)
        assert (
            problem["detail"]
            == f"no gate {name}: {job} is of type finetune; /v1/jobs/{job} shows it"
        )
        assert problem["details"] == {"id": name, "type": "finetune"}
    for name, said in {"gate_x": "no gate gate_x", "law_x": "the id of a gate begins with"}.items():
        path = f"/v1/gates/{name}"
        assert said in refused(sqlite_api.get(path), status=404, at=path)["detail"]


def test_verdicts_are_counted_and_never_less(api: TestClient, store: Store) -> None:
    ids = [submit(api)["job"] for _ in range(3)]
    end_gate(store, check("fail"))
    end_gate(store)
    api.post(f"/v1/jobs/{ids[2]}/cancel")
    for gone in (False, True):
        if gone:
            assert api.delete(f"/v1/jobs/{ids[0]}").status_code == 204
        lines = api.get("/v1/metrics").text.splitlines()
        counts = {line for line in lines if line.startswith("fgt_gate_verdicts_total")}
        assert counts == {
            f'fgt_gate_verdicts_total{{verdict="{verdict}"}} {n}'
            for verdict, n in {
                "pass": 1.0,
                "warn": 0.0,
                "fail": 1.0,
                "inconclusive": 0.0,
                "not_measurable": 1.0,
                "incomparable": 0.0,
            }.items()
        }


def test_the_schema_of_a_policy_is_published(sqlite_api: TestClient) -> None:
    for path in ("/v1/policies/schema", "/policies/schema"):
        answer = sqlite_api.get(path)
        assert answer.headers["content-type"] == "application/schema+json"
        assert answer.json() == policy_schema()
