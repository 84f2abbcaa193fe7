"""Artifacts out, adapters in: what arrives is what left, or it is refused by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import AdapterUnreadable
from service.schemas.spec import FinetuneSpec
from service.settings import Settings
from service.store import Store
from worker.publish import fetch_adapters, prefix_of, publish, withdraw

STEPS = (5, 10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = Settings(home=tmp_path / "home")
    store = Store(settings.database, settings)
    store.migrate()
    yield store
    store.dispose()


@pytest.fixture
def trained(store: Store, tmp_path: Path) -> str:
    """A finished job that kept two adapters."""
    spec = FinetuneSpec.model_validate({"base_model": "none", "dataset": {"path": "none"}})
    store.add_job(spec)
    claim = store.claim("tester")
    assert claim is not None
    folder = tmp_path / "artifacts"
    for step in STEPS:
        adapter = folder / "checkpoints" / f"step-{step:06d}"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(b"weights %d" % step)
        (adapter / "adapter_config.json").write_text("{}")
    artifacts = publish(folder, prefix_of(claim), store.settings)
    checkpoints = [{"step": s, "adapter": f"checkpoints/step-{s:06d}"} for s in STEPS]
    store.finish(
        claim,
        {"law": None, "checkpoints": checkpoints},
        artifacts=artifacts,
        artifacts_prefix=prefix_of(claim),
    )
    return claim.job_id


def evaluate(*adapters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "evaluate", "base_model": "none", "adapters": list(adapters)}


def test_adapters_of_a_job_come_by_step_and_last(
    store: Store, trained: str, tmp_path: Path
) -> None:
    spec = evaluate({"job": trained, "step": 5}, {"job": trained}, {"path": "elsewhere"})
    found = fetch_adapters(store, spec, tmp_path / "attempt", store.settings)
    weights = {k: (f / "adapter_model.safetensors").read_bytes() for k, f in found.items()}
    assert weights == {f"{trained}:5": b"weights 5", f"{trained}:last": b"weights 10"}


@pytest.mark.parametrize("change", ["flip", "remove"])
def test_a_damaged_adapter_is_refused(
    store: Store, trained: str, tmp_path: Path, change: str
) -> None:
    [file] = (tmp_path / "home" / "artifacts").rglob("step-000005/adapter_model.safetensors")
    if change == "flip":
        file.write_bytes(b"Weights 5")
    else:
        file.unlink()
    with pytest.raises(AdapterUnreadable) as refused:
        fetch_adapters(
            store, evaluate({"job": trained, "step": 5}), tmp_path / "attempt", store.settings
        )
    assert refused.value.param == "adapters.0"


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(
    store: Store, trained: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterUnreadable, match=r"step 7.*\[5, 10\]"):
        fetch_adapters(
            store, evaluate({"job": trained, "step": 7}), tmp_path / "attempt", store.settings
        )


def test_an_unknown_job_is_refused(store: Store, tmp_path: Path) -> None:
    missing = "job_" + "0" * 26
    with pytest.raises(AdapterUnreadable, match=missing):
        fetch_adapters(store, evaluate({"job": missing}), tmp_path / "attempt", store.settings)


def test_a_finetune_needs_no_adapters(store: Store, tmp_path: Path) -> None:
    assert fetch_adapters(store, {"type": "finetune"}, tmp_path, store.settings) == {}


def test_what_a_stale_attempt_published_is_withdrawn(
    store: Store, trained: str, tmp_path: Path
) -> None:
    prefix = store.job(trained).artifacts_prefix
    assert prefix is not None
    withdraw(prefix, store.settings)
    assert not (tmp_path / "home" / "artifacts" / prefix).exists()
    withdraw(prefix, store.settings)
