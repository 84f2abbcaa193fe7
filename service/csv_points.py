"""Law points as CSV: a header line with the fields of a point, then one point per line."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidSpec
from service.schemas.laws import Point

COLUMNS = tuple(Point.model_fields)
REQUIRED = tuple(name for name, field in Point.model_fields.items() if field.is_required())
PLACE = re.compile(r"points\.(\d+)(?:\.(\w+))?")


@dataclass(frozen=True)
class CsvPoints:
    points: list[dict[str, str]]
    """As text: the schema of a point reads the numbers. An empty cell is no value."""
    lines: list[int]
    """Where each point ends in the file, from 1."""

    def place(self, param: str | None) -> tuple[str | None, dict[str, Any]]:
        """`points.3.step` as the column `step` and `{"line": 5, "column": "step"}`."""
        match = PLACE.fullmatch(param or "")
        if match is None:
            return param, {}
        column = match[2]
        return column, {"line": self.lines[int(match[1])], "column": column}


def read_csv(body: bytes) -> CsvPoints:
    """Raises InvalidSpec with the line, and the column where there is one."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = body.count(b"\n", 0, fault.start) + 1
        raise InvalidSpec(f"line {line} is not UTF-8", param="points", line=line) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    points, lines = [], []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header is None:
                header = cells
                _check_header(header, reader.line_num)
                continue
            if len(cells) != len(header):
                raise InvalidSpec(
                    f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}",
                    param="points",
                    line=reader.line_num,
                )
            points.append({k: cell for k, cell in zip(header, cells, strict=True) if cell})
            lines.append(reader.line_num)
    except csv.Error as fault:
        line = reader.line_num
        raise InvalidSpec(f"line {line} is not CSV: {fault}", param="points", line=line) from None
    if not points:
        raise InvalidSpec("no point: a header line and one line per point", param="points")
    return CsvPoints(points, lines)


def _check_header(names: Sequence[str], line: int) -> None:
    def refuse(column: str, why: str) -> InvalidSpec:
        said = f"line {line}, column {column[:64]}: {why}"
        return InvalidSpec(said, param=column[:64], line=line, column=column[:64])

    known = f"the columns are {', '.join(COLUMNS)}"
    for name in names:
        if name not in COLUMNS:
            raise refuse(name or "without a name", f"no field of a point; {known}")
        if names.count(name) > 1:
            raise refuse(name, "stands twice in the header")
    for name in REQUIRED:
        if name not in names:
            raise refuse(name, f"missing from the header; {known}")
