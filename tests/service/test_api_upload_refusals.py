"""Uploads that are refused or break off, by their form or size: nothing is left of them."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.errors import AdapterUnreadable
from service.routes.adapters import receive
from service.settings import Settings
from service.store import Store
from tests.model_folders import write_adapter
from tests.refusals import refused
from tests.sent_adapters import CONFIG, WEIGHTS, Files, files_of, send

pytestmark = pytest.mark.usefixtures("nothing_kept")


def parts(*given: tuple[str, str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (file_name, content)) for name, file_name, content in given]


def test_just_the_two_files_are_taken(sqlite_api: TestClient, tmp_path: Path) -> None:
    files = files_of(write_adapter(tmp_path / "mine"))
    small, large = (CONFIG, *files[CONFIG]), (WEIGHTS, *files[WEIGHTS])
    pickled = (WEIGHTS, "adapter_model.bin", files[WEIGHTS][1])
    for given, param, said in [
        (parts(small), WEIGHTS, "there is no part"),
        (parts(large), CONFIG, "there is no part"),
        (parts(small, large, small), CONFIG, "came twice"),
        (parts(small, ("model.py", "model.py", b"import os")), "model.py", "no place for"),
        (parts(("../../x", CONFIG, b"{}")), "../../x", "no place for"),
        (parts(small, pickled), WEIGHTS, "adapter_model.bin is pickled"),
    ]:
        problem = refused(send(sqlite_api, given), at="/adapters")
        assert (problem["code"], problem["param"]) == ("adapter_unreadable", param)
        assert said in problem["detail"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"x", 422),
        ("multipart/form-data; boundary=b", b"x", 422),
        ("multipart/form-data; boundary=b", b"", 422),
        ("multipart/form-data; boundary=" + "b" * 300, b"x", 422),
        ("multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\nx\r\n--b--", 422),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A" * 9000, 422),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422),
    ],
)
def test_bodies_that_are_no_form(
    sqlite_api: TestClient, kind: str, body: bytes, status: int
) -> None:
    answer = sqlite_api.post(
        "/adapters", params={"base_model": "tiny"}, content=body, headers={"Content-Type": kind}
    )
    refused(answer, status=status, at="/adapters")


@pytest.mark.parametrize(
    ("base_model", "code"),
    [
        ("absent", "model_unavailable"),
        ("../models/tiny", "path_not_allowed"),
        ("a\x01", "validation_error"),
        (None, "validation_error"),
    ],
)
def test_the_base_is_looked_at_first(
    sqlite_api: TestClient, base_model: str | None, code: str
) -> None:
    """Not a byte of the body is asked for."""
    params = {} if base_model is None else {"base_model": base_model}
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    asked = anyio.run(
        _call, sqlite_api, urlencode(params).encode(), kind["Content-Type"], [], False
    )
    assert asked == (422, 0), code
    problem = refused(
        sqlite_api.post("/adapters", params=params, content=b"", headers=kind), at="/adapters"
    )
    assert (problem["code"], problem["param"].rpartition(".")[2]) == (code, "base_model")


async def _call(
    web: TestClient, query: bytes, kind: str, chunks: list[bytes], disconnects: bool
) -> tuple[int | None, int]:
    """(status, messages read) of a body that comes in these chunks and then stays open or ends
    with the connection."""
    status: list[int] = []
    n_read = 0

    async def receive_() -> Message:
        nonlocal n_read
        n_read += 1
        if n_read <= len(chunks):
            return {"type": "http.request", "body": chunks[n_read - 1], "more_body": True}
        if disconnects:
            return {"type": "http.disconnect"}
        raise AssertionError("read past what there is")

    async def send_(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/adapters",
        "query_string": query,
        "headers": [(b"content-type", kind.encode())],
    }
    await web.app(scope, receive_, send_)
    return (status[0] if status else None), n_read


START = f'--b\r\nContent-Disposition: form-data; name="{WEIGHTS}"\r\n\r\n'.encode()


@pytest.mark.parametrize("n_chunks", [0, 1, 5])
def test_a_client_that_goes_away_midway_leaves_nothing(
    sqlite_api: TestClient, api_settings: Settings, n_chunks: int
) -> None:
    chunks = [START, *[bytes(1 << 20)] * n_chunks]
    kind = "multipart/form-data; boundary=b"
    told = anyio.run(_call, sqlite_api, b"base_model=tiny", kind, chunks, True)
    assert told == (None, len(chunks) + 1)
    assert (api_settings.home / "uploads").is_dir()  # it had begun to write there


def test_a_client_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    async def silence() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    kind = b"multipart/form-data; boundary=b"
    request = Request({"type": "http", "headers": [(b"content-type", kind)]}, silence)

    async def ask() -> None:
        await receive(request, tmp_path, {WEIGHTS: 10}, idle_seconds=0.01)

    with pytest.raises(AdapterUnreadable, match="stood still"):
        anyio.run(ask)


@pytest.fixture
def narrow(sqlite_store: Store, api_settings: Settings, bell: Any) -> Iterator[TestClient]:
    """Takes adapters of at most 100 kB."""
    small = api_settings.model_copy(update={"max_adapter_bytes": 100_000})
    with TestClient(create_app(sqlite_store, small, bell)) as web:
        yield web


def test_the_limit_counts_what_arrives(narrow: TestClient, tmp_path: Path) -> None:
    """Content-Length may be absent, and what comes after the limit is not waited for."""
    files = files_of(write_adapter(tmp_path / "mine"))
    over: Files = {**files, WEIGHTS: (WEIGHTS, bytes(100_001))}
    problem = refused(send(narrow, over), status=413, at="/adapters")
    assert (problem["code"], problem["param"]) == ("payload_too_large", WEIGHTS)
    assert problem["details"] == {"max_bytes": 100_000}
    long: Files = {**files, CONFIG: (CONFIG, b" " * 1_000_001)}
    assert refused(send(narrow, long), status=413, at="/adapters")["param"] == CONFIG
    # Content-Length says at once that it is too much.
    declared: Files = {**files, WEIGHTS: (WEIGHTS, bytes(2_000_000))}
    problem = refused(send(narrow, declared), status=413, at="/adapters")
    assert problem["details"] == {"max_body_bytes": 1_110_000}
    # A part without end is cut off at its limit, headers without end at the parser's.
    kind = "multipart/form-data; boundary=b"
    for chunks, status in [([START, *[bytes(65_536)] * 64], 413), ([b"-" * 65_536] * 64, 422)]:
        told, n_read = anyio.run(_call, narrow, b"base_model=tiny", kind, chunks, False)
        assert told == status
        assert n_read < 25


def test_other_routes_keep_their_limit(sqlite_api: TestClient) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for path in ("/v1/jobs", "/v1/laws"):
        answer = sqlite_api.post(path, content=bytes(1_000_001), headers=kind)
        refused(answer, status=413, at=path)


def test_a_large_upload_is_never_in_memory(sqlite_api: TestClient) -> None:
    """48 MB go by; the process holds a few chunks of them."""
    chunk = bytes(1 << 20)
    chunks = [START, *[chunk] * 48, b"\r\n--b--\r\n"]
    kind = "multipart/form-data; boundary=b"
    tracemalloc.start()
    try:
        anyio.run(_call, sqlite_api, b"base_model=tiny", kind, chunks, True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
