"""A gate in this process, by what the service's own distribution offers under the entry points
`forgetting.local`; nothing of it is imported by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetting_client import errors

if TYPE_CHECKING:
    from forgetting_client.command.gate_service import Show
    from forgetting_client.gate_wire import Media

GROUP = "forgetting.local"
ADVICE = (
    "--local measures in this process and needs the worker here: "
    "pip install 'forgetting-service[worker]' (from a checkout: pip install '.[worker]')"
)


class LocalMissing(errors.ForgettingError):
    """The distribution that can measure is not installed in this environment."""


class LocalFault(errors.ForgettingError):
    """A gate in this process could not be run."""

    def __init__(self, problem: Mapping[str, Any], *, began: bool) -> None:
        super().__init__(str(problem.get("detail")))
        self.code = str(problem.get("code"))
        self.param: str | None = problem.get("param")
        """The field to blame, if one is."""
        self.errors: list[dict[str, Any]] = list(problem.get("errors") or ())
        self.refused = problem.get("class") == "user" and not began
        """Before anything was measured, for a reason that is the caller's to mend."""


class InThisProcess:
    def gate(self, spec: dict[str, Any], show: Show) -> Mapping[str, Any]:
        """Raises LocalMissing and LocalFault."""
        run = _load("gate")
        state: dict[str, Any] = {"status": "running", "phase": "starting", "progress": None}
        began = False

        def heard(event: Mapping[str, Any]) -> None:
            nonlocal began
            began = True
            if event["kind"] == "phase":
                state.update(phase=event["phase"], progress=None)
            elif event["kind"] == "progress":
                state["progress"] = event
            show(state)

        show(state)
        try:
            gate: Mapping[str, Any] = run(spec, report=heard, roots=_roots(spec))
        except ModuleNotFoundError as error:
            raise LocalMissing(f"{ADVICE}; {error.name} is missing") from error
        except Exception as error:
            problem = getattr(error, "problem", None)
            if not isinstance(problem, dict):
                raise
            raise LocalFault(problem, began=began) from error
        return gate

    def report(self, gate: Mapping[str, Any], media: Media, *, max_bytes: int | None = None) -> str:
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
    for found in entry_points(group=GROUP, name=name):
        try:
            loaded: Callable[..., Any] = found.load()
        except ModuleNotFoundError as error:
            raise LocalMissing(f"{ADVICE}; {error.name} is missing") from error
        return loaded
    raise LocalMissing(ADVICE)
