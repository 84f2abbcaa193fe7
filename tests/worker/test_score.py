"""The engine on real model files: exact, bounded, the same from the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from transformers import LlamaForCausalLM

from service.errors import AdapterUnreadable
from service.settings import Settings
from tests.worker.candidates_made import make_lora, make_model, naive_log_p
from tests.worker.sizes import Largest
from worker.cache import Cache
from worker.corpus import Corpus, Document, corpus_of
from worker.divergence import Route
from worker.model import Base, load_base, tuned
from worker.score import BasePass, Pace, Scores, score_base, score_candidate
from worker.windows import Windows, cut

ROUTES: list[Route] = ["identity", "logits"]
CONTEXT = 24
PLAIN_PEFT_WARNS = pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
"""Of merging, when plain PEFT adapts a tied head."""
SMALL = 0.0161
"""Deviation of LoRA's B at which this base and corpus show a KL of about .006."""
TEXTS = [
    "The river runs past the old mill, and the mill grinds the corn of the valley. " * 6,
    "Nobody remembers who built it, but everybody knows its sound.",
    "x",
    "What is the capital of France? Paris is the capital of France, it was said. " * 4,
]


def text_corpus(*texts: str) -> Corpus:
    return corpus_of("made", "text", [Document(text[:20], text) for text in texts])


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return text_corpus(*TEXTS)


@pytest.fixture(scope="module")
def windows(loaded_base: Base, corpus: Corpus) -> Windows:
    return cut(corpus, loaded_base.tokenizer, CONTEXT)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", max_bytes=10**9)


