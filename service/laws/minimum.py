"""What a search ends with, whichever form was fitted: the seam between searching and judging."""

from dataclasses import dataclass

import numpy as np

from service.laws.quantities import Floats


@dataclass(frozen=True)
class Minimum:
    """Best coefficients of one form, in the order of `law.COEFFICIENTS`."""

    values: Floats  # (m,)
    residuals: Floats  # (k,), measured minus fitted
    jacobian: Floats  # (k, c), derivative of the law by its centred coefficients
    chart: Floats  # (c, c), derivative of the interval coordinates by the centred coefficients
    centre: tuple[float, ...]
    condition_number: float | None
    cost: float
    robust_scale: float | None
    at_bound: tuple[str, ...]


def condition_number(jacobian: Floats) -> float | None:
    """Largest over least singular value with columns of length one; null where singular."""
    lengths = np.linalg.norm(jacobian, axis=0)
    if not np.all(lengths > 0):
        return None
    singular = np.linalg.svd(jacobian / lengths, compute_uv=False)
    if singular[-1] <= 1e-15 * singular[0] or len(singular) < jacobian.shape[1]:
        return None
    return float(singular[0] / singular[-1])
