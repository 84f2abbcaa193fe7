"""Names that clients are built on: paths, operations, schemas. New ones are welcome."""

import json
from typing import Any

import pytest

from service.app import create_app
from service.broker import Doorbell
from service.problems import kinds
from service.settings import Settings
from service.store import Store

OPERATIONS = {
    ("post", "/v1/jobs"): "create_job",
    ("get", "/v1/jobs"): "list_jobs",
    ("get", "/v1/jobs/{job_id}"): "show_job",
    ("delete", "/v1/jobs/{job_id}"): "delete_job",
    ("post", "/v1/jobs/{job_id}/cancel"): "cancel_job",
    ("post", "/v1/jobs/{job_id}/resume"): "resume_job",
    ("post", "/v1/jobs/{job_id}/extend"): "extend_job",
    ("get", "/v1/jobs/{job_id}/events"): "job_events",
    ("get", "/v1/jobs/{job_id}/metrics"): "job_metrics",
    ("get", "/v1/jobs/{job_id}/checkpoints"): "job_checkpoints",
    ("get", "/v1/jobs/{job_id}/result"): "job_result",
    ("get", "/v1/jobs/{job_id}/tokens"): "job_tokens",
    ("get", "/v1/jobs/{job_id}/artifacts"): "job_artifacts",
    ("get", "/v1/jobs/{job_id}/artifacts/{name}"): "job_artifact",
    ("post", "/v1/gates"): "create_gate",
    ("get", "/v1/policies/schema"): "policy_schema",
    ("get", "/v1/gates"): "list_gates",
    ("get", "/v1/gates/{gate_id}"): "show_gate",
    ("post", "/v1/adapters"): "upload_adapter",
    ("get", "/v1/adapters"): "list_adapters",
    ("get", "/v1/adapters/{adapter_id}"): "show_adapter",
    ("delete", "/v1/adapters/{adapter_id}"): "delete_adapter",
    ("get", "/v1/laws"): "list_laws",
    ("post", "/v1/laws"): "fit_law",
    ("get", "/v1/laws/{law_id}"): "show_law",
    ("post", "/v1/laws/{law_id}/predict"): "predict",
    ("get", "/v1/models/check"): "check_model",
    ("post", "/v1/keys"): "create_key",
    ("get", "/v1/keys"): "list_keys",
    ("delete", "/v1/keys/{key_id}"): "revoke_key",
    ("get", "/v1/limits"): "show_limits",
    ("get", "/v1/healthz"): "healthz",
    ("get", "/v1/readyz"): "readyz",
    ("get", "/v1/metrics"): "metrics",
    ("get", "/v1/problems/{code}"): "problem_kind",
}
SCHEMAS = {
    "Adapter",
    "Artifact",
    "CheckpointView",
    "DocumentScore",
    "Event",
    "EvaluateSpec",
    "FinetuneSpec",
    "FitRequest",
    "Gate",
    "GateResult",
    "GateSpec",
    "Job",
    "Law",
    "LawPage",
    "Laws",
    "Metrics",
    "Point",
    "Policy",
    "PredictRequest",
    "Prediction",
    "Problem",
    "Readiness",
    "Result",
    "SweepSpec",
    "TokenScore",
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Nothing is started and no database is asked."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    store = Store(settings.database, settings)
    try:
        return create_app(store, settings, Doorbell("redis://127.0.0.1:1/0")).openapi()
    finally:
        store.dispose()


def test_operations(document: Any) -> None:
    found = {
        (method, path): operation["operationId"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert found.items() >= OPERATIONS.items()
    assert len(set(found.values())) == len(found)
    assert all(path.startswith("/v1/") for _, path in found)


def test_schemas(document: Any) -> None:
    assert set(document["components"]["schemas"]) >= SCHEMAS


def test_every_refusal_is_documented_as_a_problem(document: Any) -> None:
    said = document["components"]["responses"]
    for name in ("Refused", "Failed"):
        content = said[name]["content"]
        shapes = [media["schema"]["$ref"] for media in content.values()]
        assert content.keys() == {"application/problem+json"}
        assert shapes == ["#/components/schemas/Problem"]
        assert said[name]["headers"]["x-request-id"]["required"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, name in (("4XX", "Refused"), ("5XX", "Failed")):
                named = {"$ref": f"#/components/responses/{name}"}
                assert operation["responses"][status] == named, (method, path)
            assert "422" not in operation["responses"], (method, path)


def test_every_status_of_a_problem_is_explained(document: Any) -> None:
    said = document["components"]["responses"]
    for kind in kinds():
        name = "Refused" if kind.status < 500 else "Failed"
        assert f"{kind.status} " in said[name]["description"], kind.code


def test_the_document_stays_small(document: Any) -> None:
    """What every operation shares is said once, and referred to."""
    assert len(json.dumps(document)) < 130_000


def test_an_upload_is_documented_with_its_two_files(document: Any) -> None:
    operation = document["paths"]["/v1/adapters"]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert {"200", "201"} <= operation["responses"].keys()


def test_a_gate_is_documented_in_every_form(document: Any) -> None:
    content = document["paths"]["/v1/gates/{gate_id}"]["get"]["responses"]["200"]["content"]
    reports = {"text/markdown", "application/junit+xml", "application/xml"}
    assert content.keys() == {"application/json", *reports}
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/Gate"}
    assert "type" not in document["components"]["schemas"]["GateSpec"]["required"]


def test_a_spec_is_told_apart_by_its_type(document: Any) -> None:
    schema = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    mapping = schema["schema"]["discriminator"]["mapping"]
    assert set(mapping) == {"finetune", "evaluate", "sweep", "gate"}
