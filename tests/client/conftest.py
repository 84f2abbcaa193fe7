"""Two networks for a client: a script of answers, and the real application in this process."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from forgetting_client import ForgettingClient, Retry
from forgetting_client.command.app import app
from typer.testing import CliRunner, Result

from service.app import create_app
from service.recipe import points_of
from service.settings import Settings
from service.store import Claim, Store
from tests.client.measured import measured

Answer = httpx2.Response | Exception


@dataclass
class Script:
    """Answers requests with `answers` in turn, and remembers what was asked."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[httpx2.Request] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def paths(self) -> list[str]:
        return [f"{one.method} {one.url.path}" for one in self.requests]


Scripted = Callable[..., tuple[ForgettingClient, Script]]


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell that runs the tests may point at a service of its own."""
    for name in ("FORGETTING_URL", "FORGETTING_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """`client, script = scripted(answer, …)`; waiting costs no time and is written down."""
    opened: list[ForgettingClient] = []

    def make(*answers: Answer, retry: Retry | None = None) -> tuple[ForgettingClient, Script]:
        script = Script(list(answers))
        client = ForgettingClient(
            "http://service.test",
            transport=httpx2.MockTransport(script),
            retry=retry,
            sleep=script.waits.append,
            notice=script.notices.append,
        )
        opened.append(client)
        return client, script

    yield make
    for client in opened:
        client.close()


class SilentBell:
    """Rings reach nobody: in these tests the test itself is the worker."""

    def __call__(self, job_id: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ping(self) -> None: ...


class InProcess(httpx2.BaseTransport):
    """Requests go straight into the app; bodies stream as the app sends them."""

    def __init__(self, web: TestClient) -> None:
        self._web = web

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._web.send(request, stream=True)


@dataclass
class Service:
    """The real application over a real database, and hands to play its worker with."""

    app: FastAPI
    store: Store
    settings: Settings
    transport: InProcess
    client: ForgettingClient
    spec: dict[str, Any]
    """A finetune spec that is admitted."""

    def submit(self, **changes: Any) -> str:
        return self.client.create_job({**self.spec, **changes})["id"]

    def start(self) -> Claim:
        claim = self.store.claim("test")
        assert claim is not None
        return claim

    def finish(self, claim: Claim, *kls: float) -> None:
        """Succeed with a result, law points and one artifact."""
        result = measured(*kls)
        prefix = f"jobs/{claim.job_id}/1"
        name = "checkpoints/step-000010/adapter_config.json"
        file = self.settings.home / "artifacts" / prefix / name
        file.parent.mkdir(parents=True)
        file.write_text('{"r": 8}')
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        kept = [{"name": name, "bytes": file.stat().st_size, "sha256": f"sha256:{digest}"}]
        self.store.finish(
            claim,
            result,
            points=points_of(claim.job_id, claim.spec, result),
            artifacts=kept,
            artifacts_prefix=prefix,
        )

    def forgetting(self, *args: str, **options: Any) -> Result:
        """The command line, its network replaced by the application."""
        line = ["--server", "http://testserver", *args]
        return CliRunner().invoke(app, line, obj=self.transport, **options)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at the newest schema, to copy: migrating takes longer than a test."""
    path = tmp_path_factory.mktemp("migrated") / "service.sqlite3"
    store = Store(f"sqlite:///{path}", Settings())
    store.migrate()
    store.dispose()
    return path


@pytest.fixture
def service(tmp_path: Path, tiny_base: Path, migrated: Path) -> Iterator[Service]:
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(64)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "corpus.txt").write_text("The river runs past the old mill.\n" * 40)
    settings = Settings(
        home=tmp_path / "home",
        model_roots=[tiny_base.parent],
        data_roots=[tmp_path],
        allow_hub=False,
        database_url=f"sqlite:///{tmp_path / 'service.sqlite3'}",
        api_key=None,
    )
    spec = {
        "type": "finetune",
        "base_model": tiny_base.name,
        "dataset": {"path": "rows.jsonl"},
        "training": {"max_steps": 20, "batch_size": 4, "max_length": 64, "lora": {"r": 8}},
        "evaluation": {"corpus": "corpus.txt", "context": 64},
    }
    shutil.copy(migrated, tmp_path / "service.sqlite3")
    store = Store(settings.database, settings)
    application = create_app(store, settings, SilentBell())
    with TestClient(application) as web:
        transport = InProcess(web)
        with ForgettingClient("http://testserver", transport=transport) as client:
            yield Service(application, store, settings, transport, client, spec)
    store.dispose()


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket, for commands in processes of their own; its address."""
    config = uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="warning")
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        sock.close()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    with listening(service.app) as url:
        yield url
