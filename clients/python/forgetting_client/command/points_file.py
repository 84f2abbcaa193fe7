"""Law points from a file: .csv goes to the service as it is, .json and .jsonl are read here."""

import json
from pathlib import Path
from typing import Any

import typer

from forgetting_client.command.spec import read_points, where


def points_of(source: str) -> dict[str, Any]:
    """`points` or `csv`, as `fit_law` takes them. `-` is JSON on stdin."""
    kind = Path(source).suffix.lower()
    if kind not in (".csv", ".jsonl"):
        return {"points": read_points(source)}
    try:
        content = Path(source).read_bytes()
    except OSError as fault:
        raise typer.BadParameter(f"cannot read {where(source)}: {fault.strerror}") from None
    return {"csv": content} if kind == ".csv" else {"points": lines_of(source, content)}


def lines_of(source: str, content: bytes) -> list[Any]:
    """One JSON object per line; empty lines are passed over."""
    points = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            point = json.loads(line)
            json.dumps(point, allow_nan=False)
        except (ValueError, RecursionError):
            raise typer.BadParameter(f"{source}: line {number} is not JSON") from None
        if not isinstance(point, dict):
            raise typer.BadParameter(f"{source}: line {number} is not an object")
        points.append(point)
    return points


def picture_path(text: str | None, param: str = "--plot") -> Path | None:
    """Where a picture goes; its name says which format. `param` is blamed for it."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".svg", ".png"):
        raise typer.BadParameter(f"{text}: the name must end in .svg or .png", param_hint=param)
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder", param_hint=param)
    return path
