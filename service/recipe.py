"""Which points may share a law: those of one recipe. Rank, seed and step are no part of it."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from service.digest import json_digest
from service.schedule import DECAYING
from service.schemas.spec import FinetuneSpec, Runnable
from service.store.rows import PointGroup

NAMES = frozenset({"base_model", "dataset", "corpus"})
"""What people call them: shown, and filtered by, but no part of a group's identity."""
RATE = "learning_rate"
_RUNNABLE: TypeAdapter[Runnable] = TypeAdapter(Annotated[Runnable, Field(discriminator="type")])


def points_of(
    job_id: str, spec: Runnable | Mapping[str, Any], result: Mapping[str, Any]
) -> list[PointGroup]:
    """A finetune's one group, a point per measured checkpoint whose losses are finite.

    `spec` may be its JSON. `result`: the JSON of `schemas.result.Result`. No point, no group; what
    an evaluate job measured is `service.foreign`'s.
    """
    if isinstance(spec, Mapping):
        spec = _RUNNABLE.validate_python(spec)
    if not isinstance(spec, FinetuneSpec):
        return []
    rate = spec.training.learning_rate
    found = [point_of(job_id, one, learning_rate=rate) for one in result["checkpoints"]]
    points = [point for point in found if point is not None]
    if not points:
        return []
    recipe = recipe_of(spec, result["provenance"])
    return [PointGroup(group_of(recipe), recipe, points)]


def recipe_of(spec: FinetuneSpec, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that must be equal for two runs to lie on one law.

    `provenance`: that of the result, for what only the run knows (digests, dtype).
    """
    training, lora = spec.training, spec.training.lora
    targets = lora.target_modules
    recipe: dict[str, Any] = {
        "base_model": spec.base_model,
        "base_digest": provenance["base"],
        "dataset": spec.dataset.path,
        "dataset_digest": provenance["dataset"],
        "dataset_format": provenance["dataset_format"],
        "corpus": spec.evaluation.corpus,
        "corpus_digest": provenance["corpus"],
        "context": provenance["context"],
        "dtype": provenance["dtype"],
        "peft": "lora",
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
        "use_rslora": lora.use_rslora,
        "lora_alpha": _alpha(spec),
    }
    for name in (
        "optim",
        RATE,
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "batch_size",
        "max_length",
        "loss_on",
        "held_out",
    ):
        recipe[name] = getattr(training, name)
    recipe["lora_dropout"] = lora.lora_dropout
    if training.lr_scheduler_type in DECAYING:
        recipe["max_steps"] = training.max_steps
    return recipe


def group_of(recipe: Mapping[str, Any]) -> str:
    """sha256 of the recipe's canonical JSON, without the names: content decides, so that the hub's
    copy of a corpus and a local one are the same."""
    return _digest(recipe, without=NAMES)


def family_of(recipe: Mapping[str, Any]) -> str:
    """sha256 of the recipe without its learning rate: groups of one family differ in nothing else.

    A labelled group of another trainer's adapters has no rate: it is a family of its own.
    """
    return _digest(recipe, without=NAMES | {RATE})


def _digest(recipe: Mapping[str, Any], *, without: frozenset[str]) -> str:
    content = {name: value for name, value in recipe.items() if name not in without}
    return json_digest(content)


def _alpha(spec: FinetuneSpec) -> float | str:
    """`r` where alpha grows with the rank (plain LoRA's default): else ranks never share a law."""
    lora = spec.training.lora
    return "r" if lora.lora_alpha is None and not lora.use_rslora else lora.alpha


def point_of(
    run: str, checkpoint: Mapping[str, Any], *, learning_rate: float | None = None
) -> dict[str, Any] | None:
    """A checkpoint as a law point; None where a loss, step or count is missing or not finite."""
    metrics = {
        name: checkpoint["forgetting"][name]["value"] for name in ("ce_soft", "kl", "ce_hard")
    }
    ft_loss = checkpoint["ft_loss"]["heldout"]
    known = [ft_loss, checkpoint["step"], checkpoint["trainable_params"], *metrics.values()]
    if any(value is None or not math.isfinite(value) for value in known):
        return None
    return {
        "run": run,
        "rank": checkpoint["rank"],
        "trainable_params": checkpoint["trainable_params"],
        "step": checkpoint["step"],
        "ft_loss": ft_loss,
        **metrics,
        "learning_rate": learning_rate,
        "delta_norm": checkpoint.get("delta_norm"),
    }
