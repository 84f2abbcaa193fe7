"""A base that stays in memory between two jobs, and when it may not."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from service.settings import Settings
from worker.loaded import Loaded
from worker.model import Base


@pytest.fixture
def models(random_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(random_base, tmp_path / "models" / "m")
    return tmp_path / "models"


def load(loaded: Loaded, models: Path, heard: list[str], dtype: str = "float32") -> Base:
    settings = Settings(home=models.parent, model_roots=[models])
    return loaded.base("m", None, dtype=dtype, settings=settings, told=heard.append)


def test_the_same_files_are_loaded_once(models: Path) -> None:
    loaded, heard = Loaded(), []
    first = load(loaded, models, heard)
    assert heard == []
    assert load(loaded, models, heard) is first
    assert heard == ["the base is still loaded, from the job before"]


def test_another_dtype_is_another_base(models: Path) -> None:
    loaded, heard = Loaded(), []
    load(loaded, models, heard)
    assert load(loaded, models, heard, "bfloat16").model.dtype is torch.bfloat16
    assert heard == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_was_touched_is_read_again(models: Path, name: str) -> None:
    loaded, heard = Loaded(), []
    first = load(loaded, models, heard)
    facts = (models / "m" / name).stat()
    os.utime(models / "m" / name, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert load(loaded, models, heard) is not first
    assert heard == []


def test_a_file_of_the_same_size_and_time_in_its_place_is_read_again(models: Path) -> None:
    loaded, heard = Loaded(), []
    first = load(loaded, models, heard)
    path = models / "m" / "model.safetensors"
    facts = path.stat()
    shutil.copy(path, path.with_name("other"))
    os.utime(path.with_name("other"), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    path.with_name("other").replace(path)
    assert load(loaded, models, heard) is not first


def test_a_file_written_in_place_is_read_again_whatever_its_times_say(models: Path) -> None:
    loaded, heard = Loaded(), []
    first = load(loaded, models, heard)
    path = models / "m" / "config.json"
    facts = path.stat()
    with path.open("r+b") as file:
        file.write(b"{")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert load(loaded, models, heard) is not first


class Engine:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_an_engine_is_given_again_for_its_own_base_and_settings_only(models: Path) -> None:
    loaded, engine = Loaded(), Engine()
    base = load(loaded, models, [])
    assert loaded.take_engine(base, "these") is None
    loaded.keep_engine(base, "these", engine)
    assert loaded.take_engine(base, "these") is engine
    assert loaded.take_engine(base, "these") is None  # whoever has it brings it back
    loaded.keep_engine(base, "these", engine)
    assert engine.closed == 0
    assert loaded.take_engine(base, "others") is None
    assert engine.closed == 1


def test_an_engine_goes_with_its_base_and_when_it_is_not_wanted(models: Path) -> None:
    loaded, first, second, third = Loaded(), Engine(), Engine(), Engine()
    base = load(loaded, models, [])
    loaded.keep_engine(base, "these", first)
    other = load(loaded, models, [], "bfloat16")
    assert first.closed == 1
    loaded.keep_engine(base, "these", second)  # of the base before
    assert second.closed == 1
    loaded.keep_engine(other, "these", third)
    loaded.end_engine()
    loaded.end_engine()
    assert third.closed == 1
