"""Stopping, resuming and running out of luck: the adapters are those of an undisturbed run."""

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from service.errors import InvalidSpec, TrainingDiverged
from tests.worker.rehearsal import Run, other, same, spec
from worker.data import IGNORED, Row
from worker.model import Base
from worker.train import Released
from worker.watch import LossWatch


@pytest.mark.parametrize("optim", ["adafactor", "adamw_torch"])
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(run: Run, optim: str) -> None:
    training = spec(
        max_steps=8, optim=optim, lr_scheduler_type="cosine", lora={"lora_dropout": 0.2}
    )
    whole, again = other(run, "whole"), other(run, "job")
    expected = whole(training)
    run.stop_at = 4
    with pytest.raises(Released) as caught:
        run(training)
    assert caught.value.step == 4
    resumed = again(training)
    assert same(resumed, expected)
    assert again.events[0] == {"kind": "log", "message": "resumed from step 4", "step": 4}
    for name in ("train_loss", "learning_rate", "grad_norm"):
        assert run.series(name) + again.series(name) == whole.series(name)
    assert [replace(a, path=Path()) for a in resumed.adapters] == [
        replace(a, path=Path()) for a in expected.adapters
    ]
    # Resume is not the same as starting over: without its checkpoint it would be told apart.
    assert len(again.series("train_loss")) == 4


def test_finished_training_is_not_repeated(run: Run) -> None:
    first = run(spec())
    again = other(run, "job")
    assert again(spec()) == first
    assert [a.step for a in first.adapters] == [1, 2, 3, 4]
    assert [e["kind"] for e in again.events] == ["log"]


def test_stop_in_the_last_step(run: Run) -> None:
    run.stop_at = 4
    with pytest.raises(Released) as caught:
        run(spec())
    assert caught.value.step == 4
    again = other(run, "job")
    assert len(again(spec()).adapters) == 4
    assert again.series("train_loss") == []


def test_stop_before_the_first_step(run: Run) -> None:
    run.stop.set()
    with pytest.raises(Released) as caught:
        run(spec())
    assert caught.value.step == 0


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_damaged_checkpoint_does_not_exist(run: Run) -> None:
    expected = other(run, "whole")(spec(max_steps=6))
    run.save_every, run.stop_at = 0.0, 5
    with pytest.raises(Released):
        run(spec(max_steps=6))
    saved = sorted((run.folder / "resume").iterdir())
    assert [folder.name for folder in saved] == ["checkpoint-4", "checkpoint-5"]
    for damaged, resumed in (((), [5]), ((5,), [4]), ((5, 4), [])):
        name = f"job{len(damaged)}"
        shutil.copytree(run.folder, run.folder.with_name(name))
        again = other(run, name)
        for step in damaged:
            flip(again.folder / "resume" / f"checkpoint-{step}" / "optimizer.pt")
        trained = again(spec(max_steps=6))
        assert same(trained, expected)
        assert [a.step for a in trained.adapters] == [a.step for a in expected.adapters]
        assert [e["step"] for e in again.events if e["kind"] == "log"] == resumed


def test_checkpoint_of_another_run_is_not_taken_up(run: Run) -> None:
    run.stop_at = 2
    with pytest.raises(Released):
        run(spec(seed=1))
    again = other(run, "job")
    assert same(again(spec(seed=2)), other(run, "whole")(spec(seed=2)))
    assert not any(e["kind"] == "log" for e in again.events)


def test_explosion_names_the_step(run: Run) -> None:
    model = memorise(run.base, run.dataset.train)
    run.base = replace(run.base, model=model)
    training = spec(max_steps=30, learning_rate=10, max_grad_norm=1e6, lora={"lora_alpha": 100})
    with pytest.raises(TrainingDiverged, match=r"loss \S+ at step \d+, above") as caught:
        run(training)
    losses = run.series("train_loss")
    assert caught.value.details["step"] == len(losses) + 1
    assert caught.value.param == "training.learning_rate"
    assert min(losses[-2:]) > 3 * losses[0] + 5


def memorise(base: Base, rows: list[Row]) -> LlamaForCausalLM:
    """A copy of the base that knows these rows: from a low loss an explosion is unmistakable."""
    model = copy.deepcopy(base.model).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.full((len(rows), max(len(row.input_ids) for row in rows)), 0)
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
    for _ in range(30):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def test_not_a_number_fails_at_its_step_and_keeps_nothing(run: Run) -> None:
    run.base = replace(run.base, model=copy.deepcopy(run.base.model))
    run.base.model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match=r"loss nan.* at step 1"):
        run(spec())
    assert not any(e["kind"] in {"metric", "checkpoint"} for e in run.events)
    assert not list((run.folder / "artifacts" / "checkpoints").iterdir())


def test_when_a_run_has_diverged() -> None:
    for loss, norm in ((float("nan"), 1.0), (2.0, float("inf"))):
        with pytest.raises(TrainingDiverged, match="at step 3"):
            LossWatch(7.0).add(3, loss, norm)
    watch = LossWatch(7.0)
    limit = 7.5  # a uniform guess over e^7 tokens, and half a nat
    for step, loss in enumerate([2.0, limit + 1, limit + 1, limit, limit + 1, limit + 1], start=1):
        watch.add(step, loss, 1.0)  # three in a row are needed
    with pytest.raises(TrainingDiverged, match=r"8.5 at step 7, above 7.5 for 3 steps"):
        watch.add(7, limit + 1, None)


@pytest.mark.parametrize(
    ("first", "limit"),
    [(0.5, 6.5), (2.0, 11.0), (3.0, 12.418), (10.0, 12.418), (11.0, 13.0)],
)
def test_limit_of_an_explosion(first: float, limit: float) -> None:
    """Guessing among 150 000 tokens costs 11.92 nats."""
    guessing = math.log(150_000)
    assert LossWatch(guessing).limit(first) == pytest.approx(limit, abs=1e-3)


def test_a_module_that_cannot_be_adapted_is_named(run: Run) -> None:
    for target, why in (
        ("no_such", "no module 'no_such'"),
        ("lm_head", "output head"),
        ("embed_tokens", "is the embedding"),
    ):
        with pytest.raises(InvalidSpec, match=why) as caught:
            run(spec(lora={"target_modules": ["q_proj", target]}))
        assert caught.value.param == "training.lora.target_modules"


def test_leaves_adapters_and_nothing_else(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    run.save_every = 0.0
    trained = run(spec(checkpoints=[2]))
    assert [a.step for a in trained.adapters] == [2, 4]
    files = {str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if p.is_file()}
    kept = {f for f in files if not f.startswith("resume/")}
    assert kept == {
        f"artifacts/checkpoints/step-00000{step}/{name}"
        for step in (2, 4)
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    assert {f.split("/")[1] for f in files - kept} == {"checkpoint-3", "checkpoint-4"}
    assert not list((tmp_path / "cwd").iterdir())
    assert capsys.readouterr().out == ""
    saved = [e for e in run.events if e["kind"] == "checkpoint"]
    assert [(e["step"], e["adapter"]) for e in saved] == [
        (2, "checkpoints/step-000002"),
        (4, "checkpoints/step-000004"),
    ]
    losses = run.series("train_loss")
    assert [e["train_loss"] for e in saved] == pytest.approx([sum(losses[:2]) / 2, sum(losses) / 4])
    assert sum("/" in str(run.folder) and str(run.folder) in str(e) for e in run.events) == 0
