"""The judgement of a set of points as a value: what is known of its laws, and what is not."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from service.laws.choice import Choice
from service.laws.criterion import Criteria
from service.laws.deming import BothErrors
from service.laws.heldout import HeldOut, Kind
from service.laws.mixture import Families
from service.laws.quantities import Target
from service.laws.spread import Spread
from service.laws.sufficiency import Sufficiency
from service.laws.variance import Explained


@dataclass(frozen=True)
class Judgement:
    """A part that the points do not allow is null, and `missing` says why."""

    metric: Target
    n_points: int
    """Judged: after the burn-in, and thinned where there are very many."""
    n_runs: int
    n_ranks: int
    """Distinct values of trainable_params."""
    unit: Spread | None
    """One spread: what errors and margins are counted in."""
    held_out: dict[Kind, HeldOut | None]
    choice: Choice | None
    r2: dict[str, Explained | None]
    """Per form; null where `law.<form>` is missing."""
    line: BothErrors | None
    sufficiency: Sufficiency | None
    aicc: Criteria | None
    profile_flat: tuple[str, ...] | None
    """Coefficients of the joint law that the points do not tell."""
    families: tuple[Families, ...] | None
    """Whether the runs look like two recipes."""
    notices: tuple[str, ...]
    """Each begins with a stable word and a colon: see `notices`."""
    missing: dict[str, str]
    """Why a part is null, by its name (`line`, `law.joint`, `held_out.edge_rank`)."""

    def to_json(self) -> dict[str, Any]:
        """JSON values only: objects, lists, finite numbers, strings, booleans, null."""
        body = _plain(self)
        assert isinstance(body, dict)
        return body


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value
