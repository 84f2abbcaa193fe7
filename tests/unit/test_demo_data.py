"""The demo's dataset and corpus: reproducible, and the base never saw what it is measured on."""

import json
from pathlib import Path

import pytest

from demo import prose
from demo.facts import dialogues, write_dialogues
from demo.model_card import TRAINED_ON, read_card, text_digest
from demo.prose import Document
from service.rows import detect, example, read_file

N_ROWS = 400


@pytest.fixture(scope="module")
def split() -> tuple[list[Document], list[Document]]:
    return prose.split()


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    return prose.corpus()


def test_a_seed_gives_the_same_dialogues(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dialogues(tmp_path / name, n_rows=N_ROWS, seed=17)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert dialogues(N_ROWS, seed=17) != dialogues(N_ROWS, seed=18)


def test_no_dialogue_comes_twice() -> None:
    rows = [json.dumps(row) for row in dialogues(N_ROWS)]
    assert len(set(rows)) == len(rows) == N_ROWS


def test_dialogues_alternate_and_leave_no_gap_unfilled() -> None:
    for row in dialogues(N_ROWS):
        messages = row["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(m["content"] and "{" not in m["content"] for m in messages)


def test_the_service_reads_every_dialogue_as_messages(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "facts.jsonl", n_rows=N_ROWS)
    lines = list(read_file(tmp_path / "facts.jsonl"))
    assert len(lines) == N_ROWS
    for line, row in lines:
        assert detect(row) == "messages"
        assert example(row, "messages", line=line).completion


def test_training_and_held_out_documents_are_apart(
    split: tuple[list[Document], list[Document]],
) -> None:
    training, held_out = split
    assert {d.title for d in training}.isdisjoint(d.title for d in held_out)
    kept_back = {p for d in held_out for p in prose.paragraphs(d.text)}
    assert kept_back
    assert all(kept_back.isdisjoint(prose.paragraphs(d.text)) for d in training)


def test_the_corpus_is_held_out_prose(
    split: tuple[list[Document], list[Document]], corpus: list[Document]
) -> None:
    _, held_out = split
    whole = {d.title: prose.paragraphs(d.text) for d in held_out}
    assert len(corpus) >= 12
    for document in corpus:
        part = prose.paragraphs(document.text)
        assert part == whole[document.title][: len(part)]
        assert prose.MIN_CHARS <= len(document.text) <= prose.MAX_CHARS


def test_the_corpus_file_is_what_it_should_be(tmp_path: Path, corpus: list[Document]) -> None:
    n_documents = prose.write_corpus(tmp_path / "prose.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "prose.jsonl").read_text().splitlines()]
    assert [(row["title"], row["text"]) for row in rows] == [(d.title, d.text) for d in corpus]
    assert len(rows) == n_documents


def test_no_held_out_document_was_trained_on(
    split: tuple[list[Document], list[Document]], tiny_base: Path
) -> None:
    """By title and by text; the corpus is this Python's, the training text that of the card."""
    trained_on = json.loads((tiny_base / TRAINED_ON).read_text())
    assert len(trained_on) == read_card(tiny_base)["training"]["documents"]
    for document in split[1]:
        assert document.title not in trained_on
        assert text_digest(document.text) not in trained_on.values()
