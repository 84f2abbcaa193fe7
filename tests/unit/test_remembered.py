"""What is remembered of a file goes with the file."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.admission import admit
from service.errors import CorpusUnreadable, DatasetUnreadable, ModelUnavailable
from service.remembered import STILL_SECONDS, Remembered
from service.schemas.spec import FinetuneSpec
from service.settings import Settings
from tests.model_folders import write_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_text("one")
    return path


def later(change: Callable[[], object], file: Path) -> None:
    """The change, repeated until the file's time shows it: clocks tick."""
    before = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == before:
        change()


def test_read_once_while_it_stays_the_same(file: Path) -> None:
    kept, n = Remembered[str](2, still_seconds=0), 0

    def read() -> str:
        nonlocal n
        n += 1
        return file.read_text()

    later(lambda: file.write_text("one"), file)
    assert [kept.of("key", [file], read) for _ in range(3)] == ["one"] * 3
    assert n == 1
    assert kept.of("another key", [file], read) == "one"
    assert n == 2


@pytest.mark.parametrize("how", ["in place", "times put back", "another file", "gone"])
def test_every_change_is_noticed(file: Path, how: str) -> None:
    kept = Remembered[str](2, still_seconds=0)
    assert kept.of("key", [file], file.read_text) == "one"
    seen = file.stat()

    def change() -> None:
        if how == "another file":
            other = file.with_name("other")
            other.write_text("two")
            os.replace(other, file)
        else:
            file.write_text("two")
        if how == "times put back":
            os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))

    if how == "gone":
        file.unlink()
        with pytest.raises(FileNotFoundError):
            kept.of("key", [file], file.read_text)
        return
    later(change, file)
    assert kept.of("key", [file], file.read_text) == "two"


def test_a_change_within_the_same_tick_of_the_clock(file: Path) -> None:
    """Such a change does not show, so nothing is kept of what changed just now."""
    kept = Remembered[str](2)
    for said in ("one", "two", "six"):
        file.write_text(said)
        assert kept.of("key", [file], file.read_text) == said


def test_a_refusal_is_not_kept_and_the_oldest_goes(file: Path) -> None:
    kept, said = Remembered[str](2, still_seconds=0), ["first", "second", "third", "fourth"]

    def refuse() -> str:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        kept.of("a", [file], refuse)
    later(lambda: file.write_text("one"), file)
    for key in ("a", "b", "a", "c", "b"):  # c sends b away, which was asked for before a
        kept.of(key, [file], lambda: said.pop(0))
    assert said == []


def test_a_changed_model_dataset_or_corpus_is_refused_again(tmp_path: Path) -> None:
    model, data = write_model(tmp_path / "tiny"), tmp_path / "rows.jsonl"
    corpus, config = tmp_path / "corpus.txt", model / "config.json"
    data.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(40)))
    corpus.write_text("some prose\n")
    settings = Settings(model_roots=[tmp_path], data_roots=[tmp_path], allow_hub=False)
    body = {
        "base_model": "tiny",
        "dataset": {"path": data.name},
        "training": {"batch_size": 8, "max_length": 64},
        "evaluation": {"corpus": corpus.name, "context": 64},
    }
    spec = FinetuneSpec.model_validate(body)
    time.sleep(STILL_SECONDS + 0.1)  # from now on they are remembered
    admit(spec, settings)
    admit(spec, settings)
    good = {path: path.read_text() for path in (data, corpus, config)}

    data.write_text(good[data].replace('{"text": "row 3"}', '{"text": "row 3"!'))
    with pytest.raises(DatasetUnreadable, match="line 4"):
        admit(spec, settings)
    data.write_text(good[data])
    corpus.write_text(" " * len(good[corpus]))
    with pytest.raises(CorpusUnreadable, match="no text"):
        admit(spec, settings)
    corpus.write_text(good[corpus])
    config.write_text(json.dumps({**json.loads(good[config]), "auto_map": {}}))
    with pytest.raises(ModelUnavailable, match="auto_map"):
        admit(spec, settings)
    config.write_text(good[config])
    (model / "modeling.py").write_text("")
    with pytest.raises(ModelUnavailable, match="Python code"):
        admit(spec, settings)
    (model / "modeling.py").unlink()
    admit(spec, settings)
