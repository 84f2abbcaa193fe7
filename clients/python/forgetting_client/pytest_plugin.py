"""A gate as a test. pytest finds this by itself where the client is installed:

    def test_adapter(forgetting):
        forgetting.gate("out/adapter", base="Qwen/Qwen3-0.6B", policy="forgetting.yml")

It runs `forgetting gate` and goes by its exit code, so that pytest and the command never differ.
"""

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

PASSED, FAILED, INCONCLUSIVE = 0, 1, 3
MEANT = {
    2: "the command or the policy is wrong",
    4: "could not measure",
    5: "incomparable: the limits were found on something else",
}


class ForgetsTooMuch(AssertionError):
    """The adapter is beyond a limit of the policy. The message is the report."""


class Inconclusive(AssertionError):
    """Too near to the limit to tell, and the policy takes that for a failure."""


class NotMeasured(Exception):
    """There is no verdict on the adapter: pytest counts an error, not a failure."""


class Forgetting:
    """What the fixture gives. Relative paths start at pytest's rootdir."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node, self._config = request.node, request.config

    def gate(
        self,
        adapter: str | Path,
        *,
        base: str | None = None,
        policy: str | Path | None = None,
        timeout: float | None = None,
        local: bool | None = None,
        options: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """The gate as JSON, where the adapter may ship.

        adapter: a folder, `job_…`, `job_…:STEP` or `adp_…`. base, policy and timeout (seconds)
        default to the ini values forgetting_base, forgetting_policy and forgetting_timeout;
        `options` go to `forgetting gate` as they are. Raises ForgetsTooMuch, Inconclusive,
        NotMeasured; skips where it is inconclusive and the policy says `on_inconclusive: warn`.
        """
        __tracebackhide__ = True
        base = base or self._ini("forgetting_base")
        wait = timeout if timeout is not None else self._ini("forgetting_timeout")
        here = local if local is not None else self._config.getoption("forgetting_local")
        server = self._config.getoption("forgetting_server") or self._ini("forgetting_server")
        line = [sys.executable, "-m", "forgetting_client", "gate", "--adapter", str(adapter)]
        line += ["-c", str(policy or self._ini("forgetting_policy")), "--json"]
        line += ["--no-summary", "--no-annotate", "--no-comment"]
        line += ["--base", base] if base else []
        line += ["--timeout", str(wait)] if wait else []
        line += ["--local"] if here else ["--server", server] if server else []
        ran = subprocess.run(
            [*line, *options], cwd=self._config.rootpath, capture_output=True, text=True
        )
        return self._judge(ran)

    def _judge(self, ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        __tracebackhide__ = True
        gate = _parsed(ran.stdout)
        text = "" if gate is None else _page(gate, ran.returncode)
        if gate is None or ran.returncode not in (PASSED, FAILED, INCONCLUSIVE):
            meant = MEANT.get(ran.returncode, f"`forgetting gate` ended with {ran.returncode}")
            reason = (gate or {}).get("reason") or _fault(ran.stderr)
            raise NotMeasured(f"{meant}: {reason}\n{text}".rstrip())
        reason = str(gate.get("reason"))
        self._node.user_properties.append(("forgetting_verdict", str(gate.get("verdict"))))
        if ran.returncode == FAILED:
            raise ForgetsTooMuch(f"{reason}\n{text}")
        if ran.returncode == INCONCLUSIVE:
            raise Inconclusive(f"{reason}\n{text}")
        self._node.add_report_section("call", "forgetting", text)
        policy = gate.get("policy") or {}
        if gate.get("verdict") == "inconclusive" and policy.get("on_inconclusive") == "warn":
            pytest.skip(reason)
        return gate

    def _ini(self, name: str) -> str:
        return str(self._config.getini(name) or "")


def _page(gate: dict[str, Any], code: int) -> str:
    """As the command shows it: a test's log is read by people, in columns."""
    # Loaded here: pytest loads this module in every run of everybody who has the client.
    from forgetting_client.command.gate_page import page_text

    return page_text(gate, code)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        body = json.loads(text)
    except ValueError:
        return None
    return body if isinstance(body, dict) and "verdict" in body else None


def _fault(said: str) -> str:
    """What the command wrote last: a fault as JSON, or, of a usage error, sentences."""
    *_, last = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
    try:
        error = json.loads(last)["error"]
    except (ValueError, KeyError, TypeError):
        return said.strip() or last
    return "\n".join(map(_placed, error.get("faults", ()))) or str(error.get("detail"))


def _placed(fault: dict[str, Any]) -> str:
    """Where in the policy and what. A file that cannot be read has no place in it."""
    names = ("file", "line", "column") if fault.get("param") else ("file",)
    place = ":".join(str(fault.get(name)) for name in names)
    return ": ".join([place, *filter(None, [fault.get("param")]), str(fault.get("message"))])


@pytest.fixture
def forgetting(request: pytest.FixtureRequest) -> Forgetting:
    """`forgetting.gate(adapter, base=…, policy=…)`: may this adapter ship?"""
    return Forgetting(request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and call.excinfo is not None and call.excinfo.errisinstance(NotMeasured):
        # pytest knows errors only outside the call; terminal and JUnit both go by this.
        report.when = "setup"
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("forgetting", "gates on adapters")
    group.addoption("--forgetting-server", metavar="URL", help="the service that measures")
    group.addoption(
        "--forgetting-local", action="store_true", help="measure in a process here, no service"
    )
    parser.addini("forgetting_server", "the service; default $FORGETTING_URL, else loopback")
    parser.addini("forgetting_base", "base model of every gate that names none")
    parser.addini("forgetting_policy", "policy file, from rootdir", default="forgetting.yml")
    parser.addini("forgetting_timeout", "seconds to wait for a verdict")
