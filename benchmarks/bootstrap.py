"""Refits of the joint law to data made anew from its own residuals: a check on linearisation.

Wild cluster bootstrap: each run's residuals are turned by one random factor of mean 0 and variance
1 (Webb's six points, because few runs have few signs), added to the fitted curve, and the law is
fitted again. Intervals do not come from here: where runs have effects they would be too narrow.
"""

from collections.abc import Sequence

import numpy as np

from service.laws import curve, joint
from service.laws.law import LawFit
from service.laws.quantities import Floats, LawError, Point, sample
from service.laws.sufficiency import WEBB


def wild_cluster(
    law: LawFit, points: Sequence[Point], *, n_replicates: int = 1000, seed: int = 17
) -> Floats:
    """`LawFit.values` of the joint law's replicates, from the points it was fitted to: (n, 7).

    Raises LawError where `law` is no joint law or the points are not its own.
    """
    if law.form != "joint":
        raise LawError(f"the {law.form} law is linear: its errors need no replicates")
    columns = sample(points, law.metric, burn_in=law.burn_in)
    if columns.n_points != law.n_points:
        raise LawError(f"{columns.n_points} points are left, and the law has {law.n_points}")
    residuals = np.array(law.residuals.value)
    rng = np.random.default_rng(seed)
    shape = n_replicates, len(columns.runs)
    factors = rng.choice(WEBB, size=shape) * rng.choice([-1.0, 1.0], size=shape)
    value = columns.value - residuals + residuals * factors[:, columns.run]
    plane = curve.Plane.of(columns)
    again = joint.descend(
        np.repeat(curve.centred(np.array(law.values), plane)[0], n_replicates, axis=0),
        plane,
        value,
        scale=law.robust_scale or np.inf,
        kept=columns.weight[None, :],
        tolerance=1e-6,
    )
    return curve.wire(again.shape, again.level, again.slope, plane)
