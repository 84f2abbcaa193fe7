"""Memory that runs out, at the start and in a pass: half as much at once, and the same numbers."""

from pathlib import Path

import pytest
import torch

from tests.vllm_engine.memory import limited, no_room_for_weights
from tests.vllm_engine.test_engine import ALIKE, PER_POSITION, by_transformers
from worker.cache import Cache
from worker.model import Base
from worker.score import BasePass, Scores
from worker.vllm_score.engine import Engine
from worker.vllm_score.passes import Tokens
from worker.vllm_scorer import BATCH_TOKENS, VllmScorer
from worker.windows import Windows

pytestmark = pytest.mark.filterwarnings("ignore")
FULL, HALF = BATCH_TOKENS["cpu"], BATCH_TOKENS["cpu"] // 2


class Job:
    def __init__(self, base: Base, windows: Windows, folder: Path) -> None:
        self.base, self.windows, self.folder = base, windows, folder
        self.warnings: list[str] = []

    def start(self) -> VllmScorer:
        return VllmScorer(self.base, self.windows, warn=self.warnings.append)

    def base_pass(self, scorer: VllmScorer) -> BasePass:
        cache = Cache(self.folder / "cache", max_bytes=10**9)
        return scorer.base_pass(
            self.windows,
            corpus_digest="c",
            route="identity",
            cache=cache,
            warn=self.warnings.append,
        )

    def scores(self, scorer: VllmScorer, base_pass: BasePass, adapter: Path) -> Scores:
        return scorer.scores(adapter, self.base.model, self.windows, base_pass)


@pytest.fixture
def job(base: Base, windows: Windows, tmp_path: Path) -> Job:
    return Job(base, windows, tmp_path)


@pytest.fixture(scope="module")
def right(
    base: Base, windows: Windows, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scores:
    """Of adapter a, by transformers."""
    place = tmp_path_factory.mktemp("right")
    return by_transformers(base, windows, place, models / "a", "identity")[1]


def agree(found: Scores, right: Scores) -> None:
    assert abs(found["kl"] - right["kl"]).max() < PER_POSITION
    assert found["kl"].mean() == pytest.approx(right["kl"].mean(), rel=ALIKE)


def test_enough_memory(job: Job, models: Path, right: Scores) -> None:
    scorer = job.start()
    base_pass = job.base_pass(scorer)
    agree(job.scores(scorer, base_pass, models / "a"), right)
    used = scorer.used(base_pass)
    scorer.close()
    assert (used.batch_tokens, used.restarts, used.warm) == (FULL, 0, False)
    assert used.kv_cache_bytes > 0
    assert used.gpu_memory_utilization is None
    assert job.warnings == []


def test_none_left_in_the_base_pass(job: Job, models: Path, right: Scores) -> None:
    scorer = job.start()
    with limited(1500) as limit:
        base_pass = job.base_pass(scorer)
        agree(job.scores(scorer, base_pass, models / "a"), right)
        untouched = job.scores(scorer, base_pass, models / "zero")
    used = scorer.used(base_pass)
    scorer.close()
    assert limit.struck == 1
    assert base_pass.pace.batch_tokens == used.batch_tokens == HALF
    assert used.restarts == 1
    assert not untouched["kl"].any()
    assert [f"out of GPU memory at {FULL} tokens" in said for said in job.warnings] == [True]


def test_none_left_in_a_candidates_pass(job: Job, models: Path, right: Scores) -> None:
    """The base's rows were made by larger steps, and serve on."""
    scorer = job.start()
    base_pass = job.base_pass(scorer)
    with limited(1500) as limit:
        agree(job.scores(scorer, base_pass, models / "a"), right)
        untouched = job.scores(scorer, base_pass, models / "zero")
    used = scorer.used(base_pass)
    scorer.close()
    assert limit.struck == 1
    assert (used.batch_tokens, used.restarts) == (HALF, 1)
    assert abs(untouched["kl"]).max() < PER_POSITION
    assert len(job.warnings) == 1


def test_none_left_at_the_start(job: Job, models: Path, right: Scores) -> None:
    with no_room_for_weights(times=1) as limit:
        scorer = job.start()
    base_pass = job.base_pass(scorer)
    agree(job.scores(scorer, base_pass, models / "a"), right)
    used = scorer.used(base_pass)
    scorer.close()
    assert limit.struck == 1
    assert (used.batch_tokens, used.restarts) == (HALF, 1)


def test_too_little_for_the_least_pace(job: Job) -> None:
    with no_room_for_weights(), pytest.raises(torch.OutOfMemoryError, match="planted"):
        job.start()


def test_an_allocators_error_that_vllm_words_anew(engine: Engine, tokens: Tokens) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("CUDA out of memory occurred when warming up pooler")

    with pytest.raises(torch.OutOfMemoryError, match="warming up"):
        engine.score(tokens, {}, None, route="identity", chunk=64, on_windows=fail)
