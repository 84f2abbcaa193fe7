"""A tokenised dataset from the cache is the one that was computed, bit for bit."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.errors import DatasetUnreadable
from service.rows import Example
from service.schemas.spec import Dataset, Lora, Training
from service.settings import Settings
from tests.worker.conftest import make_tokenizer
from worker.cache import MANIFEST, Cache
from worker.data import Rows, TokenisedDataset, load_rows, split, tokenise
from worker.phases import Phases
from worker.tokenised import dataset_key, tokenised
from worker.train import Released

DIGEST = "sha256:t"


def training(**changes: object) -> Training:
    return Training.model_validate({"batch_size": 2, "max_length": 40, **changes})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", max_bytes=10**9)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Thirty rows of unlike lengths, copies among them, one too long to keep its answer."""
    some = [{"prompt": f"{i % 25}. " + "mill " * (i % 4), "completion": " yes"} for i in range(29)]
    some.append({"prompt": "z" * 90, "completion": " gone"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return load_rows(Dataset(path="rows.jsonl"), Settings(data_roots=[tmp_path], allow_hub=False))


def ask(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, spec: Training, cache: Cache
) -> tuple[TokenisedDataset, bool]:
    return tokenised(rows, tokenizer, spec, tokenizer_digest=DIGEST, cache=cache)


def content(done: TokenisedDataset) -> Any:
    def whole(packed: Any) -> Any:
        arrays = packed.arrays()
        return [(name, a.dtype.str, a.tobytes()) for name, a in arrays.items()], list(packed)

    about = (done.digest, done.format, done.n_dropped, done.warnings)
    return whole(done.train), whole(done.heldout), about


def test_with_and_without_the_cache_it_is_the_same(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, cache: Cache
) -> None:
    plain = content(tokenise(rows, tokenizer, training()))
    made, cached = ask(rows, tokenizer, training(), cache)
    assert (content(made), cached) == (plain, False)
    found, cached = ask(rows, tokenizer, training(), cache)
    assert (content(found), cached) == (plain, True)
    assert found.n_dropped == 1


def test_rank_seed_rate_and_batch_share_one(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, cache: Cache
) -> None:
    ask(rows, tokenizer, training(), cache)
    other = training(batch_size=4, seed=99, learning_rate=0.5, max_steps=3, lora=Lora(r=64))
    assert ask(rows, tokenizer, other, cache)[1] is True
    with pytest.raises(DatasetUnreadable, match="one batch is 64"):
        ask(rows, tokenizer, training(batch_size=64), cache)


@pytest.mark.parametrize("field", ["max_length", "loss_on", "held_out"])
def test_what_changes_a_row_makes_another(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, cache: Cache, field: str
) -> None:
    ask(rows, tokenizer, training(), cache)
    other = training(**{field: {"max_length": 50, "loss_on": "all", "held_out": 0.3}[field]})
    made, cached = ask(rows, tokenizer, other, cache)
    assert not cached
    assert content(made) == content(tokenise(rows, tokenizer, other))


def test_rows_tokenizer_and_template_are_in_the_key(
    rows: Rows, tokenizer: PreTrainedTokenizerFast
) -> None:
    key = dataset_key(rows, tokenizer, training(), DIGEST)
    other = Rows((Example(None, None, "x"),), rows.format, "sha256:other")
    assert dataset_key(other, tokenizer, training(), DIGEST) != key
    assert dataset_key(rows, tokenizer, training(), "sha256:u") != key
    assert key["date"] is None
    tokenizer.chat_template = "{{ strftime_now('%d') }}"
    dated = dataset_key(rows, tokenizer, training(), DIGEST)
    assert dated["chat_template"] != key["chat_template"]
    assert dated["date"] is not None


@pytest.mark.parametrize("file", ["train_ids.npy", "heldout_ends.npy", MANIFEST])
def test_a_damaged_entry_is_computed_again(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, cache: Cache, file: str
) -> None:
    plain = content(ask(rows, tokenizer, training(), cache)[0])
    (place,) = cache.folder.iterdir()
    damaged = bytearray((place / file).read_bytes())
    damaged[-1] ^= 1
    (place / file).write_bytes(damaged)
    made, cached = ask(rows, tokenizer, training(), cache)
    assert (content(made), cached) == (plain, False)
    assert ask(rows, tokenizer, training(), cache)[1] is True


def test_a_refused_dataset_is_not_stored(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, cache: Cache
) -> None:
    with pytest.raises(DatasetUnreadable, match="one batch is 64"):
        ask(rows, tokenizer, training(batch_size=64), cache)
    with pytest.raises(DatasetUnreadable, match="none of 30 rows"):
        ask(rows, tokenizer, training(max_length=2, loss_on="completion"), cache)
    assert list(cache.folder.iterdir()) == []


def test_tokenising_gives_signs_of_life(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them, who waits would take a long dataset's process for dead."""
    monkeypatch.setattr("worker.data.TOKENISED_AT_ONCE", 10)
    signs: list[None] = []
    split(rows, tokenizer, training(), alive=lambda: signs.append(None))
    assert len(signs) == 3


def test_who_waits_says_why_once_and_obeys_a_stop() -> None:
    stop, told = threading.Event(), []
    wait = Phases(told.append, stop).waiting("another run is at it")
    wait()
    wait()
    assert told == [{"kind": "log", "message": "another run is at it"}]
    stop.set()
    with pytest.raises(Released):
        wait()
