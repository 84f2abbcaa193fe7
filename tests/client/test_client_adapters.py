"""Adapters sent by the client: streamed, counted, tried again, and named where they do not fit."""

import json
from pathlib import Path
from typing import get_type_hints

import httpx2
import pytest
from forgetting_client import ForgettingClient, errors
from forgetting_client.adapter_methods import Adapter
from forgetting_client.command.contenders import evaluation
from safetensors.numpy import load_file, save_file

from service.schemas import views
from tests.client.conftest import Service

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def folder(tmp_path: Path, service: Service) -> Path:
    """A LoRA of rank 2 on the tiny base's first query projection, written by safetensors."""
    import numpy as np

    base = load_file(service.settings.model_roots[0] / "tiny_base" / "model.safetensors")
    out, into = base["model.layers.0.self_attn.q_proj.weight"].shape
    made = tmp_path / "mine"
    made.mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": np.ones((2, into), np.float32),
        f"{module}.lora_B.weight": np.ones((out, 2), np.float32),
    }
    save_file(tensors, made / WEIGHTS)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (made / CONFIG).write_text(json.dumps(config))
    return made


def test_an_adapter_is_sent_shown_listed_and_removed(service: Service, folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    client = service.client
    sent = client.upload_adapter(
        folder, base_model="tiny_base", progress=lambda *counts: heard.append(counts)
    )
    total = sum((folder / name).stat().st_size for name in (WEIGHTS, CONFIG))
    assert heard[-1] == (total, total)
    assert (sent["rank"], sent["bytes"]) == (2, total)
    assert client.upload_adapter(str(folder), base_model="tiny_base") == sent
    assert client.adapter(sent["id"]) == sent
    assert list(client.adapters(base_model="tiny_base", digest=sent["digest"])) == [sent]
    spec = {key: service.spec[key] for key in ("base_model", "evaluation")}
    job = client.create_job({**spec, "type": "evaluate", "adapters": [{"id": sent["id"]}]})
    with pytest.raises(errors.AdapterInUse, match=job["id"]):
        client.delete_adapter(sent["id"])
    client.cancel(job["id"])
    client.delete_adapter(sent["id"])
    with pytest.raises(errors.NotFound):
        client.adapter(sent["id"])


def test_the_type_names_what_the_service_sends() -> None:
    assert get_type_hints(Adapter).keys() == views.Adapter.model_fields.keys()


def test_a_refusal_names_the_part(service: Service, folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"r": 4}))
    with pytest.raises(errors.AdapterUnreadable, match="rank 2") as caught:
        service.client.upload_adapter(folder, base_model="tiny_base")
    assert caught.value.param == WEIGHTS
    with pytest.raises(errors.ModelUnavailable):
        service.client.upload_adapter(folder, base_model="absent")


def test_a_folder_without_its_two_files_is_never_sent(scripted, tmp_path: Path) -> None:
    client, script = scripted()
    with pytest.raises(errors.Unsendable, match=r"no adapter_config\.json"):
        client.upload_adapter(tmp_path, base_model="m")
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(errors.Unsendable, match=r"no adapter_model\.safetensors\.$"):
        client.upload_adapter(tmp_path, base_model="m")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(errors.Unsendable, match=r"adapter_model\.bin is pickled"):
        client.upload_adapter(tmp_path, base_model="m")
    assert script.requests == []


def test_every_try_sends_all_of_it(scripted, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / WEIGHTS).write_bytes(b"w" * 200_000)
    answers = [httpx2.ReadError("reset"), httpx2.Response(503), httpx2.Response(201, json={})]
    client, script = scripted(*answers)
    client.upload_adapter(tmp_path, base_model="m", revision="main")
    assert len(script.requests) == 3
    for request in script.requests:
        assert dict(request.url.params) == {"base_model": "m", "revision": "main"}
        body = request.read()
        assert (body.count(b"w" * 200_000), body.count(b"{}")) == (1, 1)
        assert request.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("given", ["", "..", "adp_1/x"])
def test_what_is_no_id_is_never_sent(scripted, given: str) -> None:
    client, script = scripted()
    for call in (client.adapter, client.delete_adapter):
        with pytest.raises(errors.Unsendable):
            call(given)
    assert script.requests == []


def test_more_than_the_service_takes_is_said_at_once(
    service: Service, address: str, folder: Path
) -> None:
    """Over a real connection: 3 GB are announced, and refused before they are sent."""
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(3_000_000_000)
    heard: list[int] = []
    with ForgettingClient(address) as client, pytest.raises(errors.PayloadTooLarge) as caught:
        client.upload_adapter(
            folder, base_model="tiny_base", progress=lambda done, total: heard.append(done)
        )
    assert caught.value.status == 413
    assert max(heard, default=0) < 500_000_000


