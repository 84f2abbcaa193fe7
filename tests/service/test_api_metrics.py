"""What results add to the counters, over both databases; what names owners is for admin only."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import LeaseLost
from service.keys import create_key
from service.scopes import Scope
from service.settings import Settings
from service.store import Access, Store
from service.tallying import tallies_of
from tests.results import result_body

Json = dict[str, Any]
Samples = dict[tuple[Any, ...], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def finish(store: Store, **changes: Any) -> str:
    """The oldest job, with a result that differs from `result_body` so."""
    claim = store.claim("w")
    assert claim is not None
    store.finish(claim, result_body() | changes)
    return claim.job_id


def cost(base: int, tuned: int, **seconds: float) -> Json:
    tokens = {"base_forward_tokens": base, "tuned_forward_tokens": tuned}
    return {"cost": {**tokens, "training_tokens": 0, "seconds": seconds}}


def test_counters_add_up_and_outlive_their_jobs(
    api: TestClient, store: Store, finetune: Json
) -> None:
    for _ in range(3):
        api.post("/jobs", json=finetune)
    finish(store, **cost(300, 900, training=1.5, scoring=2.0))
    second = finish(store, **cost(0, 100, training=0.5))
    parity = {"max_abs_kl": 0.25, "failed": True}
    finish(
        store,
        **cost(0, 7),
        parity=parity,
        engine={"name": "vllm", "reason": "asked for"},
        noise_floor={"kl": -3e-5, "max_abs": 1e-3, "n_positions": 9},
    )
    assert api.delete(f"/jobs/{second}").status_code == 204
    found = samples(api.get("/metrics").text)
    kind = ("type", "finetune")
    assert found["fgt_scored_tokens_total", ("pass", "base")] == 300
    assert found["fgt_scored_tokens_total", ("pass", "tuned")] == 1007
    assert found[("fgt_base_cache_misses_total",)] == 1
    assert found[("fgt_base_cache_hits_total",)] == 2
    assert found["fgt_job_phase_seconds_sum", ("phase", "training"), kind] == 2.0
    assert found["fgt_job_phase_seconds_count", ("phase", "training"), kind] == 2
    assert found["fgt_job_phase_seconds_sum", ("phase", "scoring"), kind] == 2.0
    assert found["fgt_job_wait_seconds_count", kind] == 3
    assert 0 <= found["fgt_job_wait_seconds_sum", kind] < 60
    assert found["fgt_noise_floor", ("engine", "transformers")] == 1e-7
    assert found["fgt_noise_floor", ("engine", "vllm")] == 3e-5
    assert found["fgt_backend_parity_max_diff", ("engine", "vllm")] == 0.25
    assert found["fgt_backend_parity_failed_total", ("engine", "vllm")] == 1
    assert not any(name[0].startswith("fgt_gpu_seconds") for name in found)  # all on a CPU


def test_a_late_writer_counts_nothing(store: Store, api: TestClient, finetune: Json) -> None:
    api.post("/jobs", json=finetune)
    claim = store.claim("w")
    assert claim is not None
    store.finish(claim, result_body())
    once = store.tallies()
    assert once["job_wait_seconds_count"] == {("finetune",): 1}
    with pytest.raises(LeaseLost):
        store.finish(claim, result_body())
    assert store.tallies() == once


def test_gpu_seconds_are_told_by_owner_and_only_to_admin(
    store: Store, api_settings: Settings, bell: object, finetune: Json
) -> None:
    from service.schemas.spec import FinetuneSpec

    spec = FinetuneSpec.model_validate(finetune)
    store.seen_by(Access(owner="team-x", sees_all=False)).add_job(spec)
    on_gpu = {**result_body()["provenance"], "device": "cuda"}
    finish(store, provenance=on_gpu, **cost(1, 1, training=40.0, scoring=2.5))
    secrets = {"api_key": SecretStr("k" * 16), "key_pepper": SecretStr("p" * 16)}
    keyed = api_settings.model_copy(update=secrets)
    _, token = create_key(store, keyed, owner="o", name="n", scopes=[Scope.JOBS_READ])
    with TestClient(create_app(store, keyed, bell)) as web:
        answers = [
            web.get("/v1/metrics", headers={"Authorization": f"Bearer {key}"})
            for key in ("k" * 16, token)
        ]
    assert samples(answers[0].text)["fgt_gpu_seconds_total", ("owner", "team-x")] == 42.5
    assert answers[1].status_code == 200
    assert "team-x" not in answers[1].text


def test_a_gate_that_began_nothing_is_no_cache_hit() -> None:
    names = {one.name for one in tallies_of(cost(0, 0), kind="gate", owner="", waited_seconds=1.0)}
    assert not names & {"base_cache_hits", "base_cache_misses"}


def test_every_metric_has_a_row_in_the_operators_manual(api: TestClient) -> None:
    from pathlib import Path

    page = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()
    names = {
        line.split()[2].removesuffix("_created")
        for line in api.get("/metrics").text.splitlines()
        if line.startswith("# HELP fgt_") and not line.split()[2].endswith("_created")
    }
    assert len(names) > 12
    silent = {"fgt_http_request_seconds", "fgt_base_cache_hits_total"}  # no alert hangs on them
    assert {name for name in names - silent if f"`{name}" not in page and name not in page} == set()
