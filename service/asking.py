"""Questions to a stored law: what to expect, how far one may go, which plan is best."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from service.errors import InvalidSpec
from service.laws import quantities
from service.laws.across import AcrossFit, predict_across
from service.laws.furthest import Inverse
from service.laws.inverse import largest_rank, largest_step, lowest_loss
from service.laws.law import LawFit
from service.laws.plan import plan
from service.laws.predict import Prediction, predict
from service.schemas import questions as wire

Fit = LawFit | AcrossFit


def fit_of(body: Mapping[str, Any]) -> Fit:
    """The law of a stored body, with all that predictions need."""
    if body["form"] == "joint_lr":
        return AcrossFit.from_json(body["fit"])
    return LawFit.from_json(body["fit"])


def forward(law: Fit, **asked: Any) -> Prediction:
    """Raises BadQuery."""
    if isinstance(law, AcrossFit):
        _take_no(asked, "ft_loss", law)
        return predict_across(law, **asked)
    _take_no(asked, "learning_rate", law)
    _take_no(asked, "delta_norm", law)
    return predict(law, **asked)


def answer(body: Mapping[str, Any], request: wire.PredictRequest) -> wire.Prediction | wire.Inverse:
    """Forward, or backward where a limit of forgetting is given.

    Raises InvalidSpec where the law cannot be asked this.
    """
    law, asked = fit_of(body), request.model_dump(exclude_none=True)
    named = {"law": body["id"], "metric": body["metric"]}
    with _refused():
        if request.max_forgetting is None:
            found = forward(law, **asked).to_json()
            return wire.Prediction.model_validate(named | found)
        return wire.Inverse.model_validate(_backward(law, asked) | named)


def plan_of(
    body: Mapping[str, Any], tuning: Mapping[str, Any], request: wire.PlanRequest
) -> wire.Plan:
    """Raises InvalidSpec where the laws cannot be asked this."""
    with _refused():
        found = plan(fit_of(body), fit_of(tuning), **request.model_dump(exclude_none=True))
    return wire.Plan.model_validate(
        {"law": body["id"], "tuning_law": tuning["id"], **found.to_json()}
    )


def _backward(law: Fit, asked: dict[str, Any]) -> dict[str, Any]:
    ask, known = _inverse(law, asked)
    for name in sorted(asked.keys() - known - {"max_forgetting"}):
        _take_no(asked, name, law, beside=known)
    found: dict[str, Any] = ask(law, **asked).to_json()
    return found


def _inverse(law: Fit, asked: Mapping[str, Any]) -> tuple[Callable[..., Inverse], set[str]]:
    """Which way is asked, and what it may be told."""
    if law.form == "linear":
        return lowest_loss, set()
    if "step" in asked:
        return largest_rank, {"step", "learning_rate"}
    if "rank" in asked or "trainable_params" in asked:
        return largest_step, {"rank", "trainable_params", "learning_rate"}
    raise quantities.BadQuery(
        "max_forgetting needs rank or trainable_params, then the largest step is sought, "
        "or step, then the largest rank",
        field="rank",
    )


def _take_no(asked: Mapping[str, Any], name: str, law: Fit, beside: Collection[str] = ()) -> None:
    if name in asked:
        given = [other for other in ("max_forgetting", *sorted(beside)) if other in asked]
        more = f" beside {' and '.join(given)}" if given else ""
        raise quantities.BadQuery(f"the {law.form} law takes no {name}{more}", field=name)


@contextmanager
def _refused() -> Iterator[None]:
    """A bad question in the service's own terms."""
    try:
        yield
    except quantities.BadQuery as error:
        raise InvalidSpec(error.message, param=error.field) from error
