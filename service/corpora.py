"""Whether a corpus can be measured on, as far as its first MB tells."""

import json
from pathlib import Path
from typing import Any

from service.errors import CorpusUnreadable
from service.remembered import Remembered
from service.schemas.spec import Evaluation
from service.settings import Settings
from service.sources import (
    WIKITEXT_HUB,
    find,
    is_hub_id,
    is_wikitext,
    require_file,
    require_hub,
    roots_of,
)

PARAM = "evaluation.corpus"
ROWS = frozenset({".jsonl", ".json", ".ndjson"})


def check_corpus(evaluation: Evaluation, settings: Settings, *, first_bytes: int) -> None:
    """Raises CorpusUnreadable: absent, not UTF-8, malformed (with the line), or blank."""
    name = evaluation.corpus
    found = find(name, settings.data_roots, param=PARAM)
    hub_id = WIKITEXT_HUB[0] if is_wikitext(name) else name
    if found is None and is_hub_id(hub_id):
        why = f"no file named {name} under {roots_of(PARAM)}"
        if settings.allow_hub is False or not is_wikitext(name):  # the alias is no choice of theirs
            require_hub(hub_id, settings, param=PARAM, why=why)
        from service import hub

        hub.require_dataset(hub_id, None, error=CorpusUnreadable, param=PARAM)
        return
    path = require_file(name, found, settings.data_roots, param=PARAM)
    _good.of((path, first_bytes), [path], lambda: _check_file(path, first_bytes))


_good: Remembered[None] = Remembered(size=256)


def _check_file(path: Path, first_bytes: int) -> None:
    with path.open("rb") as file:
        first = file.read(first_bytes + 1)
    whole = len(first) <= first_bytes
    _check_text(path, first if whole else _without_last_line(first), whole=whole)


def _check_text(path: Path, raw: bytes, *, whole: bool) -> None:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if whole or error.start < len(raw) - 4:  # a character may be cut at the end
            said = f"{path.name} is not UTF-8: {error.reason} at byte {error.start}"
            raise CorpusUnreadable(said, param=PARAM) from error
        text = raw[: error.start].decode("utf-8-sig")
    if path.suffix.lower() in ROWS:
        lines = enumerate(text.split("\n"), start=1)
        scorable = [_scorable(line, number) for number, line in lines if line.strip()]
        holds_text = any(scorable)
    else:
        holds_text = bool(text.strip())
    if whole and not holds_text:
        raise CorpusUnreadable(
            f"{path.name} holds no text: not one window can be scored", param=PARAM
        )


def _scorable(line: str, number: int) -> bool:
    """Whether a row has text. Raises CorpusUnreadable with its line if it is no row."""

    def refuse(why: str) -> CorpusUnreadable:
        return CorpusUnreadable(f"line {number}: {why}", param=PARAM, line=number)

    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise refuse(f"not JSON ({error.msg} at character {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise refuse(f"not JSON ({type(error).__name__})") from error
    if not isinstance(row, dict):
        raise refuse("not a JSON object; write one object per line")
    if isinstance(row.get("messages"), list):
        return any(_is_answer(turn) for turn in row["messages"])
    if not isinstance(row.get("text"), str):
        raise refuse("no `text` and no `messages`")
    return bool(row["text"].strip())


def _is_answer(turn: Any) -> bool:
    content = turn.get("content") if isinstance(turn, dict) else None
    return isinstance(content, str) and turn.get("role") == "assistant" and bool(content.strip())


def _without_last_line(raw: bytes) -> bytes:
    """The last line is cut somewhere; a file of one long line is kept as it is."""
    end = raw.rfind(b"\n")
    return raw if end < 0 else raw[: end + 1]
