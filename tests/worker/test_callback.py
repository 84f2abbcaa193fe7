"""What the callback measures, logs, writes and keeps, in trainers that are not ours."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.utils import DistributedType
from fastapi.testclient import TestClient
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.app import create_app
from service.errors import CorpusUnreadable, InvalidSpec
from service.schemas.spec import EvaluateSpec
from service.settings import Settings
from service.store import Store
from tests.worker.own_trainers import TEXTS, Make, logged, plain, sft
from worker.adapter import trainable_params
from worker.against import sharding
from worker.callback import ForgettingCallback
from worker.corpus import read_corpus
from worker.run import execute
from worker.sample import sampled
from worker.windows import cut

CONTEXT = 32


class NoBell:
    """No job is queued here."""

    def __call__(self, job_id: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ping(self) -> None: ...


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpora") / "corpus.txt"
    file.write_text("\f".join(" ".join(TEXTS[i::6]) for i in range(6)))
    return file


def evaluated(base: Path, adapter: Path, corpus: Path, folder: Path) -> tuple[Any, dict]:
    """The service's own measurement, in a job of its own, of what was saved; and per position."""
    spec = EvaluateSpec.model_validate(
        {
            "type": "evaluate",
            "base_model": base.name,
            "adapters": [{"path": adapter.name}],
            "evaluation": {"corpus": corpus.name, "context": CONTEXT},
        }
    )
    settings = Settings(
        home=folder / "home",
        model_roots=[base.parent, adapter.parent],
        data_roots=[corpus.parent],
        allow_hub=False,
    )
    result = execute(spec, folder / "work", lambda event: None, settings=settings)
    with np.load(folder / "work" / "artifacts" / "positions.npz") as positions:
        return result, dict(positions)


@pytest.mark.parametrize("make", [plain, sft])
@pytest.mark.parametrize("windows", ["all", 9])
def test_it_logs_what_an_evaluate_run_of_the_saved_adapter_finds(
    tiny_base: Path, corpus: Path, tmp_path: Path, make: Make, windows: Any
) -> None:
    callback = ForgettingCallback(corpus, windows=windows, context=CONTEXT)
    trainer = make(tiny_base, tmp_path / "out", callbacks=[callback])
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    result, positions = evaluated(tiny_base, tmp_path / "adapter", corpus, tmp_path)
    kl = positions["kl"]
    if windows != "all":
        tokenizer = AutoTokenizer.from_pretrained(tiny_base)
        every = cut(read_corpus(corpus, "c"), tokenizer, CONTEXT)
        chosen = np.random.default_rng(17).choice(len(every), size=windows, replace=False)
        assert len(every) > 20
        kl = kl[np.isin(positions["window"], chosen)]
    last = {name: logged(trainer, f"forgetting/{name}")[10] for name in ("kl", "kl_p99")}
    assert last["kl"] == pytest.approx(kl.mean(dtype=np.float64), rel=1e-5)
    assert last["kl"] > 1e-3
    assert last["kl_p99"] == pytest.approx(np.percentile(kl, 99), rel=1e-5)
    size = logged(trainer, "forgetting/delta_norm")[10]
    assert size == pytest.approx(result.checkpoints[-1].delta_norm, rel=1e-6)
    if windows == "all":
        for name in ("kl", "ce_soft", "ce_hard", "same_top", "nll_tuned"):
            found = logged(trainer, f"forgetting/{name}")[10]
            assert found == pytest.approx(getattr(result, name).value, rel=1e-5), name


def test_an_adapter_that_changes_nothing_has_forgotten_exactly_nothing(
    random_base: Path, corpus: Path, tmp_path: Path
) -> None:
    callback = ForgettingCallback(corpus, steps=[1])
    trainer = plain(random_base, tmp_path, learning_rate=0.0, callbacks=[callback])
    trainer.train()
    assert logged(trainer, "forgetting/kl") == {1: 0.0, 10: 0.0}
    assert logged(trainer, "forgetting/same_top") == {1: 1.0, 10: 1.0}


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
def test_a_head_that_is_trained_is_compared_with_the_base_s_own(
    random_base: Path, corpus: Path, tmp_path: Path
) -> None:
    lora = {"modules_to_save": ["lm_head"]}
    callback = ForgettingCallback(corpus, windows="all", context=CONTEXT)
    trainer = plain(random_base, tmp_path / "out", lora=lora, callbacks=[callback])
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    result, _ = evaluated(random_base, tmp_path / "adapter", corpus, tmp_path)
    found = logged(trainer, "forgetting/kl")[10]
    assert found == pytest.approx(result.kl.value, rel=1e-5)


