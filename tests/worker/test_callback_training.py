"""Training goes on as if nobody had looked: bit for bit, whoever trains and however."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from tests.worker.own_trainers import TEXTS, Make, logged, plain, same, sft, weights
from worker.callback import ForgettingCallback

CORPUS = [" ".join(TEXTS[i : i + 6]) for i in range(0, len(TEXTS), 6)]


class Careless(TrainerCallback):
    """What a measurement must not do."""

    def on_step_end(self, *args: Any, **_: Any) -> None:
        torch.rand(1)


WAYS = {
    "plain": (plain, {}),
    "plain, evaluated": (plain, {"eval_strategy": "steps", "eval_steps": 3}),
    "plain, checkpointed": (plain, {"gradient_checkpointing": True}),
    "plain, autocast": (plain, {"bf16": True}),
    "full, autocast": (plain, {"full": True, "bf16": True}),
    "sft": (sft, {"eval_strategy": "epoch"}),
    "sft, checkpointed": (sft, {"gradient_checkpointing": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_are_bit_equal(random_base: Path, tmp_path: Path, way: str) -> None:
    make, changes = WAYS[way]
    named = str(random_base) if changes.get("full") else None
    callback = ForgettingCallback(CORPUS, steps=[1, 4, 7], reference=named)
    alone = _trained(make, random_base, tmp_path / "alone", changes, [])
    watched = _trained(make, random_base, tmp_path / "watched", changes, [callback])
    assert same(weights(alone), weights(watched))
    assert list(logged(watched, "forgetting/kl")) == [1, 4, 7, 10]
    for name in ("loss", "grad_norm", "eval_loss", "entropy", "mean_token_accuracy"):
        assert logged(alone, name) == logged(watched, name), name
    assert _flags(alone) == _flags(watched)


def test_weights_that_are_disturbed_differ(random_base: Path, tmp_path: Path) -> None:
    alone = _trained(plain, random_base, tmp_path / "alone", {}, [])
    careless = _trained(plain, random_base, tmp_path / "careless", {}, [Careless()])
    assert not same(weights(alone), weights(careless))


def test_generators_modes_and_flags_are_left_alone(random_base: Path, tmp_path: Path) -> None:
    trainer = plain(random_base, tmp_path)
    for name, parameter in trainer.model.named_parameters():
        if "lora_A" in name:  # as LoRA-FA freezes it
            parameter.requires_grad_(False)
    before = _flags(trainer)
    seen: dict[str, list[Any]] = {"with": [], "without": []}

    class Look(TrainerCallback):
        def __init__(self, into: str) -> None:
            self.into = into

        def on_step_end(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            state = np.random.get_state()[1].tolist()
            modes = [module.training for module in model.modules()]
            seen[self.into].append((torch.get_rng_state().tolist(), state, modes))

    trainer.add_callback(ForgettingCallback(CORPUS, steps=[2, 3]))
    trainer.add_callback(Look("with"))
    trainer.train()
    assert _flags(trainer) == before
    plain_ = plain(random_base, tmp_path, callbacks=[Look("without")])
    plain_.train()
    assert seen["with"] == seen["without"]


def _trained(make: Make, base: Path, folder: Path, changes: dict, callbacks: list) -> Any:
    trainer = make(base, folder, callbacks=callbacks, **changes)
    trainer.train()
    return trainer


def _flags(trainer: Any) -> dict[str, tuple[bool, Any]]:
    return {name: (p.requires_grad, p.grad is None) for name, p in trainer.model.named_parameters()}
