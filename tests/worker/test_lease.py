"""The lease against a database that is away: the child never outlives what we may claim."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import LeaseLost
from service.schemas.spec import FinetuneSpec
from service.settings import Settings
from service.store import Claim, Store
from worker.lease import Lease


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = Settings(home=tmp_path, lease_seconds=1.0, beat_seconds=0.1)
    store = Store(settings.database, settings)
    store.migrate()
    yield store
    store.dispose()


@pytest.fixture
def claim(store: Store) -> Claim:
    spec = FinetuneSpec.model_validate({"base_model": "none", "dataset": {"path": "none"}})
    store.add_job(spec)
    claim = store.claim("tester")
    assert claim is not None
    return claim


def test_beats_keep_the_lease_and_carry_events(store: Store, claim: Claim) -> None:
    with Lease(store, claim, store.settings) as lease:
        for step in range(15):
            lease.tell({"kind": "metric", "name": "train_loss", "step": step, "value": 1.0})
            time.sleep(0.1)
        lease.flush()
        lease.check()
    assert store.reap() == []
    assert len(store.metrics(claim.job_id)["train_loss"]) == 15


def test_without_beats_the_lease_runs_out(store: Store, claim: Claim) -> None:
    lease = Lease(store, claim, store.settings)
    time.sleep(1.2)
    with pytest.raises(LeaseLost):
        lease.check()
    assert store.reap() == [claim.job_id]


def test_a_cancel_comes_back_with_a_beat(store: Store, claim: Claim) -> None:
    with Lease(store, claim, store.settings) as lease:
        store.cancel_job(claim.job_id)
        time.sleep(0.5)
        assert lease.cancel_requested


def test_another_attempt_takes_the_lease_away(store: Store, claim: Claim) -> None:
    lease = Lease(store, claim, store.settings)
    time.sleep(1.1)
    store.reap()
    assert store.claim("other") is not None
    with pytest.raises(LeaseLost):
        lease.flush()


def test_a_locked_database_ends_the_lease_on_our_own_clock(store: Store, claim: Claim) -> None:
    """The beat hangs in the database; the watch over the child must not."""
    connection = store.engine.raw_connection()
    connection.cursor().execute("BEGIN EXCLUSIVE")
    try:
        with Lease(store, claim, store.settings) as lease:
            began = time.monotonic()
            while time.monotonic() - began < 5:
                try:
                    lease.check()
                except LeaseLost:
                    break
                time.sleep(0.02)
            assert 0.5 < time.monotonic() - began < 1.5
    finally:
        connection.cursor().execute("ROLLBACK")
        connection.close()
        for thread in threading.enumerate():
            if thread.name.startswith("lease-"):
                thread.join()
