"""Which rank and how many steps: the least forgetting that reaches a fine-tuning loss.

Per rank two options at most: the best by the curves, which about half of new runs miss, and the
best by the upper ends of `pi95`. Without a loss to reach, the lowest loss within the forgetting
allowed.
"""

from collections.abc import Sequence

import numpy as np

from service.laws.across import AcrossFit
from service.laws.law import LawFit
from service.laws.option import Option, Plan
from service.laws.option_search import Law, Search
from service.laws.quantities import MAX_COUNT, MAX_NATS, BadQuery

__all__ = ["Option", "Plan", "plan"]

GRID = 24
"""Steps looked at per rank, evenly in logarithms; where a limit is crossed between two of them
the crossing is bisected to the whole step."""


def plan(
    forgetting_law: Law,
    tuning_law: Law,
    *,
    max_ft_loss: float | None = None,
    max_forgetting: float | None = None,
    ranks: Sequence[int] | None = None,
    learning_rates: Sequence[float] | None = None,
    max_step: int | None = None,
    limit: int = 10,
) -> Plan:
    """The rank and step of least forgetting among those with L_ft <= `max_ft_loss`.

    `max_forgetting` is a second limit, or the only one: then the lowest L_ft is looked for.
    `ranks`: by default the measured ones and the powers of two between. Steps run from the first
    measured to the last, or to `max_step`. `learning_rates` (default: the measured ones) only
    where both laws are across rates. Raises BadQuery, which names the argument.
    """
    _check(forgetting_law, tuning_law)
    if max_ft_loss is None and max_forgetting is None:
        raise BadQuery("give max_ft_loss, max_forgetting or both", field="max_ft_loss")
    for name, value in (("max_ft_loss", max_ft_loss), ("max_forgetting", max_forgetting)):
        if value is not None and not 0 <= value <= MAX_NATS:
            raise BadQuery(f"{name} must lie between 0 and {MAX_NATS:g} nats", field=name)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise BadQuery("limit must be a whole number from 1", field="limit")
    search = Search(
        forgetting_law,
        tuning_law,
        max_ft_loss=max_ft_loss,
        max_forgetting=max_forgetting,
        steps=_steps(forgetting_law, tuning_law, max_step),
    )
    chosen_ranks = _ranks(forgetting_law, ranks)
    seen: list[Option] = []
    kept: list[Option] = []
    for rate in _rates(forgetting_law, learning_rates):
        for rank in chosen_ranks:
            row = [search.option(rank, step, rate) for step in search.steps]
            seen += row
            kept += search.best_of(row)
    kept.sort(key=search.order)
    best = next((option for option in kept if option.meets), None)
    fails, nearest = (None, None) if best is not None else search.failure(seen, kept)
    safest = next((option for option in kept if option.safe), None)
    return Plan(
        answer=search.answer(best, safest, nearest, fails),
        options=tuple(kept[:limit]),
        best=best,
        safest=safest,
        fails=fails,
        nearest=nearest,
        max_ft_loss=max_ft_loss,
        max_forgetting=max_forgetting,
        searched_ranks=chosen_ranks,
        searched_steps=(search.steps[0], search.steps[-1]),
    )


def _check(forgetting_law: Law, tuning_law: Law) -> None:
    """Raise BadQuery where the two do not make a plan together."""
    for field, law in (("forgetting_law", forgetting_law), ("tuning_law", tuning_law)):
        if law.form not in ("joint", "joint_lr"):
            raise BadQuery(f"a plan needs joint laws, not a {law.form} one", field=field)
        if isinstance(law, AcrossFit) and law.scale.gamma is None:
            raise BadQuery("a law of the update's norm cannot be planned with", field=field)
        if (law.metric == "ft_loss") != (field == "tuning_law"):
            raise BadQuery(f"the {field} is fitted to {law.metric}", field=field)
    one, other = forgetting_law.params_per_rank, tuning_law.params_per_rank
    if one is None or other is None or abs(one - other) > 1e-9 * one:
        message = "the laws' points do not agree on parameters per rank; plans are by rank"
        raise BadQuery(message, field="ranks")
    if forgetting_law.form != tuning_law.form:
        raise BadQuery("both laws, or neither, must be across learning rates", field="tuning_law")


def _ranks(law: Law, asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked is None:
        measured = law.domain.ranks
        if not measured:
            raise BadQuery("the law's points name no rank; give ranks", field="ranks")
        powers = [2**power for power in range(measured[-1].bit_length())]
        asked = [*measured, *(power for power in powers if power >= measured[0])]
    most = MAX_COUNT / (law.params_per_rank or 1.0)
    whole = all(isinstance(rank, int) and not isinstance(rank, bool) for rank in asked)
    if not asked or not whole or not all(1 <= rank <= most for rank in asked):
        raise BadQuery("ranks must be whole numbers from 1, one at least", field="ranks")
    return tuple(sorted(set(asked)))


def _rates(law: Law, asked: Sequence[float] | None) -> tuple[float | None, ...]:
    if isinstance(law, LawFit):
        if asked is not None:
            raise BadQuery("the laws are of one learning rate", field="learning_rates")
        return (None,)
    chosen = law.rates if asked is None else tuple(sorted(set(asked)))
    if not chosen or not all(0 < rate < np.inf for rate in chosen):
        raise BadQuery("learning_rates must be above 0, one at least", field="learning_rates")
    return chosen


def _steps(forgetting_law: Law, tuning_law: Law, max_step: int | None) -> tuple[int, ...]:
    """Whole steps, evenly in logarithms, from where both laws begin to where both end."""
    domains = (forgetting_law.domain.step, tuning_law.domain.step)
    first, last = max(low for low, _ in domains), min(high for _, high in domains)
    if first > last:
        raise BadQuery("the laws' steps do not overlap", field="tuning_law")
    if max_step is not None:
        whole = isinstance(max_step, int) and not isinstance(max_step, bool)
        if not whole or not first <= max_step <= MAX_COUNT:
            raise BadQuery(
                f"max_step must be a whole number from {first}, the first measured step",
                field="max_step",
            )
        last = max_step
    grid = np.round(np.geomspace(first, last, GRID)).astype(np.int64)
    return tuple(int(step) for step in np.unique(grid))
