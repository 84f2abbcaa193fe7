"""A job and the end of its adapter never pass each other by."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from service.errors import AdapterInUse, AdapterUnreadable, NotFound
from service.schemas.candidates import PathAdapter, UploadedAdapter
from service.schemas.spec import EvaluateSpec
from service.store import Store
from tests.specs import claim, evaluate

ROUNDS = 25


def add(store: Store, n: int, *, base_layout: str = "layout", prefix: str = "p") -> str:
    row = store.add_adapter(
        digest=f"sha256:{n}",
        base_model="m",
        revision=None,
        base_layout=base_layout,
        rank=4,
        trainable_params=512,
        n_bytes=2048,
        prefix=prefix,
    )
    return row.id


def measuring(adapter_id: str) -> EvaluateSpec:
    adapters = [PathAdapter(path="one"), UploadedAdapter(id=adapter_id)]
    return EvaluateSpec(type="evaluate", base_model="m", adapters=adapters)


def test_a_row_per_content_and_layout(store: Store) -> None:
    first = add(store, 1, prefix="a")
    assert add(store, 1, prefix="b") == first
    assert store.adapter(first).prefix == "a"
    assert add(store, 1, base_layout="other", prefix="c") != first
    assert store.adapter_prefix_is_known("a")
    assert not store.adapter_prefix_is_known("b")
    found = store.adapter_of("sha256:1", "layout")
    assert found == store.adapter(first)
    assert store.adapter_of("sha256:1", "layout", owner="somebody else") is None


def test_only_jobs_at_work_hold_an_adapter(store: Store) -> None:
    held, free = add(store, 1), add(store, 2)
    job, _ = store.add_job(measuring(held))
    store.add_job(evaluate())
    store.delete_adapter(free)
    with pytest.raises(AdapterInUse, match="is queued"):
        store.delete_adapter(held)
    while claim(store).job_id != job.id:
        pass
    with pytest.raises(AdapterInUse, match="is running"):
        store.delete_adapter(held)
    with pytest.raises(NotFound):
        store.delete_adapter(free)


def test_a_refused_job_is_not_there(store: Store) -> None:
    with pytest.raises(AdapterUnreadable) as caught:
        store.add_job(measuring("adp_" + "0" * 26), idempotency_key="k")
    assert caught.value.param == "adapters.1.id"
    assert store.list_jobs() == ([], False)


def test_a_job_is_queued_or_its_adapter_goes_never_both(store: Store) -> None:
    ends: list[tuple[bool, bool]] = []
    with ThreadPoolExecutor(2) as pool:
        for n in range(ROUNDS):
            adapter_id, together = add(store, n), Barrier(2)

            def queue(wanted: str = adapter_id, together: Barrier = together) -> bool:
                together.wait()
                try:
                    store.add_job(measuring(wanted))
                except AdapterUnreadable:
                    return False
                return True

            def end(wanted: str = adapter_id, together: Barrier = together) -> bool:
                together.wait()
                try:
                    store.delete_adapter(wanted)
                except AdapterInUse:
                    return False
                return True

            queued, ended = pool.submit(queue), pool.submit(end)
            ends.append((queued.result(), ended.result()))
    assert set(ends) <= {(True, False), (False, True)}
