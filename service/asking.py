"""Questions to a stored law: what to expect, how far one may go, which plan is best."""

from collections.abc import Mapping
from typing import Any

from service.errors import InvalidSpec
from service.laws import quantities
from service.laws.law import LawFit
from service.laws.predict import predict
from service.schemas.laws import Prediction, PredictRequest


def answer(body: Mapping[str, Any], law: LawFit, request: PredictRequest) -> Prediction:
    """Raises InvalidSpec where the law cannot be asked this."""
    try:
        return _forward(str(body["id"]), law, request)
    except quantities.BadQuery as error:
        raise InvalidSpec(error.message, param=error.field) from error


def _forward(law_id: str, law: LawFit, request: PredictRequest) -> Prediction:
    asked = request.model_dump(exclude={"max_forgetting", "learning_rate"})
    if law.form == "joint_lr":
        from service.laws.across import predict_across

        found = predict_across(law, learning_rate=request.learning_rate, **asked)
    elif request.learning_rate is not None:
        raise quantities.BadQuery(
            f"the {law.form} law holds for one learning rate and takes none", field="learning_rate"
        )
    else:
        found = predict(law, **asked)
    return Prediction(
        law=law_id,
        metric=found.metric,
        value=found.value,
        ci95=found.ci95,
        pi95=found.pi95,
        extrapolating=found.extrapolating,
        distances=found.distances,
        warnings=list(found.warnings),
    )
