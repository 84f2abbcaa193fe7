"""What a later attempt takes over, and what it must not."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import LeaseLost
from service.schemas.spec import FinetuneSpec
from service.settings import Settings
from service.store import Claim, Store
from worker import workdir
from worker.checkpoints import digests_of, newest, seal


def leave(home: Path, attempt: int, step: int, *, measured: tuple[int, ...] = ()) -> Path:
    """What an attempt leaves behind after sealing a checkpoint of `step`."""
    folder = home / "work" / "job_1" / f"attempt-{attempt}"
    resume = folder / "resume" / f"checkpoint-{step}"
    resume.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        (resume / name).write_bytes(f"{name} of attempt {attempt} at {step}".encode() * 100)
    kept = {}
    for number in measured:
        adapter = folder / "artifacts" / "checkpoints" / f"step-{number:06d}"
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "adapter_model.safetensors").write_bytes(b"measured %d" % number)
        kept[adapter.name] = digests_of(adapter)
    seal(resume, step=step, key="run", state={}, measured=kept)
    return resume


def prepare(home: Path, attempt: int) -> tuple[Path, int | None]:
    return workdir.prepare(Claim("job_1", attempt, "token", {}, ""), Settings(home=home))


def test_a_first_attempt_starts_empty(tmp_path: Path) -> None:
    folder, step = prepare(tmp_path, 1)
    assert step is None
    assert [path.name for path in folder.iterdir()] == ["artifacts"]


def test_the_furthest_checkpoint_and_its_adapters_are_copied(tmp_path: Path) -> None:
    leave(tmp_path, 1, 10, measured=(5,))
    leave(tmp_path, 2, 20, measured=(5, 15))
    left = leave(tmp_path, 2, 30, measured=(5, 15, 25))
    old = {path.name: path.read_bytes() for path in left.iterdir()}
    folder, step = prepare(tmp_path, 3)
    assert step == 30
    assert sorted(path.name for path in (folder / "resume").iterdir()) == [
        "checkpoint-20",
        "checkpoint-30",
    ]
    new = folder / "resume" / "checkpoint-30"
    assert {path.name: path.read_bytes() for path in new.iterdir()} == old
    kept = folder / "artifacts" / "checkpoints"
    found = newest(folder / "resume", kept, key="run")
    assert found is not None
    assert found.step == 30
    assert sorted(path.name for path in kept.iterdir()) == [
        "step-000005",
        "step-000015",
        "step-000025",
    ]


def test_only_the_newest_attempt_takes_room(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        folder, _ = prepare(tmp_path, attempt)
    assert [path.name for path in folder.parent.iterdir()] == ["attempt-3"]


def test_what_a_zombie_leaves_in_a_removed_folder_counts_only_if_whole(tmp_path: Path) -> None:
    leave(tmp_path, 1, 10)
    prepare(tmp_path, 2)
    torn = leave(tmp_path, 1, 40) / "optimizer.pt"
    torn.write_bytes(b"cut off")
    folder, step = prepare(tmp_path, 3)
    assert step == 10
    assert [path.name for path in folder.parent.iterdir()] == ["attempt-3"]


@pytest.mark.parametrize("patience", [0, 1, 4])
def test_an_interrupted_attempt_leaves_what_it_was_copying(tmp_path: Path, patience: int) -> None:
    leave(tmp_path, 1, 10)
    calls = iter(range(patience))

    def check() -> None:
        if next(calls, None) is None:
            raise LeaseLost("taken over")

    claim = Claim("job_1", 2, "token", {}, "")
    with pytest.raises(LeaseLost):
        workdir.prepare(claim, Settings(home=tmp_path), check)
    assert [path.name for path in (tmp_path / "work" / "job_1").iterdir()] == ["attempt-1"]
    assert prepare(tmp_path, 3)[1] == 10


def test_what_a_zombie_writes_later_is_not_ours(tmp_path: Path) -> None:
    old = leave(tmp_path, 1, 10)
    folder, _ = prepare(tmp_path, 2)
    old.mkdir(parents=True)
    (old / "optimizer.pt").write_bytes(b"still writing")
    assert b"still" not in (folder / "resume" / old.name / "optimizer.pt").read_bytes()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", workdir.MANIFEST])
@pytest.mark.parametrize("keep", [0, 1, 57, -1])
def test_a_torn_checkpoint_does_not_exist(tmp_path: Path, name: str, keep: int) -> None:
    leave(tmp_path, 1, 10)
    torn = leave(tmp_path, 1, 20) / name
    torn.write_bytes(torn.read_bytes()[:keep])
    folder, step = prepare(tmp_path, 2)
    assert step == 10
    assert not (folder / "resume" / "checkpoint-20").exists()


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    file = leave(tmp_path, 1, 20) / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    assert prepare(tmp_path, 2)[1] is None


def test_a_checkpoint_whose_measured_adapter_is_gone_does_not_exist(tmp_path: Path) -> None:
    leave(tmp_path, 1, 10)
    late = leave(tmp_path, 1, 20, measured=(15,))
    shutil.rmtree(late.parent.parent / "artifacts" / "checkpoints" / "step-000015")
    assert prepare(tmp_path, 2)[1] == 10


def test_a_checkpoint_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    (leave(tmp_path, 1, 20) / workdir.MANIFEST).unlink()
    assert prepare(tmp_path, 2)[1] is None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = Settings(home=tmp_path)
    store = Store(settings.database, settings)
    store.migrate()
    yield store
    store.dispose()


def test_folders_stay_while_their_job_can_be_resumed(tmp_path: Path, store: Store) -> None:
    spec = FinetuneSpec.model_validate({"base_model": "none", "dataset": {"path": "none"}})
    ids = {name: store.add_job(spec)[0].id for name in ("succeeded", "failed", "deleted")}
    for name in ids:
        claim = store.claim("tester")
        assert claim is not None
        assert claim.job_id == ids[name]
        workdir.prepare(claim, store.settings)
        if name == "succeeded":
            store.finish(claim, {"law": None})
        else:
            store.fail(claim, {"code": "x", "class": "system", "detail": "x"})
    store.delete_job(ids["deleted"])
    queued = store.add_job(spec)[0].id
    (tmp_path / "work" / queued).mkdir()
    removed = workdir.clean(store, store.settings)
    assert set(removed) == {ids["succeeded"], ids["deleted"]}
    assert {path.name for path in (tmp_path / "work").iterdir()} == {ids["failed"], queued}
