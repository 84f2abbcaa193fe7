"""`forgetting.yml` as data that remembers where each value stands. JSON is YAML, too."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 256_000
MAX_VALUES = 10_000
"""Aliases count each time they are used, so a file cannot unfold into gigabytes."""
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""`1e-3` is a string to YAML 1.1, and a number to everybody who writes it."""
SHOWN_COLUMNS = 76
"""Of a line at fault; JSON may be all on one."""
SCALARS = {"str", "int", "float", "bool", "null"}

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong at one place of a policy file."""

    file: str
    line: int
    """From 1, as `column`."""
    column: int
    param: str
    """Dotted path of the field; empty where the file itself cannot be read."""
    message: str
    text: str
    """The line."""

    def __str__(self) -> str:
        named = f"{self.param}: " if self.param else ""
        return f"{self.file}:{self.line}:{self.column}: {named}{self.message}"

    def shown(self) -> str:
        """With the line below it, and a mark under the column."""
        if not self.text.strip():
            return str(self)
        begin = max(0, self.column - SHOWN_COLUMNS // 2) if len(self.text) > SHOWN_COLUMNS else 0
        part = self.text[begin : begin + SHOWN_COLUMNS].replace("\t", " ")
        return f"{self}\n    {part}\n    {' ' * (self.column - 1 - begin)}^"


class BadPolicy(ValueError):
    """The file is no policy. One fault at least."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = list(faults)


@dataclass(frozen=True)
class PolicyFile:
    name: str
    lines: list[str]
    body: Any
    places: dict[Path_, tuple[int, int]]
    """Line and column, from 0, of every value; of a mapping's values, of their keys."""

    def fault(self, path: Sequence[str | int], message: str) -> Fault:
        """At that value, or at the nearest one around it: a missing field has no place."""
        known = tuple(path)
        while known not in self.places:
            known = known[:-1]
        line, column = self.places[known]
        text = self.lines[line] if line < len(self.lines) else ""
        param = ".".join(map(str, path))
        return Fault(self.name, line + 1, column + 1, param, message, text)

    def blame(self, param: str, message: str) -> Fault:
        """The same, for a dotted path such as the service gives."""
        steps = [int(step) if step.isdigit() else step for step in param.split(".") if step]
        return self.fault(steps, message)


def read(path: Path) -> PolicyFile:
    """Raises BadPolicy where the file is missing, not UTF-8, too large or not YAML."""
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise _whole(name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _whole(name, "is not UTF-8 text") from None
    if len(content) > MAX_BYTES:
        raise _whole(name, f"is larger than {MAX_BYTES:,} bytes")
    return parse(text, name=name)


def parse(text: str, *, name: str = "forgetting.yml") -> PolicyFile:
    """Raises BadPolicy."""
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # blank to JSON, where no string holds one; a fault to YAML
    lines = text.splitlines()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        raise _at(name, lines, line, column, f"not YAML: {error.problem or error}") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].splitlines() or [""]
        said = f"not YAML: a control character, U+{error.character:04X}"
        raise _at(name, lines, len(before) - 1, len(before[-1]), said) from None
    except RecursionError:
        raise _whole(name, "is nested too deeply") from None
    if node is None:
        raise _whole(name, "is empty")
    builder = _Builder(name, lines)
    try:
        body = builder.value(node, ())
    except RecursionError:
        raise _whole(name, "is nested too deeply") from None
    return PolicyFile(name, lines, body, builder.places)


class _Builder:
    def __init__(self, name: str, lines: list[str]) -> None:
        self.places: dict[Path_, tuple[int, int]] = {}
        self._name, self._lines = name, lines
        self._constructor = yaml.SafeLoader("")
        self._n_values = 0

    def value(self, node: yaml.Node, path: Path_, mark: yaml.Mark | None = None) -> Any:
        at = mark or node.start_mark
        self.places[path] = (at.line, at.column)
        self._n_values += 1
        if self._n_values > MAX_VALUES:
            raise _whole(self._name, f"holds more than {MAX_VALUES:,} values")
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(one, (*path, i)) for i, one in enumerate(node.value)]
        return self._scalar(node)

    def _items(self, node: yaml.MappingNode, path: Path_) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or key.tag.endswith(":merge"):
                raise self._bad(key, "a field's name must be plain text")
            if name in seen:
                raise self._bad(key, f"{name} stands here a second time")
            seen.add(name)
            yield name, self.value(value, (*path, name), key.start_mark)

    def _scalar(self, node: yaml.Node) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in SCALARS:
            raise self._bad(node, f"of type {kind}, which means nothing here; put text in quotes")
        if (
            kind == "str"
            and getattr(node, "style", None) is None
            and EXPONENT.fullmatch(node.value)
        ):
            value: Any = float(node.value)
        else:
            try:
                value = self._constructor.construct_object(node)
            except (yaml.YAMLError, ValueError) as error:
                raise self._bad(node, f"is no {kind}: {error}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self._bad(node, f"{node.value} is no finite number")
        return value

    def _bad(self, node: yaml.Node, message: str) -> BadPolicy:
        mark = node.start_mark
        return _at(self._name, self._lines, mark.line, mark.column, message)


def _at(name: str, lines: list[str], line: int, column: int, message: str) -> BadPolicy:
    text = lines[line] if line < len(lines) else ""
    return BadPolicy([Fault(name, line + 1, column + 1, "", message, text)])


def _whole(name: str, message: str) -> BadPolicy:
    return BadPolicy([Fault(name, 1, 1, "", message, "")])
