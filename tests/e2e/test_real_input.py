"""The main job on real text: Orca answers to learn, WikiText-103's test articles to forget."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, house

CONTEXT = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def home(shared_data: Path, folder: Path) -> Iterator[House]:
    roots = {"FORGETTING_DATA_ROOTS": json.dumps([str(shared_data)])}
    with house(folder, **roots) as running:
        yield running


def evaluate(home: House, job_id: str) -> dict[str, Any]:
    body = {
        "type": "evaluate",
        "base_model": "tiny_base",
        "adapters": [{"job": job_id}],
        "evaluation": evaluation(),
    }
    answer = home.client.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return result_of(home, answer.json()["id"])


def evaluation() -> dict[str, Any]:
    return {"corpus": "wikitext-103-raw-test.txt", "context": CONTEXT, "at": "final"}


def result_of(home: House, job_id: str) -> dict[str, Any]:
    job = home.ends(job_id, seconds=600)
    assert job["status"] == "succeeded", job["error"]
    result: dict[str, Any] = home.client.get(f"/jobs/{job_id}/result").json()
    return result


MEASURED = ("kl", "ce_soft", "ce_hard", "same_top", "nll_base", "nll_tuned", "h_base", "documents")


@pytest.mark.timeout(1500)
def test_orca_is_learnt_wikitext_is_forgotten_and_the_base_pass_is_kept(
    home: House, folder: Path
) -> None:
    job_id = home.submit(
        dataset={"path": "orca-sample.jsonl"},
        training={
            "max_steps": 60,
            "batch_size": 8,
            "max_length": CONTEXT,
            "learning_rate": 3e-3,
            "optim": "adamw_torch",
            "loss_on": "all",  # with 128 tokens of context most answers lie beyond the window
            "lora": {"r": 8},
        },
        evaluation=evaluation(),
    )
    first = result_of(home, job_id)
    assert first["provenance"]["dataset_format"] == "preference"
    assert first["provenance"]["corpus_kind"] == "wikitext"
    assert first["n_documents"] == 60
    assert first["documents"][0]["title"] == "Robert Boulter"
    assert first["kl"]["value"] > 100 * abs(first["noise_floor"]["kl"])
    assert first["kl"]["ci95"][0] < first["kl"]["value"] < first["kl"]["ci95"][1]
    assert first["ce_soft"]["value"] - first["h_base"] == pytest.approx(first["kl"]["value"])
    assert first["cost"]["base_forward_tokens"] > first["n_positions"]
    losses = home.client.get(f"/jobs/{job_id}/metrics").json()["series"]["train_loss"]
    assert len(losses) == 60
    assert first["ft_loss"]["heldout"] < losses[0]["value"]

    again = evaluate(home, job_id)
    assert again["cost"]["base_forward_tokens"] == 0
    assert {name: again[name] for name in MEASURED} == {name: first[name] for name in MEASURED}

    files = [path for path in (folder / "home" / "cache").rglob("*") if path.is_file()]
    entry = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    repaired = evaluate(home, job_id)
    assert repaired["cost"]["base_forward_tokens"] == first["cost"]["base_forward_tokens"]
    assert {name: repaired[name] for name in MEASURED} == {name: first[name] for name in MEASURED}
