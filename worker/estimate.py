"""Per-position scores of one candidate -> what a result says. Pure: no file, model or device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.schemas.result import (
    ConfidenceBin,
    DeltaP,
    DocumentScore,
    Estimate,
    Forgetting,
    Perplexity,
)
from worker.bootstrap import MIN_DOCUMENTS, ratio_intervals

METRICS = ("kl", "ce_soft", "ce_hard", "same_top", "same_top5", "nll_base", "nll_tuned")
PERCENTILES = {
    "max": 100.0,
    "p99.9": 99.9,
    "p99": 99.0,
    "p95": 95.0,
    "p90": 90.0,
    "median": 50.0,
    "p10": 10.0,
    "p5": 5.0,
    "p1": 1.0,
    "p0.1": 0.1,
    "min": 0.0,
}
CONFIDENCE_BINS = 10


@dataclass(frozen=True)
class Positions:
    """Base and candidate side by side, one entry per scored position, documents in order."""

    columns: Mapping[str, NDArray[Any]]
    """METRICS and `h_base`, `top_p`; `kl_reverse` if it was asked for."""
    document: NDArray[np.int32]  # (positions,)

    def sums(self, names: tuple[str, ...], n_documents: int) -> NDArray[np.float64]:
        """Per-document float64 sums (documents, metrics)."""
        return np.column_stack(
            [np.bincount(self.document, self.columns[name], n_documents) for name in names]
        )


def positions_of(
    rows: Mapping[str, NDArray[Any]],
    scores: Mapping[str, NDArray[Any]],
    document: NDArray[np.int32],
) -> Positions:
    """Join the base's rows and a candidate's scores. `rows` beyond these columns is not read."""
    base = {name: np.asarray(rows[name]) for name in ("h_base", "nll_base", "top_p")}
    return Positions({**base, **scores}, document)


def forgetting(positions: Positions, *, n_bootstrap: int = 10_000, seed: int = 17) -> Forgetting:
    """Token-weighted means with intervals over documents, and the distribution of KL."""
    columns = positions.columns
    names = METRICS + (("kl_reverse",) if "kl_reverse" in columns else ())
    estimates = estimate(positions, names, n_bootstrap=n_bootstrap, seed=seed)
    p_base, p_tuned = np.exp(-columns["nll_base"]), np.exp(-columns["nll_tuned"])
    change = p_tuned - p_base
    nll_base, nll_tuned = estimates["nll_base"].value, estimates["nll_tuned"].value
    return Forgetting(
        **{name: estimates[name] for name in METRICS},
        kl_reverse=estimates.get("kl_reverse"),
        h_base=float(columns["h_base"].mean()),
        kl_percentiles={
            name: float(value)
            for name, value in zip(
                PERCENTILES,
                np.percentile(columns["kl"], list(PERCENTILES.values())),
                strict=True,
            )
        },
        delta_p=DeltaP(mean=float(change.mean()), rms=float(np.sqrt((change**2).mean()))),
        ppl=Perplexity(
            base=_perplexity(nll_base),
            tuned=_perplexity(nll_tuned),
            ln_ratio=nll_tuned - nll_base,
        ),
        by_confidence=by_confidence(columns),
    )


def _perplexity(nll: float) -> float:
    """exp(nll), held below the largest float: a ruined candidate must still be reported."""
    return float(np.exp(min(nll, 700.0)))


def estimate(
    positions: Positions, names: tuple[str, ...], *, n_bootstrap: int = 10_000, seed: int = 17
) -> dict[str, Estimate]:
    """Means over positions, with BCa intervals where there are documents enough."""
    used = np.unique(positions.document)
    sums = positions.sums(names, int(used[-1]) + 1)[used]
    counts = np.bincount(positions.document).astype(np.float64)[used]
    found = estimates(sums, counts, n_bootstrap=n_bootstrap, seed=seed)
    return dict(zip(names, found, strict=True))


def estimates(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    *,
    scope: Literal["documents", "rows"] = "documents",
    n_bootstrap: int = 10_000,
    seed: int = 17,
) -> list[Estimate]:
    """One per column of `sums` (documents, columns), each over `counts` (documents,) tokens. The
    same documents, counts and seed give the same resamples in every call."""
    values = [float(total / counts.sum()) for total in sums.sum(0)]
    if len(sums) < MIN_DOCUMENTS:
        reason = f"{len(sums)} {scope}; a bootstrap over {scope} needs {MIN_DOCUMENTS}"
        return [Estimate(value=value, ci_reason=reason, scope=scope) for value in values]
    intervals = ratio_intervals(sums, counts, n_bootstrap=n_bootstrap, seed=seed)
    return [
        Estimate(value=value, ci95=(interval.low, interval.high), scope=scope)
        for value, interval in zip(values, intervals, strict=True)
    ]


def by_confidence(columns: Mapping[str, NDArray[Any]]) -> list[ConfidenceBin]:
    """KL and agreement where the base was unsure, and where it was sure. 1.0 is in the last bin."""
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    bins = np.clip(np.digitize(columns["top_p"], edges) - 1, 0, CONFIDENCE_BINS - 1)
    counts = np.bincount(bins, minlength=CONFIDENCE_BINS)
    means = {
        name: np.bincount(bins, columns[name], CONFIDENCE_BINS) / np.maximum(counts, 1)
        for name in ("kl", "same_top")
    }
    return [
        ConfidenceBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            n_positions=int(counts[i]),
            kl=float(means["kl"][i]) if counts[i] else None,
            same_top=float(means["same_top"][i]) if counts[i] else None,
        )
        for i in range(CONFIDENCE_BINS)
    ]


def document_table(positions: Positions, titles: list[str]) -> list[DocumentScore]:
    """One row per document that has scored positions, in order."""
    names = ("kl", "ce_soft", "ce_hard", "same_top", "nll_base", "nll_tuned")
    sums = positions.sums(names, len(titles))
    counts = np.bincount(positions.document, minlength=len(titles))
    return [
        DocumentScore(
            index=i,
            title=titles[i],
            n_positions=int(counts[i]),
            **{name: float(s / counts[i]) for name, s in zip(names, sums[i], strict=True)},
        )
        for i in np.flatnonzero(counts)
    ]
