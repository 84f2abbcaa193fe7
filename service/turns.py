"""One row as something to learn: what is given, and what is to be said.

Rows of conversations and instructions become messages, so that a chat template can be applied.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["messages", "prompt_completion", "alpaca", "preference", "text"]
Message = dict[str, str]
"""{"role": …, "content": …}"""


@dataclass(frozen=True)
class Example:
    """Either a prompt with its completion, both messages or both strings, or text alone."""

    prompt: list[Message] | str | None
    completion: list[Message] | str | None
    text: str | None


class BadRow(ValueError):
    """Why a row is not of its format."""


def from_text(row: Mapping[str, Any]) -> Example:
    return Example(None, None, _said(row, "text"))


def from_messages(row: Mapping[str, Any]) -> Example:
    return _split(_messages(row.get("messages"), "messages"), "messages")


def from_prompt_completion(row: Mapping[str, Any]) -> Example:
    """Strings stay strings, as in TRL; a question with its answer is a conversation."""
    prompt = next((key for key in ("prompt", "question") if key in row), "prompt")
    answers = ("completion", "response", "answer")
    completion = next((key for key in answers if key in row), "completion")
    if isinstance(row.get(prompt), list) or isinstance(row.get(completion), list):
        given = _messages(row.get(prompt), prompt, role="user")
        return _conversation(given, _messages(row.get(completion), completion, role="assistant"))
    if prompt == "question":
        system = _optional(row, "system_prompt")
        given = [{"role": "system", "content": system}] if system else []
        given.append({"role": "user", "content": _said(row, prompt)})
        return _conversation(given, [{"role": "assistant", "content": _said(row, completion)}])
    return Example(_text(row.get(prompt), prompt), _said(row, completion), None)


def from_alpaca(row: Mapping[str, Any]) -> Example:
    parts = [_said(row, "instruction"), _optional(row, "input")]
    given = [{"role": "user", "content": "\n\n".join(part for part in parts if part)}]
    return _conversation(given, [{"role": "assistant", "content": _said(row, "output")}])


def from_preference(row: Mapping[str, Any]) -> Example:
    """The preferred answer is the completion; the other one is not looked at."""
    if "preferred_output" in row:
        given = row.get("input")
        inner = given.get("messages") if isinstance(given, Mapping) else given
        prompt = _messages(inner, "input.messages", role="user")
        chosen = _messages(row["preferred_output"], "preferred_output", role="assistant")
        return _conversation(prompt, chosen)
    if isinstance(row.get("chosen"), str) and isinstance(row.get("prompt"), str):
        return Example(_text(row["prompt"], "prompt"), _said(row, "chosen"), None)
    chosen = _messages(row.get("chosen"), "chosen", role="assistant")
    if len(chosen) > 1:
        return _split(chosen, "chosen")
    return _conversation(_messages(row.get("prompt"), "prompt", role="user"), chosen)


PARTS: dict[Format, Callable[[Mapping[str, Any]], Example]] = {
    "messages": from_messages,
    "prompt_completion": from_prompt_completion,
    "alpaca": from_alpaca,
    "preference": from_preference,
    "text": from_text,
}


def _split(turns: list[Message], name: str) -> Example:
    """At the last assistant turn; what follows it has no answer to learn."""
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
    if last is None:
        raise BadRow(f"`{name}` has no assistant turn")
    return _conversation(turns[:last], [turns[last]])


def _conversation(prompt: list[Message], completion: list[Message]) -> Example:
    if not any(turn["content"].strip() for turn in prompt):
        raise BadRow("nothing is said before the answer")
    if not any(turn["content"].strip() for turn in completion):
        raise BadRow("the answer is empty")
    return Example(prompt, completion, None)


def _messages(value: Any, name: str, *, role: str = "user") -> list[Message]:
    """Turns with their text; a bare string is one turn of `role`. Empty system turns go."""
    if isinstance(value, str):
        return [{"role": role, "content": _text(value, name)}]
    if not isinstance(value, list) or not value:
        raise BadRow(f"`{name}` is not a list of messages")
    turns = []
    for i, turn in enumerate(value):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            raise BadRow(f"`{name}[{i}]` has no role")
        content = turn.get("content")
        if isinstance(content, list):
            content = "".join(_part(part, f"{name}[{i}].content") for part in content)
        said = _text(content, f"{name}[{i}].content")
        if said or turn["role"] != "system":
            turns.append({"role": turn["role"], "content": said})
    return turns


def _part(part: Any, name: str) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise BadRow(f"`{name}` has a part that is not text")
    return _text(part.get("text"), name)


def _said(row: Mapping[str, Any], name: str) -> str:
    text = _text(row.get(name), name)
    if not text.strip():
        raise BadRow(f"`{name}` is empty")
    return text


def _optional(row: Mapping[str, Any], name: str) -> str:
    return _text(row[name], name) if row.get(name) is not None else ""


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"`{name}` is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"`{name}` holds half a character, which no tokenizer can read") from error
    return value
