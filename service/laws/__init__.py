"""The scaling laws of forgetting: pure mathematics, no I/O. Forgetting is in nats per token."""

from service.laws.fit import fit
from service.laws.law import Coefficient, LawFit
from service.laws.predict import Prediction, predict
from service.laws.quantities import (
    BadPoints,
    BadQuery,
    Domain,
    Form,
    LawError,
    Metric,
    Point,
    TooFewPoints,
)

__all__ = [
    "BadPoints",
    "BadQuery",
    "Coefficient",
    "Domain",
    "Form",
    "LawError",
    "LawFit",
    "Metric",
    "Point",
    "Prediction",
    "TooFewPoints",
    "fit",
    "predict",
]
