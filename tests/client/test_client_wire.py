"""The client's types name exactly the fields that the service sends."""

from typing import Any, get_type_hints

import pytest
from forgetting_client import errors, gate_wire, law_wire, sweeps, wire
from forgetting_client.command.faults import ADVICE, EXIT_CODES, exit_code
from pydantic import BaseModel

from service import errors as service_errors
from service.schemas import gate, laws, questions, result, views

PAIRS: list[tuple[Any, type[BaseModel]]] = [
    (wire.Progress, views.Progress),
    (wire.JobError, views.JobError),
    (wire.SweepChildren, views.SweepChildren),
    (sweeps.SweepWork, views.SweepWork),
    (sweeps.FailedChild, views.FailedChild),
    (sweeps.FarCorner, views.FarCorner),
    (sweeps.PilotView, views.PilotView),
    (wire.Job, views.Job),
    (wire.Event, views.Event),
    (wire.MetricPoint, views.MetricPoint),
    (wire.Metrics, views.Metrics),
    (wire.CheckpointView, views.CheckpointView),
    (wire.Artifact, views.Artifact),
    (wire.Estimate, result.Estimate),
    (wire.FtLoss, result.FtLoss),
    (wire.Forgetting, result.Forgetting),
    (wire.Checkpoint, result.Checkpoint),
    (wire.LawResidual, result.LawResidual),
    (wire.JobLaw, result.JobLaw),
    (wire.Provenance, result.Provenance),
    (wire.Result, result.Result),
    (gate_wire.GateInterval, gate.GateInterval),
    (gate_wire.GateCheck, gate.GateCheck),
    (gate_wire.GateCandidate, gate.GateCandidate),
    (gate_wire.GateCost, gate.GateCost),
    (gate_wire.GateResult, gate.GateResult),
    (gate_wire.Gate, gate.Gate),
    (law_wire.Point, laws.Point),
    (law_wire.Coefficient, laws.Coefficient),
    (law_wire.Domain, laws.Domain),
    (law_wire.ExposureTried, laws.ExposureTried),
    (law_wire.Across, laws.Across),
    (law_wire.LeftOut, laws.LeftOut),
    (law_wire.LawProvenance, laws.LawProvenance),
    (law_wire.Law, laws.Law),
    (law_wire.PendingLaw, laws.PendingLaw),
    (law_wire.Forecast, questions.Forecast),
    (law_wire.Prediction, questions.Prediction),
    (law_wire.Furthest, questions.Furthest),
    (law_wire.Inverse, questions.Inverse),
    (law_wire.Option, questions.Option),
    (law_wire.Plan, questions.Plan),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda one: one.__name__)
def test_same_fields(ours: Any, theirs: type[BaseModel]) -> None:
    sent = {field.serialization_alias or name for name, field in theirs.model_fields.items()}
    assert get_type_hints(ours).keys() == sent


def below(parent: type) -> set[type]:
    return {parent}.union(*(below(child) for child in parent.__subclasses__()))


def test_every_code_of_the_service_has_a_class_of_the_same_name() -> None:
    theirs = {
        cls.code: cls.__name__
        for cls in below(service_errors.ForgettingError)
        if "code" in vars(cls) and cls is not service_errors.ForgettingError
    }
    assert theirs == {code: cls.__name__ for code, cls in errors.CODES.items()}


def test_every_error_has_an_exit_code_that_no_verdict_owns() -> None:
    for cls in below(errors.ForgettingError):
        if cls.__module__ != errors.__name__:  # a command's own, which it answers itself
            continue
        error = cls("x", status=500) if issubclass(cls, errors.ServiceError) else cls("x")
        assert exit_code(error) in {2, 4}
        wanted = 2 if issubclass(cls, errors.Rejected | errors.Unsendable) else 4
        assert exit_code(error) == wanted
    assert set(EXIT_CODES) | set(ADVICE) <= below(errors.ForgettingError)
