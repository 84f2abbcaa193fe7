"""A base pass made on one machine is found on another; what is damaged is made anew."""

import secrets
from pathlib import Path

import numpy as np
import pytest

from worker.cache import Cache, Entry
from worker.once import Alive, once
from worker.shared import Shared

KEY = {"base": "sha256:b", "context": 128}


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    return f"memory://{secrets.token_hex(4)}"


def machine(folder: Path, url: str, told: list[str] | None = None) -> Cache:
    warn = (told if told is not None else []).append
    return Cache(folder, max_bytes=10**9, shared=Shared(url, warn=warn))


def compute(cache: Cache) -> tuple[Entry, bool]:
    def work(alive: Alive) -> Entry:
        with cache.write(KEY) as writer:
            writer.array("kl", (300,), np.float64)[:] = np.arange(300) / 7
            return writer.commit({"noise": 0.125})

    return once(cache, KEY, work)


def test_the_second_machine_finds_what_the_first_computed(tmp_path: Path, url: str) -> None:
    first, cached = compute(machine(tmp_path / "a", url))
    assert not cached
    second, cached = compute(machine(tmp_path / "b", url))
    assert cached
    assert np.array_equal(first.arrays["kl"], second.arrays["kl"])
    assert second.facts == {"noise": 0.125}
    alone = Cache(tmp_path / "b", max_bytes=10**9)
    assert alone.get(KEY) is not None  # kept there, without the shared level
    assert [path.name for path in alone.folder.iterdir() if path.name.startswith(".")] == []


def test_without_a_shared_level_each_machine_computes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert compute(Cache(tmp_path / name, max_bytes=10**9))[1] is False


@pytest.mark.parametrize("where", [0.3, 0.6])
def test_a_damaged_entry_is_replaced(tmp_path: Path, url: str, where: float) -> None:
    compute(machine(tmp_path / "a", url))
    shared = Shared(url)
    (place,) = shared.fs.glob(f"{shared.root}/*.tar")
    content = bytearray(shared.fs.cat_file(place))
    at = content.index(b"NUMPY") + 200 if where < 0.5 else content.index(b'"facts"') + 12
    content[at] ^= 1
    shared.fs.pipe_file(place, bytes(content))
    assert compute(machine(tmp_path / "b", url))[1] is False
    assert compute(machine(tmp_path / "c", url))[1] is True


def test_a_truncated_entry_is_computed_again(tmp_path: Path, url: str) -> None:
    compute(machine(tmp_path / "a", url))
    shared = Shared(url)
    (place,) = shared.fs.glob(f"{shared.root}/*.tar")
    shared.fs.pipe_file(place, shared.fs.cat_file(place)[:1000])
    told: list[str] = []
    entry, cached = compute(machine(tmp_path / "b", url, told))
    assert not cached
    assert entry.arrays["kl"][7] == 1


def test_a_storage_that_cannot_be_used_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    told: list[str] = []
    assert compute(machine(tmp_path / "a", f"file://{tmp_path}/file/shared", told))[1] is False
    assert told
    assert all("shared cache" in message for message in told)
