"""The whole job as one function: real training, real scoring, no queue and no store."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import (
    AdapterUnreadable,
    CorpusUnreadable,
    EngineUnavailable,
    InvalidSpec,
    PathNotAllowed,
)
from service.schemas.result import Result
from service.schemas.spec import Dataset, EvaluateSpec, Evaluation, FinetuneSpec, Lora, Training
from service.settings import Settings
from worker.run import execute
from worker.train import Released

Event = dict[str, Any]
BASE = "random-base"
ARTICLE = (
    " = Mill {0} = \n The river runs past the old mill {0} and the mill grinds the corn . \n"
    " = = Sound = = \n Nobody remembers who built it {0} times , but everybody knows it . \n"
)


def evaluation(**changes: Any) -> Evaluation:
    return Evaluation(**{"corpus": "articles.txt", "context": 32, **changes})


def finetune(**changes: Any) -> FinetuneSpec:
    training = Training(
        max_steps=6,
        batch_size=4,
        max_length=64,
        learning_rate=5e-3,
        optim="adamw_torch",
        warmup_steps=0,
        checkpoints=[2, 6],
        lora=Lora(r=4),
    )
    return FinetuneSpec(
        base_model=BASE,
        dataset=Dataset(path="questions.jsonl"),
        training=training,
        evaluation=evaluation(**changes),
    )


def evaluate(adapters: list[dict[str, Any]], **changes: Any) -> EvaluateSpec:
    body = {"type": "evaluate", "base_model": BASE, "adapters": adapters}
    return EvaluateSpec(**body, evaluation=evaluation(**changes))


@pytest.fixture(scope="module")
def place(
    random_base: Path, question_answers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """models/, data/ with twelve articles, home/."""
    root = tmp_path_factory.mktemp("run")
    shutil.copytree(random_base, root / "models" / BASE)
    (root / "data").mkdir()
    shutil.copy(question_answers, root / "data" / "questions.jsonl")
    text = "".join(ARTICLE.format(chr(65 + i) * (i + 1)) for i in range(12))
    (root / "data" / "articles.txt").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def settings(place: Path) -> Settings:
    return Settings(
        home=place / "home",
        model_roots=[place / "models"],
        data_roots=[place / "data"],
        allow_hub=False,
    )


@pytest.fixture(scope="module")
def trained(place: Path, settings: Settings) -> tuple[Result, list[Event], Path]:
    events: list[Event] = []
    workdir = place / "first"
    result = execute(finetune(), workdir, events.append, settings=settings)
    artifacts = workdir / "artifacts"
    shutil.copytree(artifacts / "checkpoints" / "step-000006", place / "models" / "mine")
    return result, events, artifacts


def test_a_finetune_job_measures_every_checkpoint(
    trained: tuple[Result, list[Event], Path],
) -> None:
    result, _, _ = trained
    assert [c.step for c in result.checkpoints] == [2, 6]
    early, late = (c.forgetting.kl.value for c in result.checkpoints)
    assert 0 < early < late
    assert result.kl == result.checkpoints[-1].forgetting.kl
    low, high = result.kl.ci95 or (0, 0)
    assert low < result.kl.value < high
    assert result.ce_soft.value - result.h_base == pytest.approx(late, rel=1e-9)
    heldout = [c.ft_loss.heldout for c in result.checkpoints]
    assert None not in heldout
    assert heldout[1] < heldout[0]  # type: ignore[operator]
    assert result.ft_loss == result.checkpoints[-1].ft_loss
    assert result.kl_reverse is None
    assert (result.n_documents, len(result.documents)) == (12, 12)
    assert [d.title for d in result.documents][:2] == ["Mill A", "Mill BB"]
    assert sum(d.n_positions for d in result.documents) == result.n_positions


def test_what_is_worst_can_be_read(trained: tuple[Result, list[Event], Path]) -> None:
    result, _, artifacts = trained
    stored = np.load(artifacts / "positions.npz")
    assert len(stored["kl"]) == result.n_positions
    assert stored["kl"].mean() == pytest.approx(result.kl.value, rel=1e-5)
    worst = result.worst_tokens[0]
    at = int(stored["kl"].argmax())
    assert (worst.document, worst.position) == (stored["document"][at], stored["position"][at])
    assert worst.kl == pytest.approx(result.kl_percentiles["max"])
    assert [t.kl for t in result.worst_tokens] == sorted(t.kl for t in result.worst_tokens)[::-1]
    assert len(result.worst_tokens) == 30
    text = ARTICLE.format("A")
    of_first = [token for token in result.worst_tokens if token.document == 0]
    assert all(token.token in text for token in of_first)
    assert len(result.worst_windows) == 10
    assert all(0 < len(window.text) <= 600 for window in result.worst_windows)


def test_provenance_and_cost_are_complete(trained: tuple[Result, list[Event], Path]) -> None:
    result, _, _ = trained
    found = result.provenance
    for digest in (found.base, found.tokenizer, found.adapter, found.corpus, found.dataset):
        assert digest is not None
        assert digest.startswith("sha256:")
    assert (found.context, found.begins_with_bos, found.dtype) == (32, True, "float32")
    assert (found.engine, found.device, found.corpus_kind) == ("transformers", "cpu", "wikitext")
    assert found.dataset_format == "prompt_completion"
    assert {"torch", "transformers", "peft", "python"} <= found.versions.keys()
    cost = result.cost
    assert cost.base_forward_tokens > result.n_positions
    assert cost.tuned_forward_tokens == 2 * cost.base_forward_tokens
    assert cost.training_tokens > 0
    phases = ["validating", "loading", "training", "scoring_base", "scoring_tuned"]
    assert list(cost.seconds) == phases
    assert result.noise_floor.max_abs < 1e-5
    assert result.engine.reason.startswith("auto")


def test_events_tell_phases_progress_and_scores(
    trained: tuple[Result, list[Event], Path],
) -> None:
    result, events, artifacts = trained
    phases = [event["phase"] for event in events if event["kind"] == "phase"]
    assert phases == list(result.cost.seconds)
    windows = [e for e in events if e["kind"] == "progress" and e["unit"] == "windows"]
    assert windows[-1]["done"] == windows[-1]["total"] == 2 * result.n_windows
    rows = [e for e in events if e["kind"] == "progress" and e["unit"] == "rows"]
    assert rows[-1]["done"] == rows[-1]["total"] > 0
    series = {
        name: [(e["step"], e["value"]) for e in events if e.get("name") == name]
        for name in ("kl", "ce_soft", "same_top", "heldout_loss")
    }
    assert series["kl"] == [(c.step, c.forgetting.kl.value) for c in result.checkpoints]
    assert series["heldout_loss"] == [(c.step, c.ft_loss.heldout) for c in result.checkpoints]
    last = [event for event in events if event["kind"] == "checkpoint"][-1]
    assert (last["adapter"], last["kl"]) == ("checkpoints/step-000006", result.kl.value)
    assert (artifacts / last["adapter"] / "adapter_model.safetensors").is_file()
    stored = (artifacts / "result.json").read_text()
    assert Result.model_validate_json(stored) == result
    assert json.loads(stored)["schema_version"] == 1


def test_an_evaluate_job_reuses_the_base_pass_and_agrees(
    trained: tuple[Result, list[Event], Path], place: Path, settings: Settings
) -> None:
    first, _, artifacts = trained
    job = "job_" + "0" * 26
    spec = evaluate([{"job": job, "step": 2}, {"path": "mine"}])
    adapters = {f"{job}:2": artifacts / "checkpoints" / "step-000002"}
    result = execute(spec, place / "second", print, adapters=adapters, settings=settings)
    assert result.cost.base_forward_tokens == 0
    assert [c.forgetting for c in result.checkpoints] == [c.forgetting for c in first.checkpoints]
    assert [c.adapter for c in result.checkpoints] == [f"{job}:2", "mine"]
    assert [(c.step, c.rank) for c in result.checkpoints] == [(2, 4), (None, 4)]
    assert result.documents == first.documents
    assert result.noise_floor == first.noise_floor
    assert result.provenance.adapter == first.provenance.adapter
    assert result.ft_loss.heldout is None
    place_of_pass = next(settings.cache.glob("*/vectors.npy"))
    content = bytearray(place_of_pass.read_bytes())
    content[-1] ^= 1
    place_of_pass.write_bytes(content)
    again = execute(spec, place / "third", print, adapters=adapters, settings=settings)
    assert again.cost.base_forward_tokens == first.cost.base_forward_tokens
    assert again.kl == first.kl


def test_a_full_model_and_the_reverse_direction(
    trained: tuple[Result, list[Event], Path], place: Path, settings: Settings
) -> None:
    spec = evaluate([{"path": "mine"}, {"path": BASE}], reverse=True)
    result = execute(spec, place / "full", print, settings=settings)
    mine, itself = result.checkpoints
    assert (itself.forgetting.kl.value, itself.forgetting.same_top.value) == (0, 1)
    assert (itself.rank, itself.trainable_params) == (None, None)
    assert mine.forgetting.kl_reverse is not None
    forward, backward = mine.forgetting.kl.value, mine.forgetting.kl_reverse.value
    assert backward == pytest.approx(forward, rel=0.5)
    assert backward != forward
    assert result.provenance.adapter == result.provenance.base


def test_at_final_measures_the_last_checkpoint_alone(place: Path, settings: Settings) -> None:
    result = execute(finetune(at="final"), place / "final", print, settings=settings)
    assert [c.step for c in result.checkpoints] == [6]
    assert result.cost.base_forward_tokens == 0


def test_runs_that_differ_in_rank_share_the_dataset_and_the_base_pass(
    trained: tuple[Result, list[Event], Path], place: Path, settings: Settings
) -> None:
    fresh = settings.model_copy(update={"cache_dir": place / "cache-shared"})
    events: list[Event] = []
    for rank in (4, 8):
        spec = finetune()
        spec.training.lora.r = rank
        results = execute(spec, place / f"rank-{rank}", events.append, settings=fresh)
        if rank == 4:
            first = results
    assert (first.cost.dataset_cached, results.cost.dataset_cached) == (False, True)
    assert first.cost.base_forward_tokens > results.cost.base_forward_tokens == 0
    said = [event["message"] for event in events if event["kind"] == "log"]
    assert said.count("tokenised dataset from the cache") == 1
    assert len(list(fresh.cache.iterdir())) == 2
    # What the cache gave is what would have been computed.
    alone = settings.model_copy(update={"cache_dir": place / "cache-alone"})
    spec = finetune()
    spec.training.lora.r = 8
    again = execute(spec, place / "alone", print, settings=alone)
    assert again.cost.dataset_cached is False
    assert [c.model_dump() for c in again.checkpoints] == [
        c.model_dump() for c in results.checkpoints
    ]


@pytest.mark.parametrize("phase", ["scoring_base", "scoring_tuned"])
def test_stop_ends_scoring_and_the_job_continues(
    trained: tuple[Result, list[Event], Path], place: Path, settings: Settings, phase: str
) -> None:
    stop = threading.Event()
    fresh = settings.model_copy(update={"cache_dir": place / f"cache-{phase}"})
    seen: list[str] = []

    def report(event: Event) -> None:
        if event["kind"] == "phase":
            seen.append(event["phase"])
        if event["kind"] == "progress" and seen[-1] == phase:
            stop.set()

    workdir = place / f"stopped-{phase}"
    with pytest.raises(Released):
        execute(finetune(), workdir, report, stop=stop, settings=fresh)
    assert seen[-1] == phase
    assert not list(fresh.cache.glob(".*"))  # nothing half written
    result = execute(finetune(), workdir, report, settings=fresh)
    assert result.kl == trained[0].kl


def test_what_cannot_work_is_refused_with_its_field(place: Path, settings: Settings) -> None:
    (place / "data" / "short.txt").write_text("\n")
    job = "job_" + "0" * 26
    refused: list[tuple[Any, type[Exception], str]] = [
        (finetune(engine="vllm"), EngineUnavailable, "evaluation.engine"),
        (finetune(context=257), InvalidSpec, "evaluation.context"),
        (finetune(corpus="short.txt"), CorpusUnreadable, "evaluation.corpus"),
        (finetune(corpus="absent.txt"), CorpusUnreadable, "evaluation.corpus"),
        (evaluate([{"path": "../secret"}]), PathNotAllowed, "adapters.0"),
        (evaluate([{"path": BASE}, {"path": "absent"}]), AdapterUnreadable, "adapters.1"),
        (evaluate([{"job": job}]), AdapterUnreadable, "adapters.0"),
    ]
    for spec, error, param in refused:
        with pytest.raises(error) as caught:
            execute(spec, place / "refused", print, settings=settings)
        assert caught.value.param == param  # type: ignore[attr-defined]