def test_a_base_that_is_not_there_is_said_after_a_long_upload(
    service: Service, address: str, folder: Path
) -> None:
    """The answer is ready before the body is: it must not be lost with the connection."""
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(50_000_000)
    with ForgettingClient(address) as client, pytest.raises(errors.ModelUnavailable):
        client.upload_adapter(folder, base_model="absent")


def test_the_command_sends_lists_shows_and_removes(service: Service, folder: Path) -> None:
    ran = service.forgetting("adapters", "upload", str(folder), "--base-model", "tiny_base")
    assert ran.exit_code == 0, ran.stderr
    adapter_id = ran.stdout.strip()
    assert ran.stdout == f"{adapter_id}\n"
    assert f"--adapter {adapter_id}" in ran.stderr
    line = ("adapters", "upload", str(folder), "--base-model", "tiny_base", "--json")
    as_json = json.loads(service.forgetting(*line).stdout)
    assert as_json == service.client.adapter(adapter_id)
    listed = service.forgetting("adapters", "list").stdout.splitlines()
    assert listed[0].split() == ["id", "rank", "P", "bytes", "created", "base"]
    assert listed[1].split()[:3] == [adapter_id, "2", "512"]
    assert json.loads(service.forgetting("adapters", "list", "--json").stdout) == [as_json]
    shown = service.forgetting("adapters", "show", adapter_id).stdout
    assert as_json["digest"] in shown
    assert (
        json.loads(service.forgetting("adapters", "show", adapter_id, "--json").stdout) == as_json
    )
    asked = service.forgetting("adapters", "delete", adapter_id)
    assert asked.exit_code == 2
    assert "add --yes" in asked.stderr
    assert service.forgetting("adapters", "show", adapter_id).exit_code == 0
    gone = service.forgetting("adapters", "delete", adapter_id, "--yes", "--json")
    assert json.loads(gone.stdout) == {"id": adapter_id, "deleted": True}
    assert "No such adapters" in service.forgetting("adapters", "list").stderr
    assert service.forgetting("adapters", "show", adapter_id).exit_code == 2


def test_a_long_upload_draws_a_bar_beside_the_data(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetting_client.command.adapters.PATIENCE_SECONDS", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws for terminals only
    ran = service.forgetting("adapters", "upload", str(folder), "--base-model", "tiny_base")
    assert "mine" in ran.stderr
    assert "kB" in ran.stderr
    assert ran.stdout.startswith("adp_")
    assert len(ran.stdout.split()) == 1


def test_submit_sends_a_folder_that_lies_here(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    where = ("--base-model", "tiny_base", "--corpus", "corpus.txt", "--context", "64")
    ran = service.forgetting("jobs", "submit", "--adapter", "./mine", *where)
    assert ran.exit_code == 0, ran.stderr
    [adapter] = service.client.adapters()
    assert f"./mine is {adapter['id']}" in ran.stderr
    job = service.client.job(ran.stdout.strip())
    assert [one["id"] for one in job["spec"]["adapters"]] == [adapter["id"]]
    assert adapter["id"] in service.forgetting("jobs", "list").stdout
    ran = service.forgetting("jobs", "submit", "--adapter", adapter["id"], *where)
    again = service.client.job(ran.stdout.strip())
    assert [one["id"] for one in again["spec"]["adapters"]] == [adapter["id"]]
    busy = service.forgetting("adapters", "delete", adapter["id"], "-y")
    assert busy.exit_code == 2
    assert "cancel it first" in busy.stderr
    lacking = service.forgetting("jobs", "submit", "--adapter", "mine", "--corpus", "corpus.txt")
    assert lacking.exit_code == 2
    assert "--base-model" in lacking.stderr
    # Elsewhere the same word is a name that the service looks for.
    monkeypatch.chdir(folder)
    there = service.forgetting("jobs", "submit", "--adapter", "mine", *where)
    assert there.exit_code == 2
    assert "adapters.0.path" in there.stderr


def test_compare_sends_folders_that_lie_here(service: Service, folder: Path) -> None:
    base = service.spec["base_model"]
    spec = evaluation(service.client, [str(folder), service.submit()], base=base)
    sent = spec["adapters"][0]["id"]
    assert [one["id"] for one in service.client.adapters()] == [sent]
    assert set(spec["adapters"][1]) == {"job"}
