"""Training: what each number must be, computed another way."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from service.errors import InvalidSpec
from service.schemas.spec import Dataset
from service.settings import Settings
from tests.worker.rehearsal import Run, other, same, spec, tensors
from worker.adapter import WEIGHTS_FILE
from worker.data import IGNORED, Row, load_rows, tokenise
from worker.heldout import heldout_loss
from worker.model import Base, tuned
from worker.schedule import RowOrder

IDS = torch.tensor([[1, 50, 60, 70, 80, 90]])
LINEAR = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 112), (64, 112), (112, 64)] * 2
"""(d_in, d_out) of q, k, v, o, gate, up, down of both layers of the base."""


def by_hand(base: Base, rows: list[Row]) -> tuple[float, int]:
    """(sum of nats, tokens) in float64, token by token, one row at a time."""
    model = copy.deepcopy(base.model).double()
    total, n = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]  # (length, vocab)
        for t in range(1, len(row.labels)):
            if row.labels[t] != IGNORED:
                p = torch.softmax(logits[t - 1], -1)[row.labels[t]]
                total -= math.log(p)
                n += 1
    return total, n


def test_first_loss_is_the_bases_on_the_first_batch(run: Run) -> None:
    run(spec(max_steps=1))
    order = list(RowOrder(len(run.dataset.train), 8, seed=17))
    total, n = by_hand(run.base, [run.dataset.train[i] for i in order])
    assert run.series("train_loss") == [pytest.approx(total / n, rel=1e-5)]


def test_loss_is_taken_on_completions_alone(run: Run, worker_settings: Settings) -> None:
    training = spec(max_steps=1, loss_on="all")
    rows = load_rows(Dataset(path="questions.jsonl"), worker_settings)
    everything = Run(
        run.base, tokenise(rows, run.base.tokenizer, training), run.folder.with_name("all")
    )
    run(spec(max_steps=1))
    everything(training)
    answers, whole = run.series("train_loss")[0], everything.series("train_loss")[0]
    order = list(RowOrder(len(run.dataset.train), 8, seed=17))
    # The same rows with prompts supervised would give this, and it is another number.
    unmasked = [Row(r.input_ids, [IGNORED, *r.input_ids[1:]]) for r in run.dataset.train]
    total, n = by_hand(run.base, [unmasked[i] for i in order])
    assert whole == pytest.approx(total / n, rel=1e-5)
    assert abs(answers - whole) > 0.01


def test_trainable_params_are_rank_times_widths(run: Run) -> None:
    for rank in (1, 6):
        trained = other(run, f"r{rank}")(spec(max_steps=1, lora={"r": rank}))
        assert trained.adapters[-1].trainable_params == rank * sum(i + o for i, o in LINEAR)


def test_micro_batches_do_not_change_the_trajectory(run: Run) -> None:
    whole, split = other(run, "whole"), other(run, "split")
    a = whole(spec(max_steps=10, micro_batch_size=8))
    b = split(spec(max_steps=10, micro_batch_size=2))
    assert whole.series("train_loss") == pytest.approx(split.series("train_loss"), abs=1e-5)
    assert whole.series("grad_norm") == pytest.approx(split.series("grad_norm"), rel=1e-4)
    assert a.training_tokens == b.training_tokens


def test_out_of_memory_halves_the_micro_batch(run: Run) -> None:
    def refuse(_: object, args: object, kwargs: dict[str, Tensor]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError

    small = other(run, "small")
    expected = small(spec(micro_batch_size=2))
    layers = run.base.model.model
    handle = layers.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        trained = run(spec())
        with pytest.raises(InvalidSpec) as caught:
            other(run, "fixed")(spec(micro_batch_size=4))
    finally:
        handle.remove()
    assert same(trained, expected)
    assert caught.value.param == "training.micro_batch_size"
    messages = [e["message"] for e in run.events if e["kind"] == "warning"]
    assert messages == ["out of memory at 8 rows; now 4", "out of memory at 4 rows; now 2"]
    run.base.model(input_ids=IDS.expand(3, -1))  # the hook is gone


def test_same_seed_same_bits_other_seed_other_run(run: Run) -> None:
    a = other(run, "a")(spec(lora={"lora_dropout": 0.1}))
    b = other(run, "b")(spec(lora={"lora_dropout": 0.1}))
    c = other(run, "c")(spec(lora={"lora_dropout": 0.1}, seed=18))
    files = [one.adapters[-1].path / WEIGHTS_FILE for one in (a, b)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not same(a, c)
    n = len(run.dataset.train)
    assert list(RowOrder(n, n, seed=17)) != list(RowOrder(n, n, seed=18))


def test_base_is_the_base_after_training(run: Run) -> None:
    model = run.base.model
    with torch.no_grad():
        before = model(input_ids=IDS).logits
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modules, attributes, config = list(model.modules()), set(vars(model)), model.config.to_dict()
    run(spec(gradient_checkpointing=True))
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, before)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    assert (list(model.modules()), set(vars(model))) == (modules, attributes)
    assert model.config.to_dict() == config
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_plain_peft_loads_the_adapter(run: Run, random_base: Path) -> None:
    folder = run(spec(max_steps=6)).adapters[-1].path
    plain = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(random_base), folder).eval()
    with torch.no_grad():
        expected = plain(input_ids=IDS).logits
        with tuned(run.base, folder) as model:
            assert torch.equal(model(input_ids=IDS).logits, expected)
        assert not torch.equal(run.base.model(input_ids=IDS).logits, expected)
    assert plain.peft_config["default"].lora_alpha == 1
    assert plain.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 4**-0.5


@pytest.mark.parametrize(
    ("lora", "scaling"),
    [
        ({"use_rslora": False}, 1.0),
        ({"use_rslora": False, "lora_alpha": 2}, 0.5),
        ({"lora_alpha": 6}, 3.0),
        ({"target_modules": ["v_proj", "down_proj"]}, 0.5),
    ],
)
def test_lora_options_reach_the_adapter(
    run: Run, random_base: Path, lora: dict[str, Any], scaling: float
) -> None:
    folder = run(spec(max_steps=1, lora=lora)).adapters[-1].path
    plain = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(random_base), folder)
    layer = plain.base_model.model.model.layers[1].mlp.down_proj
    assert layer.scaling["default"] == pytest.approx(scaling)
    touched = {name.split(".")[-3] for name in tensors_of(folder)}
    assert touched == set(lora.get("target_modules", touched))
    assert "down_proj" in touched


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / WEIGHTS_FILE)


def test_held_out_loss_by_hand(run: Run) -> None:
    folder = run(spec(max_steps=6)).adapters[-1].path
    total, n = by_hand(run.base, run.dataset.heldout)
    before = heldout_loss(run.base.model, run.dataset.heldout)
    assert before == pytest.approx(total / n, rel=1e-6)
    with tuned(run.base, folder) as model:
        held = replace(run.base, model=model)
        total, n = by_hand(held, run.dataset.heldout)
        after = heldout_loss(model, run.dataset.heldout)
    assert after == pytest.approx(total / n, rel=1e-6)
    assert after < before - 0.01
    rows = [run.dataset.train[i] for i in (0, 7, 3)]
    longest = Row([5] * 200, [IGNORED] * 199 + [7])
    total, n = by_hand(run.base, [*rows, longest])
    assert heldout_loss(run.base.model, [longest, *rows]) == pytest.approx(total / n, rel=1e-6)


@pytest.mark.parametrize("kind", ["constant", "constant_with_warmup", "linear", "cosine"])
def test_learning_rate_follows_its_schedule(run: Run, kind: str) -> None:
    run(spec(max_steps=6, lr_scheduler_type=kind, warmup_steps=2, learning_rate=1e-3))
    decay = {
        "constant": lambda _: 1.0,
        "constant_with_warmup": lambda _: 1.0,
        "linear": lambda x: 1 - x,
        "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    }[kind]
    warm = [1.0, 1.0] if kind == "constant" else [0.0, 0.5]
    expected = warm + [decay(step / 4) for step in range(4)]
    assert run.series("learning_rate") == pytest.approx([1e-3 * share for share in expected])


def test_bfloat16_and_gradient_checkpointing(run: Run) -> None:
    plain, checkpointed, half = other(run, "a"), other(run, "b"), other(run, "c")
    plain(spec())
    checkpointed(spec(gradient_checkpointing=True))
    assert plain.series("train_loss") == pytest.approx(checkpointed.series("train_loss"), abs=1e-6)
    model = copy.deepcopy(run.base.model).to(torch.bfloat16)
    half.base = replace(run.base, model=model, dtype=torch.bfloat16)
    trained = half(spec())
    assert half.series("train_loss") == pytest.approx(plain.series("train_loss"), rel=2e-2)
    assert {tensor.dtype for tensor in tensors(trained).values()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_tokens_are_those_of_the_rows_drawn(run: Run) -> None:
    trained = run(spec(max_steps=9))
    order = RowOrder(len(run.dataset.train), 72, seed=17)
    assert trained.training_tokens == sum(len(run.dataset.train[i].input_ids) for i in order)
