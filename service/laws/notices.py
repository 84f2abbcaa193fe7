"""What a reader must know before trusting a law, in sentences that begin with a stable word.

`thinned`: of very many points a part was judged. `noise`: no form predicts better than the mean.
`beaten`: a form loses to something simpler. `saturating`: forgetting flattens as no power of N
does. `mixed_recipes`: the runs fall into two families, or their learning rates differ.
`run_effects`: runs lie far apart beyond what rank tells, too few of them to say why.
`insufficient_loss`: at equal L_ft something else still matters. `profile_flat`: coefficients that
the points do not tell. `no_seeds`: margins are counted in the law's own scatter, because no (P, N)
was measured by two runs.
"""

import numpy as np

from service.laws.choice import TIE, Choice
from service.laws.contenders import contenders
from service.laws.criterion import Criteria
from service.laws.heldout import HeldOut, Kind
from service.laws.measured import Measured
from service.laws.mixture import Families
from service.laws.quantities import Target
from service.laws.spread import Spread
from service.laws.sufficiency import Sufficiency

DECISIVE = 10.0
"""Difference of AICc from which the worse has next to no support."""
FAR_APART = 0.15
"""Scatter of the runs' heights, as a share of the forgetting's spread, that is worth a word."""


def notices(
    known: Measured,
    *,
    whole: Measured,
    unit: Spread | None,
    held_out: dict[Kind, HeldOut | None],
    choice: Choice | None,
    sufficiency: Sufficiency | None,
    aicc: Criteria | None,
    profile_flat: tuple[str, ...] | None,
    families: tuple[Families, ...] | None,
) -> tuple[str, ...]:
    lines = _thinned(known, whole)
    if choice is not None:
        lines += [*_noise(choice), *_beaten(choice, known.metric)]
    if choice is None or choice.learnt:  # noise has no shape
        lines += _saturating(held_out, aicc, unit)
    lines += _mixed(known, families)
    if sufficiency is not None and not sufficiency.sufficient:
        lines.append(f"insufficient_loss: {sufficiency.sentence}")
    if profile_flat:
        lines.append(
            f"profile_flat: the points do not tell {', '.join(profile_flat)} of the joint law; "
            "read its predictions"
        )
    if unit is None or unit.source != "seeds":
        lines.append("no_seeds: no rank and step was measured by two runs; repeat some with a seed")
    return tuple(lines)


def _thinned(known: Measured, whole: Measured) -> list[str]:
    if len(known.value) == len(whole.value):
        return []
    return [
        f"thinned: judged on {len(known.value):,} of {len(whole.value):,} points, "
        f"{len(known.runs):,} of {len(whole.runs):,} runs; the law is fitted to all"
    ]


def _noise(choice: Choice) -> list[str]:
    if choice.learnt:
        return []
    form = min(choice.beaten_by, key=lambda one: choice.overall[one].mae)
    return [
        f"noise: held out, the {form} law misses by {choice.overall[form].mae:.4g} nats and the "
        f"plain mean by {choice.overall['mean'].mae:.4g}"
    ]


def _beaten(choice: Choice, metric: Target) -> list[str]:
    title = {contender.name: contender.title for contender in contenders(metric)}
    return [
        f"beaten: held out, {title[form]} is {choice.overall[form].behind:.2f} spreads behind "
        f"{title[winner]}; a tie is {TIE:g}"
        for form, winner in choice.beaten_by.items()
        if winner is not None
    ]


def _saturating(
    held_out: dict[Kind, HeldOut | None], aicc: Criteria | None, unit: Spread | None
) -> list[str]:
    """The saturating curve is far better in-sample, or better there and at later steps."""
    later = held_out.get("later_steps")
    if later is None or aicc is None or unit is None:
        return []
    curve, joint = later.errors.get("saturating"), later.errors.get("joint")
    scores = [aicc.by_contender.get(name) for name in ("saturating", "joint")]
    if curve is None or joint is None or scores[0] is None or scores[1] is None:
        return []
    if scores[0].points is None or scores[1].points is None:
        return []
    gain = (joint.mae - curve.mae) / unit.nats
    support = scores[1].points - scores[0].points
    if support <= DECISIVE and not (support > 0.0 and gain > TIE):
        return []
    return [
        "saturating: forgetting flattens like an exponential of N, as no power does: its AICc is "
        f"{support:.1f} below the joint law's, its error at later steps {gain:+.2f} spreads smaller"
    ]


def _mixed(known: Measured, families: tuple[Families, ...] | None) -> list[str]:
    rates = {p.learning_rate for p in known.points if p.learning_rate is not None}
    lines, spread_nats = [], float(np.ptp(known.value))
    if len(rates) > 1:
        lines.append(
            f"mixed_recipes: {len(rates)} learning rates from {min(rates):g} to {max(rates):g}; "
            "a law holds for one recipe"
        )
    for one in families or ():
        if one.two:
            lines.append(
                f"mixed_recipes: by their {one.feature} the runs are two families "
                f"{one.gap_nats:.3g} nats apart, which neither rank nor chance explains "
                f"(p = {one.p:.2g}): {', '.join(one.second)} against the rest"
            )
        elif one.feature == "height" and one.sd_nats > FAR_APART * spread_nats:
            lines.append(
                f"run_effects: runs lie {one.sd_nats:.3g} nats (sd) off a parabola in ln P, "
                f"{one.sd_nats / spread_nats:.0%} of all spread; are they one recipe?"
            )
    return lines
