"""A gate by a service, or in this process: the same spec in, the same gate out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from forgetting_client import errors

if TYPE_CHECKING:
    from forgetting_client.client import ForgettingClient

GROUP = "forgetting.local"
MARKDOWN, JUNIT = "text/markdown", "application/junit+xml"
ADVICE = (
    "--local measures in this process and needs the worker here: "
    "pip install 'forgetting-service[worker]' (from a checkout: pip install '.[worker]')"
)
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 3.0
Show = Callable[[Mapping[str, Any]], None]


class LocalMissing(errors.ForgettingError):
    """The distribution that can measure is not installed in this environment."""


class LocalFault(errors.ForgettingError):
    """A gate in this process could not be run. `param` is the field to blame, if one is."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail")))
        self.param: str | None = problem.get("param")
        self.errors: list[dict[str, Any]] = list(problem.get("errors") or ())
        self.users = problem.get("class") == "user"


class Source(Protocol):
    """Where a gate is run."""

    def gate(self, spec: dict[str, Any], show: Show) -> Mapping[str, Any]:
        """The gate at its end; `show` hears how far it is."""

    def report(self, gate: Mapping[str, Any], media: str, *, max_bytes: int | None = None) -> str:
        """In Markdown or JUnit."""


class ByService:
    """Queues the gate, and asks until it has ended. `asked` once the service has accepted it."""

    def __init__(
        self, client: ForgettingClient, *, timeout: float | None, idempotency_key: str | None
    ) -> None:
        self._client, self._timeout, self._key = client, timeout, idempotency_key
        self.asked: str | None = None
        """Id of the gate."""

    def gate(self, spec: dict[str, Any], show: Show) -> Mapping[str, Any]:
        gate = self._client.create_gate(spec, idempotency_key=self._key)
        self.asked = str(gate["id"])
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        pause = PAUSE_SECONDS
        while gate["status"] in ("queued", "running"):
            show(gate)
            if deadline is not None and time.monotonic() >= deadline:
                raise errors.WaitTimeout(
                    f"{self.asked} is still {gate['status']} after {self._timeout:g} s; it goes on."
                )
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.3)
            gate = self._client.gate(self.asked)
        return gate

    def report(self, gate: Mapping[str, Any], media: str, *, max_bytes: int | None = None) -> str:
        return self._client.gate_report(gate["id"], media, max_bytes=max_bytes)  # type: ignore[arg-type]


class InThisProcess:
    """By what the service's own distribution offers under the entry points `forgetting.local`."""

    def gate(self, spec: dict[str, Any], show: Show) -> Mapping[str, Any]:
        run = _load("gate")
        state: dict[str, Any] = {"status": "running", "phase": "starting", "progress": None}

        def heard(event: Mapping[str, Any]) -> None:
            if event["kind"] == "phase":
                state.update(phase=event["phase"], progress=None)
            elif event["kind"] == "progress":
                state["progress"] = event
            show(state)

        show(state)
        try:
            gate: Mapping[str, Any] = run(spec, report=heard, roots=_roots(spec))
        except Exception as error:
            problem = getattr(error, "problem", None)
            if not isinstance(problem, dict):
                raise
            raise LocalFault(problem) from error
        return gate

    def report(self, gate: Mapping[str, Any], media: str, *, max_bytes: int | None = None) -> str:
        sized = {} if max_bytes is None else {"max_bytes": max_bytes}
        text: str = _load("render")(gate, media, **sized)
        return text


def _roots(spec: Mapping[str, Any]) -> list[Path]:
    """Folders that hold what the spec names by a path, so that naming it is enough."""
    policy = spec.get("policy") or {}
    named = [spec.get("base_model"), (spec.get("dataset") or {}).get("path"), policy.get("corpus")]
    named += [(spec.get("evaluation") or {}).get("corpus")]
    adapters = [*(spec.get("adapters") or ()), *(policy.get("baselines") or {}).values()]
    named += [one.get("path") for one in adapters if isinstance(one, dict)]
    paths = [Path(name) for name in named if isinstance(name, str)]
    return list(dict.fromkeys(path.resolve().parent for path in paths if path.exists()))


def _load(name: str) -> Callable[..., Any]:
    found: EntryPoint | None = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise LocalMissing(ADVICE)
    try:
        loaded: Callable[..., Any] = found.load()
    except ModuleNotFoundError as error:
        raise LocalMissing(f"{ADVICE}; {error.name} is missing") from error
    return loaded
