"""The production set-up: PostgreSQL, Redis, the service, and a worker with a home of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.house import House, house


@contextmanager
def worker(home: House, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = home.environment | {"FORGETTING_HOME": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "service.command", "worker"], env=environment, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_service_and_worker_meet_in_database_broker_and_artifacts(
    tmp_path: Path, postgres_database: str, redis_url: str
) -> None:
    servers = {
        "FORGETTING_DATABASE_URL": postgres_database,
        "FORGETTING_REDIS_URL": redis_url,
        "FORGETTING_ARTIFACTS_URL": (tmp_path / "artifacts").as_uri(),
    }
    with house(tmp_path, "--no-worker", **servers) as home:
        ready = home.client.get("/readyz")
        assert ready.status_code == 503
        job_id = home.submit()
        with worker(home, tmp_path / "elsewhere"):
            job = home.ends(job_id)
            assert job["status"] == "succeeded", job["error"]
            assert home.client.get("/readyz").status_code == 200
        name = home.client.get(f"/jobs/{job_id}/result").json()["checkpoints"][-1]["adapter"]
        weights = home.client.get(f"/jobs/{job_id}/artifacts/{name}/adapter_model.safetensors")
        assert weights.status_code == 200
        assert len(weights.content) > 1000
    assert not list((tmp_path / "home").rglob("*.safetensors"))
