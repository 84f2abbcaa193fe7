"""llama.cpp's --kl-divergence on the same model and the same tokens, built from its source."""

import argparse
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlamaForCausalLM

from benchmarks.pass_shapes import CONTEXT
from worker.windows import Windows

PACKAGE = "llama-cpp-python==0.3.36"
BUILD = Path("build/llama")
OFF = ["LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"]
OFF += ["LLAMA_BUILD_SERVER", "BUILD_SHARED_LIBS", "GGML_CCACHE"]
FIRST, SECOND, N_FIRST = 0x4E00, 0xAC00, 20_992
"""One character a token: Chinese, then Korean."""


class Llama:
    """Two GGUF files, a text of the windows' tokens, and the base's logits on disk."""

    def __init__(self, program: Path, work: Path, n_windows: int, threads: int) -> None:
        self.program, self.work, self.threads = program, work, threads
        self.n_windows = n_windows
        self.all, self.one = work / "all.kld", work / "one.kld"
        self._base(self.all, n_windows)
        self._base(self.one, 1)
        self.written = self.all.stat().st_size - self.one.stat().st_size
        # It scores the second half of each window.
        self.n_scored = (n_windows - 1) * (CONTEXT // 2 - 1)

    @classmethod
    def made(
        cls,
        base: LlamaForCausalLM,
        tuned: nn.Module,
        windows: Windows,
        work: Path,
        arguments: argparse.Namespace,
    ) -> "Llama | None":
        """None, with a line that says so, where it was not asked for or cannot be built."""
        if not arguments.llama:
            return None
        if base.config.vocab_size > 32_000:
            sys.stdout.write("llama.cpp left out: its text has characters for 32,000 tokens\n")
            return None
        try:
            program = build()
        except (subprocess.CalledProcessError, OSError) as error:
            sys.stdout.write(f"llama.cpp left out: it could not be built ({error})\n")
            return None
        write_gguf(base, work / "base.gguf")
        deltas = {
            name.removeprefix("base_model.model."): module.get_delta_weight("default")
            for name, module in tuned.named_modules()
            if hasattr(module, "get_delta_weight")
        }
        write_gguf(base, work / "tuned.gguf", deltas)
        text = "".join(character(token) for token in windows.ids)
        (work / "text.txt").write_text(text, encoding="utf-8")
        return cls(program, work, len(windows), arguments.threads)

    def warm(self) -> float:
        """Seconds of the candidate's run: all windows less one, so that loading cancels."""
        return self._run("tuned.gguf", self.all, "--kl-divergence") - self._run(
            "tuned.gguf", self.one, "--kl-divergence"
        )

    def cold(self) -> float:
        """The base's run, which writes the logits, and the candidate's."""
        return self._base(self.all, self.n_windows) - self._base(self.one, 1) + self.warm()

    def _base(self, logits: Path, windows: int) -> float:
        # It scores as many windows as the file has: --chunks counts for the base's run only.
        return self._run("base.gguf", logits, "--chunks", str(windows))

    def _run(self, model: str, logits: Path, *more: str) -> float:
        started = time.perf_counter()
        command = [str(self.program), "-m", str(self.work / model), "-c", str(CONTEXT)]
        command += ["-f", str(self.work / "text.txt"), "-b", "2048", "-t", str(self.threads)]
        command += ["--kl-divergence-base", str(logits), *more]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def build() -> Path:
    """llama-perplexity, from the llama.cpp inside the source package; kept under build/."""
    program = BUILD / "out/bin/llama-perplexity"
    if program.is_file():
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
    subprocess.run([*pip, "-d", str(BUILD), PACKAGE], check=True, capture_output=True)
    (archive,) = BUILD.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as package:
        package.extractall(BUILD, filter="data")
    options = ["-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in OFF)]
    out = ["-B", str(BUILD / "out")]
    subprocess.run(["cmake", "-S", str(source()), *out, *options], check=True, capture_output=True)
    target = ["--target", "llama-perplexity", "-j", "2"]
    subprocess.run(["cmake", "--build", out[1], *target], check=True, capture_output=True)
    return program


def source() -> Path:
    (folder,) = BUILD.glob("llama_cpp_python-*/vendor/llama.cpp")
    return folder


def character(token: int) -> str:
    return chr(FIRST + token if token < N_FIRST else SECOND + token - N_FIRST)


def write_gguf(
    model: LlamaForCausalLM, path: Path, deltas: dict[str, torch.Tensor] | None = None
) -> None:
    """The model as llama.cpp reads it, with `deltas` added to its weights, by module name."""
    sys.path.insert(0, str(source() / "gguf-py"))
    import gguf

    config = model.config
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("llama")
    out.add_token_list([character(token) for token in range(config.vocab_size)])
    out.add_token_scores([0.0] * config.vocab_size)
    out.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    out.add_add_bos_token(False)
    out.add_add_space_prefix(False)
    brain = model.dtype == torch.bfloat16
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, parameter in model.state_dict().items():
        value = parameter.float()
        if deltas and name.removesuffix(".weight") in deltas:
            value = value + deltas[name.removesuffix(".weight")].float()
        if "q_proj" in name or "k_proj" in name:
            value = _paired(value, config.num_attention_heads)
        array = value.cpu().numpy()
        place = names.get_name(name, try_suffixes=(".weight",))
        if brain and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.BF16
            out.add_tensor(place, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            out.add_tensor(place, array.astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _paired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp rotates neighbours, transformers the two halves."""
    out, width = weight.shape
    return weight.view(heads, 2, out // heads // 2, width).transpose(1, 2).reshape(out, width)
