"""One run of `forgetting gate`: asked, waited for, reported. Every way out is an exit code."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetting_client.command import spec as specs
from forgetting_client.command.adapters import upload_local
from forgetting_client.command.faults import INTERRUPTED, NOT_MEASURED, USAGE, advice
from forgetting_client.command.gate_exit import code_of, code_of_fault
from forgetting_client.command.gate_page import gate_page, verdict_line
from forgetting_client.command.gate_reports import Wanted
from forgetting_client.command.gate_service import ByService, InThisProcess, LocalFault, Source
from forgetting_client.command.gate_wait import Waiting
from forgetting_client.command.output import emit, emit_json, say, show
from forgetting_client.command.session import Session
from forgetting_client.command.watch import warn_of_no_worker
from forgetting_client.errors import ForgettingError
from forgetting_client.policy_check import load
from forgetting_client.policy_file import BadPolicy, Fault, PolicyFile


class Run:
    def __init__(
        self, session: Session, wanted: Wanted, timeout: float | None, idempotency_key: str | None
    ) -> None:
        self.session, self.wanted = session, wanted
        self.timeout, self.key = timeout, idempotency_key

    def asked(
        self,
        path: Path,
        *,
        adapter: str,
        flags: Mapping[str, Any],
        overrides: list[str],
        local: bool,
    ) -> int:
        try:
            policy = load(path)
        except BadPolicy as bad:
            return self._refused(bad.faults)
        spec = specs.build(
            {"policy": policy.body},
            flags=flags,
            job_type="gate",
            adapters=[adapter],
            overrides=overrides,
        )
        source: ByService | None = None
        try:
            if local:
                return self._judge(InThisProcess(), spec)
            with self.session.connect() as client:
                source = ByService(client, timeout=self.timeout, idempotency_key=self.key)
                send_local(client, spec, adapter)
                if not self.session.as_json:
                    warn_of_no_worker(client)
                return self._judge(source, spec)
        except ForgettingError as error:
            return self._fault(error, source.asked if source else None, policy)
        except KeyboardInterrupt:
            gate_id = source.asked if source else None
            again = f"; {gate_id} goes on: forgetting gate {gate_id}" if gate_id else ""
            say(f"Stopped{again}.")
            return INTERRUPTED

    def shown(self, gate_id: str) -> int:
        try:
            with self.session.connect() as client:
                found = client.gate(gate_id)
                if found["verdict"] is None:
                    say(f"{found['id']} is {found['status']}; it has no verdict yet.")
                    if self.session.as_json:
                        emit_json(found)
                    return NOT_MEASURED
                source = ByService(client, timeout=None, idempotency_key=None)
                return self._tell(source, found)
        except ForgettingError as error:
            return self._fault(error, None, None)

    def _judge(self, source: Source, spec: dict[str, Any]) -> int:
        waiting = Waiting()
        try:
            found = source.gate(spec, waiting.show)
        finally:
            waiting.close()
        return self._tell(source, found)

    def _tell(self, source: Source, found: Mapping[str, Any]) -> int:
        """Reports first, so that the verdict is the last line that anybody reads."""
        code = code_of(found)
        late = 0
        try:
            self.wanted.write_files(source, found)
        except (ForgettingError, OSError) as error:
            say(f"Error: a report was not written: {error}")
            late = NOT_MEASURED
        self.wanted.tell_github(source, found, code)
        try:
            if self.session.as_json:
                emit_json(found)
            else:
                show(*gate_page(found))
                if found["error"]:
                    emit(f"{found['error']['code']}: {found['error']['detail']}")
                emit(verdict_line(found))
        except BrokenPipeError:
            # Whoever read us has gone; the exit code is the verdict all the same.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or late

    def _fault(self, error: ForgettingError, gate_id: str | None, policy: PolicyFile | None) -> int:
        code = code_of_fault(error, asked=gate_id is not None)
        if isinstance(error, LocalFault):
            code = USAGE if error.users else NOT_MEASURED
        param = getattr(error, "param", None) or ""
        listed = [one for one in getattr(error, "errors", []) if one.get("param")]
        listed = listed or [{"param": param, "message": str(error)}]
        if policy is not None and param.startswith("policy.") and code == USAGE:
            faults = [
                policy.blame(one["param"].removeprefix("policy."), one["message"])
                for one in listed
                if one["param"].startswith("policy.")
            ]
            return self._refused(faults)
        if self.session.as_json:
            told = {"detail": str(error), "param": param or None, "exit_code": code}
            emit_json({"error": told}, one_line=True, to_stderr=True)
            return code
        said = [f"Error: {one['param']}: {one['message']}" for one in listed if one["param"]]
        for line in said or [f"Error: {error}"]:
            say(line)
        if hint := advice(error):
            say(hint)
        if gate_id:
            say(f"Look at it again: forgetting gate {gate_id}")
        if code == NOT_MEASURED:
            say("Could not measure (exit 4): this says nothing of the adapter.")
        return code

    def _refused(self, faults: Sequence[Fault]) -> int:
        if self.session.as_json:
            told = [vars(fault) for fault in faults]
            body = {"detail": "the policy cannot work", "exit_code": USAGE, "faults": told}
            emit_json({"error": body}, one_line=True, to_stderr=True)
        else:
            for fault in faults:
                say(fault.shown())
        return USAGE


def send_local(client: Any, spec: dict[str, Any], adapter: str) -> None:
    """Uploads the candidate, and baselines of the policy, that are folders here."""
    upload_local(client, spec, {adapter})
    baselines = spec["policy"].get("baselines") or {}
    paths = {one["path"] for one in baselines.values() if isinstance(one, dict) and "path" in one}
    wanted = {"base_model": spec.get("base_model"), "revision": spec.get("revision")}
    upload_local(client, {**wanted, "adapters": list(baselines.values())}, paths)
