"""Which hub ids a spec may name, and what a refusal says."""

import pytest

from service.errors import CorpusUnreadable, DatasetUnreadable, ModelUnavailable
from service.settings import Settings
from service.sources import HubModel, needs_hub, require_hub, resolve_model


@pytest.mark.parametrize(
    ("changes", "is_open"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"database_url": "postgresql://db/name"}, False),
        ({"database_url": "sqlite:////file"}, True),
        ({"host": "0.0.0.0", "allow_hub": True}, True),
        ({"host": "0.0.0.0", "hub_allow": ["Qwen/*"]}, True),
        ({"hub_allow": ["Qwen/*"], "allow_hub": False}, False),
    ],
)
def test_open_only_where_one_persons_machine_is_all(
    changes: dict[str, object], is_open: bool
) -> None:
    settings = Settings().model_copy(update=changes)
    assert settings.hub_is_open is is_open
    if not is_open:
        with pytest.raises(ModelUnavailable, match="FORGETTING_HUB_ALLOW"):
            resolve_model("Qwen/Qwen3-0.6B", None, settings)


@pytest.mark.parametrize("param", ["base_model", "dataset.path", "evaluation.corpus"])
def test_a_pattern_opens_what_it_names(param: str) -> None:
    settings = Settings(hub_allow=["Qwen/*", "org/one"])
    require_hub("Qwen/Qwen3-0.6B", settings, param=param)
    require_hub("org/one", settings, param=param)
    for name in ("org/two", "qwen/x", "NotQwen/x"):
        with pytest.raises(
            (ModelUnavailable, DatasetUnreadable, CorpusUnreadable), match="FORGETTING_HUB_ALLOW"
        ) as caught:
            require_hub(name, settings, param=param)
        assert caught.value.param == param
    assert resolve_model("Qwen/a", None, settings) == HubModel("Qwen/a", None)


def test_the_variable_is_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETTING_HUB_ALLOW", "Qwen/* org/one, other/*")
    assert Settings().hub_allow == ["Qwen/*", "org/one", "other/*"]


def test_only_a_job_that_fetches_needs_the_token(tmp_path: object) -> None:
    from pathlib import Path

    root = Path(str(tmp_path))
    (root / "tiny").mkdir()
    (root / "corpus.txt").write_text("text")
    settings = Settings(model_roots=[root], data_roots=[root])
    local = {"base_model": "tiny", "evaluation": {"corpus": "corpus.txt"}}
    assert not needs_hub(local, settings)
    assert needs_hub(local | {"base_model": "org/model"}, settings)
    assert needs_hub(local | {"evaluation": {"corpus": "wikitext-103"}}, settings)
    assert needs_hub(local | {"dataset": {"path": "org/rows"}}, settings)
