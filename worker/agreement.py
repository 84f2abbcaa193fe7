"""Whether a faster form of a module gives what the module itself gives."""

import math
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class Agreement:
    """Looked at once for each module, but again after NaN, which may be an adapter's doing."""

    def __init__(self, tolerance: Mapping[torch.dtype, float]) -> None:
        """Largest difference by dtype, as a share of the largest value; 0 for other dtypes."""
        self._tolerance = tolerance
        self._known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

    @torch.inference_mode()
    def of(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        own: Callable[[], Tensor],
        faster: Callable[[], Tensor],
    ) -> bool:
        """`own` and `faster` compute the same numbers by the module's own form and by the other."""
        if module not in self._known:
            wanted = own().float()
            gap = float((faster().float() - wanted).abs().max())
            if not math.isfinite(gap):
                return False
            limit = self._tolerance.get(dtype, 0.0) * float(wanted.abs().max())
            self._known[module] = gap <= limit
        return self._known[module]
