"""What our processes write to stderr: lines of text or of JSON, with request and job, no secret.

Whatever is a secret by its setting or by its look is replaced before a line is written, tracebacks
too: a driver's message may quote the URL that it was given.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from service.settings import Settings

HIDDEN = "***"
LOOKS_SECRET = re.compile(
    r"(?i:(?<=bearer )\S+)"
    r"|(?<=fgt_)[0-9A-Z]{26}_[A-Za-z0-9_-]+"
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|(?<=://)[^/\s@]*:[^/\s@]+(?=@)"
)
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY")
SHORTEST = 6
"""Shorter values stand in too many innocent words."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)


def configure_logs(settings: Settings, *, level: int = logging.WARNING) -> None:
    """The root logger writes to stderr as FORGETTING_LOG says; once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(secrets_of(settings), as_json=settings.log == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


@contextmanager
def about_job(of: str) -> Iterator[None]:
    """Lines within belong to this job."""
    token = job_id.set(of)
    try:
        yield
    finally:
        job_id.reset(token)


class Lines(logging.Formatter):
    """One line per record, or one JSON object, in UTC."""

    def __init__(self, secrets: frozenset[str], *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(about)s %(message)s")
        self.converter = time.gmtime
        self.default_time_format, self.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
        # The longest first: one secret may begin another.
        found = "|".join(re.escape(one) for one in sorted(secrets, key=len, reverse=True))
        self._secrets = re.compile(found) if found else None
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        about = {"request_id": request_id.get(), "job_id": job_id.get()}
        known = {name: value for name, value in about.items() if value is not None}
        if not self._as_json:
            record.about = "".join(f" {value}" for value in known.values())
            return self._hide(super().format(record))
        said: dict[str, str] = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **known,
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: self._hide(value) for name, value in said.items()})

    def _hide(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        return LOOKS_SECRET.sub(HIDDEN, text)


def secrets_of(settings: Settings) -> frozenset[str]:
    """Every value that this process knows and nobody may read."""
    kept = [value for _, value in settings if isinstance(value, SecretStr)]
    found = {value.get_secret_value() for value in kept}
    found |= {os.environ.get(name, "") for name in VARIABLES}
    for url in (settings.database_url, settings.redis_url, settings.artifacts_url):
        found.add(_password(url) or "")
    return frozenset(one for one in found if len(one) >= SHORTEST)


def _password(url: str | None) -> str | None:
    """As it stands in the URL; drivers quote it so."""
    try:
        return None if url is None else urlsplit(url).password
    except ValueError:
        return None
