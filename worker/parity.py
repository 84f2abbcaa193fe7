"""The parity probe: a few windows of a vLLM result scored by transformers too, base and candidate.

Two independent engines that agree per position had the same weights, the same adapter and the same
rows; one of them asking for another adapter, or for none, does not agree.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from worker.divergence import base_rows, compare
from worker.head import candidate_head, head_of
from worker.model import Base
from worker.score import BasePass, Scores, exact_float32, forward
from worker.windows import Windows

PROBE_WINDOWS = 6
LIMITS = {torch.float32: (1e-3, 1e-3)}
COARSE = (0.1, 0.5)
"""Of means, relative, and of one position, in nats: float32 engines differ by 1e-6 and 1e-4;
bfloat16 ones round everywhere, and by 0.03 at a position of a flat model."""
SLACK = 3e-6
"""Nats of a mean that the identity's arithmetic cannot resolve."""


class Parity:
    def __init__(self, base: Base, windows: Windows) -> None:
        """Runs the base, with no adapter over it."""
        chosen = np.linspace(0, len(windows) - 1, min(PROBE_WINDOWS, len(windows)))
        self._windows, self._dtype = windows, base.dtype
        self._head = head_of(base.model)
        self._probed = []
        with exact_float32():
            for window in np.unique(chosen.astype(np.int64)):
                batch = forward(base.model, windows, np.array([window]))
                rows = base_rows(batch.hidden, self._head, batch.targets, chunk=64, route="logits")
                self._probed.append((window, batch.positions, rows))

    def check(self, model: PreTrainedModel, scores: Scores, base_pass: BasePass) -> dict[str, Any]:
        """`failed` where the engines differ by more than both may round. Differences in nats."""
        head = candidate_head(model, like=self._head)
        mine: list[NDArray[np.float64]] = []
        with exact_float32():
            for window, _, rows in self._probed:
                batch = forward(model, self._windows, np.array([window]))
                found = compare(batch.hidden, head, rows, chunk=64, base_head=self._head)
                mine.append(found.kl.cpu().numpy())
        kl = np.concatenate(mine)
        nll = np.concatenate([rows.nll_base.cpu().numpy() for _, _, rows in self._probed])
        places = np.concatenate([positions for _, positions, _ in self._probed])
        return verdict(
            kl,
            scores["kl"][places],
            nll_gap=float(abs(base_pass.rows["nll_base"][places] - nll).max()),
            n_windows=len(self._probed),
            noise=abs(base_pass.noise_kl),
            limits=LIMITS.get(self._dtype, COARSE),
        )


def verdict(
    reference: NDArray[np.float64],
    kl: NDArray[np.float64],
    *,
    nll_gap: float,
    n_windows: int,
    noise: float,
    limits: tuple[float, float],
) -> dict[str, Any]:
    relative, absolute = limits
    worst = float(abs(kl - reference).max())
    mean = float(reference.mean())
    gap = abs(float(kl.mean()) - mean)
    off = gap > relative * abs(mean) + SLACK + 3 * noise
    allowed = absolute + relative * float(abs(reference).max())
    return {
        "n_windows": n_windows,
        "max_abs_kl": worst,
        "mean_rel_kl": gap / abs(mean) if mean else (0.0 if gap == 0 else None),
        "max_abs_nll_base": nll_gap,
        "limit": relative,
        "limit_abs": absolute,
        "failed": bool(off or worst > allowed or nll_gap > absolute),
    }


def worst_of(found: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of several candidates: a failed one, else the one farthest off."""
    if not found:
        return None
    return dict(max(found, key=lambda one: (one["failed"], one["max_abs_kl"])))


def warning_of(parity: Mapping[str, Any]) -> str:
    return (
        f"PARITY FAILED: on {parity['n_windows']} windows vllm and transformers differ by up to "
        f"{parity['max_abs_kl']:.2g} nats of KL at a position; do not use these numbers"
    )
