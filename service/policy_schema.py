"""The JSON Schema of `forgetting.yml`, for editors and for clients that check a policy themselves.

Pydantic writes a choice between kinds of check as `oneOf`, of which an editor can only say that
none matches. Here each kind is chosen as the service chooses it, so that a fault is told of the
kind that was meant.

    python -m service.policy_schema > clients/python/forgetting_client/policy.schema.json
"""

import json
import sys
from typing import Any

from service.schemas import candidates
from service.schemas.policy import Policy

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:forgetting:policy:1"
"""Of policies with `version: 1`."""
LIMITS = {
    "MeanCheck": ("fail_above", "warn_above"),
    "PercentileCheck": ("fail_above", "warn_above"),
    "AgreementCheck": ("fail_below", "warn_below"),
    "NumberCheck": ("fail_above", "warn_above"),
}
"""Of which a check has at least one."""


def policy_schema() -> Schema:
    """Takes what `Policy` takes, but for what spans two fields: that a warning comes first, that
    ids differ, that a baseline is there."""
    made = Policy.model_json_schema()
    properties, kinds = made["properties"], made["$defs"]
    properties["checks"]["items"] = _check(kinds)
    [names] = properties["baselines"]["patternProperties"]
    properties["baselines"]["patternProperties"] = {names: _candidate()}
    head = {
        "$schema": DIALECT,
        "$id": ID,
        "title": "Forgetting policy",
        "description": "What a fine-tuned candidate must keep to before it may ship. Metrics are "
        "those of a result, in nats per token over the full vocabulary.",
    }
    return {**head, **{name: part for name, part in made.items() if name not in head}}


def _check(kinds: Schema) -> Schema:
    """By its metric; a mean is an increase where it names a baseline or a limit of one."""
    of = {kind: kinds[kind]["properties"]["metric"]["enum"] for kind in LIMITS}
    increase = {"anyOf": [_has("baseline"), _has("max_increase")]}
    means = {"if": increase, "then": _kind("IncreaseCheck"), "else": _limited("MeanCheck")}
    chosen = [
        {
            "if": {"properties": {"metric": {"enum": metrics}}, "required": ["metric"]},
            "then": means if kind == "MeanCheck" else _limited(kind),
        }
        for kind, metrics in of.items()
    ]
    return {
        "title": "Check",
        "description": "One limit on one metric.",
        "type": "object",
        "required": ["id", "metric"],
        "properties": {"metric": {"enum": [name for names in of.values() for name in names]}},
        "allOf": chosen,
    }


def _candidate() -> Schema:
    """A checkpoint of a job, an upload, or what lies under a root of the service."""
    return {
        "title": "Baseline",
        "type": "object",
        "if": _has("job"),
        "then": _kind(candidates.JobAdapter.__name__),
        "else": {
            "if": _has("id"),
            "then": _kind(candidates.UploadedAdapter.__name__),
            "else": _kind(candidates.PathAdapter.__name__),
        },
    }


def _limited(kind: str) -> Schema:
    return {"allOf": [_kind(kind), {"anyOf": [_has(name) for name in LIMITS[kind]]}]}


def _has(name: str) -> Schema:
    return {"required": [name]}


def _kind(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(policy_schema(), indent=1, sort_keys=True) + "\n")
