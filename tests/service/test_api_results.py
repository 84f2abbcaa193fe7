"""What finished jobs answer: result, series, checkpoints, worst tokens, artifacts."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.artifacts import asked_range
from service.schemas.result import Result
from service.settings import Settings
from service.store import Store
from tests.results import STEPS, run_next

Json = dict[str, Any]
CONTENT = bytes(range(256)) * 4


@pytest.fixture
def finished(api: TestClient, finetune: Json, store: Store, api_settings: Settings) -> str:
    """Id of a finetune job that has a result and two artifacts."""
    job: str = api.post("/jobs", json=finetune).json()["id"]
    folder = api_settings.home / "artifacts" / job / "1" / "checkpoints" / "step-000010"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(CONTENT)
    listed = (
        artifact("checkpoints/step-000010/adapter_model.safetensors", CONTENT),
        artifact("checkpoints/step-000010/lost.json", b"{}"),
    )
    assert run_next(store, artifacts=listed, artifacts_prefix=f"{job}/1") == job
    return job


def artifact(name: str, content: bytes) -> Json:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"name": name, "bytes": len(content), "sha256": digest}


def test_an_unfinished_job_has_no_result_yet(api: TestClient, finetune: Json) -> None:
    job = api.post("/jobs", json=finetune).json()["id"]
    for path in ("result", "tokens"):
        answer = api.get(f"/jobs/{job}/{path}")
        assert answer.status_code == 409
        assert answer.json()["code"] == "not_finished"
        assert float(answer.headers["Retry-After"]) > 0
        assert answer.json()["details"] == {"status": "queued"}


def test_the_result_is_what_the_worker_measured(api: TestClient, finished: str) -> None:
    body = api.get(f"/jobs/{finished}/result").json()
    Result.model_validate(body)
    assert [kept["step"] for kept in body["checkpoints"]] == list(STEPS)
    assert body["kl"]["value"] == body["checkpoints"][-1]["forgetting"]["kl"]["value"]


def test_series_and_checkpoints(api: TestClient, finished: str) -> None:
    series = api.get(f"/jobs/{finished}/metrics").json()["series"]
    assert [point["step"] for point in series["train_loss"]] == list(STEPS)
    assert series["train_loss"][0]["at"].endswith("Z")
    assert api.get(f"/jobs/{finished}/metrics?names=kl,ce_soft").json() == {"series": {}}
    kept = api.get(f"/jobs/{finished}/checkpoints").json()
    assert [row["step"] for row in kept["data"]] == list(STEPS)
    assert kept["has_more"] is False


def test_what_was_forgotten_most_comes_first(api: TestClient, finished: str) -> None:
    def kl(**params: Any) -> list[float]:
        page = api.get(f"/jobs/{finished}/tokens", params=params).json()
        return [row["kl"] for row in page["data"]]

    assert kl() == [5.0, 3.0, 2.0]
    assert kl(limit=1) == [5.0]
    assert kl(document=0) == [2.0]
    assert kl(group="window") == [0.9, 0.7]
    assert kl(group="document") == [0.3, 0.2, 0.1]
    assert kl(group="document", document=2) == [0.2]
    assert api.get(f"/jobs/{finished}/tokens", params={"limit": 2}).json()["has_more"] is True
    refused = api.get(f"/jobs/{finished}/tokens", params={"group": "planet"})
    assert (refused.status_code, refused.json()["param"]) == (422, "group")


def test_artifacts_are_listed_and_sent_whole_or_in_part(api: TestClient, finished: str) -> None:
    listed = api.get(f"/jobs/{finished}/artifacts").json()["data"]
    name = "checkpoints/step-000010/adapter_model.safetensors"
    assert listed[0] == artifact(name, CONTENT)
    whole = api.get(f"/jobs/{finished}/artifacts/{name}")
    assert whole.content == CONTENT
    assert whole.headers["content-length"] == str(len(CONTENT))
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    for asked, expected in [("bytes=10-19", CONTENT[10:20]), ("bytes=-4", CONTENT[-4:])]:
        part = api.get(f"/jobs/{finished}/artifacts/{name}", headers={"Range": asked})
        assert (part.status_code, part.content) == (206, expected)
    assert part.headers["content-range"] == "bytes 1020-1023/1024"
    beyond = api.get(f"/jobs/{finished}/artifacts/{name}", headers={"Range": "bytes=5000-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */1024")


def test_an_artifact_store_that_is_away_is_said_before_the_first_byte(
    api: TestClient, finished: str, api_settings: Settings
) -> None:
    name = "checkpoints/step-000010/adapter_model.safetensors"
    file = api_settings.home / "artifacts" / finished / "1" / name
    file.unlink()
    file.mkdir()  # can be opened by nobody
    answers = [api.get(f"/jobs/{finished}/artifacts/{name}")]
    api_settings.artifacts_url = "nonsense://x"
    answers.append(api.get(f"/jobs/{finished}/artifacts/{name}"))
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["code"] == "system_fault"
        assert "artifact store" in answer.json()["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "checkpoints/step-000010/lost.json",
        "checkpoints/step-000010",
        "../../../secret.txt",
        "..%2f..%2f..%2fsecret.txt",
        "%2fetc%2fpasswd",
    ],
)
def test_only_listed_artifacts_are_sent(
    api: TestClient, finished: str, name: str, api_settings: Settings, roots: Path
) -> None:
    (api_settings.home / "secret.txt").write_text("hidden words")
    answer = api.get(f"/v1/jobs/{finished}/artifacts/{name}")
    assert answer.status_code == 404
    assert "hidden words" not in answer.text


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 100)),
        ("bytes=90-900", (90, 100)),
        ("bytes=-900", (0, 100)),
        ("bytes=-0", (100, 100)),
        ("bytes=7-3", (7, 4)),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert asked_range(header, 100) == expected


def test_deleting_answers_also_where_files_stay_behind(
    sqlite_api: TestClient,
    sqlite_store: Store,
    finetune: Json,
    api_settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = sqlite_api.post("/jobs", json=finetune).json()["id"]
    run_next(sqlite_store, artifacts_prefix=f"{job}/1")
    api_settings.artifacts_url = "nonsense://x"
    assert sqlite_api.delete(f"/jobs/{job}").status_code == 204
    assert f"{job}/1 stay behind" in caplog.text
    assert sqlite_api.get(f"/jobs/{job}").status_code == 404
