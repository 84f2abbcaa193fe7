"""Which stored points may share a law. Points of different recipes meet only in joint_lr."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.digest import json_digest
from service.recipe import RATE, family_of
from service.schemas.laws import Metric, Point
from service.store import PointGroup, Store

FIT_VERSION = 4
"""Part of the fit digest: raised with the mathematics, so that old fits are not served."""
POINT_FIELDS = tuple(Point.model_fields)


@dataclass(frozen=True)
class Selection:
    """Points that may share a law, whose they are, and how they are to be fitted."""

    points: Sequence[Mapping[str, Any]]
    metric: Metric
    burn_in: int | None = None
    group: str | None = None
    recipe: Mapping[str, Any] | None = None
    sweep: str | None = None
    """Only the points of this sweep, where the group has more."""
    for_residual: bool = False
    """One run is left out, to be judged: a law that is neither listed nor judged itself."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The fields of a point, nulls left out, by run and step."""
        rows = [
            {name: point[name] for name in POINT_FIELDS if point.get(name) is not None}
            for point in self.points
        ]
        return sorted(rows, key=lambda row: (row["run"], row["trainable_params"], row["step"]))

    @property
    def points_digest(self) -> str:
        """Of the points' content alone."""
        return json_digest(sorted(json.dumps(row, sort_keys=True) for row in self.rows))

    @property
    def fit_digest(self) -> str:
        """Of all that decides what the fit is, form and metric apart."""
        residual = ["for residual"] if self.for_residual else []
        return json_digest([FIT_VERSION, self.group, self.burn_in, self.points_digest, *residual])

    @property
    def series(self) -> str | None:
        """The same for every fit of the same question as points are added; null by hand."""
        if self.group is None or self.for_residual:
            return None
        return json_digest([self.group, self.sweep, self.burn_in])


def groups(store: Store, wanted: Mapping[str, str | None]) -> list[PointGroup]:
    """The recipe groups that match, each point with its recipe's learning rate."""
    return [_with_rate(group) for group in store.points(**wanted)]


def families(store: Store, wanted: Mapping[str, str | None]) -> list[PointGroup]:
    """Recipes that differ in nothing but the learning rate, as one group each.

    `group` in `wanted` names the family itself or any group of it.
    """
    one = wanted.get("group")
    found: dict[str, PointGroup] = {}
    members: dict[str, set[str]] = {}
    for group in groups(store, {**wanted, "group": None}):
        recipe = {name: value for name, value in group.recipe.items() if name != RATE}
        family = family_of(group.recipe)
        found.setdefault(family, PointGroup(family, recipe)).points.extend(group.points)
        members.setdefault(family, {family}).add(group.group)
    return [found[family] for family, names in members.items() if one is None or one in names]


def n_rates(group: PointGroup) -> int:
    return len({point["learning_rate"] for point in group.points})


def _with_rate(group: PointGroup) -> PointGroup:
    rate = group.recipe.get(RATE)
    points = [{"learning_rate": rate} | _known(point) for point in group.points]
    return PointGroup(group.group, group.recipe, points)


def _known(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if value is not None}
