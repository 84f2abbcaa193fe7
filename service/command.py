"""`forgetting-service`: the operator's command. Every refusal is one sentence that says what to do.

The worker is started by module name and never imported: the service needs no torch.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
import uvicorn
from alembic.util import CommandError

from service.auth import check_exposure
from service.broker import Doorbell
from service.embedded import broker_url, find_binary, require_answer
from service.errors import ForgettingError, SystemFault
from service.keep import Kept, module_command, module_environment
from service.key_command import app as key_app
from service.logs import configure_logs
from service.settings import Settings
from service.settings import settings as process_settings
from service.storage import require_artifacts, shown
from service.store import Store

WORKER_MARGIN_SECONDS = 5.0
"""On top of the worker's own patience with its processes."""
TABLES_PAUSE_SECONDS = 1.0
STREAM_PATIENCE_SECONDS = 2
"""Event streams never end by themselves."""
WORKER_EXTRA = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")

app = typer.Typer(
    help="Runs the forgetting-evaluation service. Settings come from FORGETTING_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(key_app, name="keys")

Host = Annotated[str | None, typer.Option(help="Address to listen on; FORGETTING_HOST.")]
Port = Annotated[int | None, typer.Option(help="0 takes any free one; FORGETTING_PORT.")]
WithWorker = Annotated[bool, typer.Option("--worker/--no-worker", help="Run a worker beside it.")]


def main() -> None:
    """The console script."""
    try:
        app()
    except ForgettingError as error:
        sys.exit(f"forgetting-service: {error.message}")


@app.command()
def serve(host: Host = None, port: Port = None, worker: WithWorker = True) -> None:
    """Start the API, a private broker unless FORGETTING_REDIS_URL is set, and a worker."""
    given = {"host": host, "port": port}
    settings = process_settings().model_copy(
        update={k: v for k, v in given.items() if v is not None}
    )
    configure_logs(settings)
    require_artifacts(settings)
    if worker:
        _require_worker_extra()
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listen(settings.host, settings.port))
        store = stack.enter_context(_store(settings, migrate=True))
        check_exposure(settings, has_keys=store.has_keys())
        _end_on_signals()
        url = stack.enter_context(broker_url(settings))
        environment = module_environment({"FORGETTING_REDIS_URL": url})
        if worker:
            command = module_command("worker", "--lifeline")
            kept = Kept(command, name="the worker", environment=environment).start()
            stack.callback(kept.stop, settings.leave_seconds + WORKER_MARGIN_SECONDS)
        _serve(store, settings.model_copy(update={"redis_url": url}), Doorbell(url), listening)


@app.command()
def worker() -> None:
    """Start a worker for an API elsewhere: one process per visible GPU."""
    settings = process_settings()
    if settings.redis_url is None:
        raise SystemFault("Set FORGETTING_REDIS_URL to the broker that the service uses.")
    if settings.database_url is None and not settings.embedded_database.is_file():
        raise SystemFault(
            f"Set FORGETTING_DATABASE_URL to the service's database: {settings.home.resolve()} "
            "holds none."
        )
    _require_worker_extra()
    require_artifacts(settings)
    _await_tables(settings)
    command = module_command("worker")
    os.execve(command[0], command, module_environment())


@app.command()
def migrate() -> None:
    """Bring the database to the tables of this version. Safe to repeat."""
    settings = process_settings()
    with _store(settings, migrate=True):
        _say(f"{shown(settings.database)} has the tables of this version")


@app.command()
def check() -> None:
    """Try every part that the settings name; exit 1 if one does not work."""
    settings = process_settings()
    parts: dict[str, Callable[[], str]] = {
        "exposure": lambda: _check_exposure(settings),
        "database": lambda: _check_database(settings),
        "broker": lambda: _check_broker(settings),
        "artifacts": lambda: require_artifacts(settings),
        "worker": _check_worker,
    }
    n_failed = 0
    for name, part in parts.items():
        try:
            _say(f"ok    {name:10}{part()}")
        except ForgettingError as error:
            n_failed += 1
            _say(f"FAIL  {name:10}{error.message}")
    raise typer.Exit(1 if n_failed else 0)


