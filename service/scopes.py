"""What a key may do. A route names its scope in its OpenAPI `security`, and that is what is held.

A route that names none needs `admin`: forgetting to say so closes it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

SCHEME = "key"
"""Name of the security scheme in the OpenAPI document."""


class Scope(StrEnum):
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    LAWS_READ = "laws:read"
    LAWS_WRITE = "laws:write"
    ADMIN = "admin"


def needs(scope: Scope | None) -> dict[str, Any]:
    """For a route's `openapi_extra`. None: open to everybody, key or not."""
    return {"security": [] if scope is None else [{SCHEME: [scope.value]}]}


def needed(openapi_extra: Mapping[str, Any] | None) -> Scope | None:
    """The scope that a route named; None: it is open."""
    said = (openapi_extra or {}).get("security")
    if said is None:
        return Scope.ADMIN
    return Scope(said[0][SCHEME][0]) if said else None
