"""Whether a policy can work, without asking a service: its JSON Schema, and what no schema says."""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard

from forgetting_client.policy_file import BadPolicy, PolicyFile, read

SCHEMA = "policy.schema.json"
KINDS = {
    "kl_percentiles.": "PercentileCheck",
    "same_top": "AgreementCheck",
    "law_residual": "NumberCheck",
}
"""Of a check, by how its metric begins; any other is a mean, or with a baseline an increase."""
TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
Found = tuple[Sequence[str | int], str]


def load(path: Path) -> PolicyFile:
    """A policy that can work. Raises BadPolicy with every fault, in the order of the file."""
    policy = read(path)
    check(policy)
    return policy


def check(policy: PolicyFile) -> None:
    """Raises BadPolicy."""
    found = dict.fromkeys((tuple(path), message) for path, message in faults_of(policy.body))
    faults = [policy.fault(path, message) for path, message in found]
    if faults:
        raise BadPolicy(sorted(faults, key=lambda fault: (fault.line, fault.column)))


def faults_of(body: Any) -> Iterator[Found]:
    """Path and message of everything that is wrong."""
    if not isinstance(body, dict):
        yield (), "a policy is a mapping with version and checks"
        return
    outer = deepcopy(schema())
    # Unions are looked into by the kind that was meant, for a fault of that kind alone.
    fields = outer["properties"]
    fields["checks"]["items"] = {"type": "object"}
    [name] = fields["baselines"].pop("patternProperties")
    fields["baselines"]["additionalProperties"] = {"type": "object"}
    fields["baselines"]["propertyNames"]["pattern"] = name
    yield from _against(outer, body)
    checks, baselines = body.get("checks"), body.get("baselines")
    for index, one in enumerate(checks if isinstance(checks, list) else ()):
        if isinstance(one, dict):
            for path, message in _of_check(one, body):
                yield ("checks", index, *path), message
    yield from _twice(checks)
    for name, one in (baselines if isinstance(baselines, dict) else {}).items():
        if isinstance(one, dict):
            for path, message in _against(_definition(baseline_kind(one)), one):
                yield ("baselines", name, *path), message


@cache
def schema() -> dict[str, Any]:
    """The published JSON Schema of a policy."""
    text = (files("forgetting_client") / SCHEMA).read_text(encoding="utf-8")
    body: dict[str, Any] = json.loads(text)
    return body


def kind_of(check: dict[str, Any]) -> str:
    """Name of the definition that a check is to be held against, by its metric."""
    metric = str(check.get("metric"))
    for beginning, kind in KINDS.items():
        if metric.startswith(beginning):
            return kind
    return "IncreaseCheck" if "baseline" in check or "max_increase" in check else "MeanCheck"


def baseline_kind(baseline: dict[str, Any]) -> str:
    """Likewise, by the field that says where it is."""
    if "job" in baseline:
        return "JobAdapter"
    return "UploadedAdapter" if "id" in baseline else "PathAdapter"


@cache
def metrics() -> list[str]:
    """Every metric that some check may be of."""
    kinds = ("MeanCheck", *KINDS.values())
    return [
        name for kind in kinds for name in schema()["$defs"][kind]["properties"]["metric"]["enum"]
    ]


def _of_check(check: dict[str, Any], body: dict[str, Any]) -> Iterator[Found]:
    kind = kind_of(check)
    if "metric" in check and check["metric"] not in metrics():
        near = get_close_matches(str(check["metric"]), metrics(), 1)
        said = f"did you mean {near[0]}?" if near else f"there is {', '.join(metrics())}"
        yield ("metric",), f"no such metric; {said}"
        return
    faults = list(_against(_definition(kind), check))
    yield from faults
    if faults:  # a limit may be there under a wrong name
        return
    fail = {"AgreementCheck": "fail_below", "IncreaseCheck": "max_increase"}.get(kind, "fail_above")
    warn = "warn_below" if kind == "AgreementCheck" else "warn_above"
    limit, warning = check.get(fail), check.get(warn)
    if limit is None and warning is None and kind != "IncreaseCheck":
        yield (fail,), f"give {fail}, {warn} or both"
    if _is_number(limit) and _is_number(warning):
        agreement = kind == "AgreementCheck"
        margin = float(limit) - float(warning)
        if margin >= 0 if agreement else margin <= 0:
            side = "above" if agreement else "below"
            yield (warn,), f"{warning:g} must lie {side} {fail} {limit:g}"
    baselines = body.get("baselines") or {}
    if isinstance(check.get("baseline"), str) and isinstance(baselines, dict):
        name = check["baseline"]
        if kind == "IncreaseCheck" and name not in baselines:
            yield ("baseline",), f"baselines has no {name}"


def _definition(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", "$defs": schema()["$defs"]}


def _twice(checks: Any) -> Iterator[Found]:
    seen: set[Any] = set()
    for index, one in enumerate(checks if isinstance(checks, list) else ()):
        name = one.get("id") if isinstance(one, dict) else None
        if isinstance(name, str):
            if name in seen:
                yield ("checks", index, "id"), f"a second check is called {name}"
            seen.add(name)


def _against(wanted: dict[str, Any], body: Any) -> Iterator[Found]:
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(wanted).iter_errors(body):
        yield from _said(error)


def _said(error: Any) -> Iterator[Found]:
    """In words of a policy, not of a schema."""
    path = list(error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in error.instance:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = (
                    f"did you mean {near[0]}?" if near else f"there is {', '.join(sorted(known))}"
                )
                yield [*path, name], f"no such field; {hint}"
    elif "propertyNames" in error.absolute_schema_path:
        yield [*path, error.instance], f"as a name, {_limit(error)}"
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield [*path, name], "required"
    elif error.validator in ("anyOf", "oneOf") and error.context:
        nulls = [one for one in error.context if one.validator != "type"]
        yield from _said(nulls[0] if nulls else error.context[0])
    else:
        yield path, _limit(error)


def _limit(error: Any) -> str:
    value = error.validator_value
    shown = json.dumps(error.instance)
    shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
    words = {
        "exclusiveMinimum": f"must be above {value}, is {shown}",
        "minimum": f"must be at least {value}, is {shown}",
        "exclusiveMaximum": f"must be below {value}, is {shown}",
        "maximum": f"must be at most {value}, is {shown}",
        "enum": f"is one of {', '.join(map(str, value)) if isinstance(value, list) else value}",
        "const": f"must be {value}, is {shown}",
        "type": f"must be {TYPES.get(str(value), value)}, is {shown}",
        "minItems": f"needs at least {value}",
        "maxItems": f"takes at most {value}",
        "maxProperties": f"takes at most {value}",
        "minLength": f"needs {value} characters at least",
        "maxLength": f"takes {value} characters at most",
        "pattern": f"{shown} has characters that are not allowed",
    }
    return words.get(error.validator, str(error.message))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
