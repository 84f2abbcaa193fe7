"""Artifacts on a server that speaks S3; the worker shares no disk with the service."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx2
import pytest

from tests.e2e.house import house
from tests.e2e.test_apart import worker
from tests.running import running

BUCKET = "forgetting-artifacts"
KEYS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh server with one bucket, which the environment's keys open."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with running(command, "http://127.0.0.1:{port}", _listens, stop=signal.SIGTERM) as at:
        monkeypatch.setenv("AWS_ENDPOINT_URL", at)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield at


def test_a_worker_elsewhere_publishes_what_the_service_serves(
    tmp_path: Path, postgres_database: str, redis_url: str, s3: str
) -> None:
    servers = {
        "FORGETTING_DATABASE_URL": postgres_database,
        "FORGETTING_REDIS_URL": redis_url,
        "FORGETTING_ARTIFACTS_URL": f"s3://{BUCKET}/service",
    }
    with (
        house(tmp_path, "--no-worker", **servers) as home,
        worker(home, tmp_path / "elsewhere"),
    ):
        job_id = home.submit()
        job = home.ends(job_id)
        assert job["status"] == "succeeded", job["error"]
        name = home.client.get(f"/jobs/{job_id}/result").json()["checkpoints"][-1]["adapter"]
        path = f"/jobs/{job_id}/artifacts/{name}/adapter_model.safetensors"
        whole = home.client.get(path)
        assert whole.status_code == 200
        part = home.client.get(path, headers={"Range": "bytes=8-15"})
        assert (part.status_code, part.content) == (206, whole.content[8:16])
        # and another job, on whatever machine, takes the adapter from there
        body = {
            "type": "evaluate",
            "base_model": "tiny_base",
            "adapters": [{"job": job_id}],
            "evaluation": {"corpus": "prose.txt", "context": 32},
        }
        again = home.client.post("/jobs", json=body).json()["id"]
        assert home.ends(again)["status"] == "succeeded"
        kept = boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
        assert {item["Key"].split("/")[1] for item in kept} == {job_id, again}
        home.client.delete(f"/jobs/{job_id}")
        kept = boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
        assert {item["Key"].split("/")[1] for item in kept} == {again}
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def _listens(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/moto-api/", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False
