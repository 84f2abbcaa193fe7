"""The pytest plug-in in pytest runs of its own, against the real service, with us as its worker."""

import json
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gate_results import check, gate_result

pytest_plugins = "pytester"
ROOT = Path(__file__).parent.parent.parent
POLICY = "corpus: corpus.txt\ncontext: 64\nchecks:\n  - {id: mean, metric: kl, fail_above: 0.08}\n"
TEST = """
def test_adapter(forgetting):
    gate = forgetting.gate("tiny_base", base="tiny_base")
    assert gate["verdict"] in ("pass", "warn", "inconclusive")
"""
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """pytest in a process of its own, with our plug-in and no other."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "clients" / "python")))
    monkeypatch.setenv("PYTHONPATH", paths)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("CI", "BUILD_NUMBER"):  # there pytest repeats whole messages in its summary
        monkeypatch.delenv(name, raising=False)
    (pytester.path / "forgetting.yml").write_text(POLICY)

    def run(*args: str, test: str = TEST) -> pytest.RunResult:
        pytester.makepyfile(test)
        plugin = ("-p", "forgetting_client.pytest_plugin", "-p", "no:cacheprovider", "-rA")
        return pytester.runpytest_subprocess(*plugin, *args, timeout=120)

    return run


@pytest.fixture
def worker(service: Any) -> Iterator[Callable[..., None]]:
    """`worker(end)`: calls `end(claim)` with the first job that comes."""
    over = threading.Event()
    threads = []

    def work(end: Callable[[Any], None]) -> None:
        while not over.is_set():
            claim = service.store.claim("worker-1")
            if claim is not None:
                end(claim)
                return
            over.wait(0.05)

    def start(end: Callable[[Any], None]) -> None:
        threads.append(threading.Thread(target=work, args=(end,)))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def finish(service: Any, *checks: Any, **changes: Any) -> Callable[[Any], None]:
    return lambda claim: service.store.finish(claim, gate_result(*checks, **changes))


@pytest.mark.parametrize(
    ("verdict", "lenient", "outcome"),
    [
        ("pass", "fail", {"passed": 1}),
        ("warn", "fail", {"passed": 1}),
        ("fail", "fail", {"failed": 1}),
        ("inconclusive", "fail", {"failed": 1}),
        ("inconclusive", "warn", {"skipped": 1}),
        ("inconclusive", "pass", {"passed": 1}),
        ("not_measurable", "fail", {"errors": 1, "passed": 0}),
        ("incomparable", "fail", {"errors": 1, "passed": 0}),
    ],
)
def test_a_verdict_is_an_outcome(
    service: Any, address: str, worker: Any, run: Run, verdict: str, lenient: str, outcome: Any
) -> None:
    Path("forgetting.yml").write_text(f"on_inconclusive: {lenient}\n{POLICY}")
    worker(finish(service, check(verdict), on_inconclusive=lenient))
    ran = run("--forgetting-server", address, "--junit-xml", "junit.xml")
    ran.assert_outcomes(**outcome)
    text = ran.stdout.str()
    if "skipped" in outcome:
        assert "after 62 of 4,927 windows" in text
    elif verdict != "pass":
        assert text.count(f"VERDICT: {verdict.replace('_', ' ').upper()}") == 1
    case = ET.parse("junit.xml").getroot().find(".//testcase")
    assert case is not None
    elements = {"failed": "failure", "errors": "error", "skipped": "skipped"}
    wanted = {elements[name] for name, n in outcome.items() if n and name in elements}
    assert {one.tag for one in case} - {"properties", "system-out"} == wanted
    if "errors" not in outcome:
        named = {one.get("name"): one.get("value") for one in case.iter("property")}
        assert named == {"forgetting_verdict": verdict}


def test_a_failure_is_the_report_without_our_own_frames(
    service: Any, address: str, worker: Any, run: Run
) -> None:
    worker(finish(service, check("fail")))
    ran = run("--forgetting-server", address)
    text = ran.stdout.str()
    assert "ForgetsTooMuch" in text
    assert "62 of 4,927 windows" in text
    assert "pytest_plugin.py" not in text
    assert ran.ret == pytest.ExitCode.TESTS_FAILED


def test_a_job_that_failed_is_an_error(service: Any, address: str, worker: Any, run: Run) -> None:
    error = {"code": "system_fault", "detail": "the GPU is on fire", "class": "system"}
    worker(lambda claim: service.store.fail(claim, error))
    ran = run("--forgetting-server", address)
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(["*NotMeasured: could not measure: *"])


@pytest.mark.parametrize(
    ("policy", "server", "said"),
    [
        (POLICY, "http://127.0.0.1:9", "could not measure: *cannot be reached*"),
        ("alfa: 1\n" + POLICY, None, "*forgetting.yml:1:1: alfa: *"),
        (POLICY.replace("corpus.txt", "no.txt"), None, "the command or the policy is wrong: *"),
        (None, None, "the command or the policy is wrong: forgetting.yml: cannot be read: *"),
    ],
    ids=["no server", "bad policy", "refused by the service", "no policy"],
)
def test_what_could_not_be_asked_is_an_error(
    address: str, run: Run, policy: str | None, server: str | None, said: str
) -> None:
    if policy is None:
        Path("forgetting.yml").unlink()
    else:
        Path("forgetting.yml").write_text(policy)
    ran = run("--forgetting-server", server or address)
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines([f"*{said}"])


def test_settings_come_from_the_ini_file(service: Any, address: str, worker: Any, run: Run) -> None:
    Path("strict.yml").write_text(Path("forgetting.yml").read_text())
    Path("forgetting.yml").unlink()
    ini = {"server": address, "base": "tiny_base", "policy": "strict.yml", "timeout": "60"}
    lines = [f"forgetting_{name} = {value}" for name, value in ini.items()]
    Path("pytest.ini").write_text("\n".join(["[pytest]", *lines]))
    worker(finish(service))
    test = 'def test_it(forgetting):\n    assert forgetting.gate("tiny_base")["exit_code"] == 0\n'
    run("--strict-config", test=test).assert_outcomes(passed=1)


OTHERS = """
import pytest

@pytest.fixture
def broken():
    raise OSError

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_errs(broken): pass
def test_skips(): pytest.skip("no")

@pytest.mark.xfail
def test_xfails(): assert 0
"""


def test_other_tests_do_not_notice_it(pytester: pytest.Pytester, run: Run) -> None:
    with_it = run(test=OTHERS).parseoutcomes()
    without = pytester.runpytest_subprocess("-p", "no:cacheprovider").parseoutcomes()
    assert with_it == without == {"passed": 1, "failed": 1, "errors": 1, "skipped": 1, "xfailed": 1}


def test_loading_it_loads_nothing_else() -> None:
    code = (
        "import json, sys, pytest, tempfile, subprocess; before = set(sys.modules)\n"
        "import forgetting_client.pytest_plugin\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(ran.stdout) == ["forgetting_client", "forgetting_client.pytest_plugin"]
