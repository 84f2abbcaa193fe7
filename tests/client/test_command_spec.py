"""Specs from files and flags."""

import io
import json
from pathlib import Path

import pytest
import typer
from forgetting_client.command import spec as specs
from forgetting_client.command.adapters import upload_local
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.schemas.spec import JobSpec

JOB = "job_01J00000000000000000000000"


def build(base=None, *, flags=None, **options):
    return specs.build(base or {}, flags=flags or {}, **options)


def test_every_flag_lands_where_the_service_reads_it() -> None:
    flags = {
        "base_model": "tiny",
        "dataset": "rows.jsonl",
        "corpus": "text.txt",
        "context": 128,
        "rank": 8,
        "steps": 40,
        "batch_size": 4,
        "learning_rate": 1e-3,
    }
    assert flags.keys() == specs.FLAGS.keys()
    spec = TypeAdapter(JobSpec).validate_python(build(flags=flags, metadata=["a=b=c"]))
    assert (spec.type, spec.base_model, spec.dataset.path) == ("finetune", "tiny", "rows.jsonl")
    assert (spec.evaluation.corpus, spec.evaluation.context) == ("text.txt", 128)
    training = spec.training
    assert (training.lora.r, training.max_steps, training.batch_size) == (8, 40, 4)
    assert (training.learning_rate, spec.metadata) == (1e-3, {"a": "b=c"})


def test_the_type_follows_from_the_flags() -> None:
    assert build(flags={"base_model": "m"})["type"] == "finetune"
    sweep = build(ranks="4,8,16")
    assert (sweep["type"], sweep["ranks"]) == ("sweep", [4, 8, 16])
    assert build(adapters=["a"])["type"] == "evaluate"
    assert build({"type": "sweep"})["type"] == "sweep"
    assert build({"type": "sweep"}, job_type="finetune")["type"] == "finetune"
    rates = build(learning_rates="1e-5,5e-5", seeds="1,2")
    assert (rates["type"], rates["seeds"]) == ("sweep", [1, 2])
    assert rates["learning_rates"] == [1e-5, 5e-5]
    assert build(pilot=True) == {"pilot": True, "type": "sweep"}


def test_a_flag_wins_over_the_file_and_set_over_both() -> None:
    base = {"training": {"max_steps": 1, "lora": {"r": 1, "use_rslora": False}}}
    overrides = ["training.max_steps=3", "training.optim=adamw_torch", "training.held_out=0.1"]
    spec = build(base, flags={"steps": 2, "rank": 9}, overrides=overrides)
    assert spec["training"] == {
        "max_steps": 3,
        "lora": {"r": 9, "use_rslora": False},
        "optim": "adamw_torch",
        "held_out": 0.1,
    }
    assert base == {"training": {"max_steps": 1, "lora": {"r": 1, "use_rslora": False}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("true", True),
        ("null", None),
        ("[8, 16]", [8, 16]),
        ("adamw_torch", "adamw_torch"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("", ""),
    ],
)
def test_values_are_json_or_else_text(text, value) -> None:
    assert specs.literal(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (JOB, {"job": JOB}),
        (f"{JOB}:140", {"job": JOB, "step": 140}),
        (f"{JOB}:last", {"job": JOB}),
        ("job_short", {"path": "job_short"}),
        ("folder/adapter", {"path": "folder/adapter"}),
        (f"{JOB}:x", {"path": f"{JOB}:x"}),
    ],
)
def test_adapters_are_jobs_or_else_paths(text, value) -> None:
    assert specs.adapter(text) == value


@pytest.mark.parametrize(
    ("options", "blamed"),
    [
        ({"ranks": "4;8"}, "4;8"),
        ({"ranks": ""}, "whole numbers"),
        ({"seeds": "1.5"}, "1.5"),
        ({"learning_rates": "1e-5;1"}, "is not numbers"),
        ({"overrides": ["training.optim"]}, "NAME=VALUE"),
        ({"overrides": ["training..optim=1"]}, "NAME=VALUE"),
        ({"overrides": ["=1"]}, "NAME=VALUE"),
        ({"overrides": ["base_model.x=1"], "base": {"base_model": "m"}}, "`base_model`"),
        ({"flags": {"rank": 1}, "base": {"training": 3}}, "`training`"),
        ({"metadata": ["x"]}, "NAME=VALUE"),
        ({"metadata": ["x=1"], "base": {"metadata": [1]}}, "`metadata`"),
    ],
)
def test_a_wrong_flag_is_named(options, blamed) -> None:
    with pytest.raises(typer.BadParameter, match=blamed):
        build(**options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,}', "line 1, column 9"),
        ("[1]", "a JSON list, not an object"),
        ("null", "a JSON null"),
        ('{"a": NaN}', "NaN or an infinity"),
        ('{"a": 1e999}', "NaN or an infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("", "line 1, column 1"),
    ],
)
def test_a_file_that_is_no_spec_is_named_with_the_place(tmp_path: Path, text, said) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(typer.BadParameter, match=said) as caught:
        specs.read(str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(typer.BadParameter, match="cannot read"):
            specs.read(str(path))
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(typer.BadParameter, match="UTF-8"):
        specs.read(str(tmp_path / "x.json"))


def test_stdin_and_points(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ('{"points": [1]}', "[1]"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert specs.read_points("-") == [1]
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    with pytest.raises(typer.BadParameter, match="stdin holds neither"):
        specs.read_points("-")


@given(st.text())
def test_any_value_can_be_sent(text: str) -> None:
    json.dumps(specs.literal(text), allow_nan=False)


@pytest.mark.parametrize("made", [True, False])
def test_an_adapter_that_must_be_here_and_is_not_is_said_here(tmp_path, monkeypatch, made) -> None:
    monkeypatch.chdir(tmp_path)
    if made:
        Path("my-lora").mkdir()
    spec = build(adapters=["./my-lora"], flags={"base_model": "tiny"})
    with pytest.raises(typer.BadParameter, match="adapter_config" if made else "no folder here"):
        upload_local(None, spec, ["./my-lora"])  # type: ignore[arg-type]


def test_other_folders_are_left_to_the_service() -> None:
    spec = build(adapters=["theirs/lora"], flags={"base_model": "tiny"})
    upload_local(None, spec, ["theirs/lora"])  # type: ignore[arg-type]
    assert spec["adapters"] == [{"path": "theirs/lora"}]
