"""What is refused before a job exists, where HTTP adds nothing: adapters, shards, hub caches."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service import hub
from service.admission import admit
from service.errors import (
    AdapterUnreadable,
    DatasetUnreadable,
    InvalidSpec,
    ModelUnavailable,
    UserError,
)
from service.schemas.spec import EvaluateSpec, FinetuneSpec
from service.settings import Settings
from tests.model_folders import (
    WIDTH,
    lora_shapes,
    model_shapes,
    write_adapter,
    write_model,
    write_safetensors,
)

QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_model(tmp_path / "models" / "tiny")
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.jsonl").write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(40)))
    (data / "corpus.txt").write_text("some prose\n")
    return Settings(
        model_roots=[tmp_path / "models"], data_roots=[tmp_path / "data"], allow_hub=False
    )


def finetune(**changes: Any) -> FinetuneSpec:
    body = {
        "base_model": "tiny",
        "dataset": {"path": "rows.jsonl"},
        "training": {"batch_size": 8, "max_length": 64, **changes},
        "evaluation": {"corpus": "corpus.txt", "context": 64},
    }
    return FinetuneSpec.model_validate(body)


def evaluate(path: str = "candidate") -> EvaluateSpec:
    body = {
        "type": "evaluate",
        "base_model": "tiny",
        "adapters": [{"path": path}],
        "evaluation": {"corpus": "corpus.txt", "context": 64},
    }
    return EvaluateSpec.model_validate(body)


@pytest.mark.parametrize(
    "targets",
    [["q_proj"], ["self_attn.q_proj", "down_proj"], ["model.layers.1.mlp.gate_proj"]],
)
def test_targets_match_as_in_peft(settings: Settings, targets: list[str]) -> None:
    admit(finetune(lora={"target_modules": targets}), settings)


@pytest.mark.parametrize("target", ["proj", "_proj", "layers.0.self_attn", "model.norm"])
def test_targets_that_peft_would_not_find(settings: Settings, target: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        admit(finetune(lora={"target_modules": [target]}), settings)
    assert caught.value.param == "training.lora.target_modules.0"


@pytest.mark.parametrize("target", ["embed_tokens", "model.embed_tokens"])
def test_embeddings_are_not_adapted(settings: Settings, target: str) -> None:
    with pytest.raises(InvalidSpec, match="not a linear layer of the body"):
        admit(finetune(lora={"target_modules": ["q_proj", target]}), settings)


def test_a_model_without_a_limit_takes_any_context(settings: Settings) -> None:
    path = settings.model_roots[0] / "tiny" / "config.json"
    config = json.loads(path.read_text())
    del config["max_position_embeddings"]
    path.write_text(json.dumps(config))
    admit(finetune(max_length=4096), settings)


def test_the_limit_of_a_nested_config_counts(settings: Settings) -> None:
    path = settings.model_roots[0] / "tiny" / "config.json"
    config = {"text_config": {"vocab_size": 64, "max_position_embeddings": 63}}
    path.write_text(json.dumps(config))
    with pytest.raises(InvalidSpec, match="63"):
        admit(finetune(), settings)


@pytest.mark.parametrize(("n_rows", "fits"), [(8, False), (9, True), (10, True)])
def test_a_batch_besides_the_held_out_rows(settings: Settings, n_rows: int, fits: bool) -> None:
    """5 % of so few rows is one row."""
    path = settings.data_roots[0] / "rows.jsonl"
    path.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(n_rows)))
    if fits:
        admit(finetune(), settings)
        return
    with pytest.raises(DatasetUnreadable) as caught:
        admit(finetune(), settings)
    assert caught.value.details == {"rows": 8, "held_out": 1, "batch_size": 8}


def test_only_the_first_megabyte_is_judged(settings: Settings) -> None:
    """What is wrong further on may fail the job, but is not looked for here."""
    path = settings.data_roots[0] / "rows.jsonl"
    row = json.dumps({"text": "x" * 9_990}) + "\n"
    path.write_text(row * 150 + "not a row\n")
    admit(finetune(batch_size=4096), settings)
    path.write_text(row * 50 + "not a row\n" + row * 100)
    with pytest.raises(DatasetUnreadable, match="line 51"):
        admit(finetune(), settings)


def test_a_corpus_cut_inside_a_character_is_no_fault(settings: Settings) -> None:
    (settings.data_roots[0] / "corpus.txt").write_text("x" * 999_999 + "é" * 10)
    admit(finetune(), settings)


def test_shards_are_read_through_their_index(settings: Settings) -> None:
    folder = settings.model_roots[0] / "tiny"
    shapes = model_shapes()
    (folder / "model.safetensors").unlink()
    names = sorted(shapes)
    halves = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, held in halves.items():
        write_safetensors(folder / file, {name: shapes[name] for name in held})
    index = {"weight_map": {name: file for file, held in halves.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    admit(finetune(lora={"target_modules": ["q_proj", "down_proj"]}), settings)
    index["weight_map"]["model.norm.weight"] = "../../secret.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnavailable, match="not in the folder"):
        admit(finetune(), settings)


def test_weights_that_are_cut_short(settings: Settings) -> None:
    path = settings.model_roots[0] / "tiny" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelUnavailable, match="cut short"):
        admit(finetune(), settings)


def test_a_lora_and_a_full_model_are_candidates(settings: Settings) -> None:
    models = settings.model_roots[0]
    write_adapter(models / "lora")
    write_model(models / "merged")
    admit(evaluate("lora"), settings)
    admit(evaluate("merged"), settings)


def test_a_tied_output_layer_takes_a_lora(settings: Settings) -> None:
    head = "base_model.model.lm_head"
    shapes = {f"{head}.lora_A.weight": (4, WIDTH), f"{head}.lora_B.weight": (64, 4)}
    write_adapter(settings.model_roots[0] / "candidate", shapes=shapes)
    admit(evaluate(), settings)


def test_training_leftovers_beside_an_adapter_are_not_read(settings: Settings) -> None:
    folder = write_adapter(settings.model_roots[0] / "candidate")
    for name in ("training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(b"pickled")
    admit(evaluate(), settings)


Change = Mapping[str, tuple[int, ...]]


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, {}, "PREFIX_TUNING"),
        ({"r": 0}, {}, "no usable rank"),
        ({"r": 8}, {}, "rank 4"),
        ({"megatron_config": {"a": 1}}, {}, "code of its own"),
        ({}, {f"{QUERY}.lora_A.weight": (4, 17)}, "17 features, where the base has 16"),
        ({}, {f"{QUERY}.lora_B.weight": (17, 4)}, "17 features, where the base has 16"),
        ({}, {f"{QUERY}.lora_B.weight": (16, 4, 1)}, "3 dimensions"),
        ({}, {"base_model.model.h.0.c_attn.lora_A.weight": (4, 16)}, "the base has no h.0.c_attn"),
        ({}, {f"{QUERY.replace('q_', 'k_')}.lora_A.weight": (4, 16)}, "is missing"),
    ],
)
def test_adapters_that_do_not_fit(
    settings: Settings, config: Mapping[str, Any], change: Change, said: str
) -> None:
    shapes = {**lora_shapes(4), **change}
    write_adapter(settings.model_roots[0] / "candidate", config=config, shapes=shapes)
    with pytest.raises(AdapterUnreadable) as caught:
        admit(evaluate(), settings)
    assert said in caught.value.message
    assert caught.value.param == "adapters.0.path"


def test_axes_of_a_rectangular_layer_are_not_mixed_up(settings: Settings) -> None:
    gate = "base_model.model.model.layers.0.mlp.gate_proj"
    shapes = {f"{gate}.lora_A.weight": (4, 40), f"{gate}.lora_B.weight": (16, 4)}
    write_adapter(settings.model_roots[0] / "candidate", shapes=shapes)
    with pytest.raises(AdapterUnreadable, match="40 features, where the base has 16"):
        admit(evaluate(), settings)


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        ({"adapter_model.safetensors": None}, "no adapter_model.safetensors"),
        ({"adapter_model.safetensors": None, "adapter_model.bin": b"x"}, "pickled"),
        ({"adapter_model.safetensors": b"\x80\x02pickle"}, "not safetensors"),
        ({"adapter_config.json": b"[]"}, "not a JSON object"),
        ({"adapter_config.json": None}, "neither"),
    ],
)
def test_adapter_folders_that_are_broken(
    settings: Settings, breakage: Mapping[str, bytes | None], said: str
) -> None:
    folder = write_adapter(settings.model_roots[0] / "candidate")
    for name, content in breakage.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(AdapterUnreadable) as caught:
        admit(evaluate(), settings)
    assert said in caught.value.message


def test_a_model_of_another_vocabulary_is_no_candidate(settings: Settings) -> None:
    write_model(settings.model_roots[0] / "candidate", config={"vocab_size": 65})
    with pytest.raises(AdapterUnreadable, match="65"):
        admit(evaluate(), settings)


def test_a_downloaded_model_needs_no_network(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--tiny"
    write_model(repo / "snapshots" / "0123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123")
    files = hub.model_files("org/tiny", None, cache_dir=tmp_path)
    assert files.tensors.keys() == model_shapes().keys()


def test_a_downloaded_dataset_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "datasets--org--rows" / "snapshots").mkdir(parents=True)
    hub.require_dataset(
        "org/rows", None, error=DatasetUnreadable, param="dataset.path", cache_dir=tmp_path
    )


def test_what_the_hub_does_not_have(settings: Settings) -> None:
    """Without a network the hub does not answer; with one it knows no such name."""
    open_ = settings.model_copy(update={"allow_hub": True})
    name = "nobody-has-this-name/nothing-0123456789"
    for change, param in [
        ({"base_model": name}, "base_model"),
        ({"dataset": {"path": name}}, "dataset.path"),
        ({"evaluation": {"corpus": name, "context": 64}}, "evaluation.corpus"),
    ]:
        spec = FinetuneSpec.model_validate(finetune().model_dump() | change)
        with pytest.raises(UserError) as caught:
            admit(spec, open_)
        assert caught.value.param == param
        assert name in caught.value.message


def test_the_shared_data_on_the_demo_base(shared_data: Path, tiny_base: Path) -> None:
    settings = Settings(model_roots=[tiny_base.parent], data_roots=[shared_data], allow_hub=False)
    body = {
        "base_model": tiny_base.name,
        "dataset": {"path": "orca-sample.jsonl"},
        "training": {"max_length": 128},
        "evaluation": {"corpus": "wikitext-103-raw-test.txt", "context": 128},
    }
    admitted = admit(FinetuneSpec.model_validate(body), settings)
    assert isinstance(admitted, FinetuneSpec)
    body["dataset"] = {"path": "advbench.csv"}
    with pytest.raises(DatasetUnreadable, match="goal, target"):
        admit(FinetuneSpec.model_validate(body), settings)
