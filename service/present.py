"""Rows as views: what is stored, as clients see it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.gate_reason import verdict_of
from service.progress import sweep_fields
from service.schemas.keys import Key
from service.schemas.result import DocumentScore, TokenScore, WindowScore
from service.schemas.spec import Lora
from service.schemas.views import (
    Adapter,
    CheckpointView,
    Event,
    Job,
    JobError,
    MetricPoint,
    Metrics,
    Page,
    Progress,
)
from service.store import EventRow, JobRow, MetricRow, Store
from service.store.rows import AdapterRow, KeyRow


def rfc3339(epoch: float) -> str:
    """UTC with milliseconds: `2025-01-31T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_view(row: JobRow, store: Store, law: Mapping[str, Any] | None = None) -> Job:
    """`law`: `law` and `law_reason`, where they were asked for."""
    sweep = sweep_fields(row, store) if row.type == "sweep" else {}
    return Job.model_validate(
        {
            "id": row.id,
            "type": row.type,
            "status": row.state,
            "phase": row.phase,
            "progress": None if row.progress is None else progress_view(row.progress),
            "attempt": row.attempt,
            "failures": row.failures,
            "cancel_requested": row.cancel_requested,
            "created_at": rfc3339(row.created_at),
            "started_at": None if row.started_at is None else rfc3339(row.started_at),
            "finished_at": None if row.finished_at is None else rfc3339(row.finished_at),
            "sweep": row.sweep_id,
            "children": None,
            "verdict": verdict_of(row.verdict, row.state) if row.type == "gate" else None,
            "error": None if row.error is None else error_view(row.error),
            **(law or {"law": None, "law_reason": None}),
            "metadata": row.metadata,
            "spec": resolved(row.spec),
            **sweep,
        }
    )


def resolved(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with alpha filled in; a sweep's plain LoRA has one alpha per child."""
    if "training" not in spec:
        return dict(spec)
    lora = Lora.model_validate(spec["training"]["lora"])
    if lora.use_rslora or spec["type"] == "finetune":
        lora.lora_alpha = lora.alpha
    return {**spec, "training": {**spec["training"], "lora": lora.model_dump(mode="json")}}


def progress_view(progress: Mapping[str, Any]) -> Progress:
    return Progress(done=progress["done"], total=progress["total"], unit=progress["unit"])


def error_view(error: Mapping[str, Any]) -> JobError:
    known = {name: error[name] for name in ("code", "detail", "class", "param") if name in error}
    return JobError.model_validate(known | {"details": error.get("details") or {}})


def event_view(row: EventRow) -> Event:
    return Event(id=row.id, at=rfc3339(row.at), kind=row.kind, data=row.data)


def metrics_view(series: Mapping[str, list[MetricRow]]) -> Metrics:
    points = {
        name: [MetricPoint(step=p.step, value=p.value, at=rfc3339(p.at)) for p in rows]
        for name, rows in series.items()
    }
    return Metrics(series=points)


def adapter_view(row: AdapterRow) -> Adapter:
    fields = {name: getattr(row, name) for name in Adapter.model_fields if name != "created_at"}
    return Adapter(**fields, created_at=rfc3339(row.created_at))


def key_view(row: KeyRow) -> Key:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    at = {name: getattr(row, name) for name in times}
    shown = {name: getattr(row, name) for name in Key.model_fields if name not in times}
    return Key(**shown, **{name: None if t is None else rfc3339(t) for name, t in at.items()})


def checkpoints_view(rows: list[dict[str, Any]]) -> Page[CheckpointView]:
    return Page(data=[CheckpointView.model_validate(row) for row in rows], has_more=False)


def worst_tokens(result: Mapping[str, Any], document: int | None, limit: int) -> Page[TokenScore]:
    return _worst(TokenScore, result["worst_tokens"], "document", document, limit)


def worst_windows(result: Mapping[str, Any], document: int | None, limit: int) -> Page[WindowScore]:
    return _worst(WindowScore, result["worst_windows"], "document", document, limit)


def worst_documents(
    result: Mapping[str, Any], document: int | None, limit: int
) -> Page[DocumentScore]:
    return _worst(DocumentScore, result["documents"], "index", document, limit)


def _worst(view: Any, rows: list[Any], key: str, document: int | None, limit: int) -> Page[Any]:
    """Largest KL first; ties in the result's own order."""
    kept = [row for row in rows if document is None or row[key] == document]
    kept.sort(key=lambda row: -float(row["kl"]))
    return Page(data=[view.model_validate(row) for row in kept[:limit]], has_more=len(kept) > limit)
