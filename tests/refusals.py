"""What every refused submission looks like."""

import json
from typing import Any

import pytest

from service.problems import MEDIA_TYPE

Json = dict[str, Any]


def merged(spec: Json, change: Json) -> Json:
    """Deeply; the change wins."""
    result = dict(spec)
    for key, value in change.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(old, value) if both else value
    return result


def refused(answer: Any, *, status: int = 422, at: str = "/jobs") -> Json:
    """The problem, which must be whole and strict JSON."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem: Json = json.loads(answer.text, parse_constant=pytest.fail)
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["instance"].endswith(at)
    return problem
