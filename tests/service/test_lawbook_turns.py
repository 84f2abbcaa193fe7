"""Many ask for laws at once: nobody waits for another's law, and no law is fitted twice."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from service import lawbook
from service.lawbook import Lawbook
from service.schemas.laws import FitRequest
from service.store import Store
from tests.law_points import grid

LONG = 60.0
"""Seconds after which a wait is a failure."""


class Judge:
    """Takes as long as it is let over the first, no time over others, and counts."""

    def __init__(self) -> None:
        self.asked, self.leave = threading.Event(), threading.Event()
        self.n_asked = 0

    def __call__(self, chosen: Any) -> dict[str, Any]:
        self.n_asked += 1
        self.asked.set()
        if self.n_asked == 1:
            assert self.leave.wait(LONG)
        return {"notices": []}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    judge = Judge()
    monkeypatch.setattr(lawbook, "judged", judge)
    yield judge
    judge.leave.set()


@pytest.fixture
def pool() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(4) as threads:
        yield threads.submit


def asked(book: Lawbook, **fields: Any) -> list[str]:
    points = [point | fields for point in grid()]
    laws = book.fit(FitRequest.model_validate({"points": points, "metric": "kl"}))
    return [law.id for law in laws.data]


def test_a_law_that_is_being_judged_keeps_nobody_from_another(
    store: Store, judge: Judge, pool: Callable[..., Future[Any]]
) -> None:
    book = Lawbook(store)
    slow = pool(asked, book)
    assert judge.asked.wait(LONG)
    assert pool(asked, book, rank=None).result(LONG)
    assert not slow.done()
    judge.leave.set()
    assert slow.result(LONG)


def test_who_asks_for_the_same_law_waits_and_gets_it(
    store: Store, judge: Judge, pool: Callable[..., Future[Any]]
) -> None:
    book = Lawbook(store)
    first = pool(asked, book)
    assert judge.asked.wait(LONG)
    second = pool(asked, book)
    judge.leave.set()
    assert first.result(LONG) == second.result(LONG)
    assert judge.n_asked == 1
