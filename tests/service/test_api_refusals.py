"""Bad input: refused at POST, with the field and the limit, and nothing stored is harmed."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.store import Store
from tests.model_folders import write_adapter, write_model
from tests.refusals import Json, merged, refused

pytestmark = pytest.mark.usefixtures("untouched")


VALUES: list[tuple[Json, str, str, str]] = [
    ({"base_model": "absent"}, "model_unavailable", "base_model", "absent"),
    ({"base_model": "../models/tiny"}, "path_not_allowed", "base_model", "`..`"),
    ({"base_model": "/etc"}, "path_not_allowed", "base_model", "outside"),
    ({"base_model": "x" * 300}, "model_unavailable", "base_model", "no folder"),
    ({"base_model": "org/model"}, "model_unavailable", "base_model", "switched off"),
    ({"dataset": {"path": "absent.jsonl"}}, "dataset_unreadable", "dataset.path", "absent.jsonl"),
    ({"dataset": {"path": "../secret.jsonl"}}, "path_not_allowed", "dataset.path", "`..`"),
    ({"dataset": {"path": "/etc/passwd"}}, "path_not_allowed", "dataset.path", "outside"),
    ({"dataset": {"path": "a\u0000b"}}, "validation_error", "dataset.path", "pattern"),
    (
        {"evaluation": {"corpus": "absent.txt"}},
        "corpus_unreadable",
        "evaluation.corpus",
        "absent.txt",
    ),
    ({"evaluation": {"corpus": "../x"}}, "path_not_allowed", "evaluation.corpus", "`..`"),
    ({"evaluation": {"context": 129}}, "validation_error", "evaluation.context", "128"),
    ({"evaluation": {"context": 1}}, "validation_error", "evaluation.context", "2"),
    ({"training": {"max_length": 129}}, "validation_error", "training.max_length", "128"),
    ({"training": {"lora": {"r": 0}}}, "validation_error", "training.lora.r", "1"),
    ({"training": {"lora": {"r": 100_000}}}, "validation_error", "training.lora.r", "4096"),
    ({"training": {"batch_size": 39}}, "dataset_unreadable", "dataset.path", "40 rows"),
    ({"training": {"loss_on": "completion"}}, "dataset_unreadable", "training.loss_on", "line 1"),
    (
        {"training": {"micro_batch_size": 3}},
        "validation_error",
        "training.micro_batch_size",
        "does not divide batch_size 8",
    ),
    ({"training": {"checkpoints": [7, 101]}}, "validation_error", "training.checkpoints", "100"),
    ({"training": {"learning_rate": 0}}, "validation_error", "training.learning_rate", "0"),
    ({"training": {"optim": "lion"}}, "validation_error", "training.optim", "adafactor"),
    (
        {"training": {"lora": {"rank": 8}}},
        "validation_error",
        "training.lora.rank",
        "no such field",
    ),
    ({"trust_remote_code": True}, "validation_error", "trust_remote_code", "no such field"),
    ({"type": "dream"}, "validation_error", "type", "finetune"),
    ({"metadata": {"a": 1}}, "validation_error", "metadata.a", "string"),
    ({"metadata": {"a": "x" * 513}}, "validation_error", "metadata.a", "512"),
    (
        {"training": {"lora": {"target_modules": ["q_proj", "c_attn"]}}},
        "validation_error",
        "training.lora.target_modules.1",
        "q_proj",
    ),
    (
        {"training": {"lora": {"target_modules": ["input_layernorm"]}}},
        "validation_error",
        "training.lora.target_modules.0",
        "not a linear layer",
    ),
    (
        {"training": {"lora": {"target_modules": ["q_proj", "lm_head"]}}},
        "validation_error",
        "training.lora.target_modules.1",
        "the training loss reads the head directly",
    ),
    (
        {"training": {"lora": {"target_modules": ["model.embed_tokens"]}}},
        "validation_error",
        "training.lora.target_modules.0",
        "embeddings and the output head are not adapted",
    ),
    ({"type": "sweep", "ranks": [8, 5000]}, "validation_error", "ranks.1", "4096"),
    (
        {"type": "sweep", "ranks": list(range(1, 33)), "seeds": list(range(9))},
        "validation_error",
        "ranks",
        "256",
    ),
    (
        {
            "type": "sweep",
            "ranks": list(range(1, 33)),
            "seeds": [17],
            "learning_rates": [i / 9 for i in range(1, 10)],
        },
        "validation_error",
        "learning_rates",
        "288 children; a sweep has at most 256",
    ),
]


@pytest.mark.parametrize(("change", "code", "param", "said"), VALUES)
def test_values_that_cannot_work(
    sqlite_api: TestClient, finetune: Json, change: Json, code: str, param: str, said: str
) -> None:
    problem = refused(sqlite_api.post("/v1/jobs", json=merged(finetune, change)))
    assert (problem["code"], problem["param"]) == (code, param), problem["detail"]
    assert said in problem["detail"]
    assert problem["type"] == f"/v1/problems/{code}"


FILES: list[tuple[str, bytes, int | None, str]] = [
    ("empty.jsonl", b"", None, "no rows"),
    ("blank.jsonl", b"\n\n", None, "no rows"),
    ("torn.jsonl", b'{"text": "a"}\n\n{"text": \n', 3, "line 3: not JSON"),
    ("list.jsonl", b'{"text": "a"}\n[1, 2]\n', 2, "line 2: not a JSON object"),
    ("deep.jsonl", b'{"text": "a"}\n' + b"[" * 90_000 + b"\n", 2, "line 2: not JSON"),
    ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', 2, "line 2: not UTF-8"),
    ("columns.jsonl", b'{"apples": 1}\n', None, "apples"),
    ("mixed.jsonl", b'{"text": "a"}\n{"prompt": "b"}\n', 2, "line 2 as text"),
    ("hollow.jsonl", b'{"text": "a"}\n{"text": " "}\n', 2, "`text` is empty"),
    ("half.jsonl", b'{"text": "\\ud800"}\n', 1, "half a character"),
    ("short.jsonl", b'{"text": "a"}\n' * 5, None, "5 rows"),
    ("ragged.csv", b"prompt,completion\na,b\nc\n", 3, "line 3: not 2 cells"),
    ("fake.parquet", b"PAR1 not really", None, "not parquet"),
    ("rows.exe", b"MZ", None, "ends in"),
]


@pytest.mark.parametrize(("name", "content", "line", "said"), FILES)
def test_datasets_that_cannot_be_read(
    sqlite_api: TestClient,
    finetune: Json,
    roots: Path,
    name: str,
    content: bytes,
    line: int | None,
    said: str,
) -> None:
    (roots / "data" / name).write_bytes(content)
    problem = refused(sqlite_api.post("/jobs", json=finetune | {"dataset": {"path": name}}))
    assert problem["code"] == "dataset_unreadable"
    assert problem["param"] in ("dataset.path", "dataset.format")
    assert said in problem["detail"]
    assert problem["details"].get("line") == line


CORPORA: list[tuple[str, bytes, str]] = [
    ("empty.txt", b"", "not one window"),
    ("blank.txt", b" \n\n\t\n", "not one window"),
    ("latin.txt", b"caf\xe9 and more text after it", "not UTF-8"),
    ("torn.jsonl", b'{"text": "a"}\n{', "line 2"),
    ("other.jsonl", b'{"prompt": "a"}\n', "line 1: no `text`"),
    ("hollow.jsonl", b'{"text": ""}\n', "not one window"),
]


@pytest.mark.parametrize(("name", "content", "said"), CORPORA)
def test_corpora_that_cannot_be_scored(
    sqlite_api: TestClient, finetune: Json, roots: Path, name: str, content: bytes, said: str
) -> None:
    (roots / "data" / name).write_bytes(content)
    spec = merged(finetune, {"evaluation": {"corpus": name}})
    problem = refused(sqlite_api.post("/jobs", json=spec))
    assert (problem["code"], problem["param"]) == ("corpus_unreadable", "evaluation.corpus")
    assert said in problem["detail"]


def test_links_that_leave_the_roots(sqlite_api: TestClient, finetune: Json, roots: Path) -> None:
    outside = roots / "outside"
    write_model(outside / "model")
    (outside / "rows.jsonl").write_text('{"text": "secret"}\n' * 50)
    (roots / "models" / "linked").symlink_to(outside / "model")
    (roots / "data" / "linked.jsonl").symlink_to(outside / "rows.jsonl")
    (roots / "models" / "half").mkdir()
    (roots / "models" / "half" / "config.json").symlink_to(outside / "model" / "config.json")
    for change, param in [
        ({"base_model": "linked"}, "base_model"),
        ({"base_model": "half"}, "base_model"),
        ({"dataset": {"path": "linked.jsonl"}}, "dataset.path"),
        ({"evaluation": {"corpus": "linked.jsonl"}}, "evaluation.corpus"),
    ]:
        problem = refused(sqlite_api.post("/jobs", json=merged(finetune, change)))
        assert (problem["code"], problem["param"]) == ("path_not_allowed", param)
        assert "secret" not in problem["detail"]


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        ({"config.json": b"{"}, "not JSON"),
        ({"tokenizer.json": None}, "no tokenizer"),
        ({"config.json": None}, "no config.json"),
        ({"config.json": b'{"vocab_size": 64, "auto_map": {}}'}, "auto_map"),
        ({"tokenizer_config.json": b'{"auto_map": {}}'}, "auto_map"),
        ({"modeling_evil.py": b"import os"}, "modeling_evil.py"),
        ({"model.safetensors": None}, "no model.safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, "pickled"),
        ({"model.safetensors": b"garbage here"}, "not safetensors"),
        ({"model.safetensors": b"\xff" * 8 + b"{}"}, "not safetensors"),
        ({"config.json": b'{"model_type": "vit"}'}, "vocab_size"),
    ],
)
def test_bases_that_cannot_be_loaded(
    sqlite_api: TestClient,
    finetune: Json,
    roots: Path,
    breakage: dict[str, bytes | None],
    said: str,
) -> None:
    folder = write_model(roots / "models" / "broken")
    for name, content in breakage.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    problem = refused(sqlite_api.post("/jobs", json=finetune | {"base_model": "broken"}))
    assert (problem["code"], problem["param"]) == ("model_unavailable", "base_model")
    assert said in problem["detail"]


def evaluate(*adapters: Json) -> Json:
    return {
        "type": "evaluate",
        "base_model": "tiny",
        "adapters": list(adapters),
        "evaluation": {"corpus": "corpus.txt", "context": 64},
    }


def test_adapters_of_jobs_that_do_not_serve(
    sqlite_api: TestClient, sqlite_store: Store, roots: Path
) -> None:
    queued, done = (row.id for row in sqlite_store.list_jobs()[0])
    write_model(roots / "models" / "other")
    absent = "job_01JQ0000000000000000000000"
    for spec, param, said in [
        (evaluate({"job": absent}), "adapters.0.job", absent),
        (evaluate({"job": queued}), "adapters.0.job", "is queued"),
        (evaluate({"job": done, "step": 11}), "adapters.0.step", "[25, 50, 100]"),
        (evaluate({"job": done}) | {"base_model": "other"}, "adapters.0.job", "another base"),
        (evaluate({"job": "job_1"}), "adapters.0.job", "pattern"),
        (evaluate(), "adapters", "1"),
    ]:
        problem = refused(sqlite_api.post("/jobs", json=spec))
        assert problem["param"] == param
        assert said in problem["detail"]


def test_adapter_folders_that_do_not_serve(sqlite_api: TestClient, roots: Path) -> None:
    write_adapter(roots / "models" / "ia3", config={"peft_type": "IA3"})
    write_adapter(roots / "models" / "good")
    for path, code, said in [
        ("ia3", "adapter_unreadable", "IA3"),
        ("absent", "adapter_unreadable", "absent"),
        ("../models/good", "path_not_allowed", "`..`"),
    ]:
        problem = refused(sqlite_api.post("/jobs", json=evaluate({"path": "good"}, {"path": path})))
        assert (problem["code"], problem["param"]) == (code, "adapters.1.path")
        assert said in problem["detail"]


def test_what_vllm_would_score_wrongly_is_refused_with_the_reason(
    sqlite_api: TestClient, roots: Path
) -> None:
    write_adapter(roots / "models" / "plain")
    write_adapter(roots / "models" / "dora", config={"use_dora": True})
    write_model(roots / "models" / "gpt", config={"architectures": ["GPT2LMHeadModel"]})
    vllm = {"evaluation": {"engine": "vllm"}}
    for spec, param, said in [
        (evaluate({"path": "dora"}), "adapters.0.path", "DoRA (use_dora); use auto"),
        (evaluate({"path": "tiny"}), "adapters.0.path", "full model"),
        (evaluate({"path": "plain"}) | {"base_model": "gpt"}, "evaluation.engine", "GPT2LMHead"),
    ]:
        problem = refused(sqlite_api.post("/jobs", json=merged(spec, vllm)))
        assert (problem["code"], problem["param"]) == ("engine_unavailable", param)
        assert said in problem["detail"]
