"""Fitting the line: forgetting against fine-tuning loss."""

import numpy as np

from service.laws import robust
from service.laws.minimum import Minimum, condition_number
from service.laws.quantities import Sample

N_COEFFICIENTS = 2


def minimise(points: Sample, *, robust_loss: bool) -> Minimum:
    """L_f = -c_f_ft * L_ft + s_f_ft, about the mean loss."""
    centre = float(points.ft_loss.mean())
    x, y, weight = points.ft_loss[None, :] - centre, points.value, points.weight[None, :]
    scale = np.inf
    # Plain squares first; their residuals give the scale of the robust fits.
    for _ in range(2 if robust_loss else 0):
        lines = robust.line(x, y, scale=scale, kept=weight, weight=weight)
        scale = robust.scale_of(
            lines.residual[0], points.weight, spread=points.spread, n_coefficients=N_COEFFICIENTS
        )
    lines = robust.line(x, y, scale=scale, kept=weight, weight=weight)
    slope, level = float(lines.slope[0]), float(lines.intercept[0])
    jacobian = np.stack([x[0], np.ones_like(x[0])], axis=1)
    wire = np.stack([-points.ft_loss, np.ones_like(x[0])], axis=1)
    return Minimum(
        values=np.array([-slope, level - slope * centre]),
        residuals=lines.residual[0],
        jacobian=jacobian,
        chart=np.array([[-1.0, 0.0], [-centre, 1.0]]),
        centre=(centre,),
        condition_number=condition_number(wire),
        cost=float((weight * robust.costs(lines.residual, scale)).sum()),
        robust_scale=scale if robust_loss else None,
        at_bound=(),
    )
