"""The search behind a plan: the best option of each rank, and words for what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.laws.across import AcrossFit, predict_either
from service.laws.law import LawFit
from service.laws.option import Fails, Option
from service.laws.predict import Prediction

Law = LawFit | AcrossFit


@dataclass(frozen=True)
class Search:
    """The limits, and the two laws asked at any place. Rows are options of one rank by step."""

    forgetting_law: Law
    tuning_law: Law
    max_ft_loss: float | None
    max_forgetting: float | None
    steps: tuple[int, ...]

    def option(self, rank: int, step: int, rate: float | None) -> Option:
        ft_loss = predict_either(self.tuning_law, rank=rank, step=step, learning_rate=rate)
        forgetting = predict_either(self.forgetting_law, rank=rank, step=step, learning_rate=rate)
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
            best = self._refined(row, keeps, self.objective)
            if best is not None:
                found[best.step] = best
        if found:
            return list(found.values())
        edges = [
            self._refined(row, keeps, self.excess) for keeps in (self._lost_little, self._learnt)
        ]
        return [min([*row, *(edge for edge in edges if edge is not None)], key=self.excess)]

    def _refined(
        self,
        row: Sequence[Option],
        keeps: Callable[[Option], bool],
        key: Callable[[Option], Any],
    ) -> Option | None:
        """The option of least `key` that keeps a limit, between the steps of the row as well."""
        kept = [index for index, option in enumerate(row) if keeps(option)]
        if not kept:
            return None
        index = min(kept, key=lambda i: key(row[i]))
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
        return min(ends, key=key)

    def _lost_little(self, option: Option) -> bool:
        limit = self.max_forgetting
        return limit is None or option.forgetting.value <= limit

    def _learnt(self, option: Option) -> bool:
        return self.max_ft_loss is None or option.ft_loss.value <= self.max_ft_loss

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

    def failure(self, seen: Sequence[Option], kept: Sequence[Option]) -> tuple[Fails, Option]:
        """Which limit none of those seen keeps, and the option nearest to keeping all."""
        nearest = min(kept, key=lambda option: (self.excess(option), self.objective(option)))
        no_loss = not any(self._learnt(option) for option in seen)
        no_forgetting = not any(self._lost_little(option) for option in seen)
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
