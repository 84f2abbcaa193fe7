"""Questions to a stored law: what to expect, how far one may go, which plan is best."""

from collections.abc import Mapping
from typing import Any

from service.errors import InvalidSpec
from service.laws import quantities
from service.laws.law import LawFit
from service.laws.predict import Prediction, predict
from service.schemas import laws as wire

Fit = LawFit


def fit_of(body: Mapping[str, Any]) -> Fit:
    return LawFit.from_json(body["fit"])


def answer(body: Mapping[str, Any], request: wire.PredictRequest) -> wire.Prediction:
    """Raises InvalidSpec where the law cannot be asked this."""
    asked = request.model_dump(exclude_none=True)
    try:
        found = forward(fit_of(body), **asked)
    except quantities.BadQuery as error:
        raise InvalidSpec(error.message, param=error.field) from error
    return wire.Prediction(
        law=body["id"],
        metric=found.metric,
        value=found.value,
        ci95=found.ci95,
        pi95=found.pi95,
        extrapolating=found.extrapolating,
        distances=found.distances,
        warnings=list(found.warnings),
    )


def forward(law: Fit, **asked: Any) -> Prediction:
    """Raises BadQuery."""
    if law.form == "joint_lr":
        from service.laws.across import predict_across

        return predict_across(law, **asked)
    if "learning_rate" in asked:
        raise quantities.BadQuery(
            f"the {law.form} law holds for one learning rate and takes none", field="learning_rate"
        )
    return predict(law, **asked)
