"""The doorbell. A ring wakes a worker and names a job; it may be lost, doubled or late.

The row decides what runs, so a ring is never waited for and never fails a request.
"""

import logging
import queue
import threading
import time
from typing import Protocol

import redis
from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

TASK = "forgetting.run_job"
QUEUE = "forgetting"
MAX_WAITING = 10_000
BURST, PER_SECOND = 50, 20.0
"""So many rings go out at once, then so many a second. Whoever hears any of them takes whatever
job waits longest, and again until there is none, so a flood of jobs needs no flood of rings, which
cost the service more than the jobs do."""


class Bell(Protocol):
    """What the service needs of a doorbell."""

    def __call__(self, job_id: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ping(self) -> None:
        """Raises ConnectionError when the broker does not answer."""


def celery_app(redis_url: str) -> Celery:
    """Celery with the settings that both ends of the doorbell share.

    Early acks: with the lease in the database a redelivery adds only duplicates. Socket timeouts:
    without them a frozen broker blocks a publish for more than 30 s.
    """
    app = Celery("forgetting", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=QUEUE,
        task_publish_retry=False,
        task_store_errors_even_if_ignored=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 3,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "visibility_timeout": 3600,
        },
    )
    return app


class Doorbell:
    """Hands ids to one daemon thread, which publishes them."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._app = celery_app(redis_url)
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._due = 0.0

    def __call__(self, job_id: str) -> None:
        """Returns at once. A full queue drops the ring: the sweep rings again."""
        try:
            self._waiting.put_nowait(job_id)
        except queue.Full:
            log.warning("ring dropped: %d are waiting for the broker", MAX_WAITING)

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._publish, name="doorbell", daemon=True)
            self._thread.start()

    def stop(self, *, timeout_seconds: float = 2.0) -> None:
        """Lets the thread publish what waits, at most `timeout_seconds`, then drops it."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()  # what is left goes out as fast as it can
        try:
            self._waiting.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        thread.join(timeout_seconds)
        self._app.close()

    def ping(self) -> None:
        client = redis.Redis.from_url(self._redis_url, socket_timeout=2, socket_connect_timeout=2)
        try:
            client.ping()
        except redis.RedisError as error:
            raise ConnectionError(type(error).__name__) from error
        finally:
            client.close()

    def _publish(self) -> None:
        while (job_id := self._waiting.get()) is not None:
            self._pace()
            try:
                self._app.send_task(TASK, kwargs={"job_id": job_id}, queue=QUEUE, retry=False)
            except (OperationalError, redis.RedisError, OSError) as error:
                log.warning("ring for %s not sent: %s", job_id, type(error).__name__)

    def _pace(self) -> None:
        """Waits where more than BURST rings would run ahead of PER_SECOND."""
        now = time.monotonic()
        self._due = max(self._due, now - BURST / PER_SECOND) + 1 / PER_SECOND
        self._stopping.wait(max(0.0, self._due - now))
