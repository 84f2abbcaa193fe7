"""What every command shares: the server, and how to answer. `connect` is the only door to HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from forgetting_client.command.output import say

if TYPE_CHECKING:
    import httpx2

    from forgetting_client.client import ForgettingClient
    from forgetting_client.connection import Retry


@dataclass(frozen=True)
class Session:
    """The options that stand before or after any command."""

    server: str | None = None
    as_json: bool = False
    transport: httpx2.BaseTransport | None = None
    """In place of the network: a service in this very process."""

    def connect(self, *, retry: Retry | None = None) -> ForgettingClient:
        from forgetting_client.client import ForgettingClient

        said: set[str] = set()

        def once(message: str) -> None:
            if message not in said:
                said.add(message)
                say(message)

        return ForgettingClient(self.server, transport=self.transport, retry=retry, notice=once)


def session_of(context: typer.Context) -> Session:
    session = context.find_root().obj
    assert isinstance(session, Session)
    return session
