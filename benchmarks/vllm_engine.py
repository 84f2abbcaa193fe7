"""The warm pass of one adapter: ours in vLLM, ours on transformers, vLLM's own prompt log-probs.

    .venv-vllm/bin/python -m benchmarks.vllm_engine [--windows 16] [--repeats 3]

A Llama of d 512, 8 layers and 32,000 tokens with random weights, float32, windows of 512 tokens,
rank 16 on all linear layers. Repeats are interleaved; ratios are of medians.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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

VOCABULARY, WIDTH, CONTEXT, FULL_TOKENS = 32_000, 512, 512, 64


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


def timed(what: Callable[[], dict]) -> tuple[float, dict]:
    began = time.monotonic()
    found = what()
    return time.monotonic() - began, found


def full_logprobs(folder: Path, ids: list[int]) -> float:
    """Seconds per token of vLLM's `prompt_logprobs` over the whole vocabulary."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        dtype="float32",
        max_model_len=CONTEXT,
        max_logprobs=-1,
        enforce_eager=True,
        skip_tokenizer_init=True,
        kv_cache_memory_bytes=2**28,
    )
    params = SamplingParams(max_tokens=1, prompt_logprobs=-1, detokenize=False)
    prompt = {"prompt_token_ids": ids}
    return timed(lambda: llm.generate([prompt], params, use_tqdm=False))[0] / (len(ids) - 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    asked = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as place:
        run(Path(place), asked)


def run(root: Path, asked: argparse.Namespace) -> None:
    make(root)
    n = asked.windows * CONTEXT
    ids = np.random.default_rng(0).integers(3, VOCABULARY, n).astype(np.int32)
    starts = np.arange(0, n + 1, CONTEXT)
    scored = np.ones(n, bool)
    scored[starts[:-1]] = False
    tokens = Tokens(ids, starts, scored)
    zeros = np.zeros(asked.windows, np.int64)
    windows = Windows(ids, starts, scored, zeros.astype(np.int32), zeros, False, CONTEXT)
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
    route = {"route": "identity", "chunk": pace.chunk}
    filled = timed(lambda: engine.fill(tokens, rows, **route) or {})[0]
    base_pass = BasePass(rows, "identity", head_of(model), pace, 0.0, 0.0, 1, forward_tokens=0)

    seconds: dict[str, list[float]] = {"vllm": [], "no adapter": [], "transformers": []}
    for _ in range(asked.repeats):
        spent, ours = timed(lambda: engine.score(tokens, rows, root / "lora", **route))
        seconds["vllm"].append(spent)
        seconds["no adapter"].append(timed(lambda: engine.score(tokens, rows, None, **route))[0])
        with attached(model, root / "lora") as tuned:
            spent, theirs = timed(lambda: score_candidate(tuned, windows, base_pass))
        seconds["transformers"].append(spent)
    engine.close()
    full = full_logprobs(root / "model", ids[:FULL_TOKENS].tolist())

    middle = {name: statistics.median(values) for name, values in seconds.items()}
    say = sys.stdout.write
    say(f"vLLM started in {engine.start_seconds:.1f} s; base pass {filled:.1f} s\n")
    for name, values in seconds.items():
        say(f"{name:13} {middle[name]:7.2f} s ({min(values):.2f} to {max(values):.2f})\n")
    say(f"warm, against transformers    {middle['transformers'] / middle['vllm']:6.2f}x\n")
    say(f"if the adapter cost nothing   {middle['transformers'] / middle['no adapter']:6.2f}x\n")
    say(f"against full prompt_logprobs  {full * n / middle['vllm']:6.1f}x\n")
    mean, other = float(ours["kl"].mean()), float(theirs["kl"].mean())
    say(f"mean KL {mean:.6f}, relative difference {mean / other - 1:.1e}, ")
    say(f"largest at a position {abs(ours['kl'] - theirs['kl']).max():.1e}\n")


if __name__ == "__main__":
    main()
