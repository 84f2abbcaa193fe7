"""From files and hub datasets to tokens with labels, and the held-out split."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from service.errors import DatasetUnreadable
from service.rows import Example
from service.schemas.spec import Dataset, Lora, Training
from service.settings import Settings
from tests.worker.conftest import make_tokenizer
from worker.data import IGNORED, Row, Rows, TokenisedDataset, hub_rows, load_rows, tokenise

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['role'] == 'assistant' and not loop.last %}(gone)"
    "{% else %}{{ m['content'] }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSING = "{{ raise_exception('no system role here') }}"

TALK = [
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "In the valley."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Nobody."},
]


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def training(**changes: object) -> Training:
    return Training.model_validate({"batch_size": 1, "max_length": 200, **changes})


def load(folder: Path, name: str, **options: object) -> Rows:
    spec = Dataset.model_validate({"path": name, **options})
    return load_rows(spec, Settings(data_roots=[folder], allow_hub=False))


def tokenised(
    folder: Path,
    row: dict[str, object],
    tokenizer: PreTrainedTokenizerFast | None = None,
    **changes: object,
) -> Row:
    """The only row but one: the other is there to be held out or trained on."""
    name = write(folder, "rows.jsonl", [row, row | {"_": 1}])
    rows = load(folder, name)
    # Copies stay on one side, so the split needs two texts; both tokenise alike here.
    examples = (rows.examples[0], Example(None, None, "x"))
    mixed = Rows(examples, rows.format, rows.digest)
    done = tokenise(mixed, tokenizer or make_tokenizer(), training(held_out=0.5, **changes))
    return max([*done.train, *done.heldout], key=lambda row: len(row.input_ids))


def supervised(row: Row, tokenizer: PreTrainedTokenizerFast) -> str:
    assert len(row.labels) == len(row.input_ids)
    assert all(b in (IGNORED, a) for a, b in zip(row.input_ids, row.labels, strict=True))
    return tokenizer.decode([label for label in row.labels if label != IGNORED])


SHAPES: dict[str, tuple[dict[str, object], str, str]] = {
    "prompt_completion": (
        {"prompt": "Q: where?\nA:", "completion": " The mill."},
        "<s>Q: where?\nA: The mill.</s>",
        " The mill.</s>",
    ),
    "alpaca": (
        {"instruction": "Name it.", "input": "the mill", "output": "Old mill"},
        "<s>user: Name it.\n\nthe mill\nassistant: Old mill</s>",
        " Old mill</s>",
    ),
    "preference": (
        {
            "input": {"messages": [{"role": "user", "content": "Where?"}]},
            "preferred_output": [{"role": "assistant", "content": "Here."}],
            "non_preferred_output": [{"role": "assistant", "content": "There."}],
        },
        "<s>user: Where?\nassistant: Here.</s>",
        " Here.</s>",
    ),
    "trl preference": (
        {"prompt": "Where?", "chosen": " Here.", "rejected": " There."},
        "<s>Where? Here.</s>",
        " Here.</s>",
    ),
    "messages": (
        {"messages": TALK},
        "<s>user: Where?\nassistant: In the valley.</s>\nuser: Who?\nassistant: Nobody.</s>",
        " In the valley.</s> Nobody.</s>",
    ),
    "text": ({"text": "The river runs."}, "<s>The river runs.</s>", "The river runs.</s>"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_format_without_a_chat_template(tmp_path: Path, name: str) -> None:
    row, text, answer = SHAPES[name]
    tokenizer = make_tokenizer()
    got = tokenised(tmp_path, row)
    assert tokenizer.decode(got.input_ids) == text
    assert supervised(got, tokenizer) == answer


def test_chat_template_supervises_answers_and_their_end_of_turn(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    got = tokenised(tmp_path, {"messages": TALK}, tokenizer)
    assert tokenizer.decode(got.input_ids) == (
        "<s><|user|>Where?<|end|>\n<|assistant|>In the valley.<|end|>\n"
        "<|user|>Who?<|end|>\n<|assistant|>Nobody.<|end|>\n"
    )
    assert supervised(got, tokenizer) == "In the valley.<|end|>\nNobody.<|end|>\n"


def test_bos_of_the_template_is_not_doubled(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    assert tokenised(tmp_path, {"messages": TALK}, tokenizer).input_ids[:2].count(1) == 1


def test_template_without_end_of_turn_gets_eos(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML.replace("<|end|>", "")
    got = tokenised(tmp_path, {"messages": TALK}, tokenizer)
    assert supervised(got, tokenizer).endswith("Nobody.\n</s>")


def test_answer_that_the_template_rewrites_is_not_supervised(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = FORGETFUL
    got = tokenised(tmp_path, {"messages": TALK}, tokenizer)
    assert "valley" not in tokenizer.decode(got.input_ids)
    assert "Who" not in supervised(got, tokenizer)
    assert supervised(got, tokenizer).endswith("Nobody.</s>")


def test_template_that_refuses_a_row_names_it(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = REFUSING
    with pytest.raises(DatasetUnreadable, match=r"row 1: .*no system role here"):
        tokenised(tmp_path, {"messages": TALK}, tokenizer)


def test_bos_follows_the_tokenizers_habit(tmp_path: Path) -> None:
    without = make_tokenizer(begins_with_bos=False)
    got = tokenised(tmp_path, {"text": "The river runs."}, without)
    assert without.decode(got.input_ids) == "The river runs.</s>"
    # Position 0 is predicted by nothing, so it is never supervised.
    assert got.labels[0] == IGNORED
    assert got.labels[1:] == got.input_ids[1:]


def test_loss_on_all_and_on_completion(tmp_path: Path) -> None:
    row, text, _ = SHAPES["prompt_completion"]
    got = tokenised(tmp_path, row, loss_on="all")
    assert supervised(got, make_tokenizer()) == text.removeprefix("<s>")
    rows = load(tmp_path, write(tmp_path, "t.jsonl", [{"text": "a b"}, {"text": "c d"}]))
    with pytest.raises(DatasetUnreadable, match="no completion") as caught:
        tokenise(rows, make_tokenizer(), training(loss_on="completion"))
    assert caught.value.param == "training.loss_on"


def test_token_that_reaches_into_the_completion_is_supervised(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    river = tokenizer("river", add_special_tokens=False)["input_ids"]
    got = tokenised(tmp_path, {"prompt": "ri", "completion": "ver"})
    assert got.input_ids == [1, *river, 2]
    assert got.labels[-len(river) :] == [*river[1:], 2]


def test_tokenizer_without_offsets_goes_span_by_span(tmp_path: Path) -> None:
    tokenizer = ByT5Tokenizer()
    assert not tokenizer.is_fast
    got = tokenised(tmp_path, {"prompt": "Où?", "completion": " Là."}, tokenizer)
    assert tokenizer.decode(got.input_ids) == "Où? Là.</s>"
    assert supervised(got, tokenizer) == " Là.</s>"


def test_rows_cut_before_their_answer_are_dropped_and_counted(tmp_path: Path) -> None:
    long = {"prompt": "z" * 60, "completion": " gone"}
    short = [{"prompt": f"{i}", "completion": f" kept {i}"} for i in range(6)]
    rows = load(tmp_path, write(tmp_path, "rows.jsonl", [long, *short]))
    done = tokenise(rows, make_tokenizer(), training(max_length=40))
    assert (len(done.train) + len(done.heldout), done.n_dropped) == (6, 1)
    assert "1 of 7 rows were dropped" in done.warnings[0]
    assert all(len(row.input_ids) <= 40 for row in done.train)
    assert tokenise(rows, make_tokenizer(), training()).warnings == []


def test_nothing_left_within_max_length(tmp_path: Path) -> None:
    rows = load(tmp_path, write(tmp_path, "r.jsonl", [{"prompt": "z" * 60, "completion": "g"}] * 4))
    with pytest.raises(DatasetUnreadable, match="none of 4 rows") as caught:
        tokenise(rows, make_tokenizer(), training(max_length=30))
    assert caught.value.param == "training.max_length"


def test_fewer_rows_than_one_batch(tmp_path: Path) -> None:
    some = [{"text": f"line {i}"} for i in range(8)]
    rows = load(tmp_path, write(tmp_path, "r.jsonl", some))
    with pytest.raises(DatasetUnreadable, match="7 rows to train on, 1 held out") as caught:
        tokenise(rows, make_tokenizer(), training(batch_size=8))
    assert caught.value.details["batch_size"] == 8
    assert len(tokenise(rows, make_tokenizer(), training(batch_size=7)).train) == 7


def _texts(done: TokenisedDataset) -> list[tuple[int, ...]]:
    return sorted(tuple(row.input_ids) for row in done.heldout)


def test_held_out_rows_are_the_same_for_every_seed_rank_and_rate(tmp_path: Path) -> None:
    many = [{"text": f"line number {i * 7}"} for i in range(100)]
    tokenizer = make_tokenizer()
    rows = load(tmp_path, write(tmp_path, "rows.jsonl", many))
    first = tokenise(rows, tokenizer, training(held_out=0.1))
    other = training(held_out=0.1, seed=99, learning_rate=0.5, batch_size=3, lora=Lora(r=64))
    assert _texts(first) == _texts(tokenise(rows, tokenizer, other))
    assert (len(first.heldout), len(first.train)) == (10, 90)
    # ... and by content, not by place in the file.
    turned = load(tmp_path, write(tmp_path, "turned.jsonl", many[::-1]))
    assert _texts(first) == _texts(tokenise(turned, tokenizer, training(held_out=0.1)))
    assert turned.digest != rows.digest


def test_copies_of_a_row_stay_on_one_side(tmp_path: Path) -> None:
    many = [{"text": f"line number {i % 20}"} for i in range(100)]
    rows = load(tmp_path, write(tmp_path, "rows.jsonl", many))
    done = tokenise(rows, make_tokenizer(), training(held_out=0.1))
    assert {tuple(r.input_ids) for r in done.train}.isdisjoint(_texts(done))
    assert (len(done.heldout), len(done.train)) == (10, 90)


def test_at_least_one_row_is_held_out(tmp_path: Path) -> None:
    rows = load(tmp_path, write(tmp_path, "r.jsonl", [{"text": "one a"}, {"text": "two b"}]))
    done = tokenise(rows, make_tokenizer(), training(held_out=0.001))
    assert (len(done.heldout), len(done.train)) == (1, 1)
    same = load(tmp_path, write(tmp_path, "r.jsonl", [{"text": "one a"}] * 5))
    with pytest.raises(DatasetUnreadable, match="0 rows to train on, 5 held out"):
        tokenise(same, make_tokenizer(), training())


def test_same_rows_in_any_file_format_have_one_digest(tmp_path: Path) -> None:
    table = [{"prompt": "où?", "completion": "là, \n«ici»"}, {"prompt": "b", "completion": "c"}]
    write(tmp_path, "r.jsonl", table)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "r.parquet")
    quoted = "".join(f'"{row["prompt"]}","{row["completion"]}"\n' for row in table)
    (tmp_path / "r.csv").write_text("prompt,completion\n" + quoted)
    digests = {load(tmp_path, f"r.{kind}").digest for kind in ("jsonl", "parquet", "csv")}
    assert len(digests) == 1
    assert load(tmp_path, "r.jsonl").format == "prompt_completion"


def test_hub_rows_come_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `load_dataset` reads a folder with the layout of a hub repository the same way.
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "someone" / "texts"
    folder.mkdir(parents=True)
    table = pyarrow.Table.from_pylist([{"text": "one"}, {"text": "two"}])
    pyarrow.parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    spec = Dataset(path="someone/texts")
    assert list(hub_rows(spec)) == [(1, {"text": "one"}), (2, {"text": "two"})]
    rows = load_rows(spec, Settings(data_roots=[tmp_path / "none"], allow_hub=True))
    assert [one.text for one in rows.examples] == ["one", "two"]
    with pytest.raises(DatasetUnreadable) as caught:
        list(hub_rows(Dataset(path="someone/texts", split="absent")))
    assert caught.value.param == "dataset.path"


def test_malformed_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DatasetUnreadable, match="line 2"):
        load(tmp_path, "bad.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DatasetUnreadable, match="no rows"):
        load(tmp_path, "empty.jsonl")
    mixed = write(tmp_path, "mixed.jsonl", [{"text": "a"}, {"prompt": "b", "completion": "c"}])
    with pytest.raises(DatasetUnreadable, match="line 2 as text"):
        load(tmp_path, mixed)


def test_real_preference_rows(shared_data: Path) -> None:
    rows = load(shared_data, "orca-sample.jsonl")
    assert (rows.format, len(rows.examples)) == ("preference", 284)
    done = tokenise(rows, make_tokenizer(), training(max_length=4096, batch_size=8))
    first = json.loads((shared_data / "orca-sample.jsonl").read_text().splitlines()[0])
    answer = first["preferred_output"][0]["content"]
    everything = [supervised(row, make_tokenizer()) for row in [*done.train, *done.heldout]]
    assert f" {answer}</s>" in everything
