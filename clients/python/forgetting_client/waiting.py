"""Asking until a job is at rest, and asking for one only once."""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from forgetting_client.connection import header
from forgetting_client.errors import WaitTimeout
from forgetting_client.wire import TERMINAL

Seen = TypeVar("Seen", bound=Mapping[str, Any])


def wait_for(
    ask: Callable[[], Seen], name: str, *, timeout: float | None, sleep: Callable[[float], None]
) -> Seen:
    """The answer once its `status` is final, asked for ever less often. WaitTimeout."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.25
    while True:
        seen = ask()
        if seen["status"] in TERMINAL:
            return seen
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"{name} is still {seen['status']} after {timeout:g} s.")
        sleep(min(pause, left))
        pause = min(5.0, pause * 1.5)


def key_header(idempotency_key: str | None) -> dict[str, str]:
    """The caller's key, or one made up, so that a retry never doubles what is created."""
    key = f"auto-{uuid.uuid4()}" if idempotency_key is None else idempotency_key
    return {"Idempotency-Key": header("The idempotency key", key)}
