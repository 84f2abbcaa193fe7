"""Checks of our own beside schemathesis's, which loads them as hooks."""

from typing import Any

import schemathesis

from service.auth import OPEN

OURS = ("inconsistent", "too_many_children", "not_as_the_policy", "value_error")
"""Of what several fields say together; every other type is of one field, which a schema can say."""


@schemathesis.check
def schema_says_what_fields_take(ctx: Any, response: Any, case: Any) -> None:
    """positive_data_acceptance for 422: names and files that are not there, never a field's own
    limits."""
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if not positive or response.status_code != 422:
        return
    faults = [one for one in response.json()["errors"] if one["type"] not in OURS]
    assert not faults, f"the document allows what the service refuses: {faults}"


@schemathesis.check
def nothing_opens_without_a_key(ctx: Any, response: Any, case: Any) -> None:
    """Nor does an address tell whether it exists, or which methods and bodies it takes."""
    if "authorization" in {name.lower() for name in response.request.headers}:
        return
    assert case.path in OPEN or response.status_code == 401, response.status_code
