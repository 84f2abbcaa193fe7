"""Gate jobs as gates. `gate_X` is the view of `job_X`."""

from collections.abc import Mapping
from typing import Any

from service.errors import NotFound
from service.gate_reason import reason_of, unmeasured, verdict_of
from service.jobs import JobState, Phase
from service.laws.verdict import exit_code
from service.present import error_view, progress_view, rfc3339
from service.schemas.gate import Gate, GateResult
from service.schemas.spec import GateSpec
from service.store import JobRow, Store

GATE, JOB = "gate_", "job_"


def gate_id(job_id: str) -> str:
    return GATE + job_id.removeprefix(JOB)


def job_id(gate: str) -> str:
    """Of a gate's id, or of its job's. Raises NotFound."""
    if gate.startswith(JOB):
        return gate
    if not gate.startswith(GATE):
        raise NotFound(f"no gate {gate}; the id of a gate begins with {GATE}", id=gate)
    return JOB + gate.removeprefix(GATE)


def find_gate(store: Store, gate: str) -> JobRow:
    """The gate's job. Raises NotFound, which names what is there under that id instead."""
    job = job_id(gate)
    try:
        row = store.job(job)
    except NotFound as error:
        raise NotFound(f"no gate {gate}", id=gate) from error
    if row.type != "gate":
        said = f"no gate {gate}: {row.id} is of type {row.type}; /v1/jobs/{row.id} shows it"
        raise NotFound(said, id=gate, type=row.type)
    return row


def show_gate(store: Store, row: JobRow) -> Gate:
    bodies = store.results([row.id]) if row.state is JobState.SUCCEEDED else {}
    return gate_view(row, bodies.get(row.id))


def list_gates(store: Store, rows: list[JobRow]) -> list[Gate]:
    """Without their results, which are long; the sentence is made of them."""
    bodies = store.results([row.id for row in rows if row.state is JobState.SUCCEEDED])
    views = [gate_view(row, bodies.get(row.id)) for row in rows]
    return [view.model_copy(update={"result": None}) for view in views]


def gate_view(row: JobRow, body: Mapping[str, Any] | None) -> Gate:
    """`body`: the stored result of a job that has succeeded."""
    spec = GateSpec.model_validate(row.spec)
    result = None if body is None else GateResult.model_validate(body)
    error = None if row.error is None else error_view(row.error)
    verdict = verdict_of(row.verdict, row.state)
    code = exit_code(verdict, on_inconclusive=spec.policy.on_inconclusive) if verdict else None
    return Gate(
        id=gate_id(row.id),
        job=row.id,
        status=row.state,
        phase=None if row.phase is None else Phase(row.phase),
        progress=None if row.progress is None else progress_view(row.progress),
        verdict=verdict,
        exit_code=code,
        reason=unmeasured(row.state, error) if result is None else reason_of(result),
        error=error,
        base_model=spec.base_model,
        corpus=spec.evaluation.corpus,
        policy=spec.policy,
        result=result,
        created_at=rfc3339(row.created_at),
        finished_at=None if row.finished_at is None else rfc3339(row.finished_at),
    )
