"""Fitting the line: forgetting against fine-tuning loss."""

import numpy as np

from service.laws import robust
from service.laws.minimum import Minimum, condition_number
from service.laws.quantities import Floats, Sample

N_COEFFICIENTS = 2


def minimise(points: Sample, left_out: Floats, *, robust_loss: bool) -> Minimum:
    """L_f = -c_f_ft * L_ft + s_f_ft, and its replicates, one per row of `left_out` (g, k)."""
    x, y = points.ft_loss[None, :], points.value
    everything = np.ones_like(x)
    scale = np.inf
    # Plain squares first; their residuals give the scale of the robust fits.
    for _ in range(2 if robust_loss else 0):
        lines = robust.line(x, y, scale=scale, kept=everything, weight=everything)
        scale = robust.scale_of(lines.residual, spread=points.spread, n_coefficients=N_COEFFICIENTS)
    lines = robust.line(x, y, scale=scale, kept=everything, weight=everything)
    again = [
        robust.line(x, y, scale=scale, kept=row[None, :], weight=row[None, :]) for row in left_out
    ]
    jacobian = np.stack([-points.ft_loss, np.ones_like(points.ft_loss)], axis=1)
    return Minimum(
        values=np.array([-lines.slope[0], lines.intercept[0]]),
        replicates=np.array([[-one.slope[0], one.intercept[0]] for one in again]).reshape(-1, 2),
        residuals=lines.residual[0],
        jacobian=jacobian,
        condition_number=condition_number(jacobian),
        cost=float(robust.costs(lines.residual, scale).sum()),
        robust_scale=scale if robust_loss else None,
        at_bound=(),
    )
