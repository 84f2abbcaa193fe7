"""What a finished evaluation stores: points where a group took them, and why one did not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec
from tests.worker.test_supervise import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


def measured(bench: Bench, *adapters: dict[str, Any]) -> str:
    """Id of an evaluation that has been run."""
    body = {
        "type": "evaluate",
        "base_model": "none",
        "dataset": {"path": "none"},
        "adapters": [{"path": "theirs", **adapter} for adapter in adapters],
        "metadata": {"does": "nothing"},
    }
    job, _ = bench.store.add_job(EvaluateSpec.model_validate(body))
    bench.work()
    assert bench.store.job(job.id).state == "succeeded"
    return job.id


def test_points_go_into_the_groups_that_take_them(bench: Bench) -> None:
    points = [{"group": "a", "run": "one", "step": 5}, {"group": "b", "run": "two", "step": 5}]
    job_id = measured(bench, *points, {"step": 7})
    groups = {group.recipe["label"]: group for group in bench.store.points(job=job_id)}
    assert groups.keys() == {"a", "b"}
    assert [(p["run"], p["step"]) for p in groups["b"].points] == [("two", 5)]
    assert bench.store.result(job_id)["warnings"] == []
    again = measured(bench, {"group": groups["a"].group, "run": "three", "step": 9})
    (joined,) = bench.store.points(job=again)
    assert joined.group == groups["a"].group
    assert len(bench.store.points(group=joined.group)[0].points) == 2


def test_a_refused_point_is_a_warning_everywhere_and_the_job_succeeds(bench: Bench) -> None:
    group = "sha256:" + "0" * 64
    job_id = measured(bench, {"group": group, "run": "one", "step": 5})
    assert bench.store.points() == []
    (warning,) = bench.store.result(job_id)["warnings"]
    assert warning == f"adapters.0: no law point of group {group}: no group {group}"
    told = [e.data["message"] for e in bench.store.events(job_id) if e.kind == "warning"]
    assert told == [warning]
    prefix = bench.store.job(job_id).artifacts_prefix
    file = bench.settings.home / "artifacts" / str(prefix) / "result.json"
    assert Result.model_validate_json(file.read_text()).warnings == [warning]
    assert json.loads(file.read_text()) == bench.store.result(job_id)
