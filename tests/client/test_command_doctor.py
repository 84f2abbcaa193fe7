"""`forgetting doctor --model`: may jobs use this base, will it fit, what mends what does not."""

import json

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from service.app import create_app
from service.keys import create_key
from service.scopes import Scope
from tests.client.conftest import InProcess, SilentBell

LINES = ["name", "access", "tokenizer", "parameters", "scoring", "training", "disk"]


def test_a_base_that_fits(service) -> None:
    service.store.beat_worker("w", state="idle")
    line = ("doctor", "--model", "tiny_base", "--gpu-memory", "24GiB", "--rank", "4")
    ran = service.forgetting(*line, "--max-length", "128")
    assert ran.exit_code == 0, ran.output
    printed = ran.stdout.splitlines()
    assert all(any(f"ok    model {name}" in row for row in printed) for name in LINES)
    assert "LoRA of rank 4 trains 39,040" in ran.stdout
    assert "of 25.8 GB" in ran.stdout


def test_a_base_that_does_not_fit_says_what_mends_it(service) -> None:
    service.store.beat_worker("w", state="idle")
    line = ("doctor", "--model", "tiny_base", "--gpu-memory", "900MB", "--max-length", "128")
    ran = service.forgetting(*line)
    assert ran.exit_code == 4
    assert "FAIL  model training" in ran.stdout
    assert "training.max_length" in ran.stdout
    body = json.loads(service.forgetting(*line, "--json").stdout)
    assert body["ok"] is False
    failed = [one["name"] for one in body["checks"] if not one["ok"]]
    assert failed == ["model scoring", "model training"]
    assert body["model"]["training_bytes"] > 900e6
    assert body["model"]["parameters"] > 0


@pytest.mark.parametrize(
    ("model", "setting"),
    [("org/model", "FORGETTING_HUB_ALLOW"), ("/etc", "FORGETTING_MODEL_ROOTS")],
)
def test_a_base_that_is_refused_names_the_setting(service, model, setting) -> None:
    service.store.beat_worker("w", state="idle")
    ran = service.forgetting("doctor", "--model", model)
    assert ran.exit_code == 4
    assert "FAIL  model name" in ran.stdout
    assert setting in ran.stdout
    assert "model scoring" not in ran.stdout


@pytest.mark.parametrize("size", ["much", "0GB", "-1", "12 parsecs"])
def test_a_size_that_is_none_is_usage(service, size) -> None:
    ran = service.forgetting("doctor", "--model", "tiny_base", "--gpu-memory", size)
    assert ran.exit_code == 2
    assert "24GiB" in ran.stderr


def test_a_key_without_the_scope_is_told_which(service) -> None:
    service.store.beat_worker("w", state="idle")
    update = {"api_key": SecretStr("k" * 16), "key_pepper": SecretStr("p" * 16)}
    locked = service.settings.model_copy(update=update)
    _, token = create_key(service.store, locked, owner="o", name="n", scopes=[Scope.LAWS_READ])
    with TestClient(create_app(service.store, locked, SilentBell())) as web:
        service.transport = InProcess(web)
        ran = service.forgetting(
            "doctor", "--model", "tiny_base", env={"FORGETTING_API_KEY": token}
        )
    assert ran.exit_code == 4
    assert "jobs:read" in ran.stdout
