"""The corpus that forgetting is measured on: documents, whole, in order.

WikiText's canonical text is the hub's rows without blank ones, each ending in one line feed, so
the hub and a local copy (with or without blank lines) have the same documents and one digest.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeGuard

from service.errors import CorpusUnreadable
from service.schemas.spec import Evaluation
from service.settings import Settings
from service.sources import WIKITEXT_HUB, find, is_hub_id, is_wikitext, resolve_file

CorpusKind = Literal["wikitext", "text", "jsonl", "messages"]
PARAM = "evaluation.corpus"
ROWS = frozenset({".jsonl", ".json", ".ndjson"})
TITLE = re.compile(r" = (?!= )(?P<title>.*\S)(?<! =) = ?")
"""A WikiText heading of the first level: exactly one `=` on each side."""


@dataclass(frozen=True)
class Document:
    """What no window crosses: an article, a file's page, a row."""

    title: str
    text: str
    messages: tuple[dict[str, str], ...] = ()
    """Of chat rows: `text` is empty then, and only assistant turns are scored."""


@dataclass(frozen=True)
class Corpus:
    name: str
    kind: CorpusKind
    documents: tuple[Document, ...]
    digest: str
    """Of the kind and every document's content; names and paths do not enter."""


def load_corpus(evaluation: Evaluation, settings: Settings) -> Corpus:
    """The corpus that `evaluation` names: the alias, a file under a data root, or a hub id.

    Raises CorpusUnreadable (missing, empty, malformed, with the line) and PathNotAllowed.
    """
    name = evaluation.corpus
    found = find(name, settings.data_roots, param=PARAM)
    if found is None and is_wikitext(name):
        rows = _hub_rows(*WIKITEXT_HUB, evaluation.split, settings)
        return corpus_of(name, "wikitext", wikitext_documents(row["text"] for row in rows))
    if found is None and is_hub_id(name) and settings.allow_hub is not False:
        rows = _hub_rows(name, None, evaluation.split, settings)
        return _corpus_of_rows(name, enumerate(rows, start=1))
    return read_corpus(resolve_file(name, settings.data_roots, param=PARAM), name)


def read_corpus(path: Path, name: str) -> Corpus:
    """A local file: jsonl rows (`text` or `messages`), WikiText, or plain text.

    Plain text is one document, or one per page where form feeds divide it.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusUnreadable(
            f"{name} is not UTF-8: {error.reason} at byte {error.start}", param=PARAM
        ) from error
    except OSError as error:
        raise CorpusUnreadable(f"{name} cannot be read: {error.strerror}", param=PARAM) from error
    if path.suffix.lower() in ROWS:
        return _corpus_of_rows(name, _json_rows(text, name))
    if looks_like_wikitext(text):
        return corpus_of(name, "wikitext", wikitext_documents(text.split("\n")))
    pages = [page for page in text.split("\f") if page.strip()]
    return corpus_of(name, "text", [Document(_opening(page), page) for page in pages])


def looks_like_wikitext(text: str) -> bool:
    """Whether the first line with anything on it is a first-level WikiText heading."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return TITLE.fullmatch(first.rstrip("\r")) is not None


def wikitext_documents(rows: Iterable[str]) -> list[Document]:
    """One document per article, its heading included.

    A heading whose next line begins with a digit is a formula that was broken over lines. What
    stands before the first heading is a document without a title.
    """
    lines = [line for row in rows if (line := row.rstrip("\r\n")).strip()]
    starts = [
        i
        for i, line in enumerate(lines)
        if TITLE.fullmatch(line) and not "".join(lines[i + 1 : i + 2]).lstrip()[:1].isdigit()
    ]
    edges = sorted({0, *starts, len(lines)})
    documents = []
    for start, stop in pairwise(edges):
        heading = TITLE.fullmatch(lines[start]) if start in starts else None
        text = "".join(f"{line}\n" for line in lines[start:stop])
        documents.append(Document(heading["title"] if heading else "", text))
    return documents


def corpus_of(name: str, kind: CorpusKind, documents: Iterable[Document]) -> Corpus:
    """Raises CorpusUnreadable when there is nothing in it."""
    kept = tuple(documents)
    if not kept:
        raise CorpusUnreadable(f"{name} holds no document", param=PARAM)
    digest = hashlib.sha256(kind.encode())
    for document in kept:
        content = document.text.encode()
        if document.messages:
            content = json.dumps(document.messages, sort_keys=True).encode()
        # The length goes first, so that moving a boundary changes the digest.
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return Corpus(name, kind, kept, f"sha256:{digest.hexdigest()}")


def _corpus_of_rows(name: str, rows: Iterable[tuple[int, Any]]) -> Corpus:
    """One document per row that holds `messages` or, else, `text`; blank ones are left out."""
    documents: list[Document] = []
    kind: CorpusKind = "jsonl"
    for line, row in rows:
        if not isinstance(row, dict):
            raise _malformed(name, line, "not an object")
        text, title = row.get("text"), row.get("title")
        if isinstance(row.get("messages"), list):
            kind = "messages"
            turns = tuple(_turn(turn, name, line) for turn in row["messages"])
            documents.append(Document(_opening(turns[0]["content"] if turns else ""), "", turns))
        elif not _is_text(text):
            raise _malformed(name, line, "no `text` and no `messages`")
        elif text.strip():
            named = _is_text(title) and bool(title.strip())
            documents.append(Document(title if named else _opening(text), text))
    return corpus_of(name, kind, documents)


def _turn(turn: Any, name: str, line: int) -> dict[str, str]:
    if not isinstance(turn, dict) or not _is_text(turn.get("role")):
        raise _malformed(name, line, "a message without a role")
    if not _is_text(turn.get("content")):
        raise _malformed(name, line, "a message whose content is not text")
    return {"role": turn["role"], "content": turn["content"]}


def _is_text(value: Any) -> TypeGuard[str]:
    """A string that can be written: JSON may hold half of a surrogate pair."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def _malformed(name: str, line: int, why: str) -> CorpusUnreadable:
    return CorpusUnreadable(f"{name} line {line}: {why}", param=PARAM, line=line)


def _json_rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(name, number, f"not JSON ({error})") from error


def _hub_rows(path: str, config: str | None, split: str, settings: Settings) -> Iterable[Any]:
    """Rows of a hub dataset.

    Raises CorpusUnreadable, SystemFault (the hub does not answer), OSError (disk full).
    """
    if settings.allow_hub is False:
        raise CorpusUnreadable(
            f"{path} lies on the hub, and hub ids are switched off here", param=PARAM
        )
    import datasets

    from worker.hub import fetching  # it imports datasets, which takes seconds

    datasets.disable_progress_bars()
    with fetching(f"{path} ({split})", CorpusUnreadable, param=PARAM):
        return datasets.load_dataset(path, config, split=split)


def _opening(text: str) -> str:
    """The first words, as a title."""
    line = next((line.strip() for line in text.split("\n") if line.strip()), "")
    return line if len(line) <= 60 else line[:59] + "…"
