"""Points of one recipe share a group; what changes the law does not."""

import math
from typing import Any

import pytest

from service.recipe import family_of, group_of, points_of, recipe_of
from service.schemas.spec import FinetuneSpec
from tests.specs import evaluate, finetune

PROVENANCE = {
    "base": "sha256:base",
    "dataset": "sha256:rows",
    "dataset_format": "messages",
    "corpus": "sha256:wiki",
    "context": 512,
    "dtype": "bfloat16",
}


def group(training: dict[str, Any] | None = None, **provenance: Any) -> str:
    spec = finetune(training=training or {})
    return group_of(recipe_of(spec, PROVENANCE | provenance))


@pytest.mark.parametrize(
    "training",
    [
        {"lora": {"r": 256}},
        {"seed": 42},
        {"max_steps": 9, "checkpoints": "final"},
        {"micro_batch_size": 4},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_what_a_law_spans_is_no_part_of_its_recipe(training: dict[str, Any]) -> None:
    assert group(training) == group()


@pytest.mark.parametrize(
    "training",
    [
        {"learning_rate": 1e-4},
        {"lr_scheduler_type": "linear"},
        {"warmup_steps": 0},
        {"optim": "adamw_torch"},
        {"batch_size": 8},
        {"max_length": 64},
        {"weight_decay": 0.1},
        {"max_grad_norm": 0.5},
        {"loss_on": "all"},
        {"held_out": 0.1},
        {"lora": {"target_modules": ["q_proj"]}},
        {"lora": {"use_rslora": False}},
        {"lora": {"lora_alpha": 2}},
        {"lora": {"lora_dropout": 0.1}},
    ],
    ids=str,
)
def test_another_way_of_training_is_another_recipe(training: dict[str, Any]) -> None:
    assert group(training) != group()


@pytest.mark.parametrize("field", sorted(PROVENANCE))
def test_other_weights_data_or_precision_are_another_recipe(field: str) -> None:
    assert group(**{field: "other"}) != group()


def test_groups_of_one_family_differ_in_their_learning_rate_alone() -> None:
    def recipe(**training: Any) -> dict[str, Any]:
        return recipe_of(finetune(training=training), PROVENANCE)

    slow, fast = recipe(learning_rate=1e-4), recipe(learning_rate=1e-3)
    assert group_of(slow) != group_of(fast)
    assert family_of(slow) == family_of(fast)
    assert family_of(recipe(learning_rate=1e-4, batch_size=8)) != family_of(slow)
    assert family_of(slow | {"dataset": "another/name.jsonl"}) == family_of(slow)
    assert family_of(slow) != group_of(slow)


def test_length_belongs_to_a_schedule_that_decays() -> None:
    def cosine(steps: int) -> str:
        return group({"lr_scheduler_type": "cosine", "max_steps": steps})

    assert cosine(100) != cosine(200)


def test_plain_lora_whose_alpha_grows_with_the_rank_is_one_recipe() -> None:
    def plain(r: int, alpha: float | None) -> str:
        return group({"lora": {"use_rslora": False, "r": r, "lora_alpha": alpha}})

    assert plain(8, None) == plain(64, None) != plain(8, 8.0)
    assert plain(8, 16.0) == plain(16, 16.0) == plain(32, 16.0) != plain(8, 8.0)


def test_names_do_not_make_a_recipe() -> None:
    local = finetune("copy")
    local.dataset.path = "a/copy.jsonl"
    local.evaluation.corpus = "wikitext.txt"
    recipe = recipe_of(local, PROVENANCE)
    assert (recipe["corpus"], recipe["dataset"]) == ("wikitext.txt", "a/copy.jsonl")
    assert group_of(recipe) == group()


def test_the_order_of_target_modules_does_not_matter() -> None:
    two = [{"lora": {"target_modules": names}} for names in (["q", "v"], ["v", "q"])]
    assert group(two[0]) == group(two[1])


def checkpoint(step: int | None, heldout: float | None = 2.5, kl: float = 0.1) -> dict[str, Any]:
    return {
        "step": step,
        "adapter": "a",
        "rank": 8,
        "trainable_params": 1000,
        "ft_loss": {"train": 2.0, "heldout": heldout},
        "delta_norm": 1.5,
        "forgetting": {
            "ce_soft": {"value": 3.0},
            "kl": {"value": kl},
            "ce_hard": {"value": 3.5},
        },
    }


def test_every_measured_checkpoint_is_a_point() -> None:
    rows = [checkpoint(1), checkpoint(2, kl=0.2), checkpoint(None), checkpoint(3, heldout=None)]
    rows.append(checkpoint(4, kl=math.nan))
    spec = finetune()
    result = {"checkpoints": rows, "provenance": PROVENANCE}
    for given in (spec, spec.model_dump(mode="json")):
        (found,) = points_of("job_1", given, result)
        assert found.recipe == recipe_of(FinetuneSpec.model_validate(spec), PROVENANCE)
        assert found.group == group_of(found.recipe)
        assert found.points == [
            {
                "run": "job_1",
                "rank": 8,
                "trainable_params": 1000,
                "step": step,
                "ft_loss": 2.5,
                "ce_soft": 3.0,
                "kl": kl,
                "ce_hard": 3.5,
                "learning_rate": spec.training.learning_rate,
                "delta_norm": 1.5,
            }
            for step, kl in ((1, 0.1), (2, 0.2))
        ]


def test_what_trains_nothing_has_no_points() -> None:
    result = {"checkpoints": [checkpoint(1)], "provenance": PROVENANCE}
    assert points_of("job_1", evaluate(), result) == []
    assert points_of("job_1", evaluate().model_dump(mode="json"), result) == []
    empty = {"checkpoints": [checkpoint(None)], "provenance": PROVENANCE}
    assert points_of("job_1", finetune(), empty) == []
