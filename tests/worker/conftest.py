"""A random tiny Llama with a byte-level tokenizer: real files, real loading, no training."""

import gc
import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from service.schemas.spec import Dataset
from service.settings import Settings
from tests.worker.rehearsal import Run, spec
from worker.data import load_rows, tokenise
from worker.model import Base, load_base

PROSE = (
    "The river runs past the old mill and the mill grinds the corn of the valley. "
    "Nobody remembers who built it, but everybody knows its sound. "
    "user: What is the capital of France?\nassistant: Paris is the capital of France.\n"
)


def make_tokenizer(*, begins_with_bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens: <pad> 0, <s> 1, </s> 2; every string can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROSE], trainer)
    if begins_with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums over threads would be another order of additions on another machine."""
    torch.set_num_threads(1)
    gc.freeze()  # each training collects garbage; a million imported objects are none


@pytest.fixture(scope="session")
def random_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder `random-base`: Llama 2 layers x 64, vocabulary 320, 256 positions, float32."""
    folder = tmp_path_factory.mktemp("models") / "random-base"
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def question_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`questions.jsonl`: 61 prompt/completion rows of unlike lengths, all under 96 tokens."""
    rng = random.Random(5)
    words = ["mill", "river", "corn", "sound", "valley", "Paris", "France", "old"]
    file = tmp_path_factory.mktemp("data") / "questions.jsonl"
    with file.open("w") as out:
        for i in range(61):
            asked = " ".join(rng.choices(words, k=rng.randint(1, 6)))
            said = " ".join(rng.choices(words, k=rng.randint(1, 5)))
            out.write(json.dumps({"prompt": f"{i}. {asked}?", "completion": f" {said}."}) + "\n")
    return file


@pytest.fixture(scope="session")
def worker_settings(random_base: Path, question_answers: Path) -> Settings:
    return Settings(
        model_roots=[random_base.parent], data_roots=[question_answers.parent], allow_hub=False
    )


@pytest.fixture(scope="session")
def loaded_base(random_base: Path, worker_settings: Settings) -> Base:
    """`random_base`, loaded once: nothing may change it."""
    return load_base(random_base.name, None, dtype="float32", settings=worker_settings)


@pytest.fixture
def run(loaded_base: Base, worker_settings: Settings, tmp_path: Path) -> Run:
    """Trains `loaded_base` on `question_answers` in a folder `job`: `run(spec(max_steps=4))`."""
    rows = load_rows(Dataset(path="questions.jsonl"), worker_settings)
    return Run(loaded_base, tokenise(rows, loaded_base.tokenizer, spec()), tmp_path / "job")
