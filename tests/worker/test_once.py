"""Several processes that want one entry: one computes it, the others wait and find it."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from worker.cache import Cache, Entry
from worker.corpus import Document, corpus_of
from worker.model import Base
from worker.once import STALE_SECONDS, Alive, once
from worker.pace import Pace
from worker.score import BasePass, score_base
from worker.windows import cut

KEY = {"base": "sha256:b"}
WORKER = """
import sys
from pathlib import Path
import numpy as np
from worker.cache import Cache
from worker.once import once
def compute(alive):
    print("computing", flush=True)
    sys.stdin.readline()
    with cache.write({"base": "sha256:b"}) as writer:
        writer.array("kl", (3,), np.float64)[:] = 7
        return writer.commit({})
def waiting():
    print("waiting", flush=True)
cache = Cache(Path(sys.argv[1]), max_bytes=10**9)
entry, cached = once(cache, {"base": "sha256:b"}, compute, waiting=waiting)
print(f"{cached} {entry.arrays['kl'].tolist()}", flush=True)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", max_bytes=10**9)


def worker(cache: Cache) -> "subprocess.Popen[str]":
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", WORKER, str(cache.folder)], **pipes)  # type: ignore[call-overload, no-any-return]


def hear(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def filling(cache: Cache, told: list[str]) -> Callable[[Alive], Entry]:
    def compute(alive: Alive) -> Entry:
        told.append("computed")
        with cache.write(KEY) as writer:
            writer.array("kl", (3,), np.float64)[:] = 7
            return writer.commit({})

    return compute


def test_of_two_processes_one_computes_and_the_other_finds(cache: Cache) -> None:
    first = worker(cache)
    assert hear(first) == "computing"
    second = worker(cache)
    assert hear(second) == "waiting"
    assert first.communicate("go\n", timeout=60)[0] == "False [7.0, 7.0, 7.0]\n"
    said = second.communicate(timeout=60)[0].splitlines()
    assert set(said[:-1]) <= {"waiting"}
    assert said[-1] == "True [7.0, 7.0, 7.0]"
    assert [path.name for path in cache.folder.iterdir() if path.name.startswith(".")] == []


def test_a_killed_process_is_waited_for_no_longer(cache: Cache) -> None:
    first = worker(cache)
    assert hear(first) == "computing"
    second = worker(cache)
    assert hear(second) == "waiting"
    first.kill()
    first.communicate()
    while (said := hear(second)) == "waiting":
        pass
    assert said == "computing"
    assert second.communicate("go\n", timeout=60)[0] == "False [7.0, 7.0, 7.0]\n"


def test_a_holder_without_a_sign_of_life_is_waited_for_no_longer(cache: Cache) -> None:
    """Frozen, or on a machine that died: its lock stays."""
    frozen = worker(cache)
    assert hear(frozen) == "computing"
    told: list[str] = []

    def waiting() -> None:
        told.append("waited")
        if len(told) == 2:
            then = time.time() - STALE_SECONDS - 1
            os.utime(cache.lock_file(KEY), (then, then))

    entry, cached = once(cache, KEY, filling(cache, told), waiting=waiting)
    assert (told, cached) == (["waited", "waited", "computed"], False)
    assert entry.arrays["kl"].tolist() == [7, 7, 7]
    # The frozen one goes on, and finds its place taken by what is as good.
    assert frozen.communicate("go\n", timeout=60)[0] == "False [7.0, 7.0, 7.0]\n"


def test_what_is_there_is_not_computed(cache: Cache) -> None:
    told: list[str] = []
    assert once(cache, KEY, filling(cache, told))[1] is False
    assert once(cache, KEY, filling(cache, told))[1] is True
    assert told == ["computed"]


def test_a_wait_ends_when_it_must(cache: Cache) -> None:
    first = worker(cache)
    assert hear(first) == "computing"

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        once(cache, KEY, filling(cache, []), waiting=stop)
    assert first.communicate("go\n", timeout=60)[0] == "False [7.0, 7.0, 7.0]\n"


def test_who_fails_leaves_the_turn_to_the_next(cache: Cache) -> None:
    def fail(alive: Alive) -> Entry:
        raise MemoryError

    with pytest.raises(MemoryError):
        once(cache, KEY, fail)
    assert list(cache.folder.iterdir()) == []
    assert once(cache, KEY, filling(cache, []))[1] is False


def test_workers_that_want_one_base_pass_at_once_make_it_once(
    loaded_base: Base, cache: Cache
) -> None:
    corpus = corpus_of("made", "text", [Document("mill", "The river runs past the mill. " * 40)])
    windows = cut(corpus, loaded_base.tokenizer, 24)
    together = threading.Barrier(3)

    def work(_: int) -> BasePass:
        together.wait()
        digest = corpus.digest
        return score_base(loaded_base, windows, corpus_digest=digest, route="logits", cache=cache)

    with ThreadPoolExecutor(3) as pool:
        passes = list(pool.map(work, range(3)))
    assert sorted(one.forward_tokens for one in passes) == [0, 0, len(windows.ids)]
    for name, rows in passes[0].rows.items():
        assert all(np.array_equal(one.rows[name], rows) for one in passes)


def test_without_locks_both_compute_and_neither_is_harmed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: it is the lock that keeps the second from computing."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("worker.once.fcntl.flock", no_locks)
    both = threading.Barrier(2)

    def work(_: int) -> tuple[Entry, bool]:
        def compute(alive: Alive) -> Entry:
            both.wait(timeout=60)
            return filling(cache, [])(alive)

        return once(cache, KEY, compute)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, range(2)))
    assert [cached for _, cached in found] == [False, False]
    assert [entry.arrays["kl"].tolist() for entry, _ in found] == [[7, 7, 7]] * 2


def test_where_the_computing_worker_is_cancelled_the_waiting_one_computes(
    loaded_base: Base, cache: Cache
) -> None:
    """Cancelled in the middle of its pass: nothing of it is found, and nobody waits for it."""
    corpus = corpus_of("made", "text", [Document("mill", "The river runs past the mill. " * 40)])
    windows = cut(corpus, loaded_base.tokenizer, 24)
    computing, waits = threading.Event(), threading.Event()

    def work(on_windows: Callable[[int, int], None]) -> BasePass:
        return score_base(
            loaded_base,
            windows,
            corpus_digest=corpus.digest,
            route="logits",
            cache=cache,
            on_windows=on_windows,
            pace=Pace(batch_tokens=48, chunk=64),
        )

    def cancelled(done: int, total: int) -> None:
        computing.set()
        if 0 < done < total:
            assert waits.wait(timeout=60)
            raise InterruptedError

    def patient(done: int, total: int) -> None:
        if done == 0:
            waits.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(work, cancelled)
        assert computing.wait(timeout=60)
        second = pool.submit(work, patient)
        with pytest.raises(InterruptedError):
            first.result(timeout=60)
        found = second.result(timeout=60)
    assert found.forward_tokens == len(windows.ids)
    assert np.isfinite(found.rows["h_base"]).all()
    assert [path.name for path in cache.folder.iterdir() if path.name.startswith(".")] == []
    assert work(lambda done, total: None).forward_tokens == 0
