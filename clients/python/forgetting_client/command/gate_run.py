"""One run of `forgetting gate`: asked, waited for, reported. Every way out is an exit code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetting_client.command import spec as specs
from forgetting_client.command.adapters import upload_local
from forgetting_client.command.faults import INTERRUPTED, NOT_MEASURED
from forgetting_client.command.gate_exit import code_of
from forgetting_client.command.gate_fault import tell_fault, tell_policy
from forgetting_client.command.gate_local import InThisProcess
from forgetting_client.command.gate_page import gate_page, verdict_line
from forgetting_client.command.gate_reports import Wanted
from forgetting_client.command.gate_service import ByService, Source, require_gate
from forgetting_client.command.gate_wait import Waiting
from forgetting_client.command.output import emit, emit_json, say, show
from forgetting_client.command.session import Session
from forgetting_client.command.time_limit import TimeIsUp, limited
from forgetting_client.errors import ForgettingError, UnexpectedReply, WaitTimeout
from forgetting_client.policy_check import load
from forgetting_client.policy_file import BadPolicy, PolicyFile

if TYPE_CHECKING:
    from forgetting_client.client import ForgettingClient

LOCAL_AGAIN = "What was scored is kept: the same command goes on from there."


class Run:
    def __init__(
        self, session: Session, wanted: Wanted, timeout: float | None, idempotency_key: str | None
    ) -> None:
        self._session, self._wanted = session, wanted
        self._timeout, self._key = timeout, idempotency_key
        self._policy: PolicyFile | None = None
        self._asked: Callable[[], str | None] = lambda: None
        """Id of the gate, once a service has accepted it."""

    def judge(
        self,
        path: Path,
        *,
        adapter: str,
        flags: Mapping[str, Any],
        overrides: list[str],
        local: bool,
    ) -> int:
        """Asks for a gate by the policy at `path`."""
        try:
            self._policy = load(path)
        except BadPolicy as bad:
            return tell_policy(bad.faults, self._wanted, as_json=self._session.as_json)
        spec = specs.build(
            {"policy": self._policy.body},
            flags=flags,
            job_type="gate",
            adapters=[adapter],
            overrides=overrides,
        )
        if local:
            return self._to_the_end(lambda: self._here(spec), local=True)
        return self._to_the_end(lambda: self._there(spec, adapter))

    def show(self, gate_id: str) -> int:
        """Tells of one that was asked for before."""
        return self._to_the_end(lambda: self._found(gate_id))

    def _to_the_end(self, act: Callable[[], int], *, local: bool = False) -> int:
        try:
            return act()
        except ForgettingError as error:
            return self._fault(error)
        except TimeIsUp:
            asked, seconds = self._asked(), f"{self._timeout:g} s"
            said = f"The service has not accepted the gate within {seconds}."
            if asked:
                said = f"{asked} has no verdict after {seconds}; it goes on."
            elif local:
                said = f"There is no verdict after {seconds}. {LOCAL_AGAIN}"
            return self._fault(WaitTimeout(said))
        except KeyboardInterrupt:
            asked = self._asked()
            again = f" {LOCAL_AGAIN}" if local else ""
            if asked:
                again = f" {asked} goes on. Look at it again: forgetting gate {asked}"
            say(f"Stopped.{again}")
            return INTERRUPTED

    def _here(self, spec: dict[str, Any]) -> int:
        source = InThisProcess()
        with limited(self._timeout):
            found = wait(source, spec)
        return self._tell(source, found)

    def _there(self, spec: dict[str, Any], adapter: str) -> int:
        with self._session.connect() as client:
            source = ByService(client, idempotency_key=self._key)
            self._asked = lambda: source.asked
            with limited(self._timeout):
                send_local(client, spec, adapter)
                found = wait(source, spec)
            return self._tell(source, found)

    def _found(self, gate_id: str) -> int:
        with self._session.connect() as client:
            found = require_gate(client.gate(gate_id))
            if found.get("verdict") is not None:
                return self._tell(ByService(client), found)
        say(f"{found['id']} is {found['status']}; it has no verdict yet.")
        if self._session.as_json:
            emit_json(found)
        return NOT_MEASURED

    def _tell(self, source: Source, found: Mapping[str, Any]) -> int:
        """Reports first, so that the verdict is the last line that anybody reads."""
        code = code_of(found)
        try:
            page = list(gate_page(found))
        except (AttributeError, KeyError, TypeError) as fault:
            raise UnexpectedReply(f"What was answered is no whole gate: {fault!r}.") from fault
        unwritten = code or NOT_MEASURED  # a fail stays one; a pass that nobody can read is none
        try:
            self._wanted.write_files(source, found)
        except (ForgettingError, OSError) as error:
            say(f"Error: a report was not written: {error}")
            code = unwritten
        self._wanted.tell_github(source, found, code)
        try:
            if self._session.as_json:
                emit_json(found)
            else:
                show(*page)
                emit(verdict_line(found, code))
        except BrokenPipeError:  # whoever read us has gone; the exit code is the verdict
            pass
        except OSError as fault:
            say(f"Error: the verdict was not written: {fault.strerror}.")
            code = unwritten
        return code

    def _fault(self, error: ForgettingError) -> int:
        return tell_fault(
            error,
            self._wanted,
            asked=self._asked(),
            policy=self._policy,
            as_json=self._session.as_json,
        )


def wait(source: Source, spec: dict[str, Any]) -> Mapping[str, Any]:
    waiting = Waiting()
    try:
        return source.gate(spec, waiting.show)
    finally:
        waiting.close()


def send_local(client: "ForgettingClient", spec: dict[str, Any], adapter: str) -> None:
    """Uploads the candidate, and baselines of the policy, that are folders here."""
    upload_local(client, spec, {adapter})
    baselines = spec["policy"].get("baselines") or {}
    paths = {one["path"] for one in baselines.values() if isinstance(one, dict) and "path" in one}
    wanted = {"base_model": spec.get("base_model"), "revision": spec.get("revision")}
    upload_local(client, {**wanted, "adapters": list(baselines.values())}, paths)
