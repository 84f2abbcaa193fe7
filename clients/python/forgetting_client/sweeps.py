"""What the service tells of a sweep besides its children's counts, as it comes; see `wire`."""

from typing import TypedDict


class SweepWork(TypedDict):
    share_done: float
    """Of all the sweep's work, 0 to 1."""
    eta_seconds: float | None
    """Null until a child tells the pace, and while none runs."""


class FailedChild(TypedDict):
    job: str
    rank: int
    seed: int
    learning_rate: float
    code: str
    detail: str


class FarCorner(TypedDict):
    rank: int
    step: int


class PilotView(TypedDict):
    share_of_cost: float
    ranks: list[int]
    seeds: list[int]
    steps: list[int]
    far_corner: FarCorner
    extend: str
    extended_by: str | None