@pytest.fixture(scope="module")
def adapter(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lora(random_base, tmp_path_factory.mktemp("adapters") / "small", size=SMALL)


def base_pass(
    base: Base, windows: Windows, cache: Cache, route: Route = "identity", **options: object
) -> BasePass:
    return score_base(
        base,
        windows,
        corpus_digest="sha256:made",
        route=route,
        cache=cache,
        **options,  # type: ignore[arg-type]
    )


def score(base: Base, windows: Windows, cache: Cache, folder: Path, route: Route) -> Scores:
    before = base_pass(base, windows, cache, route)
    with tuned(base, folder) as model:
        return score_candidate(model, windows, before)


def window_ids(windows: Windows) -> list[Tensor]:
    return [torch.from_numpy(ids).long() for ids in np.split(windows.ids, windows.starts[1:-1])]


def from_hidden(model: LlamaForCausalLM, windows: Windows) -> NDArray[np.float64]:
    """log p in float64 numpy from the model's hidden states and head (positions, vocab)."""
    weight = model.lm_head.weight.detach().numpy().astype(np.float64)
    rows = []
    for ids in window_ids(windows):
        with torch.no_grad():
            hidden = model.model(ids[None]).last_hidden_state[0, :-1].numpy().astype(np.float64)
        logits = hidden @ weight.T
        logits -= logits.max(-1, keepdims=True)
        rows.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    return np.concatenate(rows)


@pytest.mark.parametrize("route", ROUTES)
def test_every_mean_agrees_with_float64(
    loaded_base: Base, windows: Windows, cache: Cache, adapter: Path, route: Route
) -> None:
    rows = base_pass(loaded_base, windows, cache, route).rows
    scores = score(loaded_base, windows, cache, adapter, route)
    base = from_hidden(loaded_base.model, windows)
    with tuned(loaded_base, adapter) as model:
        tuned_ = from_hidden(model, windows)
    p, top, at = np.exp(base), base.argmax(-1), np.arange(len(base))
    target = windows.ids[windows.position_token]
    kl = (p * (base - tuned_)).sum(-1).mean()
    assert kl == pytest.approx(0.006, rel=0.3)
    # A few hundred positions: the identity's error of 1e-6 nats each has not yet averaged out.
    limit = 1e-5 if route == "logits" else 5e-5
    assert scores["kl"].mean() == pytest.approx(kl, rel=limit)
    wanted = {"ce_soft": -(p * tuned_).sum(-1), "ce_hard": -tuned_[at, top]}
    wanted |= {"nll_tuned": -tuned_[at, target]}
    for name, values in wanted.items():
        assert scores[name].mean() == pytest.approx(values.mean(), rel=1e-5), name
    assert rows["h_base"].mean() == pytest.approx(-(p * base).sum(-1).mean(), rel=1e-5)
    assert rows["nll_base"].mean() == pytest.approx(-base[at, target].mean(), rel=1e-5)
    assert rows["top_id"].tolist() == top.tolist()
    assert scores["tuned_top"].tolist() == tuned_.argmax(-1).tolist()
    assert np.allclose(scores["ce_soft"] - rows["h_base"], scores["kl"], atol=1e-14)


@pytest.mark.parametrize("route", ROUTES)
def test_the_base_against_itself_is_exactly_zero(
    loaded_base: Base, windows: Windows, cache: Cache, route: Route
) -> None:
    base = base_pass(loaded_base, windows, cache, route)
    scores = score_candidate(loaded_base.model, windows, base)
    assert np.abs(scores["kl"]).max() == 0
    assert scores["same_top"].all()
    assert scores["same_top5"].all()
    assert abs(base.noise_kl) <= base.noise_max_abs < 1e-5
    assert base.noise_positions > 50


def test_an_adapter_switched_off_is_the_base_bit_for_bit(
    random_base: Path, loaded_base: Base, windows: Windows, cache: Cache, adapter: Path
) -> None:
    before = base_pass(loaded_base, windows, cache)
    peft_model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(random_base), adapter)
    with peft_model.disable_adapter():
        off = score_candidate(peft_model.get_base_model().eval(), windows, before)
    on = score_candidate(peft_model.get_base_model().eval(), windows, before)
    assert np.abs(off["kl"]).max() == 0
    assert on["kl"].mean() > 1e-3
    with (
        tuned(loaded_base, adapter),
        pytest.raises(ValueError, match="an adapter lies over the base"),
    ):
        base_pass(loaded_base, windows, cache)
    after = score_candidate(loaded_base.model, windows, before)
    assert np.abs(after["kl"]).max() == 0  # and the base that bore an adapter is the base again


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lora", {}),
        ("lora", {"use_rslora": True, "lora_alpha": 1, "r": 9, "target_modules": ["q_proj"]}),
        ("lora", {"target_modules": ["v_proj", "lm_head"]}),
        ("lora", {"modules_to_save": ["lm_head"]}),
        ("model", {}),
    ],
)
@PLAIN_PEFT_WARNS
def test_candidates_made_elsewhere_score_as_their_own_logits_say(
    random_base: Path,
    loaded_base: Base,
    windows: Windows,
    cache: Cache,
    tmp_path: Path,
    kind: str,
    options: dict[str, object],
) -> None:
    plain = LlamaForCausalLM.from_pretrained(random_base)
    base = torch.cat([naive_log_p(plain, ids) for ids in window_ids(windows)])
    if kind == "lora":
        folder = make_lora(random_base, tmp_path / "made", size=0.05, **options)
        other = PeftModel.from_pretrained(plain, folder).eval()
    else:
        folder = make_model(random_base, tmp_path / "made", size=0.01)
        other = LlamaForCausalLM.from_pretrained(folder)
    theirs = torch.cat([naive_log_p(other, ids) for ids in window_ids(windows)])
    scores = score(loaded_base, windows, cache, folder, "logits")
    kl = (base.exp() * (base - theirs)).sum(-1).numpy()
    assert kl.mean() > 1e-4
    assert np.abs(scores["kl"] - kl).max() < 1e-5
    assert scores["kl"].mean() == pytest.approx(kl.mean(), rel=1e-4)


@PLAIN_PEFT_WARNS
def test_the_identity_is_refused_for_a_head_of_its_own(
    random_base: Path, loaded_base: Base, windows: Windows, cache: Cache, tmp_path: Path
) -> None:
    folder = make_lora(random_base, tmp_path / "a", size=0.1, target_modules=["lm_head"])
    with pytest.raises(ValueError, match="head of its own"):
        score(loaded_base, windows, cache, folder, "identity")


