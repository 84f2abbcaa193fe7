"""An entry is whole and verified, or it is not there."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.cache import ABANDONED_SECONDS, MANIFEST, Cache, Entry

KEY = {"base": "sha256:b", "context": 128}
BIG = 10**9
WRITER = """
import sys
from pathlib import Path
import numpy as np
from worker.cache import Cache
key = {"base": "sha256:b", "context": 128}
with Cache(Path(sys.argv[1]), max_bytes=10**9).write(key) as writer:
    array = writer.array("kl", (200_000,), np.float64)
    print("ready", flush=True)
    sys.stdin.readline()
    array[:] = np.arange(200_000)
    print(writer.commit({"by": sys.argv[2]}).facts["by"], flush=True)
"""


def fill(cache: Cache, key: dict[str, Any] = KEY, *, rows: int = 5) -> Entry:
    with cache.write(key) as writer:
        writer.array("vectors", (rows, 3), np.float32)[:] = np.arange(3)
        writer.array("h_base", (rows,), np.float64)[:] = np.arange(rows) / 3
        return writer.commit({"noise": 0.125})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", max_bytes=BIG)


def entries(cache: Cache) -> list[Path]:
    return sorted(path for path in cache.folder.iterdir() if not path.name.startswith("."))


def test_what_was_written_comes_back(cache: Cache) -> None:
    assert cache.get(KEY) is None
    written = fill(cache)
    found = cache.get(dict(reversed(KEY.items())))
    assert found is not None
    assert found.facts == written.facts == {"noise": 0.125}
    for name, array in written.arrays.items():
        assert np.array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        found.arrays["h_base"][0] = 1


@pytest.mark.parametrize("field", KEY)
def test_every_part_of_the_key_counts(cache: Cache, field: str) -> None:
    fill(cache)
    assert cache.get(KEY | {field: "other"}) is None
    assert cache.get(KEY) is not None


@pytest.mark.parametrize("file", ["vectors.npy", "h_base.npy", MANIFEST])
@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_flipped_byte_drops_the_entry(cache: Cache, file: str, where: int) -> None:
    fill(cache)
    (place,) = entries(cache)
    content = bytearray((place / file).read_bytes())
    content[where] ^= 1
    (place / file).write_bytes(content)
    assert cache.get(KEY) is None
    assert entries(cache) == []
    fill(cache)
    assert cache.get(KEY) is not None


@pytest.mark.parametrize("file", ["vectors.npy", MANIFEST])
def test_a_missing_or_short_file_drops_the_entry(cache: Cache, file: str) -> None:
    fill(cache)
    (place,) = entries(cache)
    content = (place / file).read_bytes()
    (place / file).write_bytes(content[:-8])
    assert cache.get(KEY) is None
    fill(cache)
    (entries(cache)[0] / file).unlink()
    assert cache.get(KEY) is None


def test_a_pass_that_fails_leaves_nothing(cache: Cache) -> None:
    with cache.write(KEY) as writer:
        writer.array("h_base", (5,), np.float64)[:] = 1
        assert len(list(cache.folder.iterdir())) == 1
        assert cache.get(KEY) is None  # not visible while it is being written
    assert list(cache.folder.iterdir()) == []


def test_two_processes_may_write_the_same_key(cache: Cache) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(cache.folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    said = [writer.communicate("go\n", timeout=60)[0] for writer in writers]
    assert said == ["first\n", "second\n"]
    assert [writer.returncode for writer in writers] == [0, 0]
    found = cache.get(KEY)
    assert found is not None
    assert np.array_equal(found.arrays["kl"], np.arange(200_000))
    assert len(list(cache.folder.iterdir())) == 1


def test_the_least_recently_used_go_first(cache: Cache) -> None:
    for name in ("old", "used", "new"):
        fill(cache, {"base": name}, rows=1000)
        os.utime(max(entries(cache), key=lambda path: path.stat().st_mtime))
        time.sleep(0.02)  # the order of mtimes is what is tested
    assert cache.get({"base": "old"}) is not None  # now the most recently used
    size = sum(path.stat().st_size for path in entries(cache)[0].iterdir())
    small = Cache(cache.folder, max_bytes=int(2.5 * size))
    fill(small, {"base": "newest"}, rows=1000)
    kept = [name for name in ("old", "used", "new", "newest") if small.get({"base": name})]
    assert kept == ["old", "newest"]


def test_the_newest_entry_stays_however_small_the_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=1)
    fill(cache, {"base": "a"})
    entry = fill(cache, {"base": "b"})
    assert cache.get({"base": "a"}) is None
    assert cache.get({"base": "b"}) is not None
    fill(cache, {"base": "c"})
    assert entry.arrays["h_base"].tolist() == [i / 3 for i in range(5)]  # still mapped


def test_what_dead_writers_left_is_cleared_away(cache: Cache) -> None:
    fill(cache)
    left, young = cache.folder / ".partial-dead", cache.folder / ".partial-alive"
    for folder in (left, young):
        folder.mkdir()
    then = time.time() - ABANDONED_SECONDS - 60
    os.utime(left, (then, then))
    fill(cache, {"base": "other"})
    assert not left.exists()
    assert young.exists()


def test_room_on_the_disk_is_taken_before_anything_is_written(cache: Cache) -> None:
    """Else a full disk is a SIGBUS at some later line of the pass, and no OSError."""
    with cache.write(KEY) as writer:
        writer.array("vectors", (100_000, 8), np.float32)
        (partial,) = cache.folder.glob(".partial-*")
        assert (partial / "vectors.npy").stat().st_blocks * 512 >= 100_000 * 8 * 4
