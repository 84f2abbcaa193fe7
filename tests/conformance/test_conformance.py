"""Every answer is as the OpenAPI document says: all of schemathesis's checks, and two of ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.run import PHASES, hold
from tests.conformance.served import Served, served

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as at:
        yield at


def test_with_a_key(at: Served, tmp_path: Path) -> None:
    found = hold(at, tmp_path, with_key=True, max_examples=4)
    assert (found.failures, found.errors) == ([], []), found.said
    assert found.phases == dict.fromkeys(PHASES, "success")
    assert found.n_operations >= 37
    assert found.n_cases >= 4_000


def test_without_a_key(at: Served, tmp_path: Path) -> None:
    phases = ("examples", "fuzzing", "stateful")
    found = hold(at, tmp_path, with_key=False, phases=phases, max_examples=10)
    assert (found.failures, found.errors) == ([], []), found.said
    assert found.phases == dict.fromkeys(phases, "success")
    assert found.n_operations >= 37
    assert found.n_cases >= 300


def say_another_status(document: Any) -> None:
    document["components"]["schemas"]["Health"]["properties"]["status"]["const"] = "well"


def say_it_needs_a_key(document: Any) -> None:
    document["paths"]["/v1/healthz"]["get"]["security"] = [{"key": ["jobs:read"]}]


@pytest.mark.parametrize(
    ("lie", "said"),
    [(say_another_status, "Response violates schema"), (say_it_needs_a_key, "accepts")],
)
def test_a_document_that_is_untrue_is_found_out(
    at: Served, tmp_path: Path, lie: Any, said: str
) -> None:
    """Control: of one path, with a lie about it."""

    def alone(document: Any) -> None:
        document["paths"] = {"/v1/healthz": document["paths"]["/v1/healthz"]}
        lie(document)

    found = hold(at, tmp_path, with_key=True, phases=("fuzzing",), max_examples=2, change=alone)
    assert found.failures != []
    assert said in found.said
