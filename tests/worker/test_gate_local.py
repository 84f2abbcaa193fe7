"""A gate in this process, as the client finds it: by its entry point, its errors as data."""

import json
import threading
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.schemas.gate import Gate
from service.schemas.spec import GateSpec
from service.settings import Settings
from service.settings import settings as process_settings
from tests.worker.candidates_made import make_lora
from tests.worker.gating import CHARACTERS, CONTEXT
from worker import local
from worker.local import LocalFault

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def here(
    tiny_base: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working directory with the articles and an adapter in it."""
    make_lora(tiny_base, tmp_path / "mine", size=0.02)
    text = (shared_data / "wikitext-103-raw-test.txt").read_text()[:CHARACTERS]
    (tmp_path / "articles.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    process_settings.cache_clear()
    return tmp_path


def body(tiny_base: Path, limit: float, **changes: Any) -> dict[str, Any]:
    return {
        "base_model": str(tiny_base),
        "adapters": [{"path": "mine"}],
        "evaluation": {"corpus": "articles.txt", "context": CONTEXT},
        "policy": {"checks": [{"id": "kl", "metric": "kl", "fail_above": limit}]},
        **changes,
    }


def test_the_entry_point_is_this_function() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = declared["project"]["entry-points"]["forgetting.local"]["gate"]
    assert named == f"{local.__name__}:{local.gate.__name__}"


def test_it_answers_as_the_service_does_and_leaves_only_its_cache(
    here: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[dict[str, Any]] = []
    found = local.gate(body(tiny_base, 0.003), report=events.append, roots=[tiny_base.parent])
    gate = Gate.model_validate(json.loads(json.dumps(found)))
    assert (gate.id, gate.job, gate.status) == (None, None, "succeeded")
    assert (gate.verdict, gate.exit_code) == ("fail", 1)
    assert gate.reason is not None
    assert gate.reason.startswith("fail: ")
    assert gate.result is not None
    assert gate.result.fraction < 1
    assert {"validating", "loading", "scoring_tuned"} <= {e.get("phase") for e in events}
    assert capsys.readouterr().out == ""
    assert list((here / ".forgetting" / "local").iterdir()) == []


def test_interrupted_it_goes_on(here: Path, tiny_base: Path) -> None:
    asked = body(tiny_base, 0.0061)

    def interrupt(event: dict[str, Any]) -> None:
        if list(here.glob(".forgetting/local/*/scored/batch-00001.npz")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.gate(asked, report=interrupt, roots=[tiny_base.parent])
    [kept] = here.glob(".forgetting/local/*/scored/batch-00000.npz")
    written = kept.stat().st_mtime_ns
    touched: list[int] = []

    def watch(event: dict[str, Any]) -> None:
        if kept.exists():
            touched.append(kept.stat().st_mtime_ns)

    found = local.gate(asked, report=watch, roots=[tiny_base.parent])
    assert found["result"]["n_scored"] > 32
    assert set(touched) == {written}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"adapters": [{"path": "nowhere"}]}, "adapters.0.path", "adapter_unreadable"),
        ({"adapters": [{"id": "adp_" + "0" * 26}]}, "adapters.0", "validation_error"),
        (
            {"evaluation": {"corpus": "/etc/passwd", "context": 128}},
            "evaluation.corpus",
            "path_not_allowed",
        ),
        ({"policy": {"checks": []}}, "policy.checks", "validation_error"),
        (
            {"policy": {"checks": [{"id": "a", "metric": "kl", "fail_above": -1}]}},
            "policy.checks.0.fail_above",
            "validation_error",
        ),
    ],
)
def test_what_the_service_refuses_is_refused_with_the_field(
    here: Path, tiny_base: Path, changes: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(LocalFault) as fault:
        local.gate(body(tiny_base, 1, **changes), report=print, roots=[tiny_base.parent])
    problem = fault.value.problem
    assert (problem["param"], problem["code"], problem["class"]) == (param, code, "user")
    assert problem["detail"]
    assert isinstance(problem["errors"], list)


def test_a_fault_while_it_runs_is_told_as_a_job_would_tell_it(here: Path, tiny_base: Path) -> None:
    weights = here / "mine" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\x00\x00\xc0\x7f"  # the last float32 becomes NaN, which no header shows
    weights.write_bytes(content)
    with pytest.raises(LocalFault) as fault:
        local.gate(body(tiny_base, 1), report=print, roots=[tiny_base.parent])
    problem = fault.value.problem
    assert (problem["code"], problem["param"]) == ("adapter_unreadable", "adapters.0")
    assert "NaN" in problem["detail"]


def test_gates_of_one_question_at_the_same_time_are_never_in_one_folder(tmp_path: Path) -> None:
    check = {"id": "kl", "metric": "kl", "fail_above": 0.1}
    adapters = [{"path": "a"}]
    body = {"base_model": "m", "adapters": adapters, "policy": {"checks": [check]}}
    spec, settings = GateSpec.model_validate(body), Settings(home=tmp_path)
    seen: Counter[str] = Counter()

    def gates() -> None:
        for _ in range(100):
            try:
                with local._workdir(spec, settings) as folder:
                    (folder / "mine").touch(exist_ok=False)
                    (folder / "mine").unlink()
            except OSError as error:
                seen[type(error).__name__] += 1
            else:
                seen["went well"] += 1

    threads = [threading.Thread(target=gates) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"went well": 600}
    assert list((tmp_path / "local").iterdir()) == []
