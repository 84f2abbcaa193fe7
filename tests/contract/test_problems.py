"""Every error has one status, one code and a page; clients may rely on them."""

import importlib
import pkgutil

from hypothesis import given
from hypothesis import strategies as st

import service
from service import errors
from service.errors import ForgettingError, UserError
from service.field_faults import dotted
from service.problems import PROTOCOL, TABLE, kinds, shape_of

STABLE = {
    "adapter_in_use": 409,
    "adapter_unreadable": 422,
    "corpus_unreadable": 422,
    "dataset_unreadable": 422,
    "engine_unavailable": 422,
    "idempotency_key_reused": 422,
    "insufficient_scope": 403,
    "internal_error": 500,
    "lease_lost": 409,
    "malformed_json": 400,
    "method_not_allowed": 405,
    "model_unavailable": 422,
    "not_acceptable": 406,
    "not_finished": 409,
    "not_found": 404,
    "not_ready": 503,
    "not_resumable": 409,
    "path_not_allowed": 422,
    "payload_too_large": 413,
    "quota_exceeded": 403,
    "rate_limited": 429,
    "still_running": 409,
    "system_fault": 503,
    "too_few_points": 422,
    "too_many_jobs": 429,
    "training_diverged": 422,
    "unauthorized": 401,
    "unsupported_media_type": 415,
    "validation_error": 422,
}


def leaves() -> set[type[ForgettingError]]:
    """Every error class of the service that nothing is derived from."""
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    found, waiting = set(), [ForgettingError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__subclasses__() and kind.__module__.startswith("service."):
            found.add(kind)
    return found


def test_every_leaf_is_in_the_table() -> None:
    assert leaves() == set(TABLE)


def test_codes_and_statuses_are_stable() -> None:
    assert {kind.code: kind.status for kind in kinds()} == STABLE


def test_codes_are_distinct_and_each_has_a_meaning() -> None:
    codes = [error.code for error in TABLE]
    assert len(set(codes)) == len(codes)
    assert ForgettingError.code not in codes
    assert all(kind.meaning and kind.title for kind in kinds())


def test_the_callers_faults_are_4xx() -> None:
    for error, shape in TABLE.items():
        if issubclass(error, UserError):
            assert shape.status == 422, error


def test_a_subclass_has_its_parents_shape_and_a_stranger_is_our_fault() -> None:
    class Narrower(errors.DatasetUnreadable):
        pass

    class Stranger(ForgettingError):
        pass

    assert shape_of(Narrower) == TABLE[errors.DatasetUnreadable]
    assert shape_of(Stranger).status == 500


def test_statuses_of_http_are_its_own() -> None:
    assert all(400 <= status < 600 for status in PROTOCOL)


KEYS = st.one_of(st.text(max_size=5), st.integers(-2, 5))
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(body=JSON, loc=st.lists(KEYS, max_size=6), kind=st.sampled_from(["missing", "int_type"]))
def test_a_place_can_be_named_for_any_body(body: object, loc: list[str | int], kind: str) -> None:
    place = dotted({"loc": ("body", *loc), "type": kind}, body)
    assert isinstance(place, str)
