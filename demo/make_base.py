"""Makes the demo's base model: a tiny Llama trained on the standard library's prose.

    python -m demo.make_base                 # writes demo/tiny_base, 7 to 15 minutes on 2 cores
    python -m demo.make_base --out /tmp/other --extra novel.txt

The files it wrote lie in the repository, because another Python's library is another text.
"""

import argparse
import hashlib
import json
import math
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.model_card import text_digest, write_card
from demo.prose import Document, split

VOCABULARY = 1024
CONTEXT = 128
"""Trained at, and so claimed: with rotary positions nothing was learnt beyond."""
BATCH = 16
LEARNING_RATE = 3e-3
WARMUP_STEPS = 50
DECAY_FROM = 0.6
"""Share of the steps at full rate; then a straight line to zero."""
PAD, BOS, EOS = 0, 1, 2
Tokens = NDArray[np.int64]


def main() -> int:
    arguments = _arguments()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    console = Console(stderr=True)

    training, held_out = split()
    extra = [Document(p.name, p.read_text(encoding="utf-8")) for p in arguments.extra]
    training += extra
    tokenizer = make_tokenizer([d.text for d in training])
    stream, unseen = tokens(tokenizer, training), tokens(tokenizer, held_out)
    console.print(f"{len(training)} documents, {len(stream):,} tokens; held out {len(unseen):,}")
    model = train(stream, n_steps=arguments.steps, seed=arguments.seed, console=console)

    losses = {
        "unigram": unigram_loss(stream, unseen),
        "bigram": bigram_loss(stream, unseen),
        "this model": held_out_loss(model, unseen),
    }
    for name, loss in losses.items():
        console.print(f"held-out loss, {name}: {loss:.3f} nats/token")
    save(model, tokenizer, out)
    facts = {
        "steps": arguments.steps,
        "seed": arguments.seed,
        "tokens_seen": arguments.steps * BATCH * CONTEXT,
        "training": {"documents": len(training), "tokens": len(stream), "sha256": digest(training)},
        "held_out": {"documents": len(held_out), "tokens": len(unseen), "sha256": digest(held_out)},
        "extra": [p.name for p in arguments.extra],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "loss": {name: round(loss, 4) for name, loss in losses.items()},
    }
    trained_on = {d.title: text_digest(d.text) for d in training}
    write_card(out, facts, n_parameters=model.num_parameters(), trained_on=trained_on)
    console.print(f"{model.num_parameters():,} parameters in {out}")
    return 0


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE; every text begins with BOS, and any byte can be written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def tokens(tokenizer: Tokenizer, documents: list[Document]) -> Tokens:
    """One stream, EOS after each document; BOS comes with the windows."""
    encoded = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
    return np.concatenate([[*e.ids, EOS] for e in encoded]).astype(np.int64)


def train(stream: Tokens, *, n_steps: int, seed: int, console: Console) -> LlamaForCausalLM:
    """AdamW on windows of BOS and CONTEXT - 1 tokens from anywhere in the stream."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    )
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: rate(n, n_steps))
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console) as bar:
        task = bar.add_task("", total=n_steps, loss=math.nan)
        for batch in batches(stream, n_steps=n_steps, rng=rng):  # (BATCH, CONTEXT)
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            bar.update(task, advance=1, loss=loss.item())
    return model.eval()


def rate(step: int, n_steps: int) -> float:
    """Share of the learning rate: warm-up, hold, then straight down to zero."""
    return min(
        (step + 1) / WARMUP_STEPS, 1.0, (n_steps - step) / max(1.0, n_steps * (1 - DECAY_FROM))
    )


def batches(stream: Tokens, *, n_steps: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    width = CONTEXT - 1
    for _ in range(n_steps):
        starts = rng.integers(0, len(stream) - width, size=BATCH)
        rows = np.full((BATCH, CONTEXT), BOS, dtype=np.int64)
        rows[:, 1:] = stream[starts[:, None] + np.arange(width)]
        yield torch.from_numpy(rows)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, unseen: Tokens) -> float:
    """Nats per token over the stream in windows of BOS and CONTEXT - 1 tokens."""
    width = CONTEXT - 1
    n_windows = len(unseen) // width
    total = 0.0
    for chunk in np.array_split(unseen[: n_windows * width].reshape(-1, width), n_windows // 32):
        rows = torch.from_numpy(np.pad(chunk, ((0, 0), (1, 0)), constant_values=BOS))
        total += model(input_ids=rows, labels=rows).loss.item() * len(chunk)  # mean per token
    return total / n_windows


def unigram_loss(stream: Tokens, unseen: Tokens) -> float:
    counts = np.bincount(stream, minlength=VOCABULARY) + 1.0
    return float(-np.log(counts / counts.sum())[unseen].mean())


def bigram_loss(stream: Tokens, unseen: Tokens, *, prior: float = 50.0) -> float:
    """Smoothed towards the unigram with the weight of `prior` observations."""
    unigram = np.bincount(stream, minlength=VOCABULARY) + 1.0
    unigram /= unigram.sum()
    seen = Counter(zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True))
    context = np.bincount(stream[:-1], minlength=VOCABULARY)
    pairs = list(zip(unseen[:-1].tolist(), unseen[1:].tolist(), strict=True))
    return -sum(
        math.log((seen[a, b] + prior * unigram[b]) / (context[a] + prior)) for a, b in pairs
    ) / len(pairs)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)
    config = out / "tokenizer_config.json"
    written = json.loads(config.read_text(encoding="utf-8"))
    written.pop("backend")
    # The name that transformers 4 and other readers know; 5 writes its own.
    written["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    model.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)


def digest(documents: list[Document]) -> str:
    text = json.dumps([[d.title, d.text] for d in documents])
    return hashlib.sha256(text.encode()).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tiny_base")
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--extra", type=Path, nargs="*", default=[], help="more text to train on")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
