"""`forgetting laws …` and `forgetting doctor` over the real application."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from forgetting_client import __version__
from pydantic import SecretStr

from service.app import create_app
from tests.client.conftest import InProcess, SilentBell


def write_points(path: Path) -> Path:
    """Points on a line: kl = -0.2 L_ft + 0.6."""
    points = [
        {
            "run": f"rank-{rank}",
            "rank": rank,
            "trainable_params": 12_288 * rank,
            "step": step,
            "ft_loss": (loss := 2.9 - 0.002 * step - 0.01 * rank),
            "kl": 0.6 - 0.2 * loss,
        }
        for rank in (4, 8, 16)
        for step in (10, 40, 90, 160)
    ]
    path.write_text(json.dumps(points))
    return path


def fitted(service, tmp_path: Path) -> str:
    points = str(write_points(tmp_path / "points.json"))
    line = ["laws", "fit", "--points", points, "--metric", "kl", "--form", "linear", "--json"]
    ran = service.forgetting(*line)
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)[0]["id"]


def test_a_law_is_fitted_listed_shown_and_asked(service, tmp_path: Path) -> None:
    law_id = fitted(service, tmp_path)
    listed = service.forgetting("laws", "list", "--metric", "kl").stdout
    assert listed.splitlines()[1].split()[:3] == [law_id, "linear", "kl"]
    page = service.forgetting("laws", "show", law_id).stdout
    assert "L_f = -c_f_ft * L_ft + s_f_ft" in page
    values = dict(line.split()[:2] for line in page.splitlines()[4:6])
    assert (values["c_f_ft"], values["s_f_ft"]) == ("0.2000", "0.6000")
    assert "49,152 to 196,608" in page
    assert "4, 8, 16" in page
    ran = service.forgetting("laws", "predict", law_id, "--ft-loss", "2.5")
    answer = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert answer["kl"] == "0.1000 nats per token"
    assert answer["extrapolating"] == "no"
    assert "where a new run would fall" in answer["pi95"]
    far = service.forgetting("laws", "predict", law_id, "--ft-loss", "9", "--json")
    assert json.loads(far.stdout)["extrapolating"] is True


def test_fit_prints_a_table_and_refuses_too_few_points(service, tmp_path: Path) -> None:
    path = write_points(tmp_path / "points.json")
    ran = service.forgetting("laws", "fit", "--points", str(path), "--metric", "kl")
    assert [line.split()[1] for line in ran.stdout.splitlines()[1:]] == ["linear", "joint"]
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    refused = service.forgetting("laws", "fit", "--points", str(path), "--metric", "kl")
    assert refused.exit_code == 2
    assert "too_few_points" in refused.stderr


def test_laws_of_jobs_that_lack_points_are_told(service) -> None:
    assert "No laws yet" in service.forgetting("laws", "list").stderr
    service.submit()
    service.finish(service.start(), 0.01, 0.02)
    ran = service.forgetting("laws", "list")
    assert "No joint law yet for tiny_base (1 runs)" in ran.stderr


@pytest.mark.parametrize("question", [["--rank", "8"], ["--rank", "0", "--step", "5"], []])
def test_a_question_that_the_law_cannot_answer_is_refused(service, tmp_path, question) -> None:
    ran = service.forgetting("laws", "predict", fitted(service, tmp_path), *question)
    assert ran.exit_code == 2
    assert ran.stdout == ""


def test_doctor_finds_all_well(service) -> None:
    service.store.beat_worker("w", state="idle")
    ran = service.forgetting("doctor")
    assert ran.exit_code == 0, ran.stdout
    marks = {line.split()[1]: line.split()[0] for line in ran.stdout.splitlines()}
    assert set(marks) == {
        *("client", "python", "httpx2", "server", "database", "broker", "worker", "key")
    }
    assert set(marks.values()) == {"ok"}
    assert f"forgetting-client {__version__}" in ran.stdout


def test_doctor_says_what_is_missing_and_what_to_do(service) -> None:
    ran = service.forgetting("doctor")
    assert ran.exit_code == 4
    assert "FAIL  worker" in ran.stdout
    assert "forgetting-service worker" in ran.stdout
    report = json.loads(service.forgetting("doctor", "--json").stdout)
    assert report["ok"] is False
    assert [one["name"] for one in report["checks"] if not one["ok"]] == ["worker"]


@pytest.mark.parametrize(("key", "exit_code"), [("k" * 16, 0), ("wrong", 4), ("", 4)])
def test_doctor_tries_the_key(service, key, exit_code) -> None:
    service.store.beat_worker("w", state="idle")
    locked = service.settings.model_copy(update={"api_key": SecretStr("k" * 16)})
    with TestClient(create_app(service.store, locked, SilentBell())) as web:
        service.transport = InProcess(web)
        ran = service.forgetting("doctor", env={"FORGETTING_API_KEY": key})
        listed = service.forgetting("jobs", "list", env={"FORGETTING_API_KEY": key})
    assert ran.exit_code == exit_code
    assert ("FAIL  key" in ran.stdout) == (exit_code == 4)
    assert listed.exit_code == (2 if exit_code else 0)
    if exit_code:
        assert "Set FORGETTING_API_KEY" in ran.stdout
        assert "Set FORGETTING_API_KEY" in listed.stderr


def test_version(service) -> None:
    assert service.forgetting("--version").stdout == f"forgetting {__version__}\n"
