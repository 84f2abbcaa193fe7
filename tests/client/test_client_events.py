"""Event streams: each event once, whatever happens to the connection."""

import json
from collections.abc import Iterator

import httpx2
import pytest
from forgetting_client import ForgettingClient, Retry, Unreachable
from forgetting_client.errors import NotFound, UnexpectedReply


class Torn(httpx2.SyncByteStream):
    """A body that ends in a fault instead of its end."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self._text.encode()
        raise httpx2.ReadError("connection reset")


def event(number, kind="progress", **data):
    body = {"id": number, "at": "2026-01-01T00:00:00.000Z", "kind": kind, "data": data}
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"


DONE = event(9, "done", status="succeeded")


def stream(*parts, torn=False):
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    text = "".join(parts)
    if torn:
        return httpx2.Response(200, headers=headers, stream=Torn(text))
    return httpx2.Response(200, headers=headers, content=text.encode())


def job(status="succeeded", attempt=1):
    return httpx2.Response(200, json={"id": "job_1", "status": status, "attempt": attempt})


def ids(client, **options):
    return [one["id"] for one in client.events("job_1", **options)]


def test_a_whole_stream_is_read_to_done(scripted) -> None:
    client, script = scripted(
        stream(": ping\n\n", event(1), "retry: 50\n\n", event(2), DONE), job()
    )
    assert ids(client) == [1, 2, 9]
    assert "Last-Event-ID" not in script.requests[0].headers
    assert script.requests[0].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("torn", [True, False])
def test_a_cut_stream_is_picked_up_after_the_last_whole_event(scripted, torn) -> None:
    half = event(3)[:-12]
    answers = [stream(event(1), event(2), half, torn=torn)]
    answers += [stream(event(3), DONE), job()]
    client, script = scripted(*answers)
    assert ids(client) == [1, 2, 3, 9]
    assert script.requests[1].headers["Last-Event-ID"] == "2"
    assert len(script.waits) == 1


def test_refused_connections_are_outlived(scripted) -> None:
    refused = httpx2.ConnectError("refused")
    answers = [stream(event(1), torn=True), refused, httpx2.Response(503), stream(DONE), job()]
    client, script = scripted(*answers)
    assert ids(client) == [1, 9]
    assert script.requests[-2].headers["Last-Event-ID"] == "1"


def test_after_is_where_it_begins(scripted) -> None:
    client, script = scripted(stream(DONE), job())
    assert ids(client, after=8) == [9]
    assert script.requests[0].headers["Last-Event-ID"] == "8"


def test_gives_up_when_nothing_ever_comes(scripted) -> None:
    client, script = scripted(*[httpx2.ConnectError("refused")] * 3, retry=Retry(attempts=3))
    with pytest.raises(Unreachable):
        ids(client)
    assert len(script.requests) == 3


def test_an_opened_stream_has_more_patience_but_not_for_ever(scripted) -> None:
    answers = [stream(event(1)), *[httpx2.ReadTimeout("silence")] * 7]
    client, script = scripted(*answers, retry=Retry(attempts=2, reconnects=7))
    with pytest.raises(Unreachable):
        ids(client)
    assert script.answers == []


def test_a_finished_job_without_new_events_ends_the_stream(scripted) -> None:
    client, _ = scripted(stream(), job())
    assert ids(client, after=9) == []


def test_a_quiet_end_of_a_running_job_is_not_the_end(scripted) -> None:
    client, _ = scripted(stream(), job("running"), stream(DONE), job())
    assert ids(client) == [9]


def test_the_done_of_an_earlier_attempt_is_not_the_last_one(scripted) -> None:
    first = [event(1, "status", status="running", attempt=1), event(2, "done", status="failed")]
    second = [event(3, "status", status="running", attempt=2), event(4, "done", status="succeeded")]
    client, _ = scripted(stream(*first, *second), job(attempt=2), job(attempt=2))
    assert ids(client) == [1, 2, 3, 4]


def test_a_deleted_job_ends_in_not_found(scripted) -> None:
    gone = httpx2.Response(404, json={"code": "not_found", "detail": "no job job_1"})
    client, _ = scripted(stream(event(1)), gone)
    with pytest.raises(NotFound):
        ids(client)


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, json={"data": []}),
        stream("data: not json\n\n"),
        stream("data: [1]\n\n"),
        stream('data: {"id": 1}\n\n'),
    ],
)
def test_what_is_no_event_stream_is_said_so(scripted, answer) -> None:
    client, _ = scripted(answer)
    with pytest.raises(UnexpectedReply):
        ids(client)


def test_leaving_early_closes_the_stream() -> None:
    closed: list[bool] = []

    class Endless(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            number = 0
            while True:
                number += 1
                yield event(number).encode()

        def close(self) -> None:
            closed.append(True)

    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers=headers, stream=Endless())
    )
    with ForgettingClient("http://service.test", transport=transport) as client:
        events = client.events("job_1")
        assert [next(events)["id"] for _ in range(3)] == [1, 2, 3]
        events.close()
    assert closed == [True]