@pytest.mark.parametrize("route", ROUTES)
def test_documents_never_bleed_into_each_other(
    loaded_base: Base, cache: Cache, adapter: Path, route: Route
) -> None:
    first, second = TEXTS[0], TEXTS[3]
    tokenizer = loaded_base.tokenizer
    together = cut(text_corpus(first, second), tokenizer, CONTEXT)
    alone = cut(text_corpus(second), tokenizer, CONTEXT)
    joined = cut(text_corpus(first + second), tokenizer, CONTEXT)
    # Each under its own digest, so that none is answered from another's cache entry.
    scores = {
        name: score(
            loaded_base, windows, Cache(cache.folder / name, max_bytes=10**9), adapter, route
        )
        for name, windows in {"together": together, "alone": alone, "joined": joined}.items()
    }
    here = together.position_document == 1
    assert np.allclose(scores["together"]["kl"][here], scores["alone"]["kl"], atol=1e-6)
    n = alone.n_positions
    assert not np.allclose(
        scores["joined"]["nll_tuned"][-n:], scores["alone"]["nll_tuned"], atol=0.1
    )


@pytest.mark.parametrize("route", ROUTES)
def test_batches_and_chunks_do_not_matter(
    loaded_base: Base, windows: Windows, tmp_path: Path, adapter: Path, route: Route
) -> None:
    found = []
    for i, pace in enumerate([Pace(4096, 64), Pace(1, 1), Pace(60, 7)]):
        cache = Cache(tmp_path / str(i), max_bytes=10**9)
        base = base_pass(loaded_base, windows, cache, route, pace=pace)
        with tuned(loaded_base, adapter) as model:
            found.append(score_candidate(model, windows, base))
    for other in found[1:]:
        for name, values in found[0].items():
            assert abs(values.mean() - other[name].mean()) < 1e-6, name


@pytest.mark.parametrize("route", ROUTES)
def test_a_cached_pass_gives_the_same_bits(
    loaded_base: Base, windows: Windows, cache: Cache, adapter: Path, route: Route
) -> None:
    fresh = base_pass(loaded_base, windows, cache, route)
    first = score(loaded_base, windows, cache, adapter, route)
    cached = base_pass(loaded_base, windows, cache, route)
    assert (fresh.forward_tokens, cached.forward_tokens) == (len(windows.ids), 0)
    assert (fresh.noise_kl, fresh.noise_max_abs) == (cached.noise_kl, cached.noise_max_abs)
    for place in cache.folder.rglob("*"):
        if not place.is_file():
            continue
        content = bytearray(place.read_bytes())
        content[len(content) // 2] ^= 4
        place.write_bytes(content)
        again = base_pass(loaded_base, windows, cache, route)
        assert again.forward_tokens == len(windows.ids), place.name
        assert base_pass(loaded_base, windows, cache, route).forward_tokens == 0
    second = score(loaded_base, windows, cache, adapter, route)
    for name, values in first.items():
        assert np.array_equal(values, second[name]), name


@pytest.mark.parametrize("route", ROUTES)
def test_no_logits_exist_beyond_one_chunk(
    loaded_base: Base, windows: Windows, cache: Cache, adapter: Path, route: Route
) -> None:
    chunk = 20  # more rows than the probe of the head looks at, fewer than one batch has
    logits = Largest(lambda tensor: 320 in tensor.shape and 64 not in tensor.shape)
    with logits:
        base = base_pass(loaded_base, windows, cache, route, pace=Pace(4096, chunk))
        with tuned(loaded_base, adapter) as model:
            score_candidate(model, windows, base)
    assert logits.size == chunk * 320


def test_bfloat16_goes_through_the_cache_unchanged(
    random_base: Path, worker_settings: Settings, windows: Windows, cache: Cache, adapter: Path
) -> None:
    base = load_base(random_base.name, None, dtype="bfloat16", settings=worker_settings)
    first = score(base, windows, cache, adapter, "logits")
    again = score(base, windows, cache, adapter, "logits")
    assert np.array_equal(first["kl"], again["kl"])
    own = score_candidate(base.model, windows, base_pass(base, windows, cache, "logits"))
    assert np.abs(own["kl"]).max() == 0


def test_a_candidate_that_computes_nan_is_refused(
    random_base: Path, loaded_base: Base, windows: Windows, cache: Cache, tmp_path: Path
) -> None:
    folder = make_lora(random_base, tmp_path / "a", size=1e30)
    with pytest.raises(AdapterUnreadable, match="NaN or infinite"):
        score(loaded_base, windows, cache, folder, "identity")
