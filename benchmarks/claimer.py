"""A worker that claims whatever it is rung for and ends it at once: Celery as the real one has it,
and no child."""

from service.broker import TASK, celery_app
from service.settings import settings
from service.store import Store

ERROR = {"code": "cancelled", "detail": "claimed to be timed", "class": "system"}


def main() -> None:
    own = settings()
    assert own.redis_url is not None
    app, store = celery_app(own.redis_url), Store(own.database, own)

    @app.task(name=TASK)
    def run_job(job_id: str) -> None:
        while (claim := store.claim("claimer")) is not None:
            store.fail(claim, ERROR)

    options = "--pool=solo --without-gossip --without-mingle --without-heartbeat --loglevel=error"
    app.worker_main(["--quiet", "worker", *options.split()])


if __name__ == "__main__":
    main()
