"""The warm pass of one adapter: ours in vLLM, ours on transformers, vLLM's own prompt log-probs.

    .venv-vllm/bin/python -m benchmarks.vllm_engine [--windows 8] [--repeats 3] [--threads 2]

A Llama of d 512, 8 layers and 32,000 tokens with random weights, float32, windows of 512 tokens,
rank 16 on all linear layers. Ours are interleaved; ratios are of medians of tokens per second.
vLLM's own are of a pass over one model, without an adapter and without any arithmetic of KL: all
log-probs of the vocabulary, of a few tokens, as it is slow; and the 20 likeliest, from which a
lower bound of KL can be had, but not KL.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from worker.adapter import attached
from worker.head import head_of
from worker.pace import pace_for
from worker.score import BasePass, score_candidate
from worker.vllm_score.engine import Engine
from worker.vllm_score.environment import prepare
from worker.vllm_score.passes import Tokens, shapes
from worker.windows import Windows

VOCABULARY, WIDTH, CONTEXT = 32_000, 512, 512
OURS, TRANSFORMERS = "ours in vllm", "ours in transformers"
FULL, TOP = "prompt_logprobs, all", "prompt_logprobs, 20 (lower bound)"


def make(root: Path) -> None:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=1024,
        initializer_range=0.05,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(root / "model")
    lora = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.003
    lora.save_pretrained(root / "lora")


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    found = what()
    return time.monotonic() - began, found


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Table:
    """Rows are printed when they are known: the median of passes, and its ratio to ours."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    def row(self, name: str, seconds: list[float], n_tokens: int) -> None:
        middle = statistics.median(seconds)
        self.rates[name] = n_tokens / middle
        rate, spread = self.rates[name], f"{min(seconds):.2f} to {max(seconds):.2f}"
        times = self.rates[OURS] / rate
        say(f"{name:34} {n_tokens:6} {middle:8.2f} {spread:>16} {rate:9.1f} {times:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full-tokens", type=int, default=64)
    asked = parser.parse_args()
    prepare()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as place:
        run(Path(place), asked)


def run(root: Path, asked: argparse.Namespace) -> None:
    make(root)
    n = asked.windows * CONTEXT
    ids = np.random.default_rng(0).integers(3, VOCABULARY, n).astype(np.int32)
    starts = np.arange(0, n + 1, CONTEXT)
    scored = np.ones(n, bool)
    scored[starts[:-1]] = False
    zeros = np.zeros(asked.windows, np.int64)
    windows = Windows(ids, starts, scored, zeros.astype(np.int32), zeros, False, CONTEXT)
    table = Table()
    ours(root, windows, asked, table)
    own_logprobs(root / "model", ids, asked, table)
    for name in (TRANSFORMERS, FULL):
        say(f"ours in vllm against {name}: {table.rates[OURS] / table.rates[name]:.2f}x")


def ours(root: Path, windows: Windows, asked: argparse.Namespace, table: Table) -> None:
    """Interleaved passes of one adapter in vLLM and in transformers, over the same base rows."""
    tokens = Tokens(windows.ids, windows.starts, windows.scored)
    model = LlamaForCausalLM.from_pretrained(root / "model").eval()
    pace = pace_for(torch.device("cpu"), VOCABULARY)
    rows = {}
    planned = shapes(tokens.n_positions, WIDTH, VOCABULARY, "identity", torch.float32)
    for name, (shape, dtype) in planned.items():
        path = root / f"{name}.npy"
        rows[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    engine = Engine(
        root / "model", dtype=torch.float32, context=CONTEXT, batch_tokens=asked.batch_tokens
    )
    say(f"{torch.get_num_threads()} threads; vLLM started in {engine.start_seconds:.1f} s")
    route = {"route": "identity", "chunk": pace.chunk}
    filled, _ = timed(lambda: engine.fill(tokens, rows, **route))
    say(f"base pass {filled:.1f} s")
    base_pass = BasePass(rows, "identity", head_of(model), pace, 0.0, 0.0, 1, forward_tokens=0)

    seconds: dict[str, list[float]] = {OURS: [], TRANSFORMERS: []}
    with attached(model, root / "lora") as tuned:
        for _ in range(asked.repeats):
            spent, mine = timed(lambda: engine.score(tokens, rows, root / "lora", **route))
            seconds[OURS].append(spent)
            spent, theirs = timed(lambda: score_candidate(tuned, windows, base_pass))
            seconds[TRANSFORMERS].append(spent)
    say(f"{'':34} {'tokens':>6} {'seconds':>8} {'spread':>16} {'tokens/s':>9} {'ours x':>7}")
    for name, values in seconds.items():
        table.row(name, values, len(windows.ids))
    bare, _ = timed(lambda: engine.score(tokens, rows, None, **route))
    table.row("ours in vllm, no adapter", [bare], len(windows.ids))
    engine.close()
    mean, other = float(mine["kl"].mean()), float(theirs["kl"].mean())
    say(
        f"mean KL {mean:.6f}, relative difference to transformers {mean / other - 1:.1e}, "
        f"largest at a position {abs(mine['kl'] - theirs['kl']).max():.1e}"
    )


def own_logprobs(folder: Path, ids: np.ndarray, asked: argparse.Namespace, table: Table) -> None:
    """vLLM's `prompt_logprobs` of one model: what a script would compare two models by."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        dtype="float32",
        max_model_len=CONTEXT + 1,
        max_num_batched_tokens=asked.batch_tokens,
        max_logprobs=-1,
        enforce_eager=True,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
        kv_cache_memory_bytes=2**28,
    )

    def passes(name: str, top: int, prompts: list[list[int]]) -> None:
        params = SamplingParams(max_tokens=1, prompt_logprobs=top, detokenize=False)
        asks = [{"prompt_token_ids": prompt} for prompt in prompts]
        seconds = [
            timed(lambda: llm.generate(asks, params, use_tqdm=False))[0]
            for _ in range(asked.repeats)
        ]
        table.row(name, seconds, sum(map(len, prompts)))

    every = [ids[start : start + CONTEXT].tolist() for start in range(0, len(ids), CONTEXT)]
    passes(TOP, 20, every)
    passes(FULL, -1, [ids[: asked.full_tokens].tolist()])


if __name__ == "__main__":
    main()
