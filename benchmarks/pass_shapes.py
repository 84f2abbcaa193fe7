"""Models, adapters and windows of random numbers, in the shapes that the pass is timed on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from worker.model import Base
from worker.windows import Windows

CONTEXT = 512
RANK = 16


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    ffn: int
    vocab: int

    @property
    def body_params(self) -> int:
        return self.layers * (4 * self.width**2 + 3 * self.width * self.ffn)

    @property
    def head_params(self) -> int:
        return self.width * self.vocab


SHAPES = {
    "A": Shape(512, 8, 1408, 32_000),
    "B": Shape(1024, 16, 2816, 32_000),
    "C": Shape(512, 8, 1408, 128_000),
    "tiny": Shape(64, 2, 112, 4_000),
}


def make_model(shape: Shape, dtype: torch.dtype, device: torch.device) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.width // 64),
        num_key_value_heads=max(1, shape.width // 64),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config).to(device, dtype).eval().requires_grad_(False)


def make_base(model: LlamaForCausalLM, folder: Path) -> Base:
    return Base(
        name="made",
        folder=folder,
        revision=None,
        model=model,
        tokenizer=None,  # type: ignore[arg-type]  # windows are made of ids
        device=model.device,
        dtype=model.dtype,
        digest="made",
        tokenizer_digest="made",
    )


def make_windows(shape: Shape, n: int, seed: int = 5) -> Windows:
    ids = np.random.default_rng(seed).integers(0, shape.vocab, n * CONTEXT, dtype=np.int32)
    scored = np.ones((n, CONTEXT), bool)
    scored[:, 0] = False
    return Windows(
        ids=ids,
        starts=np.arange(n + 1) * CONTEXT,
        scored=scored.ravel(),
        document=np.arange(n, dtype=np.int32),
        first=np.zeros(n, np.int64),
        begins_with_bos=False,
        context=CONTEXT,
    )


def make_adapter(model: LlamaForCausalLM, folder: Path, *, kl: float) -> Path:
    """A LoRA adapter on all linear layers of the body that costs about `kl` nats per token.

    `model` is a copy that nobody needs afterwards.
    """
    torch.manual_seed(11)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear")
    tuned = get_peft_model(model, config).eval()
    factors = [p for name, p in tuned.named_parameters() if "lora_B" in name]
    drawn = [torch.randn_like(factor) for factor in factors]
    ids = torch.randint(model.config.vocab_size, (1, 128), device=model.device)
    size = 1e-3
    for _ in range(3):  # KL grows with the square of the step
        for factor, noise in zip(factors, drawn, strict=True):
            factor.data.copy_(noise * size)
        size *= (kl / _kl(tuned, ids)) ** 0.5
    for factor, noise in zip(factors, drawn, strict=True):
        factor.data.copy_(noise * size)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    return folder


@torch.inference_mode()
def _kl(tuned: torch.nn.Module, ids: torch.Tensor) -> float:
    log_t = tuned(input_ids=ids).logits.double().log_softmax(-1)
    with tuned.disable_adapter():  # type: ignore[operator]
        log_b = tuned(input_ids=ids).logits.double().log_softmax(-1)
    return float((log_b.exp() * (log_b - log_t)).sum(-1).mean())
