"""A LoRA layer computes the same merged, and the model is untouched before and after."""

from pathlib import Path

import torch
from torch import Tensor

from service.settings import Settings
from tests.worker.candidates_made import make_lora
from worker.merged import merged
from worker.model import Base, load_base, tuned

IDS = torch.arange(3, 99).view(4, 24)


@torch.inference_mode()
def logits(model: torch.nn.Module) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits.double()


def test_float32_agrees_to_rounding(random_base: Path, loaded_base: Base, tmp_path: Path) -> None:
    folder = make_lora(random_base, tmp_path / "a", size=0.05)
    untouched = logits(loaded_base.model)
    with tuned(loaded_base, folder) as model:
        layer_by_layer = logits(model)
        with merged(model):
            at_once = logits(model)
        assert torch.equal(logits(model), layer_by_layer)
    assert torch.equal(logits(loaded_base.model), untouched)
    scale = float(layer_by_layer.abs().max())
    assert float((layer_by_layer - untouched).abs().max()) > 1e-2 * scale  # it does something
    gap = float((at_once - layer_by_layer).abs().max())
    assert 0 < gap < 1e-5 * scale  # and it did go another way


def test_bfloat16_loses_no_more_than_layer_by_layer(
    random_base: Path, worker_settings: Settings, loaded_base: Base, tmp_path: Path
) -> None:
    folder = make_lora(random_base, tmp_path / "a", size=0.05)
    with tuned(loaded_base, folder) as model:
        exact = logits(model)
    base = load_base(random_base.name, None, dtype="bfloat16", settings=worker_settings)
    with tuned(base, folder) as model:
        plain = float((logits(model) - exact).square().mean().sqrt())
        with merged(model):
            ours = float((logits(model) - exact).square().mean().sqrt())
    assert ours < 1.25 * plain


def test_what_is_more_than_a_sum_stays_as_it_is(
    random_base: Path, loaded_base: Base, tmp_path: Path
) -> None:
    folder = make_lora(random_base, tmp_path / "a", size=0.05, use_dora=True)
    with tuned(loaded_base, folder) as model:
        wanted = logits(model)
        with merged(model):
            assert torch.equal(logits(model), wanted)
