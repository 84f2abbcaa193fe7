"""What a job is estimated to cost before it is accepted."""

from pathlib import Path

from service.price import BYTES_PER_TOKEN, TRAINED, tokens_of
from service.schemas.spec import FinetuneSpec, GateSpec
from service.settings import Settings
from tests.gate_results import gate_spec, policy

INCREASE = {"id": "more", "metric": "kl", "max_increase": 0.1, "baseline": "prod"}


def settings(folder: Path, n_bytes: int) -> Settings:
    (folder / "corpus.txt").write_bytes(b"x" * n_bytes)
    return Settings(home=folder / "home", model_roots=[folder], data_roots=[folder])


def test_a_gate_scores_the_base_its_candidate_and_every_baseline(tmp_path: Path) -> None:
    here = settings(tmp_path, 300 * BYTES_PER_TOKEN)
    alone = GateSpec.model_validate(gate_spec())
    assert tokens_of(alone, here) == 300 * 2
    judged = policy(INCREASE, baselines={"prod": {"path": "tiny"}})
    compared = GateSpec.model_validate(gate_spec(policy=judged))
    assert tokens_of(compared, here) == 300 * 3


def test_a_run_trains_every_row_and_scores_every_checkpoint(tmp_path: Path) -> None:
    here = settings(tmp_path, 300 * BYTES_PER_TOKEN)
    spec = FinetuneSpec.model_validate(
        {
            "base_model": "tiny",
            "dataset": {"path": "rows.jsonl"},
            "training": {
                "max_steps": 10,
                "batch_size": 4,
                "max_length": 64,
                "checkpoints": [5],
            },
            "evaluation": {"corpus": "corpus.txt", "context": 64},
        }
    )
    assert tokens_of(spec, here) == TRAINED * 10 * 4 * 64 + 300 * (2 + 1)
