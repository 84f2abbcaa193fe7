"""Lines of a log: request and job are named, secrets are not."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from service import logs
from service.logs import Lines, about_job, secrets_of
from service.settings import Settings

SECRETS = {
    "api key": "a-planted-api-key",
    "pepper": "a-planted-pepper",
    "database": "a-planted-password",
    "token": "not_of_the_usual_look",
    "bearer": "a-planted-bearer",
    "made": "fgt_01JQ0000000000000000000000_" + "s" * 43,
}


@pytest.fixture
def secret_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HF_TOKEN", SECRETS["token"])
    return Settings(
        api_key=SecretStr(SECRETS["api key"]),
        key_pepper=SecretStr(SECRETS["pepper"]),
        database_url=f"postgresql://user:{SECRETS['database']}@db/name",
    )


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, logging.StreamHandler[io.StringIO]]]:
    handler = logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("test_logs")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, handler
    logger.removeHandler(handler)
    logger.propagate = True


def speak(logger: logging.Logger) -> None:
    try:
        raise ValueError(f"postgresql://user:{SECRETS['database']}@db: {SECRETS['pepper']}")
    except ValueError:
        logger.exception("%s %s", SECRETS["api key"], SECRETS["token"])
    logger.error("Authorization: Bearer %s and %s", SECRETS["bearer"], SECRETS["made"])
    logger.error("redis://:somebody-elses-password@host:6379/0")


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_hidden_in_messages_and_tracebacks(
    as_json: bool,
    secret_settings: Settings,
    written: tuple[logging.Logger, logging.StreamHandler[io.StringIO]],
) -> None:
    logger, handler = written
    handler.setFormatter(logging.Formatter())
    speak(logger)
    plain = handler.stream.getvalue()
    assert all(secret in plain for secret in SECRETS.values())  # the negative control
    handler.stream = io.StringIO()
    handler.setFormatter(Lines(secrets_of(secret_settings), as_json=as_json))
    speak(logger)
    said = handler.stream.getvalue()
    assert [name for name, secret in SECRETS.items() if secret in said] == []
    assert "somebody-elses-password" not in said
    assert "s" * 43 not in said
    assert "ValueError" in said


def test_a_line_of_json_names_request_and_job(
    written: tuple[logging.Logger, logging.StreamHandler[io.StringIO]],
) -> None:
    logger, handler = written
    handler.setFormatter(Lines(frozenset(), as_json=True))
    token = logs.request_id.set("req_1")
    with about_job("job_1"):
        logger.error("line one\nline two")
    logs.request_id.reset(token)
    logger.error("alone")
    first, second = map(json.loads, handler.stream.getvalue().splitlines())
    assert (first["request_id"], first["job_id"]) == ("req_1", "job_1")
    assert first["message"] == "line one\nline two"
    assert first["at"].endswith("Z")
    assert second.keys() == {"at", "level", "logger", "message"}
