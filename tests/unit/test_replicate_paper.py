"""The paper's sweep is a spec that the service takes, and says what it would cost."""

import io
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter

from demo import replicate_paper
from demo.replicate_paper import estimate_text, first_minute, hours, reading, spec
from service.laws.forgetting import OPENORCA, PAPER_RANKS, PAPER_STEPS
from service.schemas.spec import FinetuneSpec, JobSpec, SweepSpec

TAKEN: TypeAdapter[Any] = TypeAdapter(JobSpec)


def test_the_spec_is_the_papers() -> None:
    sweep = TAKEN.validate_python(spec())
    assert isinstance(sweep, SweepSpec)
    assert tuple(sweep.ranks) == PAPER_RANKS
    assert len(sweep.seeds) == 3
    training, lora = sweep.training, sweep.training.lora
    assert (training.max_steps, training.batch_size, training.max_length) == (260, 32, 512)
    assert (training.optim, lora.use_rslora, lora.alpha) == ("adafactor", True, 1.0)
    assert lora.target_modules == "all-linear"
    assert (sweep.evaluation.corpus, sweep.evaluation.context) == ("wikitext-103", 512)
    assert isinstance(training.checkpoints, list)
    assert (training.checkpoints[0], training.checkpoints[-1]) == PAPER_STEPS
    assert len(training.checkpoints) == 22


def test_the_estimate_is_the_stated_arithmetic() -> None:
    one = hours(spec())
    seconds = 312e12 * 0.35
    tokens = 260 * 32 * 512
    by_hand = sum(4 * 6.738e9 * tokens + 6 * 2_498_560 * r * tokens for r in PAPER_RANKS)
    assert one.training_least == pytest.approx(by_hand / seconds / 3600)
    assert one.training_most - one.training_least == pytest.approx(
        6 * 2 * 6.738e9 * tokens / seconds / 3600
    )
    scored = 22 * (341_469 + 500 * 512)
    by_hand = sum(2 * (6.738e9 + 2_498_560 * r) * scored for r in PAPER_RANKS)
    assert one.scoring == pytest.approx(by_hand / seconds / 3600)
    said = estimate_text(spec())
    for stated in ("not measured", "assumed 35%", "24 GB", "HF_TOKEN", "licence", "not run by us"):
        assert stated in said


def test_the_first_minute_tells_which_reading_is_possible() -> None:
    largest = OPENORCA.forgetting(2_498_560 * 256, 260)
    assert pytest.approx(largest, abs=0.005) == replicate_paper.PAPER_LARGEST
    assert "cannot be the soft" in reading(1.7)
    assert "soft reading is possible" in reading(0.4)
    probe = TAKEN.validate_python(first_minute(spec()))
    assert isinstance(probe, FinetuneSpec)
    assert (probe.training.max_steps, probe.training.lora.r) == (1, 8)
    # Whatever the base pass depends on must be the sweep's, or it would be computed again.
    sweep = TAKEN.validate_python(spec())
    assert probe.evaluation == sweep.evaluation
    assert (probe.base_model, probe.revision) == (sweep.base_model, sweep.revision)


def test_it_prints_the_spec_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["replicate_paper"])
    monkeypatch.setattr(sys, "stdout", out)
    assert replicate_paper.main() == 0
    assert TAKEN.validate_json(out.getvalue()) == TAKEN.validate_python(spec())


class Scripted:
    """A service that has done what it was asked."""

    def __init__(self, status: str) -> None:
        self.status, self.asked = status, []

    def create_job(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body["type"])
        return {"id": f"job_{len(self.asked)}"}

    def wait(self, job_id: str) -> dict[str, Any]:
        return {"id": job_id, "status": self.status, "error": {"code": "model_unavailable"}}

    def result(self, job_id: str) -> dict[str, Any]:
        return {"h_base": 1.9}


def test_the_sweep_follows_the_first_minute_and_only_its_success(capsys: Any) -> None:
    good, bad = Scripted("succeeded"), Scripted("failed")
    assert replicate_paper.submit(good, spec()) == 0
    assert good.asked == ["finetune", "sweep"]
    told = capsys.readouterr()
    assert told.out == "job_2\n"
    assert "cannot be the soft" in told.err
    assert replicate_paper.submit(bad, spec()) == 1
    assert bad.asked == ["finetune"]
