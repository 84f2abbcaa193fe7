"""A job spec from a file and from flags. The service validates; here only shapes are made.

A flag wins over the file, and `--set` over both.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

JOB_ADAPTER = re.compile(r"(job_[0-9A-Za-z]{26})(?::(\d+|last))?")
UPLOADED = re.compile(r"adp_[0-9A-Za-z]{26}")

FLAGS = {
    "base_model": "base_model",
    "dataset": "dataset.path",
    "corpus": "evaluation.corpus",
    "context": "evaluation.context",
    "rank": "training.lora.r",
    "steps": "training.max_steps",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
}
"""Where each flag's value stands in the spec."""
SWEPT = {"ranks", "seeds", "learning_rates", "pilot"}
"""Fields that only a sweep has."""
Number = TypeVar("Number", int, float)


def read(source: str) -> dict[str, Any]:
    """The JSON object in the file `source`, or on stdin where it is `-`."""
    body = read_json(source)
    if not isinstance(body, dict):
        raise typer.BadParameter(f"{where(source)} holds a JSON {kind(body)}, not an object")
    return body


def read_json(source: str) -> Any:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        body = json.loads(text)
        json.dumps(body, allow_nan=False)
    except OSError as fault:
        raise typer.BadParameter(f"cannot read {where(source)}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{where(source)} is not UTF-8 text") from None
    except json.JSONDecodeError as fault:
        place = f"line {fault.lineno}, column {fault.colno}"
        raise typer.BadParameter(f"{where(source)} is not JSON: {fault.msg} at {place}") from None
    except ValueError:
        raise typer.BadParameter(f"{where(source)} has NaN or an infinity, not JSON") from None
    except RecursionError:
        raise typer.BadParameter(f"{where(source)} is nested too deeply") from None
    return body


def where(source: str) -> str:
    return "stdin" if source == "-" else source


def kind(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def build(
    base: Mapping[str, Any],
    *,
    flags: Mapping[str, Any],
    job_type: str | None = None,
    ranks: str | None = None,
    seeds: str | None = None,
    learning_rates: str | None = None,
    pilot: bool = False,
    adapters: Sequence[str] = (),
    metadata: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """The spec to send. Its type is the given one, the file's, or what the flags imply."""
    spec: dict[str, Any] = json.loads(json.dumps(base))
    for flag, path in FLAGS.items():
        if flags.get(flag) is not None:
            put(spec, path, flags[flag])
    if ranks is not None:
        spec["ranks"] = numbers(ranks, "--ranks", int)
    if seeds is not None:
        spec["seeds"] = numbers(seeds, "--seeds", int)
    if learning_rates is not None:
        spec["learning_rates"] = numbers(learning_rates, "--learning-rates", float)
    if pilot:
        spec["pilot"] = True
    if adapters:
        spec["adapters"] = [adapter(one) for one in adapters]
    for pair in metadata:
        name, value = split(pair, "--metadata")
        inner(spec, "metadata", "--metadata")[name] = value
    for pair in overrides:
        path, value = split(pair, "--set")
        put(spec, path, literal(value))
    swept = not SWEPT.isdisjoint(spec)
    implied = "sweep" if swept else "evaluate" if "adapters" in spec else "finetune"
    if "policy" in spec:
        implied = "gate"
    spec["type"] = job_type or spec.get("type") or implied
    return spec


def put(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set `training.lora.r`, making the objects on the way."""
    *parents, last = path.split(".")
    for name in parents:
        spec = inner(spec, name, path)
    spec[last] = value


def inner(spec: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = spec.setdefault(name, {})
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{path}: `{name}` is not an object in the spec")
    return value


def literal(text: str) -> Any:
    """JSON where it is JSON, else the text itself: `5e-5`, `true`, `[8, 16]`, `adamw_torch`."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def split(pair: str, option: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals or not all(name.split(".")):
        raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
    return name, value


def numbers(text: str, option: str, kind: type[Number]) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        like = "4,8,16" if kind is int else "1e-5,5e-5"
        raise typer.BadParameter(
            f"{text!r} is not {wanted} with commas between, like {like}", param_hint=option
        ) from None


def adapter(text: str) -> dict[str, Any]:
    """`job_…`, `job_…:140`, `job_…:last`, `adp_…`, or else a path."""
    if UPLOADED.fullmatch(text):
        return {"id": text}
    match = JOB_ADAPTER.fullmatch(text)
    if match is None:
        return {"path": text}
    job, step = match.groups()
    return {"job": job} if step in (None, "last") else {"job": job, "step": int(step)}


def read_points(source: str) -> list[Any]:
    """Law points: a JSON list, or an object that has them under `points`."""
    body = read_json(source)
    points = body.get("points") if isinstance(body, dict) else body
    if not isinstance(points, list):
        raise typer.BadParameter(
            f"{where(source)} holds neither a list of points nor an object with `points`"
        )
    return points
