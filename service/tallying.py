"""What one result adds to the service's counters. Pure: a result in, numbers out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tally:
    """`amount` to be added to a counter; or, with `latest`, to stand in its place."""

    name: str
    labels: tuple[str, ...]
    amount: float
    latest: bool = False


def tallies_of(
    result: Mapping[str, Any], *, kind: str, owner: str, waited_seconds: float
) -> list[Tally]:
    """`kind`: the job's type; `waited_seconds`: from submission to its first start."""
    return [
        Tally("job_wait_seconds", (kind,), max(0.0, waited_seconds)),
        Tally("job_wait_seconds_count", (kind,), 1),
        *_cost(result, kind, owner),
        *_resolution(result),
    ]


def _cost(result: Mapping[str, Any], kind: str, owner: str) -> Iterator[Tally]:
    cost = result.get("cost") or {}
    seconds = cost.get("seconds") or {}
    for phase, spent in seconds.items():
        yield Tally("job_phase_seconds", (kind, phase), spent)
        yield Tally("job_phase_seconds_count", (kind, phase), 1)
    if (result.get("provenance") or {}).get("device") == "cuda":
        yield Tally("gpu_seconds", (owner,), sum(seconds.values()))
    tuned, base = cost.get("tuned_forward_tokens", 0), cost.get("base_forward_tokens", 0)
    yield Tally("scored_tokens", ("base",), base)
    yield Tally("scored_tokens", ("tuned",), tuned)
    if tuned:  # a gate that was refused before it began has looked for no pass
        yield Tally("base_cache_misses" if base else "base_cache_hits", (), 1)


def _resolution(result: Mapping[str, Any]) -> Iterator[Tally]:
    engine = (result.get("engine") or {}).get("name", "unknown")
    floor = result.get("noise_floor")
    if floor is not None:
        yield Tally("noise_floor", (engine,), abs(floor["kl"]), latest=True)
    parity = result.get("parity")
    if parity is not None:
        yield Tally("backend_parity_max_diff", (engine,), parity["max_abs_kl"], latest=True)
        yield Tally("backend_parity_failed", (engine,), int(parity["failed"]))
