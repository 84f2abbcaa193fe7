"""A job works with what is its owner's, even where it names another's and got past the door."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.recipe import points_of
from service.schemas.spec import EvaluateSpec, FinetuneSpec, GateSpec, Spec
from service.store import JobRow
from tests.model_folders import write_adapter
from tests.results import STEPS, result_body
from tests.worker.test_supervise import Bench
from worker.publish import prefix_of, publish

NOBODY = ""
"""Owner of what is made without keys or by the bootstrap key: it sees everything."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


@pytest.fixture
def theirs(bench: Bench) -> str:
    """Their finished job of rank 4, with its adapters and its law points."""
    return finished(bench, "theirs", rank=4)


def finished(bench: Bench, owner: str, *, rank: int) -> str:
    body = {
        "base_model": "none",
        "dataset": {"path": "none"},
        "training": {"max_steps": 100, "lora": {"r": rank}},
    }
    job, _ = bench.store.add_job(FinetuneSpec.model_validate(body), owner=owner)
    claim = bench.store.claim("tester")
    assert claim is not None
    result = result_body(rank=rank)
    folder = bench.settings.home / "made" / owner / str(rank)
    for kept in result["checkpoints"]:
        write_adapter(folder / kept["adapter"], rank=rank)
    files = publish(folder, prefix_of(claim), bench.settings)
    bench.store.finish(
        claim,
        result,
        points=points_of(job.id, claim.spec, result),
        artifacts=files,
        artifacts_prefix=prefix_of(claim),
    )
    return job.id


def ran(bench: Bench, spec: Spec, owner: str) -> JobRow:
    """Queued behind the door's back."""
    job, _ = bench.store.add_job(spec, owner=owner)
    bench.work()
    return bench.store.job(job.id)


def evaluate(*adapters: dict[str, Any]) -> EvaluateSpec:
    body = {"type": "evaluate", "base_model": "none", "adapters": adapters}
    more = {"dataset": {"path": "none"}, "metadata": {"does": "nothing"}}
    return EvaluateSpec.model_validate(body | more)


def gate(adapter: dict[str, Any], **policy: Any) -> GateSpec:
    checks = [{"id": "law", "metric": "law_residual", "fail_above": 0.1}]
    body = {"base_model": "none", "adapters": [adapter], "policy": {"checks": checks, **policy}}
    return GateSpec.model_validate(body | {"metadata": {"does": "blame_user"}})


def started(bench: Bench, job: JobRow) -> dict[str, Any]:
    """What the child was given, before it did anything."""
    [log] = [log for log in bench.logs(job.id) if log["message"] == "started"]
    return log


@pytest.mark.parametrize("step", [None, STEPS[0]])
def test_a_candidate_is_never_another_owners(bench: Bench, theirs: str, step: int | None) -> None:
    named = {"job": theirs, "step": step}
    for spec in (evaluate(named), gate(named), gate({"path": "none"}, baselines={"old": named})):
        job = ran(bench, spec, "mine")
        assert job.error is not None
        assert job.error["code"] == "adapter_unreadable"
        assert f"no job {theirs}" in job.error["detail"]
        assert bench.logs(job.id) == []


@pytest.mark.parametrize("owner", ["theirs", NOBODY])
def test_its_owner_may_name_it_and_so_may_nobody(bench: Bench, theirs: str, owner: str) -> None:
    """Control: it is the owner that the job above was refused for."""
    job = ran(bench, evaluate({"job": theirs}), owner)
    assert job.state == "succeeded"
    assert started(bench, job)["adapters"] == [f"{theirs}:last"]


def test_a_gate_expects_what_its_owners_runs_say(bench: Bench, theirs: str) -> None:
    own = [finished(bench, "mine", rank=rank) for rank in (8, 16)]
    [group] = bench.store.points(job=theirs)
    named = {"path": "none", "group": group.group}
    assert started(bench, ran(bench, gate({"job": own[0]}), "mine"))["runs"] == sorted(own)
    assert started(bench, ran(bench, gate(named), "mine"))["runs"] == sorted(own)
    assert started(bench, ran(bench, gate(named), "others"))["runs"] == []
    # Control: who sees everything is given everything.
    everything = started(bench, ran(bench, gate(named), NOBODY))["runs"]
    assert everything == sorted([theirs, *own])


def test_a_label_is_each_owners_own(bench: Bench) -> None:
    for owner, run in (("theirs", "a"), ("mine", "b")):
        point = {"path": "none", "group": "recipe", "run": run, "step": 5}
        assert ran(bench, evaluate(point), owner).state == "succeeded"
    named = gate({"path": "none", "group": "recipe"})
    assert started(bench, ran(bench, named, "mine"))["runs"] == ["b"]
    assert started(bench, ran(bench, named, NOBODY))["runs"] == ["a", "b"]


def test_no_point_joins_a_group_of_anothers(bench: Bench, theirs: str) -> None:
    [group] = bench.store.points(job=theirs)
    point = {"path": "none", "group": group.group, "run": "x", "step": 5}
    job = ran(bench, evaluate(point), "mine")
    [warning] = bench.store.result(job.id)["warnings"]
    assert warning.endswith(f"no group {group.group}")
    # Control: whoever may see the group is told how the adapter differs from it.
    job = ran(bench, evaluate(point), "theirs")
    [warning] = bench.store.result(job.id)["warnings"]
    assert "no group" not in warning
