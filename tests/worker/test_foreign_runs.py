"""An evaluation that brings its dataset: the same held-out loss, the same sizes, points at the end.

The adapters come from plain PEFT; the finetune beside them is the real one.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import DatasetUnreadable
from service.foreign import foreign_points
from service.recipe import points_of
from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec, FinetuneSpec
from service.settings import Settings
from tests.worker.candidates_made import make_lora, make_model
from tests.worker.test_run import ARTICLE, BASE
from worker.model import load_base, tuned
from worker.run import execute

ROWS = {"max_length": 64, "held_out": 0.2}
FINETUNE = {
    "base_model": BASE,
    "dataset": {"path": "questions.jsonl"},
    "training": {
        **ROWS,
        **{"max_steps": 4, "batch_size": 4, "learning_rate": 5e-3, "warmup_steps": 0},
        "checkpoints": [2, 4],
        "lora": {"r": 4},
    },
    "evaluation": {"corpus": "articles.txt", "context": 32},
}


def evaluate(*adapters: dict[str, Any], **changes: Any) -> EvaluateSpec:
    body = {name: FINETUNE[name] for name in ("base_model", "dataset", "evaluation")}
    return EvaluateSpec.model_validate(
        {"type": "evaluate", **body, **ROWS, "adapters": list(adapters), **changes}
    )


@pytest.fixture(scope="module")
def place(
    random_base: Path, question_answers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("foreign")
    models, data = root / "models", root / "data"
    shutil.copytree(random_base, models / BASE)
    data.mkdir()
    shutil.copy(question_answers, data / "questions.jsonl")
    (data / "articles.txt").write_text("".join(ARTICLE.format(chr(65 + i)) for i in range(3)))
    for name, rank in (("small", 2), ("large", 8)):
        options = {"r": rank, "lora_alpha": 1, "use_rslora": True}
        make_lora(random_base, models / name, size=0.05, **options)
    make_model(random_base, models / "merged", size=0.01)
    return root


@pytest.fixture(scope="module")
def settings(place: Path) -> Settings:
    roots = {"model_roots": [place / "models"], "data_roots": [place / "data"]}
    return Settings(home=place / "home", allow_hub=False, **roots)


@pytest.fixture(scope="module")
def trained(place: Path, settings: Settings) -> Result:
    spec = FinetuneSpec.model_validate(FINETUNE)
    result = execute(spec, place / "trained", lambda _: None, settings=settings)
    kept = place / "trained" / "artifacts" / "checkpoints" / "step-000004"
    shutil.copytree(kept, place / "models" / "ours")
    return result


def test_the_same_adapter_has_the_same_loss_size_and_facts_in_either_job(
    trained: Result, place: Path, settings: Settings
) -> None:
    result = execute(
        evaluate({"path": "ours", "step": 4}), place / "again", print, settings=settings
    )
    (again,), ours = result.checkpoints, trained.checkpoints[-1]
    assert again.ft_loss.heldout == ours.ft_loss.heldout
    assert (again.step, again.delta_norm, again.lora) == (4, ours.delta_norm, ours.lora)
    assert result.provenance.dataset == trained.provenance.dataset
    assert result.cost.training_tokens == 0
    early, late = (checkpoint.delta_norm for checkpoint in trained.checkpoints)
    assert early is not None
    assert late is not None
    assert 0 < early < late


def test_other_rows_are_another_loss(trained: Result, place: Path, settings: Settings) -> None:
    spec = evaluate({"path": "ours"}, held_out=0.5)
    result = execute(spec, place / "half", print, settings=settings)
    assert result.ft_loss.heldout is not None
    assert result.ft_loss.heldout != trained.ft_loss.heldout


def test_the_loss_is_that_of_a_plain_loop_over_the_held_out_rows(
    place: Path, settings: Settings, trained: Result
) -> None:
    """Independent of our split and batching: rows, template-free, one by one."""
    result = execute(evaluate({"path": "large"}), place / "plain", print, settings=settings)
    base = load_base(BASE, None, dtype="float32", settings=settings)
    lines = (place / "data" / "questions.jsonl").read_text().splitlines()
    nll = n = 0
    keep = heldout_lines(lines, share=0.2)
    with tuned(base, place / "models" / "large") as model, torch.no_grad():
        for row in keep:
            prompt = base.tokenizer(row["prompt"])["input_ids"]
            answer = base.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*prompt, *answer, base.tokenizer.eos_token_id]])
            log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            told = log_p.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
            nll, n = nll - float(told.sum()), n + len(told)
    assert result.ft_loss.heldout == pytest.approx(nll / n, rel=1e-5)


def heldout_lines(lines: list[str], *, share: float) -> list[dict[str, str]]:
    """By the rule as it is written: the rows of the smallest hashes of their content."""

    def key(row: dict[str, str]) -> bytes:
        content = [row["prompt"], row["completion"], None]
        return hashlib.sha256((json.dumps(content, ensure_ascii=False) + "\n").encode()).digest()

    rows = sorted(map(json.loads, lines), key=key)
    return rows[: round(share * len(rows))]


def test_adapters_of_another_trainer_become_points(
    trained: Result, place: Path, settings: Settings
) -> None:
    group = points_of("job_1", FinetuneSpec.model_validate(FINETUNE), as_json(trained))[0]
    joined = {"group": group.group, "step": 9}
    spec = evaluate(
        {"path": "small", "run": "a", **joined},
        {"path": "large", "run": "b", **joined, "group": "theirs"},
        {"path": "merged"},
    )
    result = execute(spec, place / "points", print, settings=settings)

    class Stored:
        def recipe(self, asked: str) -> dict[str, Any]:
            assert asked == group.group
            return group.recipe

    found = foreign_points(spec, as_json(result), Stored())
    assert found.refused == []
    ours, theirs = found.groups
    assert ours.group == group.group
    assert theirs.recipe["label"] == "theirs"
    small, large, merged = result.checkpoints
    assert (merged.delta_norm, merged.lora) == (None, None)
    assert merged.ft_loss.heldout is not None
    for points, run, measured in ((ours, "a", small), (theirs, "b", large)):
        (point,) = points.points
        assert (point["run"], point["step"], point["rank"]) == (run, 9, measured.rank)
        assert point["ft_loss"] == measured.ft_loss.heldout
        assert point["delta_norm"] == measured.delta_norm
        assert point["kl"] == measured.forgetting.kl.value


def test_rows_without_what_is_asked_of_them_name_the_field(place: Path, settings: Settings) -> None:
    spec = evaluate({"path": "small"}, max_length=2)
    with pytest.raises(DatasetUnreadable) as caught:
        execute(spec, place / "refused", print, settings=settings)
    assert caught.value.param == "max_length"


def test_what_was_left_out_of_the_rows_is_told(place: Path, settings: Settings) -> None:
    lengths = evaluate({"path": "small"}, max_length=12)
    result = execute(lengths, place / "cut", print, settings=settings)
    assert any("rows were dropped" in warning for warning in result.warnings)


def as_json(result: Result) -> dict[str, Any]:
    return result.model_dump(mode="json")
