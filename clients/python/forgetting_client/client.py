"""`ForgettingClient`: every endpoint of the service as a method.

with ForgettingClient() as client:
    job = client.create_job({"base_model": "Qwen/Qwen3-0.6B", "dataset": {"path": "x.jsonl"}})
    print(client.wait(job["id"])["status"])
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import httpx2

from forgetting_client.adapter_methods import AdapterMethods
from forgetting_client.connection import Connection, Retry
from forgetting_client.download import download
from forgetting_client.errors import ServiceError
from forgetting_client.follow import follow
from forgetting_client.gate_methods import GateMethods
from forgetting_client.key_methods import KeyMethods
from forgetting_client.law_methods import LawMethods
from forgetting_client.pages import object_list, pages, segment
from forgetting_client.waiting import key_header, wait_for
from forgetting_client.wire import (
    Artifact,
    CheckpointView,
    Event,
    Health,
    Job,
    Metrics,
    ModelCheck,
    Readiness,
    Result,
)


class ForgettingClient(AdapterMethods, GateMethods, KeyMethods, LawMethods):
    """One service. Address and key come from the arguments, else FORGETTING_URL and
    FORGETTING_API_KEY; the default address is http://127.0.0.1:8000.

    `transport` and `sleep` are seams for tests, `notice` hears of every retry.
    Everything raises the classes of `forgetting_client.errors`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry: Retry | None = None,
        transport: httpx2.BaseTransport | None = None,
        notice: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(
            base_url,
            api_key=api_key,
            timeout=timeout,
            retry=retry,
            transport=transport,
            notice=notice,
            sleep=sleep,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @property
    def url(self) -> str:
        return self._connection.url

    # jobs

    def create_job(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Queue a job. Without a key one is made up, so that a retry never doubles the job."""
        headers = key_header(idempotency_key)
        body = self._connection.object("POST", "v1/jobs", body=dict(spec), headers=headers)
        return cast(Job, body)

    def job(self, job_id: str) -> Job:
        return cast(Job, self._connection.object("GET", _job(job_id)))

    def jobs(
        self,
        *,
        status: str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's name
        base_model: str | None = None,
        sweep: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first, page after page. `limit`: at most so many in all."""
        filters = {"status": status, "type": type, "base_model": base_model, "sweep": sweep}
        filters |= {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return cast(Iterator[Job], pages(self._connection, "v1/jobs", filters, limit))

    def cancel(self, job_id: str) -> Job:
        return cast(Job, self._connection.object("POST", f"{_job(job_id)}/cancel"))

    def resume(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, from its last whole resume checkpoint."""
        path = f"{_job(job_id)}/resume"
        # A second resume would be refused, so a lost answer must not be asked for again.
        return cast(Job, self._connection.object("POST", path, repeatable=False))

    def extend(self, job_id: str) -> Job:
        """The sweep that goes on from this pilot; the same one however often it is asked for."""
        return cast(Job, self._connection.object("POST", f"{_job(job_id)}/extend"))

    def delete(self, job_id: str) -> None:
        self._connection.send("DELETE", _job(job_id))

    def events(self, job_id: str, *, after: int | None = None) -> Iterator[Event]:
        """Events as they happen, up to the job's `done`; survives broken connections."""
        return follow(self._connection, _job(job_id), after=after)

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job once it is succeeded, failed or cancelled. WaitTimeout after `timeout` s."""
        return wait_for(
            lambda: self.job(job_id), job_id, timeout=timeout, sleep=self._connection.sleep
        )

    def metrics(self, job_id: str, names: Sequence[str] | None = None) -> Metrics:
        params = {"names": ",".join(names)} if names else None
        body = self._connection.object("GET", f"{_job(job_id)}/metrics", params=params)
        return cast(Metrics, body)

    def checkpoints(self, job_id: str) -> list[CheckpointView]:
        return cast(
            list[CheckpointView],
            self._list(f"{_job(job_id)}/checkpoints"),
        )

    def result(self, job_id: str) -> Result:
        """What was measured. NotFinished while there is none."""
        return cast(Result, self._connection.object("GET", f"{_job(job_id)}/result"))

    def tokens(
        self,
        job_id: str,
        *,
        group: Literal["token", "document", "window"] = "token",
        document: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The tokens, windows or documents with the largest KL, worst first."""
        params = {"group": group, "document": document, "limit": limit}
        return self._list(f"{_job(job_id)}/tokens", params=params)

    def artifacts(self, job_id: str) -> list[Artifact]:
        return cast(
            list[Artifact],
            self._list(f"{_job(job_id)}/artifacts"),
        )

    def download(
        self,
        job_id: str,
        name: str,
        path: str | Path,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Artifact `name` as the file `path`, or in the folder `path`. Its digest is checked.

        `progress` hears how many bytes there are so far. DigestMismatch keeps no file.
        """
        known = {artifact["name"]: artifact for artifact in self.artifacts(job_id)}
        return download(self._connection, _job(job_id), name, known.get(name), Path(path), progress)

    # the service itself

    def health(self) -> Health:
        return cast(Health, self._connection.object("GET", "v1/healthz"))

    def ready(self) -> Readiness:
        """Which parts are ready. A service that is not (503) is an answer, not an error."""
        try:
            return cast(Readiness, self._connection.object("GET", "v1/readyz", attempts=1))
        except ServiceError as error:
            if error.code == "not_ready" and "checks" in error.details:
                return cast(Readiness, error.details)
            raise

    def check_model(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: Literal["bfloat16", "float32"] | None = None,
        rank: int | None = None,
        max_length: int | None = None,
        gpu_bytes: int | None = None,
    ) -> ModelCheck:
        """Can jobs use this base there, and will it fit? A refusal is a line of the answer."""
        params: dict[str, Any] = {"model": model, "revision": revision, "dtype": dtype}
        params |= {"rank": rank, "max_length": max_length, "gpu_bytes": gpu_bytes}
        return cast(ModelCheck, self._connection.object("GET", "v1/models/check", params=params))

    def _list(self, path: str, **options: Any) -> list[Any]:
        return object_list(self._connection, "data", "GET", path, **options)


def _job(job_id: str) -> str:
    return f"v1/jobs/{segment(job_id, 'job')}"
