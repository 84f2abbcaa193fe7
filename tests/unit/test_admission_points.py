"""What is refused at POST of an evaluation that brings its dataset, and of adapters as points."""

from pathlib import Path
from typing import Any

import pytest

from service.admission import admit
from service.errors import UserError
from service.schemas.spec import EvaluateSpec
from service.settings import Settings
from tests.model_folders import write_adapter, write_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    models, data = tmp_path / "models", tmp_path / "data"
    write_model(models / "tiny")
    write_model(models / "merged")
    write_adapter(models / "theirs")
    data.mkdir()
    (data / "rows.jsonl").write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(40)))
    (data / "torn.jsonl").write_text('{"text": "row"}\nnot a row\n')
    (data / "one.jsonl").write_text('{"text": "row"}\n')
    (data / "corpus.txt").write_text("some prose\n")
    return Settings(model_roots=[models], data_roots=[data], allow_hub=False)


def evaluate(adapter: dict[str, Any] | None = None, **changes: Any) -> EvaluateSpec:
    body = {
        "type": "evaluate",
        "base_model": "tiny",
        "adapters": [{"path": "theirs", **(adapter or {})}],
        "dataset": {"path": "rows.jsonl"},
        "max_length": 64,
        "evaluation": {"corpus": "corpus.txt", "context": 64},
        **changes,
    }
    return EvaluateSpec.model_validate(body)


def test_another_trainers_adapter_is_admitted_with_all_that_is_said_of_it(
    settings: Settings,
) -> None:
    admit(evaluate(), settings)
    admit(evaluate({"step": 3, "rank": 4, "run": "a", "group": "mine"}), settings)


@pytest.mark.parametrize(
    ("spec", "param", "said"),
    [
        (evaluate({"rank": 8}), "adapters.0.rank", "rank is 8, .* says 4"),
        (evaluate({"path": "merged", "rank": 4}), "adapters.0.rank", "full model"),
        (evaluate({"path": "merged", "group": "a"}), "adapters.0.group", "full model"),
        (evaluate({"group": "mine", "run": "a"}), "adapters.0.step", "group, run, step"),
        (evaluate(dataset={"path": "absent.jsonl"}), "dataset.path", "absent"),
        (evaluate(dataset={"path": "torn.jsonl"}), "dataset.path", "line 2"),
        (evaluate(dataset={"path": "one.jsonl"}), "dataset.path", "1 rows, 1 of them held out"),
        (evaluate(dataset={"path": "rows.jsonl", "format": "alpaca"}), "dataset.path", "line 1"),
        (evaluate(loss_on="completion"), "loss_on", "no completion"),
        (evaluate(max_length=129), "max_length", "at most 128"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_its_field(
    settings: Settings, spec: EvaluateSpec, param: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        admit(spec, settings)
    assert caught.value.param == param
