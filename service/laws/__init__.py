"""The scaling laws of forgetting: pure mathematics, no I/O. Forgetting is in nats per token.

What callers use is named here; a newcomer reads the files in this order.
- Points in: `quantities` (points, errors, burn-in, weights); `forgetting` is the paper's Table 1.
- A fit: `fit` -> `linear` or `joint` (on `curve`, `robust`) -> `minimum` -> `law`, its value.
- Its intervals: `clusters` (the curve), `scatter` (a new run), `intervals` (95 % of either).
- Asked: `predict`; backwards `inverse` (`furthest`); `plan` (`option`, `option_search`); one run
  against all others, `residual`.
- Judged: `judge` -> `judgement`, from `measured` columns: `heldout` (`contenders`, `rivals`),
  `choice`, `criterion`, `variance`, `spread`, `deming`, `sufficiency`, `mixture`, `notices`.
- Across learning rates: `across` -> `across_law`, from `exposure`, `rates`, `rate_power`.
"""

from service.laws.across import fit_across, predict_across
from service.laws.across_law import AcrossFit
from service.laws.fit import fit
from service.laws.furthest import Furthest, Inverse
from service.laws.inverse import largest_rank, largest_step, lowest_loss
from service.laws.judge import judge
from service.laws.judgement import Judgement
from service.laws.law import Coefficient, LawFit
from service.laws.option import Option, Plan
from service.laws.plan import plan
from service.laws.predict import Prediction, predict
from service.laws.quantities import (
    BadPoints,
    BadQuery,
    Domain,
    Form,
    LawError,
    Metric,
    Point,
    Target,
    TooFewPoints,
)
from service.laws.residual import Residual, residual

__all__ = [
    "AcrossFit",
    "BadPoints",
    "BadQuery",
    "Coefficient",
    "Domain",
    "Form",
    "Furthest",
    "Inverse",
    "Judgement",
    "LawError",
    "LawFit",
    "Metric",
    "Option",
    "Plan",
    "Point",
    "Prediction",
    "Residual",
    "Target",
    "TooFewPoints",
    "fit",
    "fit_across",
    "judge",
    "largest_rank",
    "largest_step",
    "lowest_loss",
    "plan",
    "predict",
    "predict_across",
    "residual",
]
