"""Adapters of other trainers: what a law point takes, and which group it may join."""

from typing import Any

import pytest

from service.errors import InvalidSpec, NotFound
from service.foreign import check_points, foreign_points
from service.recipe import group_of, recipe_of
from service.schemas.spec import EvaluateSpec, FinetuneSpec
from tests.specs import finetune

PROVENANCE = {
    "base": "sha256:base",
    "dataset": "sha256:rows",
    "dataset_format": "text",
    "corpus": "sha256:wiki",
    "context": 512,
    "dtype": "float32",
}
LORA = {
    "peft": "lora",
    "target_modules": ["k_proj", "q_proj"],
    "all_linear": True,
    "use_rslora": True,
    "lora_alpha": 1.0,
    "lora_dropout": 0.0,
}


class Recipes:
    """Stored groups."""

    def __init__(self, *specs: FinetuneSpec) -> None:
        found = [recipe_of(spec, PROVENANCE) for spec in specs]
        self.stored = {group_of(recipe): recipe for recipe in found}

    def recipe(self, group: str) -> dict[str, Any]:
        if group not in self.stored:
            raise NotFound(f"no group {group}")
        return self.stored[group]

    @property
    def only(self) -> str:
        (group,) = self.stored
        return group


def adapter(**changes: Any) -> dict[str, Any]:
    body = {"path": "one", "group": "theirs", "run": "seed-1", "step": 140, **changes}
    return {name: value for name, value in body.items() if value is not None}


def evaluate(*adapters: dict[str, Any], **changes: Any) -> EvaluateSpec:
    body = {"type": "evaluate", "base_model": "m", "dataset": {"path": "rows.jsonl"}, **changes}
    return EvaluateSpec.model_validate(body | {"adapters": list(adapters)})


def checkpoint(step: int | None = 140, *, kl: float = 0.2, **lora: Any) -> dict[str, Any]:
    return {
        "step": step,
        "adapter": "one",
        "rank": 8,
        "trainable_params": 1000,
        "ft_loss": {"train": None, "heldout": 2.5},
        "forgetting": {n: {"value": kl} for n in ("ce_soft", "kl", "ce_hard")},
        "delta_norm": 0.7,
        "lora": LORA | lora,
    }


def result(*checkpoints: dict[str, Any], **provenance: Any) -> dict[str, Any]:
    return {"checkpoints": list(checkpoints), "provenance": PROVENANCE | provenance}


@pytest.mark.parametrize(
    ("body", "changes", "param"),
    [
        (adapter(step=None), {}, "adapters.0.step"),
        (adapter(run=None), {}, "adapters.0.run"),
        (adapter(group=None), {}, "adapters.0.group"),
        (adapter(), {"dataset": None}, "dataset"),
        (adapter(run="job_01JQ0000000000000000000000"), {}, "adapters.0.run"),
        (adapter(group="sha256:" + "0" * 64), {}, "adapters.0.group"),
    ],
    ids=str,
)
def test_what_a_point_takes(body: dict[str, Any], changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        check_points(evaluate(body, **changes), Recipes())
    assert caught.value.param == param


def test_adapters_that_want_no_point_need_nothing() -> None:
    check_points(evaluate({"path": "one"}, {"path": "two", "step": 3}, dataset=None), Recipes())
    check_points(evaluate({"job": "job_" + "0" * 26}, adapter()), Recipes())


def test_one_run_has_one_point_per_step() -> None:
    check_points(evaluate(adapter(), adapter(step=280), adapter(run="seed-2")), Recipes())
    with pytest.raises(InvalidSpec) as caught:
        check_points(evaluate(adapter(), adapter(run="seed-2"), adapter(path="two")), Recipes())
    assert caught.value.param == "adapters.2.step"


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": 64},
        {"loss_on": "all"},
        {"held_out": 0.1},
        {"evaluation": {"context": 64}},
    ],
    ids=str,
)
def test_what_the_spec_says_must_be_what_the_named_group_did(changes: dict[str, Any]) -> None:
    recipes = Recipes(finetune())
    check_points(evaluate(adapter(group=recipes.only)), recipes)
    with pytest.raises(InvalidSpec, match="in the group") as caught:
        check_points(evaluate(adapter(group=recipes.only), **changes), recipes)
    assert caught.value.param == "adapters.0.group"


def test_a_named_group_is_joined() -> None:
    recipes = Recipes(finetune())
    spec = evaluate(adapter(group=recipes.only), {"path": "no point"})
    found = foreign_points(spec, result(checkpoint(), checkpoint(None)), recipes)
    assert found.refused == []
    (group,) = found.groups
    assert (group.group, group.recipe) == (recipes.only, recipes.recipe(recipes.only))
    assert group.points == [
        {
            "run": "seed-1",
            "rank": 8,
            "trainable_params": 1000,
            "step": 140,
            "ft_loss": 2.5,
            "ce_soft": 0.2,
            "kl": 0.2,
            "ce_hard": 0.2,
            "learning_rate": 5e-5,
            "delta_norm": 0.7,
        }
    ]


