"""Adapters of other trainers as law points. How they were trained only the caller knows.

The caller answers for what no file tells (optimiser, learning rate, schedule, batch) by naming a
`group`; whatever can be measured or read must agree with it. See docs/decisions/0010.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.errors import InvalidSpec, NotFound
from service.recipe import group_of, point_of
from service.schemas.candidates import JobAdapter
from service.schemas.spec import CandidatesSpec, EvaluateSpec
from service.store.rows import PointGroup

DIGEST = "sha256:"
"""A `group` that begins so is a stored group's; any other is the caller's own label."""
NEEDED = ("group", "run", "step")


class Recipes(Protocol):
    """What is asked of the store about stored groups."""

    def recipe(self, group: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Foreign:
    """The law points of one evaluate job."""

    groups: list[PointGroup] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Why an adapter that asked for it is no point, one sentence each."""


def check_points(spec: CandidatesSpec, recipes: Recipes | None) -> None:
    """What a law point takes is there, once per run and step, and fits the group that it names.

    Raises InvalidSpec, naming the field.
    """
    seen: dict[tuple[str, int], int] = {}
    for i, adapter in enumerate(spec.adapters):
        if isinstance(adapter, JobAdapter) or (adapter.group is None and adapter.run is None):
            continue
        at = f"adapters.{i}"
        run, step, group = adapter.run, adapter.step, adapter.group
        if run is None or step is None or group is None:
            missing = next(name for name in NEEDED if getattr(adapter, name) is None)
            said = f"{at} is to be a law point: that takes {', '.join(NEEDED)} and a dataset"
            raise InvalidSpec(said, param=f"{at}.{missing}")
        if spec.dataset is None:
            said = f"{at} is to be a law point: that takes a dataset, for its held-out loss"
            raise InvalidSpec(said, param="dataset")
        if run.startswith("job_"):
            said = "names that begin with job_ are those of this service's own runs"
            raise InvalidSpec(said, param=f"{at}.run")
        first = seen.setdefault((run, step), i)
        if first != i:
            said = f"adapters {first} and {i} are both step {step} of run {run}"
            raise InvalidSpec(said, param=f"{at}.step")
        if group.startswith(DIGEST) and recipes is not None:
            _check_group(spec, group, recipes, param=f"{at}.group")


def foreign_points(spec: EvaluateSpec, result: Mapping[str, Any], recipes: Recipes) -> Foreign:
    """A point per adapter that asked for it, in the group that it named.

    An adapter that does not fit its group's recipe is refused with a sentence, and the job goes on.
    """
    groups: dict[str, PointGroup] = {}
    refused = []
    for i, (adapter, checkpoint) in enumerate(
        zip(spec.adapters, result["checkpoints"], strict=True)
    ):
        if isinstance(adapter, JobAdapter) or adapter.group is None or adapter.run is None:
            continue
        measured = _measured(spec, result["provenance"], checkpoint)
        try:
            recipe = (
                recipes.recipe(adapter.group)
                if adapter.group.startswith(DIGEST)
                else _own(spec, measured, adapter.group)
            )
            why = misfits(recipe, measured, checkpoint["rank"])
        except NotFound as error:
            recipe, why = {}, [error.message]
        # A rate is part of what the caller vouches for; under a label nobody knows it.
        point = point_of(adapter.run, checkpoint, learning_rate=recipe.get("learning_rate"))
        if point is None:
            why.append("its losses or its number of parameters are not known")
        if why or point is None:
            refused.append(f"adapters.{i}: no law point of group {adapter.group}: {'; '.join(why)}")
            continue
        group = group_of(recipe)
        groups.setdefault(group, PointGroup(group, recipe)).points.append(point)
    return Foreign(list(groups.values()), refused)


def misfits(recipe: Mapping[str, Any], measured: Mapping[str, Any], rank: int | None) -> list[str]:
    """Where an adapter differs from a recipe, one clause each, by all that is known of both."""
    return [
        f"{name} is {_short(value)} here, {_short(recipe[name])} in the group"
        for name, value in measured.items()
        if name in recipe and not _agree(name, value, recipe[name], measured, rank)
    ]


def _agree(
    name: str, value: Any, expected: Any, measured: Mapping[str, Any], rank: int | None
) -> bool:
    if name == "target_modules" and expected == "all-linear":
        return bool(measured["all_linear"])
    if name == "lora_alpha" and expected == "r":
        return bool(value == rank)
    return bool(value == expected)


def _check_group(spec: CandidatesSpec, group: str, recipes: Recipes, *, param: str) -> None:
    try:
        recipe = recipes.recipe(group)
    except NotFound as error:
        raise InvalidSpec(error.message, param=param) from error
    why = misfits(recipe, _said(spec), None)
    if why:
        raise InvalidSpec(f"not of group {group}: {'; '.join(why)}", param=param)


def _said(spec: CandidatesSpec) -> dict[str, Any]:
    return {
        "context": spec.evaluation.context,
        "max_length": spec.max_length,
        "loss_on": spec.loss_on,
        "held_out": spec.held_out,
    }


def _measured(
    spec: EvaluateSpec, provenance: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything of a recipe that is known of an adapter, under the recipe's names."""
    return {
        "base_digest": provenance["base"],
        "dataset_digest": provenance["dataset"],
        "dataset_format": provenance["dataset_format"],
        "corpus_digest": provenance["corpus"],
        "dtype": provenance["dtype"],
        **_said(spec),
        **(checkpoint["lora"] or {"peft": "full model"}),
    }


def _own(spec: EvaluateSpec, measured: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The recipe of a labelled group: what is known, and the caller's word for the rest.

    Plain LoRA's alpha often grows with the rank, and one adapter does not tell: it is the label's.
    """
    assert spec.dataset is not None
    recipe = {
        "trainer": "other",
        "label": label,
        "base_model": spec.base_model,
        "dataset": spec.dataset.path,
        "corpus": spec.evaluation.corpus,
        **measured,
    }
    if recipe.pop("all_linear", False):
        recipe["target_modules"] = "all-linear"
    if not recipe.get("use_rslora"):
        recipe.pop("lora_alpha", None)
    return recipe


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
