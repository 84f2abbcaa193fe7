"""Adapters of one result side by side: who forgot less, and what is not told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Mark = Literal["best trade", "dominated", "not told apart"]
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    index: int
    name: str
    rank: int | None
    step: int | None
    heldout: float | None
    kl: Json
    same_top: Json
    law: Json | None
    """Its residual against its recipe's law."""
    more_than_best: Json | None
    """KL minus that of the adapter with the least, paired; null for that one."""
    mark: Mark | None
    """In (held-out loss, KL); null where there is no held-out loss."""
    dominated_by: str | None


def rows(result: Json, names: Sequence[str], laws: Sequence[Json | None]) -> list[Row]:
    """One per checkpoint, in the result's order."""
    checkpoints = result["checkpoints"]
    best = min(range(len(checkpoints)), key=lambda i: checkpoints[i]["forgetting"]["kl"]["value"])
    marks = pareto(result)
    made = []
    for i, one in enumerate(checkpoints):
        mark, by = marks[i]
        made.append(
            Row(
                index=i,
                name=names[i],
                rank=one["rank"],
                step=one["step"],
                heldout=one["ft_loss"]["heldout"],
                kl=one["forgetting"]["kl"],
                same_top=one["forgetting"]["same_top"],
                law=laws[i],
                more_than_best=None if i == best else difference(result, i, best, "kl"),
                mark=mark,
                dominated_by=None if by is None else names[by],
            )
        )
    return made


def pareto(result: Json) -> list[tuple[Mark | None, int | None]]:
    """Per checkpoint its mark, and by which other it is dominated.

    Dominated only where another is lower in both and both differences are clear: their intervals
    leave zero out. Lower in both, but not clearly, is not told apart.
    """
    n = len(result["checkpoints"])
    if any(one["ft_loss"]["heldout"] is None for one in result["checkpoints"]):
        return [(None, None)] * n
    found: list[tuple[Mark | None, int | None]] = []
    for i in range(n):
        mark: Mark = "best trade"
        by = None
        for j in (j for j in range(n) if j != i):
            more = [difference(result, i, j, name) for name in ("heldout", "kl")]
            if all(clear(one) for one in more):
                mark, by = "dominated", j
                break
            values = [one["value"] for one in more]
            if min(values) >= 0 and max(values) > 0:
                mark = "not told apart"
        found.append((mark, by))
    return found


def difference(result: Json, a: int, b: int, name: str) -> dict[str, Any]:
    """Checkpoint a minus checkpoint b."""
    low, high = min(a, b), max(a, b)
    pair = next(p for p in result["pairs"] if (p["a"], p["b"]) == (low, high))
    one: dict[str, Any] = dict(pair[name])
    if a > b:
        one["value"] = -one["value"]
        one["ci95"] = one["ci95"] and (-one["ci95"][1], -one["ci95"][0])
    return one


def clear(more: Json) -> bool:
    """Whether it is above zero beyond its 95 % interval."""
    return more["ci95"] is not None and more["ci95"][0] > 0
