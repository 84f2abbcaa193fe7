"""The doorbell against a real server: what is sent, and that nobody ever waits for it."""

import base64
import json
import logging
import time

import pytest
import redis

from service.broker import BURST, MAX_WAITING, PER_SECOND, QUEUE, TASK, Doorbell


def test_a_ring_names_the_job_and_nothing_else(redis_url: str) -> None:
    bell = Doorbell(redis_url)
    with redis.Redis.from_url(redis_url) as server:
        server.delete(QUEUE)
        bell.ping()
        bell.start()
        bell("job_1")
        bell("job_2")
        bell.stop()
        messages = [json.loads(raw) for raw in server.lrange(QUEUE, 0, -1)]
        server.delete(QUEUE)
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    assert [body[:2] for body in bodies] == [[[], {"job_id": "job_2"}], [[], {"job_id": "job_1"}]]
    assert {message["headers"]["task"] for message in messages} == {TASK}
    assert {message["content-type"] for message in messages} == {"application/json"}


def test_a_flood_of_rings_is_spread_out_and_none_is_lost(redis_url: str) -> None:
    bell, n_rings = Doorbell(redis_url), BURST + 100
    with redis.Redis.from_url(redis_url) as server:
        server.delete(QUEUE)
        began = time.monotonic()
        bell.start()
        for i in range(n_rings):
            bell(f"job_{i}")
        while (n_sent := server.llen(QUEUE)) < BURST:
            time.sleep(0.01)
        assert n_sent <= BURST + PER_SECOND * (time.monotonic() - began) + 1
        bell.stop(timeout_seconds=60)  # what waits goes out at once
        assert server.llen(QUEUE) == n_rings
        server.delete(QUEUE)


def test_nobody_listening_costs_nobody_time(caplog: pytest.LogCaptureFixture) -> None:
    bell = Doorbell("redis://127.0.0.1:1/0")
    with pytest.raises(ConnectionError):
        bell.ping()
    bell.start()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for i in range(MAX_WAITING + 2):
            bell(f"job_{i}")
    assert time.monotonic() - began < 2.0
    assert "ring dropped" in caplog.text
    bell.stop(timeout_seconds=0.1)


def test_a_bell_that_was_never_started_stops() -> None:
    Doorbell("redis://127.0.0.1:1/0").stop()
