"""What pydantic found wrong, by field and in words for people. No input is echoed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_LISTED = 50


def listing(faults: Sequence[Mapping[str, Any]], body: Any) -> list[dict[str, str]]:
    """{param, message, type} of each, MAX_LISTED at most. Their `loc` begins with `body`."""
    return [
        {"param": dotted(fault, body), "message": message(fault), "type": fault["type"]}
        for fault in faults[:MAX_LISTED]
    ]


def first(listed: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """The first field at fault, and all that is said of it as one sentence."""
    param = listed[0]["param"]
    about = [one for one in listed if one["param"] == param or one["param"].startswith(f"{param}.")]
    said = "; or ".join(dict.fromkeys(one["message"] for one in about))
    return param, f"{param}: {said}" if param else said


def dotted(fault: Mapping[str, Any], body: Any) -> str:
    """`training.lora.r`: the steps of `loc` that exist in the body, union tags left out."""
    where, *steps = fault["loc"]
    if where != "body":
        return ".".join(str(step) for step in steps)
    kept: list[str] = []
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        if isinstance(body, dict) and step in body:
            kept, body = [*kept, str(step)[:64]], body[step]
        elif isinstance(body, list) and isinstance(step, int) and 0 <= step < len(body):
            kept, body = [*kept, str(step)], body[step]
        elif last and i > 0 and isinstance(body, dict) and str(step).isidentifier():
            kept.append(str(step))  # a field that is missing, or whose default does not fit
        elif last and fault["type"] == "missing":
            kept.append(str(step))
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kept.append(str(fault["ctx"]["discriminator"]).strip("'"))
    return ".".join(kept)


def message(fault: Mapping[str, Any]) -> str:
    """Pydantic's words, which name the limit. The echo of a wrong tag is cut out."""
    if fault["type"] == "union_tag_invalid":
        return f"expected one of {fault['ctx']['expected_tags']}"
    if fault["type"] == "union_tag_not_found":
        return "required"
    if fault["type"] == "extra_forbidden":
        return "no such field; /docs and /openapi.json list them"
    said = str(fault["msg"]).removeprefix("Value error, ")
    return re.sub(r"^(Input|Field|String|List|Dictionary) ", lambda m: m[0].lower(), said)
