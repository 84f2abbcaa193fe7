"""The Celery worker: the doorbell's settings, one task, and a thread that says we live."""

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery, signals
from celery.worker import state

from service.broker import TASK, celery_app
from service.settings import Settings
from service.store import Store
from worker.idle import Idle
from worker.presence import Presence, worker_name
from worker.process import COMMAND
from worker.tasks import perform


def stopping() -> bool:
    """Whether Celery was told to stop. The solo pool's own task is not interrupted by that."""
    return any(
        flag is not None and flag is not False
        for flag in (state.should_stop, state.should_terminate)
    )


def configure(settings: Settings, *, command: Sequence[str] = COMMAND) -> Celery:
    """An app whose one task runs every claimable job, each as `command`.

    Raises ValueError without a broker URL.
    """
    if settings.redis_url is None:
        raise ValueError("FORGETTING_REDIS_URL is not set")
    app = celery_app(settings.redis_url)
    store = Store(settings.database, settings)
    idle = Idle(settings.warm_seconds)
    presence = Presence(store, worker_name(), every_seconds=settings.beat_seconds)

    @app.task(name=TASK)
    def run_job(job_id: str) -> None:
        perform(
            store,
            presence=presence,
            settings=settings,
            stopping=stopping,
            command=command,
            idle=idle,
        )

    def arrive(**_: Any) -> None:
        logging.getLogger("worker").setLevel(logging.INFO)
        presence.start()

    def leave(**_: Any) -> None:
        idle.end()
        presence.stop()
        store.dispose()

    # Celery would put its own handlers in place of ours, which hide secrets.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    signals.worker_ready.connect(arrive, weak=False)
    signals.worker_shutdown.connect(leave, weak=False)
    return app
