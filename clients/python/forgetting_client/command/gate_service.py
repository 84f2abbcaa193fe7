"""A gate by a service: queued, and looked at until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from forgetting_client import errors
from forgetting_client.command.watch import warn_of_no_worker
from forgetting_client.wire import TERMINAL

if TYPE_CHECKING:
    from forgetting_client.client import ForgettingClient
    from forgetting_client.gate_wire import Media

MARKDOWN: Media = "text/markdown"
JUNIT: Media = "application/junit+xml"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 3.0
PATIENCE_SECONDS = 120.0
"""With a service that has accepted the gate and then is away: a restart is no reason to give up."""
Show = Callable[[Mapping[str, Any]], None]


class Source(Protocol):
    """Where a gate is run."""

    def gate(self, spec: dict[str, Any], show: Show) -> Mapping[str, Any]:
        """The gate at its end; `show` hears how far it is."""

    def report(self, gate: Mapping[str, Any], media: Media, *, max_bytes: int | None = None) -> str:
        """In Markdown or JUnit."""


class ByService:
    def __init__(self, client: ForgettingClient, *, idempotency_key: str | None = None) -> None:
        self._client, self._key = client, idempotency_key
        self.asked: str | None = None
        """Id of the gate, once the service has accepted it."""

    def gate(self, spec: dict[str, Any], show: Show) -> Mapping[str, Any]:
        """Raises ForgettingError; whatever comes after `asked` is set is no fault of the caller."""
        gate = require_gate(self._client.create_gate(spec, idempotency_key=self._key))
        self.asked = asked = str(gate["id"])
        if gate["status"] == "queued":
            warn_of_no_worker(self._client)
        heard, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while gate["status"] not in TERMINAL:
            show(gate)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.3)
            try:
                gate = require_gate(self._client.gate(asked))
                heard = time.monotonic()
            except (errors.Unreachable, errors.ServiceFault):
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
        return gate

    def report(self, gate: Mapping[str, Any], media: Media, *, max_bytes: int | None = None) -> str:
        return self._client.gate_report(gate["id"], media, max_bytes=max_bytes)


def require_gate(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises UnexpectedReply: a proxy, or another service, may answer with any JSON."""
    if not all(isinstance(reply.get(name), str) for name in ("id", "status")):
        raise errors.UnexpectedReply("What was answered is no gate; is this a forgetting service?")
    return reply
