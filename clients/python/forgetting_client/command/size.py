"""Sizes of memory as people write them."""

import re

import typer

UNITS = {"": 1, "B": 1}
UNITS |= {unit: 1000**n for n, unit in enumerate(["KB", "MB", "GB", "TB"], start=1)}
UNITS |= {unit: 1024**n for n, unit in enumerate(["KIB", "MIB", "GIB", "TIB"], start=1)}
UNITS |= {unit: 1024**n for n, unit in enumerate(["K", "M", "G", "T"], start=1)}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def size(text: str) -> int:
    """Bytes of `24GiB`, `80GB`, `24G` (as GPUs are sold: GiB) or a plain number of bytes."""
    match = SIZE.fullmatch(text.strip())
    unit = match and UNITS.get(match[2].upper())
    if not match or not unit or float(match[1]) * unit < 1:
        raise typer.BadParameter(f"{text!r} is no size; write it like 24GiB or 80GB.")
    return int(float(match[1]) * unit)