@pytest.mark.parametrize(
    ("where", "change", "said"),
    [
        ("provenance", {"base": "sha256:other"}, "base_digest is sha256:other here, sha256:base"),
        ("provenance", {"dataset": "sha256:other"}, "dataset_digest"),
        ("provenance", {"dataset_format": "alpaca"}, "dataset_format"),
        ("provenance", {"corpus": "sha256:other"}, "corpus_digest"),
        ("provenance", {"dtype": "bfloat16"}, "dtype is bfloat16 here, float32 in the group"),
        ("lora", {"all_linear": False}, "target_modules is k_proj, q_proj here, all-linear"),
        ("lora", {"use_rslora": False}, "use_rslora"),
        ("lora", {"lora_alpha": 16.0}, "lora_alpha is 16.0 here, 1.0"),
        ("lora", {"lora_dropout": 0.1}, "lora_dropout"),
        ("lora", {"peft": "lora+use_dora"}, "peft is lora+use_dora here, lora in the group"),
    ],
    ids=str,
)
def test_what_does_not_fit_its_group_is_no_point_of_it(
    where: str, change: dict[str, Any], said: str
) -> None:
    recipes = Recipes(finetune())
    spec = evaluate(adapter(group=recipes.only), adapter(path="two", run="seed-2"))
    other = checkpoint(**change) if where == "lora" else checkpoint()
    measured = result(other, checkpoint(), **(change if where == "provenance" else {}))
    found = foreign_points(spec, measured, recipes)
    (refused,) = found.refused
    assert refused.startswith(f"adapters.0: no law point of group {recipes.only}: ")
    assert said in refused
    assert [group.recipe["label"] for group in found.groups] == ["theirs"]


def test_targets_and_alpha_agree_however_the_recipe_says_them() -> None:
    named = finetune(training={"lora": {"target_modules": ["q_proj", "k_proj"]}})
    growing = finetune(training={"lora": {"use_rslora": False}})
    for spec, lora, fits in [
        (named, {"all_linear": False}, True),
        (named, {"all_linear": True}, True),
        (named, {"target_modules": ["q_proj"]}, False),
        (growing, {"use_rslora": False, "lora_alpha": 8.0}, True),
        (growing, {"use_rslora": False, "lora_alpha": 16.0}, False),
    ]:
        recipes = Recipes(spec)
        asked = evaluate(adapter(group=recipes.only))
        found = foreign_points(asked, result(checkpoint(**lora)), recipes)
        assert (found.refused == []) is fits, lora


def test_a_label_makes_a_group_of_what_is_known() -> None:
    spec = evaluate(adapter(), adapter(run="seed-2"))
    found = foreign_points(spec, result(checkpoint(), checkpoint()), Recipes())
    (group,) = found.groups
    assert [point["run"] for point in group.points] == ["seed-1", "seed-2"]
    assert {point["learning_rate"] for point in group.points} == {None}
    assert group.group == group_of(group.recipe)
    assert group.recipe == {
        "trainer": "other",
        "label": "theirs",
        "base_model": "m",
        "base_digest": "sha256:base",
        "dataset": "rows.jsonl",
        "dataset_digest": "sha256:rows",
        "dataset_format": "text",
        "corpus": "wikitext-103",
        "corpus_digest": "sha256:wiki",
        "dtype": "float32",
        "context": 512,
        "max_length": 512,
        "loss_on": "auto",
        "held_out": 0.05,
        "peft": "lora",
        "target_modules": "all-linear",
        "use_rslora": True,
        "lora_alpha": 1.0,
        "lora_dropout": 0.0,
    }


def test_points_under_one_label_still_meet_only_if_all_that_is_known_agrees() -> None:
    def groups(one: dict[str, Any], other: dict[str, Any]) -> int:
        spec = evaluate(adapter(), adapter(run="seed-2"))
        return len(foreign_points(spec, result(one, other), Recipes()).groups)

    assert groups(checkpoint(), checkpoint(all_linear=False)) == 2
    assert groups(checkpoint(), checkpoint(use_rslora=False)) == 2
    assert groups(checkpoint(), checkpoint(lora_alpha=2.0)) == 2
    plain = {"use_rslora": False}
    assert groups(checkpoint(**plain, lora_alpha=8.0), checkpoint(**plain, lora_alpha=16.0)) == 1


def test_labels_tell_groups_apart_and_never_meet_our_own() -> None:
    recipes = Recipes(finetune())
    spec = evaluate(adapter(), adapter(run="seed-2", group="others"))
    found = foreign_points(spec, result(checkpoint(), checkpoint()), recipes)
    assert len({group.group for group in found.groups} | {recipes.only}) == 3


def test_a_loss_that_is_not_finite_is_no_point() -> None:
    found = foreign_points(evaluate(adapter()), result(checkpoint(kl=float("nan"))), Recipes())
    assert found.groups == []
    assert "not known" in found.refused[0]


def test_a_group_that_is_gone_by_the_end_is_told() -> None:
    gone = "sha256:" + "1" * 64
    found = foreign_points(evaluate(adapter(group=gone)), result(checkpoint()), Recipes())
    assert f"no group {gone}" in found.refused[0]
