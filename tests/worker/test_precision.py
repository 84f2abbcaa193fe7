"""What a precision or a candidate comes to, from devices and headers alone."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from service.errors import InvalidSpec
from worker.adapter import trainable_params
from worker.model import pick_dtype


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_for_gpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert pick_dtype("auto", gpu) is (torch.bfloat16 if supported else torch.float32)
    assert pick_dtype("float32", gpu) is pick_dtype("auto", cpu) is torch.float32
    assert pick_dtype("bfloat16", cpu) is torch.bfloat16
    if supported:
        assert pick_dtype("bfloat16", gpu) is torch.bfloat16
        return
    for param in ("training.dtype", "dtype"):
        with pytest.raises(InvalidSpec, match="no bfloat16") as caught:
            pick_dtype("bfloat16", gpu, param=param)
        assert caught.value.param == param


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_modules": ["q_proj"]}, 2 * 4 * (64 + 64)),
        # The embedding that PEFT saves beside the LoRA on it is the base's own.
        ({"target_modules": ["q_proj", "embed_tokens"]}, 2 * 4 * 128 + 4 * (320 + 64)),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, 2 * 4 * 128 + 64),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_only_what_is_trained_counts(
    random_base: Path, tmp_path: Path, options: dict[str, list[str]], expected: int
) -> None:
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(random_base), LoraConfig(r=4, **options)
    )
    model.save_pretrained(tmp_path)
    assert trainable_params(tmp_path) == expected