def test_a_full_model_is_compared_with_the_reference(
    random_base: Path, corpus: Path, tmp_path: Path
) -> None:
    callback = ForgettingCallback(
        corpus, windows="all", context=CONTEXT, reference=str(random_base), limit=1e-6, stop=False
    )
    trainer = plain(
        random_base, tmp_path / "out", full=True, learning_rate=1e-3, callbacks=[callback]
    )
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "tuned")
    result, _ = evaluated(random_base, tmp_path / "tuned", corpus, tmp_path)
    assert logged(trainer, "forgetting/kl")[10] == pytest.approx(result.kl.value, rel=1e-5)
    assert callback.kept is None


@pytest.mark.parametrize("make", [plain, sft])
def test_its_points_are_points_of_a_law(
    random_base: Path, corpus: Path, tmp_path: Path, make: Make
) -> None:
    lines = []
    for rank in (2, 4, 8):
        folder = tmp_path / f"rank-{rank}"
        callback = ForgettingCallback(corpus, windows=4, context=CONTEXT)
        evaluations = {"eval_strategy": "steps", "eval_steps": 2}
        trainer = make(random_base, folder, lora={"r": rank}, callbacks=[callback], **evaluations)
        trainer.train()
        written = (folder / "forgetting-points.jsonl").read_text().splitlines()
        points = [json.loads(line) for line in written]
        assert [point["step"] for point in points] == [2, 4, 6, 8, 10]
        losses = logged(trainer, "eval_loss")
        assert [point["ft_loss"] for point in points] == [losses[p["step"]] for p in points]
        trainer.model.save_pretrained(folder / "adapter", save_embedding_layers=False)
        assert {p["trainable_params"] for p in points} == {trainable_params(folder / "adapter")}
        assert {p["rank"] for p in points} == {rank}
        lines += points
    assert len({point["run"] for point in lines}) == 3
    store = Store(f"sqlite:///{tmp_path / 'laws.sqlite3'}", Settings())
    store.migrate()
    with TestClient(create_app(store, Settings(home=tmp_path), NoBell())) as web:
        answer = web.post("/v1/laws", json={"points": lines, "metric": "kl"})
    store.dispose()
    assert answer.status_code == 201, answer.text
    assert answer.json()["data"]


def test_at_the_limit_training_ends_and_the_last_good_adapter_is_kept(
    random_base: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = ForgettingCallback(corpus, steps=range(1, 10), windows="all", context=CONTEXT)
    trainer = plain(random_base, tmp_path / "free", callbacks=[free])
    trainer.train()
    kl = logged(trainer, "forgetting/kl")
    assert free.kept is None
    limit = (kl[5] + kl[6]) / 2
    assert kl[4] < kl[5] < limit < kl[6]
    held = ForgettingCallback(
        corpus, steps=range(1, 10), windows="all", context=CONTEXT, limit=limit
    )
    stopped = plain(random_base, tmp_path / "held", callbacks=[held])
    stopped.train()
    assert stopped.state.global_step == 6
    assert held.kept == tmp_path / "held" / "forgetting" / "step-000005"
    assert [one.name for one in held.kept.parent.iterdir()] == ["step-000005"]
    assert f"step 6 is above the limit {limit:g}; the last adapter within it: {held.kept}" in (
        caplog.text
    )
    # Plain PEFT loads it, and it is that step's adapter.
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(random_base), held.kept)
    result, _ = evaluated(random_base, held.kept, corpus, tmp_path)
    assert result.kl.value == pytest.approx(kl[5], rel=1e-5)


