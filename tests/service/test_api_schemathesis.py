"""Requests made from the OpenAPI document, one by one and in chains: the service never fails."""

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from service.app import create_app
from service.settings import Settings
from service.store import Store

KEY = {"Authorization": "Bearer a-bootstrap-key-of-enough-letters"}
N_EACH = 35
QUICK = hypothesis_settings(
    max_examples=N_EACH,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def document(sqlite_store: Store, api_settings: Settings, bell: object) -> schemathesis.BaseSchema:
    key = {"api_key": SecretStr("a-bootstrap-key-of-enough-letters")}
    app = create_app(sqlite_store, api_settings.model_copy(update=key), bell)
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app, headers=KEY)
    loaded.app = app
    return loaded


def test_no_request_makes_it_fail(document: Any) -> None:
    seen: Counter[int] = Counter()
    failed: list[str] = []
    for found in document.get_all_operations():
        try_out(found.ok(), seen, failed)
    assert failed == []
    assert seen.total() >= 2_000
    assert seen[401] >= 900
    assert seen[200] + seen[201] + seen[202] > 20


def try_out(operation: Any, seen: Counter[int], failed: list[str]) -> None:
    """Each case with a key and without."""
    is_open = operation.path in ("/v1/healthz", "/v1/readyz")

    @QUICK
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        for headers in (KEY, {"Authorization": ""}):
            answer = case.call(headers=headers)
            seen[answer.status_code] += 1
            said = f"{case.method} {case.formatted_path}: {answer.status_code} {answer.text[:300]}"
            if answer.status_code >= 500 and not is_open:
                failed.append(said)
            # A path that is filled with nothing may be another one, but never an open one.
            if headers is not KEY and not is_open and answer.status_code != 401:
                failed.append(said)

    ask()


def test_no_chain_of_requests_makes_it_fail(document: Any) -> None:
    """What one answer names, the next request uses: create, show, cancel, delete."""
    seen: Counter[int] = Counter()

    class Chain(document.as_state_machine()):  # type: ignore[misc]
        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            seen[response.status_code] += 1
            open_ = case.path in ("/v1/healthz", "/v1/readyz")
            assert open_ or response.status_code < 500, response.text[:300]

    Chain.run(settings=hypothesis_settings(QUICK, max_examples=20, stateful_step_count=15))
    assert seen.total() >= 200
