"""Documents and windows: what is measured on, and that no window crosses a document."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from service.errors import CorpusUnreadable, PathNotAllowed
from service.schemas.spec import Evaluation
from service.settings import Settings
from tests.worker.conftest import make_tokenizer
from worker.corpus import Corpus, Document, corpus_of, load_corpus, read_corpus, wikitext_documents
from worker.windows import Windows, cut

WIKITEXT_DIGEST = "sha256:258a7e909211d7e818fc83c0cd31612d3cc610b0b01b4f94f13685efe7a05617"
ARTICLES = [
    " = Mill = \n",
    " A mill grinds corn . \n",
    " = = History = = \n",
    " The first one has impedance \n",
    " = 1 rad / s = \n",
    " 1 Ω of resistance . \n",
    " = River ( of England ) = \n",
    " A river runs . \n",
]

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8", newline="")
        return path

    return write


def corpus(*texts: str) -> Corpus:
    return corpus_of("made", "text", [Document(text, text) for text in texts])


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no-bos"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return make_tokenizer(begins_with_bos=request.param)


def test_wikitext_test_has_sixty_documents_and_one_digest(shared_data: Path, write: Write) -> None:
    path = shared_data / "wikitext-103-raw-test.txt"
    local = read_corpus(path, "local")
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert (local.kind, len(local.documents)) == ("wikitext", 60)
    assert local.digest == WIKITEXT_DIGEST
    # The hub's rows keep their line feed and have empty ones around headings.
    rows = [row for line in lines for row in ("", f"{line}\n")]
    assert corpus_of("hub", "wikitext", wikitext_documents(rows)).digest == WIKITEXT_DIGEST
    blank = write("other.txt", "".join(f" \n{line}\r\n" for line in lines))
    assert read_corpus(blank, "other").digest == WIKITEXT_DIGEST
    changed = write("changed.txt", "\n".join([*lines[:-1], f"{lines[-1]}."]))
    assert read_corpus(changed, "changed").digest != WIKITEXT_DIGEST


def test_articles_begin_at_headings_and_formulas_are_not_headings() -> None:
    documents = wikitext_documents(ARTICLES)
    assert [document.title for document in documents] == ["Mill", "River ( of England )"]
    assert "".join(document.text for document in documents) == "".join(ARTICLES)
    assert documents[0].text.endswith("1 Ω of resistance . \n")


def test_text_before_the_first_heading_is_kept() -> None:
    documents = wikitext_documents(["prose\n", *ARTICLES])
    assert [document.title for document in documents] == ["", "Mill", "River ( of England )"]


def test_kinds_are_told_by_content(write: Write) -> None:
    assert read_corpus(write("a.txt", "".join(ARTICLES)), "a").kind == "wikitext"
    plain = read_corpus(write("b.txt", "One page.\n\fThe second.\n\f \n"), "b")
    assert (plain.kind, [d.title for d in plain.documents]) == (
        "text",
        ["One page.", "The second."],
    )
    rows = [{"text": "a", "title": "T"}, {"text": " "}, {"text": "b c"}]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    found = read_corpus(write("c.jsonl", lines), "c")
    assert (found.kind, [d.title for d in found.documents]) == ("jsonl", ["T", "b c"])


def test_digest_sees_where_documents_end() -> None:
    assert corpus("ab", "c").digest != corpus("a", "bc").digest
    assert corpus("ab", "c").digest == corpus("ab", "c").digest


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", '{"text": "a"}\n\n[1]\n', "line 3: not an object"),
        ("a.jsonl", '{"txt": "a"}\n', "line 1: no `text`"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "line 1: no `text`"),
        ("a.jsonl", '{"messages": [{"content": "a"}]}\n', "line 1: a message without a role"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", '{"text": " "}\n', "no document"),
        ("a.txt", "\n \n", "no document"),
        ("a.txt", "", "no document"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(
    write: Write, name: str, content: str, said: str
) -> None:
    with pytest.raises(CorpusUnreadable, match=said) as caught:
        read_corpus(write(name, content), name)
    assert caught.value.param == "evaluation.corpus"


def test_names_stay_under_the_roots(write: Write, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path, outside = write("in/a.txt", "Some text."), write("secret.txt", "Some text.")
    (tmp_path / "in" / "bytes.txt").write_bytes(b"good \xff bad")
    settings = Settings(data_roots=[path.parent], allow_hub=False)
    assert load_corpus(Evaluation(corpus="a.txt"), settings).name == "a.txt"
    for name in ("../secret.txt", str(outside)):
        with pytest.raises(PathNotAllowed):
            load_corpus(Evaluation(corpus=name), settings)
    for name, said in {"bytes.txt": "not UTF-8.*byte 5", "b.txt": "b.txt", "o/n": "o/n"}.items():
        with pytest.raises(CorpusUnreadable, match=said):
            load_corpus(Evaluation(corpus=name), settings)
    with pytest.raises(CorpusUnreadable, match="switched off"):
        load_corpus(Evaluation(corpus="wikitext-103"), settings)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize("context", [2, 3, 8])
def test_windows_follow_the_rule(
    tokenizer: PreTrainedTokenizerFast, length: int, context: int
) -> None:
    """Of one document: BOS by habit, `context` tokens in all, all but the first one scored."""
    text = "".join("qxz"[i % 3] for i in range(length))  # no merges: one token each
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokens) == length
    lead = tokenizer("a")["input_ids"][:-1]
    body = context - len(lead)
    wanted = [lead + tokens[i : i + body] for i in range(0, length, body)]
    wanted = [window for window in wanted if len(window) >= 2]
    if not wanted:
        with pytest.raises(CorpusUnreadable, match="no window"):
            cut(corpus(text or " "), tokenizer, context) if text else cut(
                Corpus("e", "text", (Document("", ""),), "d"), tokenizer, context
            )
        return
    windows = cut(corpus(text), tokenizer, context)
    assert windows.begins_with_bos == bool(lead)
    found = [ids.tolist() for ids in np.split(windows.ids, windows.starts[1:-1])]
    assert found == wanted
    assert windows.n_positions == sum(len(window) - 1 for window in wanted)
    assert not windows.scored[windows.starts[:-1]].any()
    in_document = windows.position_in_document
    assert windows.ids[windows.position_token].tolist() == [tokens[i] for i in in_document]


def all_windows(windows: Windows) -> list[tuple[int, list[int]]]:
    parts = np.split(windows.ids, windows.starts[1:-1])
    return [(int(d), p.tolist()) for d, p in zip(windows.document, parts, strict=True)]


def test_no_window_crosses_a_document(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The river runs past the mill. " * 3, "x", "Nobody remembers who built it."]
    together = all_windows(cut(corpus(*texts), tokenizer, 8))
    apart = [
        (index, window)
        for index, text in enumerate(texts)
        if len(tokenizer(text)["input_ids"]) >= 2
        for _, window in all_windows(cut(corpus(text), tokenizer, 8))
    ]
    assert together == apart
    joined = all_windows(cut(corpus("".join(texts)), tokenizer, 8))
    assert [window for _, window in joined] != [window for _, window in together]


def test_batches_hold_every_window_once_within_the_budget(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    windows = cut(corpus(*("qxz" * n for n in range(1, 30))), tokenizer, 16)
    batches = windows.batches(50)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(windows)))
    assert all(windows.lengths[batch].max() * len(batch) <= 50 for batch in batches)
    assert [len(batch) for batch in windows.batches(1)] == [1] * len(windows)


@pytest.mark.parametrize("template", [None, "chat"])
def test_of_conversations_the_assistant_is_scored(
    write: Write, tokenizer: PreTrainedTokenizerFast, template: str | None
) -> None:
    turns = [
        ("user", "Capital?"),
        ("assistant", "Paris"),
        ("user", "River?"),
        ("assistant", "Oise"),
    ]
    row = {"messages": [{"role": role, "content": said} for role, said in turns]}
    found = read_corpus(write("chat.jsonl", json.dumps(row)), "chat")
    assert (found.kind, found.documents[0].title) == ("messages", "Capital?")
    if template:
        tokenizer.chat_template = (
            "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}"
            "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
        )
    windows = cut(found, tokenizer, 64)
    tokenizer.chat_template = None
    ids = windows.ids[windows.scored].tolist()
    assert tokenizer.decode(ids, skip_special_tokens=True).split() in (
        ["Paris", "Oise"],
        ["ParisOise"],
    )
    assert windows.ids.tolist().count(tokenizer.bos_token_id) == (
        1 if windows.begins_with_bos or template else 0
    )
