"""Asking a law backwards: how far may training go, and how low the loss, for so much forgetting.

Two answers: `value`, where the curve meets the limit, and `safe`, where the upper end of `pi95`
does, so that with 95 % a new run stays below. Steps and ranks are whole, and rounded down.
"""

import math
from collections.abc import Callable

from service.laws.across import AcrossFit, predict_either
from service.laws.furthest import Axis, Furthest, Inverse, first_within, last_within
from service.laws.law import LawFit
from service.laws.predict import Prediction, predict
from service.laws.quantities import MAX_COUNT, MAX_NATS, BadQuery

REACH = 10.0
"""The search ends at this many times the largest measured step or rank, unless told otherwise."""
REACH_IN_WIDTHS = 10.0
"""The line is searched so many widths of the measured losses to either side."""
CURVE, NEW_RUN = "forgetting", "the upper end for a new run"
SLACK = 1e-9
"""Nats by which a whole step may lie above the limit: rounding."""


def largest_step(
    law: LawFit | AcrossFit,
    *,
    max_forgetting: float,
    rank: int | None = None,
    trainable_params: float | None = None,
    learning_rate: float | None = None,
    max_step: int | None = None,
) -> Inverse:
    """The largest step with forgetting of at most `max_forgetting` nats, for a rank.

    A law across learning rates needs `learning_rate`, others take none. The search ends at
    `max_step`, by default ten times the largest measured one. Raises BadQuery.
    """
    _check(law, max_forgetting, forms=("joint", "joint_lr"))
    last = _whole("max_step", max_step, default=REACH * law.domain.step[1])

    def ask(step: float) -> Prediction:
        return predict_either(
            law,
            trainable_params=trainable_params,
            rank=rank,
            step=step,
            learning_rate=learning_rate,
        )

    inside = ask(law.domain.step[0])  # refuses a bad question
    if trainable_params is None:
        assert rank is not None
        assert law.params_per_rank is not None
        trainable_params = law.params_per_rank * rank
    joint, per_step = _joint(law, learning_rate)
    a, alpha, b, beta, *_ = joint.values
    units = _solve(joint, max_forgetting, math.log(a) - alpha * math.log(trainable_params), b, beta)
    exact = None if units is None else units / per_step
    first = max(1, math.ceil(1.0 / per_step))  # below one unit of exposure there is no law
    return _furthest(law, "step", max_forgetting, (first, max(first, last)), ask, inside, exact)


def largest_rank(
    law: LawFit | AcrossFit,
    *,
    max_forgetting: float,
    step: float,
    learning_rate: float | None = None,
    max_rank: int | None = None,
) -> Inverse:
    """The largest rank with forgetting of at most `max_forgetting` nats after `step` steps.

    Where the law's points do not agree on parameters per rank the answer is in
    `trainable_params`, and `max_rank` is refused. The search ends at `max_rank`, by default ten
    times the largest measured one. Raises BadQuery.
    """
    _check(law, max_forgetting, forms=("joint", "joint_lr"))
    per_rank = law.params_per_rank
    if per_rank is None and max_rank is not None:
        raise BadQuery("the law's points do not agree on parameters per rank", field="max_rank")
    size = 1.0 if per_rank is None else per_rank
    last = _whole("max_rank", max_rank, default=REACH * law.domain.trainable_params[1] / size)

    def ask(count: float) -> Prediction:
        return predict_either(
            law, trainable_params=count * size, rank=None, step=step, learning_rate=learning_rate
        )

    inside = ask(law.domain.trainable_params[0] / size)  # refuses a bad question
    joint, per_step = _joint(law, learning_rate)
    a, alpha, b, beta, *_ = joint.values
    params = _solve(joint, max_forgetting, math.log(b) - beta * math.log(step * per_step), a, alpha)
    exact = None if params is None else params / size
    axis: Axis = "trainable_params" if per_rank is None else "rank"
    return _furthest(law, axis, max_forgetting, (1, last), ask, inside, exact)


def lowest_loss(law: LawFit, *, max_forgetting: float) -> Inverse:
    """The lowest fine-tuning loss at which the line forgets at most `max_forgetting` nats.

    Searched within ten widths of the measured losses, never below 0. Raises BadQuery.
    """
    _check(law, max_forgetting, forms=("linear",))
    low, high = law.domain.ft_loss
    width = high - low
    first, last = max(0.0, low - REACH_IN_WIDTHS * width), high + REACH_IN_WIDTHS * width
    slope, intercept = law.values
    limit = f"{max_forgetting:g}"

    def ask(loss: float) -> Prediction:
        return predict(law, ft_loss=loss)

    def answer(who: str, upper: Callable[[Prediction], float], meets: float | None) -> Furthest:
        def within(loss: float) -> bool:
            return upper(ask(loss)) <= max_forgetting

        if within(first):
            reason = f"never reached down to ft_loss {first:g}: {who} stays at most {limit} nats"
            return Furthest("never_reached", None, reason, ask(first))
        at = first_within(within, first, last) if meets is None else meets
        if slope <= 0 or at is None or at > last:
            reason = f"{who} is above {limit} nats at every ft_loss up to {last:g}"
            return Furthest("always_above", None, reason, ask(last))
        return Furthest("found", at, None, ask(at))

    return Inverse(
        metric=law.metric,
        axis="ft_loss",
        max_forgetting=max_forgetting,
        searched=(first, last),
        value=answer(CURVE, _value, (intercept - max_forgetting) / (slope or 1.0)),
        safe=_no_interval(law) if ask(low).pi95 is None else answer(NEW_RUN, _upper, None),
    )


