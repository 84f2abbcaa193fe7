"""Which report a gate answers with, by what the request accepts."""

import pytest
from junitparser import JUnitXml
from starlette.testclient import TestClient

from service.store import Store
from tests.gate_results import check, end_gate, gate_spec
from tests.refusals import refused

JSON, MARKDOWN, JUNIT = "application/json", "text/markdown", "application/junit+xml"
ASKED = [
    (None, JSON),
    ("*/*", JSON),
    ("", JSON),
    ("application/*", JSON),
    ("text/*", MARKDOWN),
    ("Text/Markdown", MARKDOWN),
    ("text/markdown; charset=utf-8", MARKDOWN),
    ("text/html, text/markdown;q=0.5, */*;q=0.1", MARKDOWN),
    ("application/json;q=0.2, application/junit+xml", JUNIT),
    ("application/json;q=0, */*", MARKDOWN),
    ("application/xml", "application/xml"),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/xml"),
]


@pytest.fixture
def path(sqlite_api: TestClient, sqlite_store: Store) -> str:
    """Of a gate that fails."""
    gate = sqlite_api.post("/v1/gates", json=gate_spec()).json()
    end_gate(sqlite_store, check("fail"))
    return f"/v1/gates/{gate['id']}"


@pytest.mark.parametrize(("accept", "media"), ASKED)
def test_what_is_accepted_is_sent(
    sqlite_api: TestClient, path: str, accept: str | None, media: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = sqlite_api.get(path, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    "accept", ["image/png", "text/html", "application/json;q=0", "*/*;q=0", "text/markdown;q=x"]
)
def test_what_there_is_not_is_a_406_that_names_what_there_is(
    sqlite_api: TestClient, path: str, accept: str
) -> None:
    problem = refused(sqlite_api.get(path, headers={"Accept": accept}), status=406, at=path)
    assert problem["code"] == "not_acceptable"
    for media in (JSON, MARKDOWN, JUNIT):
        assert media in problem["detail"]


def test_reports_tell_the_verdict(api: TestClient, store: Store) -> None:
    gate = api.post("/v1/gates", json=gate_spec()).json()
    path = f"/v1/gates/{gate['id']}"
    assert "no verdict yet" in api.get(path, headers={"Accept": MARKDOWN}).text
    pending = JUnitXml.fromstring(api.get(path, headers={"Accept": JUNIT}).content)
    assert pending.errors == 1
    end_gate(store, check("fail"))
    assert api.get(path, headers={"Accept": MARKDOWN}).text.startswith("## ❌ Gate: fail")
    ended = JUnitXml.fromstring(api.get(path, headers={"Accept": JUNIT}).content)
    assert (ended.tests, ended.failures, ended.errors) == (1, 1, 0)


def test_a_markdown_report_keeps_below_its_limit(sqlite_api: TestClient, path: str) -> None:
    headers = {"Accept": MARKDOWN}
    whole = sqlite_api.get(path, headers=headers).content
    short = sqlite_api.get(path, headers=headers, params={"max_bytes": 2_000}).content
    assert len(short) <= 2_000 < len(whole)
    assert "mean kl 0.131 is above 0.08" in short.decode()
    problem = refused(sqlite_api.get(path, params={"max_bytes": 100}), at=path)
    assert problem["param"] == "max_bytes"