def _serve(store: Store, settings: Settings, ring: Doorbell, listening: socket.socket) -> None:
    from service.app import create_app  # here: `--help` should not wait for it

    host, port = listening.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    server = _Server(
        uvicorn.Config(
            create_app(store, settings, ring),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STREAM_PATIENCE_SECONDS,
        ),
        ready=f"forgetting-service is ready at http://{address}:{port} (documentation at /docs)",
    )
    # uvicorn has its own handlers while it runs; these catch what comes just before and after.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[listening])
    if not server.started:
        raise SystemFault("The API did not start; the log above says why.")
    _say("forgetting-service is stopping")


class _Server(uvicorn.Server):
    """Says that it is ready only once it is."""

    def __init__(self, config: uvicorn.Config, *, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            _say(self._ready)


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """The listening socket, taken before anything is started for it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
    except OSError as error:
        raise SystemFault(
            f"Cannot listen on {host}: {error.strerror}; choose another --host."
        ) from error
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen()
        except OSError as error:
            raise SystemFault(
                f"Port {port} of {host} cannot be taken ({error.strerror}): stop what uses it, "
                "or choose another with --port or FORGETTING_PORT (0 takes any free one)."
            ) from error
        yield listening


def _end_on_signals() -> None:
    """Until the API runs: unwind what was started, once, undisturbed by further signals."""

    def end(*_: object) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        raise SystemExit(0)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, end)


@contextlib.contextmanager
def _store(settings: Settings, *, ask: bool = True, migrate: bool = False) -> Iterator[Store]:
    """The store; `ask`: it must answer, `migrate`: it is given the tables of this version."""
    where = shown(settings.database)
    try:
        store = Store(settings.database, settings)
    except (ValueError, OSError) as error:
        raise SystemFault(f"FORGETTING_DATABASE_URL {where}: {error}") from error
    try:
        if ask:
            store.ping()
        if migrate:
            _migrate(store, where)
        yield store
    finally:
        store.dispose()


def _migrate(store: Store, where: str) -> None:
    try:
        store.migrate()
    except CommandError as error:
        raise SystemFault(
            f"{where} was written by a newer version ({error}): "
            "install that version, or point FORGETTING_DATABASE_URL at another database."
        ) from error


def _await_tables(settings: Settings) -> None:
    """Returns once the database answers and has this version's tables. Says once why it waits."""
    told = False
    with _store(settings, ask=False) as store:
        while (why := _lacking(store)) is not None:
            if not told:
                _say(f"The worker waits: {shown(settings.database)}: {why}")
                told = True
            time.sleep(TABLES_PAUSE_SECONDS)


def _lacking(store: Store) -> str | None:
    try:
        if store.is_migrated():
            return None
    except SystemFault as fault:
        return fault.message
    return (
        "it has not the tables of this version; run `forgetting-service migrate`, "
        "or start the service first"
    )


def _require_worker_extra() -> None:
    missing = [name for name in WORKER_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemFault(
            f"The worker needs {', '.join(missing)}: run "
            "`pip install 'forgetting-service[worker]'`, or serve with --no-worker."
        )


def _check_exposure(settings: Settings) -> str:
    has_keys = False
    with contextlib.suppress(ForgettingError), _store(settings) as store:
        has_keys = store.has_keys()
    check_exposure(settings, has_keys=has_keys)
    closed = settings.api_key is not None or has_keys
    return f"{settings.host}:{settings.port}, {'with a' if closed else 'no'} key"


def _check_database(settings: Settings) -> str:
    with _store(settings):
        return shown(settings.database)


def _check_broker(settings: Settings) -> str:
    if settings.redis_url is None:
        return f"a private server: {find_binary()}"
    require_answer(settings.redis_url)
    return shown(settings.redis_url)


def _check_worker() -> str:
    _require_worker_extra()
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in WORKER_EXTRA[:4])


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
