"""The faster forms of modules: the same numbers, chosen only where they are the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import GemmaConfig, LlamaConfig, PreTrainedModel
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from service.settings import Settings
from tests.worker.candidates_made import make_lora
from tests.worker.test_head import ARCHITECTURES, make
from worker import attention
from worker.attention import attend
from worker.cache import Cache
from worker.corpus import Document, corpus_of
from worker.fused import faster_modules, fused
from worker.head import hidden_states
from worker.model import Base, load_base, tuned
from worker.product import bfloat16_product, by_onednn, product
from worker.score import score_base, score_candidate
from worker.windows import cut

WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
GAP = {torch.float32: 2e-5, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", GAP, ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_the_same(name: str, dtype: torch.dtype) -> None:
    model = make(name, **(WIDE if "Gemma" in name or name == "Qwen3" else {})).to(dtype)
    ids = torch.arange(3, 93).view(2, 45)
    with torch.inference_mode():
        wanted = hidden_states(model, ids).float()
        with fused(model):
            found = hidden_states(model, ids).float()
        assert torch.equal(hidden_states(model, ids).float(), wanted)  # itself again
    assert float((found - wanted).abs().max()) < GAP[dtype] * float(wanted.abs().max())
    assert not any("forward" in vars(module) for module in model.modules())


def test_norms_gates_attention_and_products_all_take_their_faster_form(
    random_base: Path, loaded_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    real = attention.attend

    def seen(*args: Any, **more: Any) -> Any:
        taken.append("attention")
        return real(*args, **more)

    monkeypatch.setattr(attention, "attend", seen)
    with tuned(loaded_base, make_lora(random_base, tmp_path / "a", size=0.05)) as model:
        layer = model.base_model.layers[0]
        with fused(model), torch.inference_mode():
            for module in (layer.input_layernorm, layer.mlp, layer.mlp.gate_proj, model.lm_head):
                assert "forward" in vars(module)
            taken.clear()  # of the probe
            hidden_states(model, torch.arange(3, 48).view(1, 45))
    assert taken == ["attention"] * 2  # layers
    assert by_onednn()


def test_a_norm_or_gate_that_is_another_stays_as_it_is() -> None:
    class Shifted(LlamaRMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e-3

    gelu = LlamaMLP(LlamaConfig(hidden_size=32, intermediate_size=48, hidden_act="gelu"))
    gemma = GemmaRMSNorm(GemmaConfig(hidden_size=32).hidden_size)
    both = nn.Sequential(Shifted(32), gelu, gemma, LlamaRMSNorm(32)).eval()
    with faster_modules(both):
        assert ["forward" in vars(module) for module in both] == [False, False, False, True]


def test_another_dtype_than_the_weights_goes_the_modules_own_way() -> None:
    norm = LlamaRMSNorm(32).eval()
    x = torch.randn(3, 32).bfloat16()
    wanted = norm(x)
    with faster_modules(norm):
        assert torch.equal(norm(x), wanted)


@pytest.mark.parametrize("dtype", GAP, ids=str)
@pytest.mark.parametrize(
    ("windows", "heads", "shared", "tokens", "dim"),
    [(2, 4, 4, 64, 64), (1, 6, 2, 37, 80), (3, 2, 1, 513, 16), (1, 1, 1, 2, 128)],
)
def test_attention_agrees_with_float64(
    dtype: torch.dtype, windows: int, heads: int, shared: int, tokens: int, dim: int
) -> None:
    numbers = torch.Generator().manual_seed(1)

    def drawn(count: int) -> Tensor:
        made = torch.randn(windows, tokens, count, dim, generator=numbers) * 2
        return made.to(dtype).transpose(1, 2)

    query, key, value = drawn(heads), drawn(shared), drawn(shared)
    module = nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    found, _ = attend(module, query, key, value, None)
    exact = scaled_dot_product_attention(
        query.double(), key.double(), value.double(), is_causal=True, enable_gqa=True
    )
    gap = (found.transpose(1, 2).double() - exact).abs().max()
    assert float(gap) < {torch.float32: 1e-5, torch.bfloat16: 4e-2}[dtype]


def test_a_query_never_sees_what_comes_after_it() -> None:
    query, key, value = (torch.randn(1, 2, 33, 32) for _ in range(3))
    module = nn.Module()
    before, _ = attend(module, query, key, value, None)
    key[:, :, 20:] += 9.0
    value[:, :, 20:] += 9.0
    after, _ = attend(module, query, key, value, None)
    assert torch.equal(after[:, :20], before[:, :20])
    assert (after[:, 20:] != before[:, 20:]).all()


@pytest.mark.parametrize("shape", [(1, 8, 16), (77, 64, 199), (130, 512, 64)])
def test_products_agree_with_float64(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    x, weight, bias = torch.randn(rows, inner), torch.randn(columns, inner), torch.randn(columns)
    exact = x.double() @ weight.double().t() + bias.double()
    assert float((product(x, weight, bias) - exact).abs().max()) < 1e-6 * inner
    x, weight = x.bfloat16(), weight.bfloat16()
    found = bfloat16_product(x, weight)
    if found is None:
        pytest.skip("this CPU has no products of bfloat16")
    assert found.dtype == torch.float32
    exact = x.double() @ weight.double().t()
    assert float((found - exact).abs().max()) < 1e-6 * inner
    assert torch.equal(bfloat16_product(x[:1], weight)[0], found[0])  # in any company


def test_what_is_not_two_bfloat16_matrices_is_left_to_torch() -> None:
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    assert bfloat16_product(x, weight) is None
    assert bfloat16_product(x.bfloat16(), weight) is None
    assert bfloat16_product(x[:, :7].bfloat16(), weight[:, :7].bfloat16()) is None


def test_without_a_compiler_everything_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    model: PreTrainedModel = make("Llama")
    for name in ("fused", "attention", "product", "reduction"):
        monkeypatch.setattr(f"worker.{name}.native", lambda: None)
    with fused(model):
        replaced = [type(m) for m in model.modules() if "forward" in vars(m)]
    assert set(replaced) <= {nn.Linear}


def test_an_adapter_of_nan_does_not_decide_for_those_after_it() -> None:
    model = make("Llama", **WIDE)
    ids = torch.arange(3, 48).view(1, 45)
    mlp = model.base_model.layers[0].mlp
    with torch.inference_mode():
        kept = mlp.up_proj.weight.clone()
        mlp.up_proj.weight.fill_(torch.nan)
        with fused(model):
            assert hidden_states(model, ids).isnan().all()
            assert "forward" not in vars(mlp)
        mlp.up_proj.weight.copy_(kept)
        with fused(model):
            assert "forward" in vars(mlp)
            assert model.config._attn_implementation == attention.NAME


def test_bfloat16_reports_how_far_its_rounding_goes(
    random_base: Path, worker_settings: Settings, tmp_path: Path
) -> None:
    text = "The river runs past the old mill, and the mill grinds the corn. " * 20
    corpus = corpus_of("made", "text", [Document("mill", text)])
    noise = {}
    for dtype in ("float32", "bfloat16"):
        base = load_base(random_base.name, None, dtype=dtype, settings=worker_settings)
        windows, cache = cut(corpus, base.tokenizer, 64), Cache(tmp_path / dtype, max_bytes=10**9)
        made = score_base(base, windows, corpus_digest=corpus.digest, route="identity", cache=cache)
        noise[dtype] = made.noise_max_abs
        scores = score_candidate(base.model, windows, made)
        assert not scores["kl"].any()  # what does not differ cancels exactly all the same
    assert noise["float32"] < 1e-5
    assert noise["bfloat16"] > 1e-5
