"""Events: a page by default, a stream for those who ask for one."""

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import pytest
from starlette.testclient import TestClient

from service.routes.events import stream
from service.store import Store
from tests.results import run_next

Json = dict[str, Any]
SSE = {"Accept": "text/event-stream"}


def told(text: str) -> list[dict[str, str]]:
    """Fields of each message of an event stream, comments left out."""
    messages = []
    for block in text.strip().split("\n\n"):
        lines = [line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")]
        if lines:
            messages.append(dict(lines))
    return messages


@pytest.fixture
def finished(api: TestClient, finetune: Json, store: Store) -> str:
    api.post("/jobs", json=finetune)
    return run_next(store)


def test_a_page_of_events(api: TestClient, finished: str) -> None:
    whole = api.get(f"/jobs/{finished}/events").json()
    kinds = [event["kind"] for event in whole["data"]]
    assert kinds[:2] == ["status", "status"]
    assert kinds[-1] == "done"
    assert [event["id"] for event in whole["data"]] == list(range(1, len(kinds) + 1))
    assert whole["has_more"] is False
    part = api.get(f"/jobs/{finished}/events", params={"after": 2, "limit": 3}).json()
    assert part == {"data": whole["data"][2:5], "has_more": True}


def test_the_stream_tells_everything_and_ends_with_done(api: TestClient, finished: str) -> None:
    page = api.get(f"/jobs/{finished}/events").json()["data"]
    answer = api.get(f"/jobs/{finished}/events", headers=SSE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    messages = told(answer.text)
    assert [json.loads(message["data"]) for message in messages] == page
    assert [message["id"] for message in messages] == [str(event["id"]) for event in page]
    assert [message["event"] for message in messages] == [event["kind"] for event in page]
    assert messages[-1]["event"] == "done"


@pytest.mark.parametrize(
    ("last", "first"), [("4", 5), ("nonsense", 1), ("-1", 1), ("9" * 40, None)]
)
def test_a_broken_stream_is_picked_up(
    api: TestClient, finished: str, last: str, first: int | None
) -> None:
    answer = api.get(f"/jobs/{finished}/events", headers={**SSE, "Last-Event-ID": last})
    messages = told(answer.text)
    assert (int(messages[0]["id"]) if messages else None) == first


def test_events_arrive_while_the_job_runs(api: TestClient, finetune: Json, store: Store) -> None:
    job = api.post("/jobs", json=finetune).json()["id"]
    ticks = iter(range(100))
    beats: list[bytes] = []

    async def follow() -> None:
        events: AsyncIterator[bytes] = stream(
            store, job, 0, poll_seconds=0.01, heartbeat_seconds=0.03
        )
        async for message in events:
            beats.append(message)
            if message.startswith(b":") and next(ticks) == 1:
                # Two heartbeats passed in silence: let a worker finish the job.
                threading.Thread(target=run_next, args=(store,)).start()

    anyio.run(follow)
    first_silence = next(i for i, beat in enumerate(beats) if beat.startswith(b":"))
    assert b"queued" in b"".join(beats[:first_silence])
    assert told(beats[-1].decode())[0]["event"] == "done"


def test_a_resumed_job_streams_past_its_first_done(
    api: TestClient, finetune: Json, store: Store
) -> None:
    job = api.post("/jobs", json=finetune).json()["id"]
    api.post(f"/jobs/{job}/cancel")
    api.post(f"/jobs/{job}/resume")
    run_next(store)
    messages = told(api.get(f"/jobs/{job}/events", headers=SSE).text)
    assert [m["event"] for m in messages].count("done") == 2
    assert messages[-1]["event"] == "done"


def test_a_deleted_job_ends_its_stream(api: TestClient, finetune: Json, store: Store) -> None:
    job = api.post("/jobs", json=finetune).json()["id"]
    store.cancel_job(job)
    store.delete_job(job)

    async def follow() -> list[bytes]:
        return [message async for message in stream(store, job, 0, poll_seconds=0.01)]

    assert anyio.run(follow) == []


def test_the_library_that_clients_use_reads_the_stream(api: TestClient, finished: str) -> None:
    assert isinstance(api, httpx2.Client)
    with api.sse(f"/v1/jobs/{finished}/events") as source:
        last = list(source)[-1]
    assert last.event == "done"
    assert json.loads(last.data)["data"] == {"status": "succeeded"}
