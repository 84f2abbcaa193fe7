"""What a base needs to be worked with here: each line, and what mends it."""

import json
import shutil
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service import hub
from service.examine import Question, examine
from service.footprint import footprint
from service.schemas.spec import Lora, Training
from service.settings import Settings
from service.weights import folder_files
from tests.client.answering import Reply, answering
from tests.model_folders import model_shapes, write_model

Json = dict[str, Any]


def lines(answer: Json) -> dict[str, Json]:
    return {line["name"]: line for line in answer["checks"]}


def test_a_base_that_is_all_well(sqlite_api: TestClient) -> None:
    answer = sqlite_api.get("/v1/models/check", params={"model": "tiny", "max_length": 64}).json()
    assert answer["ok"]
    assert list(lines(answer)) == [
        *("name", "access", "tokenizer", "parameters", "scoring", "training", "disk")
    ]
    assert all(line["mend"] is None for line in answer["checks"])
    assert answer["parameters"] == sum(prod(shape) for shape in model_shapes().values())


@pytest.mark.parametrize("work", ["scoring", "training"])
def test_memory_is_held_against_the_gpu(work: str, sqlite_api: TestClient) -> None:
    asked = {"model": "tiny", "max_length": 64}
    need = sqlite_api.get("/v1/models/check", params=asked).json()[f"{work}_bytes"]
    for gpu, fits in ((need, True), (need - 1, False)):
        answer = sqlite_api.get("/v1/models/check", params={**asked, "gpu_bytes": gpu}).json()
        assert lines(answer)[work]["ok"] is fits
        assert (lines(answer)[work]["mend"] is None) is fits
        assert fits or not answer["ok"]


@pytest.mark.parametrize(
    ("spoil", "line", "found", "mend"),
    [
        ({"model": "absent"}, "name", "no folder named absent", "FORGETTING_MODEL_ROOTS"),
        ({"model": "../tiny"}, "name", "`..`", "FORGETTING_MODEL_ROOTS"),
        ({"model": "org/model"}, "name", "switched off", "FORGETTING_HUB_ALLOW"),
        ({"max_length": 512}, "length", "128 tokens", "--max-length 128"),
    ],
)
def test_what_cannot_be_is_a_line_with_what_mends_it(
    spoil: Json, line: str, found: str, mend: str, sqlite_api: TestClient
) -> None:
    asked = {"model": "tiny", "max_length": 64, **spoil}
    response = sqlite_api.get("/v1/models/check", params=asked)
    assert response.status_code == 200
    answer = response.json()
    assert not answer["ok"]
    assert not lines(answer)[line]["ok"]
    assert found in lines(answer)[line]["found"]
    assert mend in lines(answer)[line]["mend"]
    assert (answer["parameters"] is None) == (line == "name")


def test_code_pickles_and_a_missing_tokenizer(sqlite_api: TestClient, roots: Path) -> None:
    models = roots / "models"
    write_model(models / "code", config={"auto_map": {"AutoModel": "x.Y"}})
    write_model(models / "pickled")
    (models / "pickled" / "model.safetensors").rename(models / "pickled" / "pytorch_model.bin")
    write_model(models / "mute")
    (models / "mute" / "tokenizer.json").unlink()
    for model, line, found in (
        ("code", "access", "auto_map"),
        ("pickled", "access", "pickled"),
        ("mute", "tokenizer", "no tokenizer"),
    ):
        answer = sqlite_api.get("/v1/models/check", params={"model": model}).json()
        assert found in lines(answer)[line]["found"]
        assert lines(answer)[line]["mend"]
        assert list(lines(answer))[-1] == line


def test_a_full_disk_is_told(api_settings: Settings) -> None:
    everything = shutil.disk_usage(api_settings.home.parent).total
    full = api_settings.model_copy(update={"min_free_bytes": everything})
    answer = examine(Question("tiny", max_length=64), full).model_dump()
    assert not lines(answer)["disk"]["ok"]
    assert "FORGETTING_HOME" in lines(answer)["disk"]["mend"]


@pytest.mark.parametrize("asked", [{}, {"model": "tiny", "rank": 0}, {"model": "tiny", "dtype": 8}])
def test_a_question_that_is_none_is_refused(asked: Json, sqlite_api: TestClient) -> None:
    assert sqlite_api.get("/v1/models/check", params=asked).status_code == 422


def test_the_numbers_of_the_demo_base(tiny_base: Path) -> None:
    """The README's run reports P = 39,040 at rank 4, as PEFT counted it."""
    files = folder_files(tiny_base)
    training = Training(max_length=128, lora=Lora(r=4))
    need = footprint(files, training, dtype="float32", n_positions=1000)
    config = json.loads((tiny_base / "config.json").read_text())
    assert need.trained == 39_040
    assert need.pass_disk == 1000 * (4 * config["hidden_size"] + 88)
    half = footprint(files, training, dtype="bfloat16", n_positions=1000)
    assert need.training - half.training >= 2 * need.parameters
    doubled = footprint(
        files, Training(max_length=128, lora=Lora(r=8)), dtype="float32", n_positions=1000
    )
    assert doubled.training - need.training == 16 * 39_040


@pytest.mark.parametrize(
    ("status", "word", "found", "mend"),
    [
        (403, "GatedRepo", "is gated", "Accept the model's licence"),
        (404, "RepoNotFound", "or on the hub", "HF_TOKEN"),
        (404, "RevisionNotFound", "no such revision", "branch, tag or commit"),
        (503, "", "the hub does not answer", "FORGETTING_MODEL_ROOTS"),
    ],
)
def test_what_the_hub_says_is_told_with_what_mends_it(
    status: int,
    word: str,
    found: str,
    mend: str,
    api_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    opened = api_settings.model_copy(update={"allow_hub": True})
    with answering(lambda _: Reply(status, {}, {"X-Error-Code": word})) as server:
        here = partial(hub.model_files, cache_dir=tmp_path / "hub", endpoint=server.url)
        monkeypatch.setattr(hub, "model_files", here)
        answer = examine(Question("org/tiny"), opened).model_dump()
    assert server.asked
    assert lines(answer)["name"]["ok"]
    assert found in lines(answer)["access"]["found"]
    assert mend in lines(answer)["access"]["mend"]
    assert not answer["ok"]
