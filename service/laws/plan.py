"""Which rank and how many steps: the least forgetting that reaches a fine-tuning loss.

Per rank two options at most: the best by the curves, which about half of new runs miss, and the
best by the upper ends of `pi95`. Without a loss to reach, the lowest loss within the forgetting
allowed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.laws.across import AcrossFit, expected
from service.laws.law import LawFit
from service.laws.option import Fails, Option, Plan
from service.laws.predict import Prediction
from service.laws.quantities import MAX_COUNT, MAX_NATS, BadQuery

__all__ = ["Option", "Plan", "plan"]

Law = LawFit | AcrossFit
GRID = 120
"""Steps looked at per rank, evenly in logarithms, before the best is refined to a whole step."""


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
    search = _Search(
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
    fails, nearest = (None, None) if best is not None else search.failure(seen)
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


@dataclass(frozen=True)
class _Search:
    """The limits, and the two laws asked at any place."""

    forgetting_law: Law
    tuning_law: Law
    max_ft_loss: float | None
    max_forgetting: float | None
    steps: tuple[int, ...]

    def option(self, rank: int, step: int, rate: float | None) -> Option:
        ft_loss = expected(self.tuning_law, rank=rank, step=step, learning_rate=rate)
        forgetting = expected(self.forgetting_law, rank=rank, step=step, learning_rate=rate)
        pairs = ((ft_loss, self.max_ft_loss), (forgetting, self.max_forgetting))
        asked = [(prediction, limit) for prediction, limit in pairs if limit is not None]
        safe = None
        if all(prediction.pi95 is not None for prediction, _ in asked):
            safe = all(_upper(prediction) <= limit for prediction, limit in asked)
        per_rank = self.forgetting_law.params_per_rank
        assert per_rank is not None
        return Option(
            rank=rank,
            trainable_params=per_rank * rank,
            step=step,
            learning_rate=rate,
            ft_loss=ft_loss,
            forgetting=forgetting,
            meets=all(prediction.value <= limit for prediction, limit in asked),
            safe=safe,
            cost=step / self.steps[-1],
        )

    def best_of(self, row: Sequence[Option]) -> list[Option]:
        """The best options of one rank: by the curves and by the intervals, or the nearest."""
        found = {}
        for keeps in (_meets, _safe):
            best = self._refined(row, keeps)
            if best is not None:
                found[best.step] = best
        return list(found.values()) or [min(row, key=self.excess)]

    def _refined(self, row: Sequence[Option], keeps: Callable[[Option], bool]) -> Option | None:
        """The best option that keeps the limits, sought between the steps of the row as well."""
        kept = [index for index, option in enumerate(row) if keeps(option)]
        if not kept:
            return None
        index = min(kept, key=lambda i: self.objective(row[i]))
        ends = [row[index]]
        for neighbour in (max(0, index - 1), min(len(row) - 1, index + 1)):
            if neighbour in kept:
                continue
            inside, outside = row[index], row[neighbour]
            while abs(outside.step - inside.step) > 1:
                step = (inside.step + outside.step) // 2
                middle = self.option(inside.rank, step, inside.learning_rate)
                if keeps(middle):
                    inside = middle
                else:
                    outside = middle
            ends.append(inside)
        return min(ends, key=self.objective)

    def objective(self, option: Option) -> tuple[float, int]:
        """What is to be least: forgetting; the loss where none was asked for. Then steps."""
        wanted = option.ft_loss if self.max_ft_loss is None else option.forgetting
        return wanted.value, option.step

    def excess(self, option: Option) -> float:
        """Nats above the limits, summed."""
        return sum(
            max(0.0, prediction.value - limit)
            for prediction, limit in (
                (option.ft_loss, self.max_ft_loss),
                (option.forgetting, self.max_forgetting),
            )
            if limit is not None
        )

    def order(self, option: Option) -> tuple[bool, bool, float, tuple[float, int], int]:
        return (
            not option.meets,
            option.extrapolating,
            self.excess(option),
            self.objective(option),
            option.rank,
        )

    def failure(self, seen: Sequence[Option]) -> tuple[Fails, Option]:
        """Which limit none of the options keeps, and the option nearest to keeping all."""
        nearest = min(seen, key=lambda option: (self.excess(option), self.objective(option)))
        loss, forgetting = self.max_ft_loss, self.max_forgetting
        no_loss = loss is not None and all(one.ft_loss.value > loss for one in seen)
        no_forgetting = forgetting is not None and all(
            one.forgetting.value > forgetting for one in seen
        )
        if no_loss == no_forgetting:
            return "both_together", nearest
        return ("max_ft_loss" if no_loss else "max_forgetting"), nearest

    def answer(
        self,
        best: Option | None,
        safest: Option | None,
        nearest: Option | None,
        fails: Fails | None,
    ) -> str:
        """The plan in a sentence or two."""
        wishes = []
        if self.max_ft_loss is not None:
            wishes.append(f"reaches a fine-tuning loss of {self.max_ft_loss:g}")
        if self.max_forgetting is not None:
            wishes.append(f"forgets at most {self.max_forgetting:g} nats per token")
        wish = " and ".join(wishes)
        if best is None:
            assert nearest is not None
            alone = {"max_ft_loss": wishes[0], "max_forgetting": wishes[-1]}
            failed = alone.get(fails or "", wish)
            return f"No option {failed}; the nearest is {_words(nearest)}."
        least = "lowest loss" if self.max_ft_loss is None else "least forgetting"
        lines = [f"{_words(best)[0].upper()}{_words(best)[1:]}: the {least} that {wish}."]
        if safest is None and best.safe is not None:
            lines.append("Nothing searched is sure to keep this in 95 % of new runs.")
        elif safest is not None and safest is not best:
            lines.append(f"To keep it in 95 % of new runs: {_words(safest)}.")
        if best.extrapolating:
            lines.append("This lies outside the measured runs.")
        return " ".join(lines)


def _words(option: Option) -> str:
    rate = "" if option.learning_rate is None else f" at learning rate {option.learning_rate:g}"
    interval = option.forgetting.pi95
    new = "" if interval is None else f" (new runs {interval[0]:.3f} to {interval[1]:.3f})"
    return (
        f"rank {option.rank} for {option.step} steps{rate}, with forgetting "
        f"{option.forgetting.value:.3f}{new} and fine-tuning loss {option.ft_loss.value:.3f}"
    )


def _meets(option: Option) -> bool:
    return option.meets


def _safe(option: Option) -> bool:
    return option.safe is True


def _upper(asked: Prediction) -> float:
    assert asked.pi95 is not None
    return asked.pi95[1]


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