def _joint(law: LawFit | AcrossFit, learning_rate: float | None) -> tuple[LawFit, float]:
    """The joint law, and how many of its own steps one step is."""
    if isinstance(law, LawFit):
        return law, 1.0
    assert learning_rate is not None
    return law.law, law.scale.units_per_step(learning_rate)


def _solve(
    law: LawFit, forgetting: float, log_known: float, size: float, power: float
) -> float | None:
    """x with sign * (known + size * x^-power)^rho + shift = forgetting; null where none has."""
    rho, shift, sign = law.values[4:]
    height = sign * (forgetting - shift)
    if height <= 0:
        return None
    log_sum = math.log(height) / rho
    if log_sum <= log_known:
        return None
    # ln(e^log_sum - e^log_known), without leaving the floats.
    log_rest = log_sum + math.log(-math.expm1(log_known - log_sum))
    log_x = (math.log(size) - log_rest) / power
    return math.exp(log_x) if abs(log_x) < 700.0 else None


def _furthest(
    law: LawFit | AcrossFit,
    axis: Axis,
    limit: float,
    span: tuple[int, int],
    ask: Callable[[float], Prediction],
    inside: Prediction,
    exact: float | None,
) -> Inverse:
    """Both answers along an axis of whole numbers; `exact` is where the curve meets the limit.

    `inside`: what is expected at a measured place, which tells whether there are intervals.
    """
    joint = law if isinstance(law, LawFit) else law.law
    rising = joint.values[-1] < 0

    def answer(who: str, upper: Callable[[Prediction], float], meets: float | None) -> Furthest:
        def within(at: float) -> bool:
            return upper(ask(at)) <= limit + SLACK

        first, last = span
        if within(last):
            reason = f"never reached within {axis} {last}: {who} stays at most {limit:g} nats"
            if not rising:
                reason = f"{who} falls with {axis}, and is at most {limit:g} nats at {last}"
            return Furthest("never_reached", None, reason, ask(last))
        at = last_within(within, span) if meets is None else math.floor(meets)
        # A whole number may come out of the logarithms as 99.99999.
        if meets is not None and at is not None and within(at + 1):
            at += 1
        if at is None or at < first:
            reason = f"{who} is above {limit:g} nats at every {axis} from {first} to {last}"
            return Furthest("always_above", None, reason, ask(first))
        return Furthest("found", float(at), None, ask(at))

    usable = exact is not None and rising and exact < span[1]
    return Inverse(
        metric=law.metric,
        axis=axis,
        max_forgetting=limit,
        searched=(float(span[0]), float(span[1])),
        value=answer(CURVE, _value, exact if usable else None),
        safe=_no_interval(joint) if inside.pi95 is None else answer(NEW_RUN, _upper, None),
    )


def _value(asked: Prediction) -> float:
    return asked.value


def _upper(asked: Prediction) -> float:
    return math.inf if asked.pi95 is None else asked.pi95[1]


def _no_interval(law: LawFit) -> Furthest:
    reason = f"few_runs: {law.n_runs} runs give no interval for a new one"
    return Furthest("no_interval", None, reason, None)


def _check(law: LawFit | AcrossFit, max_forgetting: float, *, forms: tuple[str, ...]) -> None:
    if law.form not in forms:
        raise BadQuery(f"a {law.form} law cannot be asked for this", field="law")
    if isinstance(law, AcrossFit) and law.scale.gamma is None:
        raise BadQuery("the law takes the norm of the update, not steps", field="law")
    if law.metric == "ft_loss":
        raise BadQuery("the law is one of fine-tuning loss, not of forgetting", field="law")
    if not 0 <= max_forgetting <= MAX_NATS:
        raise BadQuery(
            f"max_forgetting must lie between 0 and {MAX_NATS:g} nats", field="max_forgetting"
        )


def _whole(name: str, given: int | None, *, default: float) -> int:
    """The end of a search."""
    if given is None:
        return max(1, min(round(default), int(MAX_COUNT)))
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MAX_COUNT:
        raise BadQuery(f"{name} must be a whole number from 1 to {MAX_COUNT:.0e}", field=name)
    return given