def test_with_stop_false_training_goes_on(random_base: Path, corpus: Path, tmp_path: Path) -> None:
    callback = ForgettingCallback(corpus, limit=1e-9, stop=False, windows=4, context=CONTEXT)
    trainer = plain(random_base, tmp_path, callbacks=[callback])
    trainer.train()
    assert trainer.state.global_step == 10
    assert callback.kept is None


def test_what_it_cost_is_told(random_base: Path, corpus: Path, tmp_path: Path) -> None:
    callback = ForgettingCallback(corpus, windows=4, context=CONTEXT, steps=[5])
    trainer = plain(random_base, tmp_path, callbacks=[callback])
    trainer.train()
    assert list(logged(trainer, "forgetting/seconds")) == [5, 10]
    [share] = logged(trainer, "forgetting/share_of_time").values()
    assert 0 < share < 1
    assert logged(trainer, "forgetting/windows") == {10: 4}


def test_a_resumed_run_goes_on_in_its_file(random_base: Path, corpus: Path, tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 6}

    def points(**changes: Any) -> str:
        callback = ForgettingCallback(
            corpus, windows=4, context=CONTEXT, steps=[2, 4, 6, 8], run="one"
        )
        trainer = plain(random_base, tmp_path, callbacks=[callback], **options)
        trainer.train(**changes)
        return (tmp_path / "forgetting-points.jsonl").read_text()

    whole = points()
    assert points(resume_from_checkpoint=str(tmp_path / "checkpoint-6")) == whole
    assert points() == whole


def test_a_sample_is_whole_windows_each_once(random_base: Path, corpus: Path) -> None:
    every = cut(read_corpus(corpus, "c"), AutoTokenizer.from_pretrained(random_base), CONTEXT)
    assert sampled(every, len(every), seed=1) is every
    some = sampled(every, 7, seed=1)
    assert len(some) == 7
    assert some.ids.tolist() == sampled(every, 7, seed=1).ids.tolist()
    assert some.ids.tolist() != sampled(every, 7, seed=2).ids.tolist()
    every_window = set(map(tuple, np.split(every.ids, every.starts[1:-1])))
    assert {tuple(ids) for ids in np.split(some.ids, some.starts[1:-1])} <= every_window


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": 0}, "limit 0: it must be above 0"),
        ({"limit": math.nan}, "limit nan: it must be above 0"),
        ({"windows": 0}, "windows 0: at least 1"),
        ({"context": 257}, "context is 257; the model reads at most 256"),
        ({"corpus": ["", " "]}, "texts holds no document"),
        ({"corpus": "no-such.txt"}, "no-such.txt is neither a file nor the name of a hub"),
    ],
)
def test_bad_input_is_refused_before_the_first_step(
    random_base: Path, corpus: Path, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    trainer = plain(random_base, tmp_path)

    def train() -> None:
        trainer.add_callback(ForgettingCallback(**{"corpus": corpus, **given}))
        trainer.train()

    with pytest.raises((InvalidSpec, CorpusUnreadable), match=said):
        train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("lora", "full", "said"),
    [
        ({"init_lora_weights": "pissa"}, False, "'pissa' rewrites the base's weights"),
        ({"bias": "all"}, False, "bias 'all' trains the base's own biases"),
        ({}, True, "there is no adapter to switch off"),
    ],
)
def test_what_is_no_longer_its_base_is_refused(
    random_base: Path, corpus: Path, tmp_path: Path, lora: dict[str, Any], full: bool, said: str
) -> None:
    trainer = plain(random_base, tmp_path, lora=lora, full=full)
    trainer.add_callback(ForgettingCallback(corpus))
    with pytest.raises(InvalidSpec, match=said):
        trainer.train()


def test_weights_that_are_split_over_processes_are_refused() -> None:
    """The judgement alone: no such training runs on a CPU."""
    assert sharding(DistributedType.FSDP, None) == "FSDP"
    assert sharding(DistributedType.DEEPSPEED, 3) == "DeepSpeed ZeRO-3"
    for kind, stage in ((DistributedType.DEEPSPEED, 2), (DistributedType.MULTI_GPU, None)):
        assert sharding(kind, stage) is None
