"""What a client does with gates. Part of `ForgettingClient`."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from forgetting_client.connection import Connection
from forgetting_client.gate_wire import Gate, Media, Verdict
from forgetting_client.pages import pages, segment
from forgetting_client.waiting import key_header, wait_for


class GateMethods:
    _connection: Connection

    def create_gate(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Gate:
        """Queue a gate. Without a key one is made up, so that a retry never doubles the job.

        `spec`: `base_model`, one entry in `adapters`, `policy` as in `forgetting.yml`.
        """
        headers = key_header(idempotency_key)
        body = self._connection.object("POST", "v1/gates", body=dict(spec), headers=headers)
        return cast(Gate, body)

    def gate(self, gate_id: str) -> Gate:
        """By its id, or by its job's."""
        return cast(Gate, self._connection.object("GET", _gate(gate_id)))

    def gates(self, *, verdict: Verdict | None = None, limit: int | None = None) -> Iterator[Gate]:
        """Gates without their results, newest first, page after page; at most `limit` in all."""
        found = pages(self._connection, "v1/gates", {"verdict": verdict}, limit)
        return cast(Iterator[Gate], found)

    def gate_report(
        self, gate_id: str, media: Media = "text/markdown", *, max_bytes: int | None = None
    ) -> str:
        """The gate in Markdown or JUnit; `max_bytes` holds a Markdown report below a size."""
        params, headers = {"max_bytes": max_bytes}, {"Accept": media}
        return self._connection.send("GET", _gate(gate_id), params=params, headers=headers).text

    def wait_gate(self, gate_id: str, *, timeout: float | None = None) -> Gate:
        """The gate once it has a verdict. WaitTimeout after `timeout` s; it goes on."""
        return wait_for(
            lambda: self.gate(gate_id), gate_id, timeout=timeout, sleep=self._connection.sleep
        )


def _gate(gate_id: str) -> str:
    return f"v1/gates/{segment(gate_id, 'gate')}"
