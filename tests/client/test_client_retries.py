"""Which faults are tried again, how long between, and that a retry never doubles a job."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from forgetting_client import Retry, Unreachable
from forgetting_client.errors import ServiceFault

JOB = {"id": "job_1", "status": "queued"}
REFUSED = httpx2.ConnectError("[Errno 111] Connection refused")
CUT = httpx2.RemoteProtocolError("Server disconnected")


def ok(body=None, status=200):
    return httpx2.Response(status, json=JOB if body is None else body)


def busy(status=503, **headers):
    return httpx2.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("fault", [REFUSED, CUT, httpx2.ReadTimeout("slow"), busy(502), busy(429)])
def test_a_passing_fault_is_tried_again(scripted, fault) -> None:
    client, script = scripted(fault, ok())
    assert client.job("job_1") == JOB
    assert script.paths() == ["GET /v1/jobs/job_1"] * 2
    assert len(script.waits) == len(script.notices) == 1


@pytest.mark.parametrize("fault", [REFUSED, CUT, busy(503), busy(504)])
def test_a_retried_post_carries_the_same_key(scripted, fault) -> None:
    client, script = scripted(fault, ok(status=202))
    client.create_job({"base_model": "m"})
    first, second = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first == second
    assert first.startswith("auto-")
    assert script.requests[0].content == script.requests[1].content == b'{"base_model":"m"}'


def test_two_jobs_get_two_keys_and_a_given_key_is_sent(scripted) -> None:
    client, script = scripted(ok(), ok(), ok())
    client.create_job({})
    client.create_job({})
    client.create_job({}, idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_resume_is_not_repeated_once_it_may_have_worked(scripted) -> None:
    client, script = scripted(CUT)
    with pytest.raises(Unreachable, match="broke the connection"):
        client.resume("job_1")
    assert len(script.requests) == 1
    client, script = scripted(REFUSED, ok())
    assert client.resume("job_1") == JOB


def test_gives_up_after_as_many_attempts_as_it_was_given(scripted) -> None:
    client, script = scripted(*[REFUSED] * 3, retry=Retry(attempts=3))
    with pytest.raises(Unreachable, match=r"http://service\.test cannot be reached: Connection"):
        client.jobs().__next__()
    assert len(script.requests) == 3
    assert len(script.waits) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_will_not_pass_is_not_tried_again(scripted, status) -> None:
    client, script = scripted(httpx2.Response(status))
    with pytest.raises(Exception, match=str(status)):
        client.job("job_1")
    assert script.waits == []


def test_retry_after_in_seconds_and_as_a_date_is_honoured(scripted) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    client, script = scripted(busy(retry_after="7"), busy(429, retry_after=date), ok())
    client.job("job_1")
    assert script.waits[0] == 7
    assert 28 < script.waits[1] <= 30
    assert script.notices[0].endswith("Trying again in 7 s.")


def test_too_long_a_retry_after_is_reported_at_once(scripted) -> None:
    client, script = scripted(busy(retry_after="3600"))
    with pytest.raises(ServiceFault) as caught:
        client.job("job_1")
    assert caught.value.retry_after == 3600
    assert script.waits == []


def test_waits_grow_and_stay_bounded() -> None:
    retry = Retry(first_wait=1, longest_wait=8)
    for attempt, full in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (10_000, 8)]:
        assert full / 2 <= retry.wait(attempt) <= full
