"""vLLM that runs on for the next job: in one process, and in a worker's real child."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec, Evaluation
from service.settings import Settings
from tests.vllm_engine.test_job import PROSE
from tests.worker.test_supervise import eventually
from worker.child import RESULT, STAYS, order_line
from worker.idle import Idle
from worker.loaded import Loaded
from worker.process import COMMAND, Child
from worker.run import execute

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def place(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    articles = "".join(f" = Mill {i} = \n {PROSE.format(i)}" for i in range(12))
    (models / "warm.txt").write_text(articles)
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, model_roots=[models], data_roots=[models], allow_hub=False)


def spec(adapter: str, *, engine: str = "vllm", context: int = 64) -> EvaluateSpec:
    evaluation = Evaluation(corpus="warm.txt", context=context, engine=engine)  # type: ignore[arg-type]
    return EvaluateSpec(
        type="evaluate",
        base_model="tied",
        adapters=[{"path": adapter}],  # type: ignore[list-item]
        evaluation=evaluation,
    )


def run(place: Settings, loaded: Loaded | None, *asked: Any, **how: Any) -> Result:
    found = execute(
        spec(*asked, **how),
        place.home / "w",
        lambda event: None,
        settings=place,
        loaded=loaded,
    )
    assert isinstance(found, Result)
    return found


def is_warm(result: Result) -> bool:
    assert result.engine.used is not None
    assert (result.cost.seconds.get("engine_start") == 0) == result.engine.used.warm
    return result.engine.used.warm


def test_the_next_job_finds_it_running_and_scores_the_same(place: Settings) -> None:
    loaded = Loaded()
    first = run(place, loaded, "a")
    other = run(place, loaded, "b")
    again = run(place, loaded, "a")
    assert [is_warm(result) for result in (first, other, again)] == [False, True, True]
    assert again.kl == first.kl
    fresh = run(place, None, "b")
    assert not is_warm(fresh)
    assert fresh.kl == other.kl
    assert not fresh.parity["failed"]
    assert first.engine.used.model_copy(update={"warm": True}) == again.engine.used

    assert not is_warm(run(place, loaded, "a", context=48))  # an engine of other settings
    run(place, loaded, "a", engine="transformers")
    assert not is_warm(run(place, loaded, "a", context=48))
    loaded.end_engine()


def test_a_fault_ends_it(place: Settings) -> None:
    loaded = Loaded()
    run(place, loaded, "a")

    def broken(event: dict[str, Any]) -> None:
        if event["kind"] == "checkpoint":
            raise RuntimeError("the pipe broke")

    with pytest.raises(RuntimeError, match="the pipe broke"):
        execute(spec("b"), place.home / "w", broken, settings=place, loaded=loaded)
    assert not is_warm(run(place, loaded, "b"))
    loaded.end_engine()


def test_a_child_that_stays_keeps_it_until_its_time_is_up(place: Settings, tmp_path: Path) -> None:
    child = Child(COMMAND, tmp_path)
    results = []
    try:
        for number, adapter in enumerate(("a", "b")):
            folder = tmp_path / str(number)
            folder.mkdir()
            order = order_line(spec(adapter).model_dump(mode="json"), folder, {}, place, stay=True)
            child.begin(order, folder, lambda event: None)
            assert child.done_within(300), child.log_tail()
            assert child.word is not None
            assert child.word.get(STAYS), (child.word, child.log_tail())
            results.append(Result.model_validate_json((folder / RESULT).read_bytes()))
        assert [is_warm(result) for result in results] == [False, True]
        idle = Idle(0.2)
        idle.keep(child, json.dumps("tied"))
        eventually(lambda: not child.lives)
    finally:
        child.end()
