"""A gate as a job: claimed, its adapters brought, a real child, its result stored and no points."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.errors import AdapterUnreadable
from service.schemas.gate import GateResult
from service.schemas.spec import FinetuneSpec, GateSpec
from service.settings import Settings
from service.store import Store
from tests.worker.gating import Place
from worker.presence import Presence
from worker.publish import fetch_adapters, prefix_of, publish
from worker.tasks import perform

CHECKS = [
    {"id": "top", "metric": "same_top", "fail_below": 0.999},
    {"id": "drift", "metric": "kl", "baseline": "prod", "max_increase": 0.5},
    {"id": "law", "metric": "law_residual", "fail_above": 1, "informational": True},
]


@pytest.fixture(scope="module")
def place(tiny_base: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("job"), tiny_base, shared_data)


def finished(store: Store, adapter: Path, folder: Path, settings: Settings) -> str:
    """A finetune job that kept `adapter`, without law points."""
    store.add_job(FinetuneSpec.model_validate({"base_model": "tiny", "dataset": {"path": "none"}}))
    claim = store.claim("tester")
    assert claim is not None
    shutil.copytree(adapter, folder / "checkpoints" / "step-000003")
    files = publish(folder, prefix_of(claim), settings)
    body = {"law": None, "checkpoints": [{"step": 3, "adapter": "checkpoints/step-000003"}]}
    store.finish(claim, body, artifacts=files, artifacts_prefix=prefix_of(claim))
    return claim.job_id


def test_a_gate_of_two_jobs_adapters_is_run_by_the_real_child(place: Place, tmp_path: Path) -> None:
    settings = place.settings.model_copy(update={"home": tmp_path / "home"})
    store = Store(settings.database, settings)
    store.migrate()
    strong = finished(store, place.root / "models" / "strong", tmp_path / "a", settings)
    mild = finished(store, place.root / "models" / "mild", tmp_path / "b", settings)
    body = place.spec(*CHECKS, baselines={"prod": {"job": mild, "step": 3}}).model_dump()
    spec = GateSpec.model_validate({**body, "adapters": [{"job": strong}]})
    job, _ = store.add_job(spec)

    presence = Presence(store, "tester", every_seconds=1)
    assert perform(store, presence=presence, settings=settings) == 1
    row = store.job(job.id)
    assert (row.state, row.error) == ("succeeded", None)
    result = GateResult.model_validate(store.result(job.id))
    assert result.verdict == "fail"
    assert 0 < result.fraction < 1
    assert result.candidate.name == f"{strong}:last"
    by_id = {check.id: check for check in result.checks}
    assert by_id["top"].verdict == "fail"
    assert 0 < (by_id["drift"].value or 0) < 0.5
    assert by_id["law"].reason == f"{strong} left no law point"
    assert store.points() == []
    assert [file["name"] for file in store.artifacts(job.id)] == ["result.json"]

    gone: dict[str, Any] = {**body, "adapters": [{"job": strong}]}
    gone["policy"] = {**gone["policy"], "baselines": {"prod": {"job": mild, "step": 9}}}
    with pytest.raises(AdapterUnreadable) as error:
        fetch_adapters(store, {"type": "gate", **gone}, tmp_path / "attempt", settings)
    assert error.value.param == "policy.baselines.prod"
    store.dispose()
