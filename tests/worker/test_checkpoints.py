"""Resume checkpoints exist only whole; schedules depend on the spec alone."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.schedule import checkpoint_steps, log_spaced_steps
from service.schemas.spec import Training
from worker.checkpoints import MANIFEST, digests_of, drop_after, newest, prune, seal
from worker.schedule import RowOrder, micro_sizes


def make(root: Path, step: int, *, key: str = "run") -> Path:
    folder = root / "resume" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(bytes(range(200)))
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * step)
    adapter = root / "checkpoints" / "step-000001"
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"kept")
    seal(
        folder,
        step=step,
        key=key,
        state={"seen": step},
        measured={adapter.name: digests_of(adapter)},
    )
    return folder


def found(root: Path, key: str = "run") -> int | None:
    resume = newest(root / "resume", root / "checkpoints", key=key)
    return resume.step if resume else None


def test_newest_whole_checkpoint_is_taken_with_its_state(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    for step in (2, 30, 4):
        make(tmp_path, step)
    resume = newest(tmp_path / "resume", tmp_path / "checkpoints", key="run")
    assert resume is not None
    assert (resume.step, resume.state) == (30, {"seen": 30})
    assert found(tmp_path, key="another run") is None


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.integers(0, 2))
def test_one_flipped_bit_anywhere_and_the_older_one_is_taken(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, which: int
) -> None:
    root = tmp_path_factory.mktemp("flip")
    make(root, 1)
    file = sorted(make(root, 2).iterdir())[which]
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    assert found(root) == 1


@pytest.mark.parametrize("name", ["optimizer.pt", "adapter_model.safetensors", MANIFEST])
def test_torn_checkpoint_does_not_exist(tmp_path: Path, name: str) -> None:
    make(tmp_path, 1)
    folder = make(tmp_path, 2)
    whole = (folder / name).read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:length])
        assert found(tmp_path) == 1
    (folder / name).unlink()
    assert found(tmp_path) == 1
    (folder / name).write_bytes(whole)
    assert found(tmp_path) == 2


def test_file_that_was_not_sealed_spoils_it(tmp_path: Path) -> None:
    make(tmp_path, 1)
    (make(tmp_path, 2) / "scheduler.pt").write_bytes(b"")
    assert found(tmp_path) == 1


def test_lost_measured_adapter_means_starting_over(tmp_path: Path) -> None:
    make(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-000001" / "adapter_model.safetensors").write_bytes(b"other")
    assert found(tmp_path) is None


def test_renamed_checkpoint_is_not_believed(tmp_path: Path) -> None:
    folder = make(tmp_path, 2)
    folder.rename(folder.with_name("checkpoint-9"))
    assert found(tmp_path) is None


def test_manifest_is_json_with_a_digest_per_file(tmp_path: Path) -> None:
    body = json.loads((make(tmp_path, 3) / MANIFEST).read_text())["body"]
    assert sorted(body["files"]) == ["adapter_model.safetensors", "optimizer.pt"]
    assert all(digest.startswith("sha256:") for digest in body["files"].values())


def test_prune_keeps_two_and_drops_the_unsealed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step)
    (make(tmp_path, 4) / MANIFEST).unlink()
    prune(tmp_path / "resume")
    assert sorted(p.name for p in (tmp_path / "resume").iterdir()) == [
        "checkpoint-2",
        "checkpoint-3",
    ]
    drop_after(tmp_path / "resume", 2)
    assert found(tmp_path) == 2


def test_log_spaced_steps_like_the_papers() -> None:
    assert log_spaced_steps(260) == [52, 65, 82, 104, 130, 164, 207, 260]
    assert log_spaced_steps(140, 6) == [28, 39, 53, 74, 101, 140]
    assert log_spaced_steps(1) == [1]
    assert log_spaced_steps(3) == [1, 2, 3]
    assert log_spaced_steps(50, 1) == [50]


@given(max_steps=st.integers(1, 1_000_000), n=st.integers(1, 40))
def test_log_spaced_steps_rise_to_the_last(max_steps: int, n: int) -> None:
    steps = log_spaced_steps(max_steps, n)
    assert steps == sorted(set(steps))
    assert steps[-1] == max_steps
    assert steps[0] >= 1
    assert len(steps) <= n
    if n > 1:
        assert steps[0] == max(1, round(0.2 * max_steps))


def test_last_step_is_always_measured() -> None:
    assert checkpoint_steps(Training(max_steps=9, checkpoints="final")) == [9]
    assert checkpoint_steps(Training(max_steps=9, checkpoints=[4, 2])) == [2, 4, 9]
    assert checkpoint_steps(Training(max_steps=5)) == [1, 2, 3, 4, 5]


@given(n=st.integers(1, 50), draws=st.integers(1, 300), seed=st.integers(0, 2**31 - 1))
def test_rows_come_pass_after_pass(n: int, draws: int, seed: int) -> None:
    order = list(RowOrder(n, draws, seed=seed))
    assert len(order) == draws
    counts = Counter(order)
    assert set(order) <= set(range(n))
    if draws >= n:
        assert len(counts) == n
        assert max(counts.values()) - min(counts.values()) <= 1
    assert order[: draws // 2] == list(RowOrder(n, draws // 2, seed=seed))


def test_micro_batches_divide_the_batch() -> None:
    assert micro_sizes(Training(batch_size=32), "cpu") == [8, 4, 2, 1]
    assert micro_sizes(Training(batch_size=12), "cuda") == [12, 6, 3, 1]
    assert micro_sizes(Training(batch_size=9), "cpu") == [3, 1]
    assert micro_sizes(Training(batch_size=7), "cuda") == [7, 1]
    assert micro_sizes(Training(batch_size=32, micro_batch_size=16), "cpu") == [16]
