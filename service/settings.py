"""Every setting, from `FORGETTING_*` environment variables. The README's table lists them."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from service.errors import SystemFault

RELEASE_PATIENCE = 4
"""Of a worker that is told to stop, in graces: a checkpoint of many gigabytes takes its time."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PATHS = f'give a JSON list such as ["/models"], or paths separated by `{os.pathsep}`'


def listed(value: Any) -> Any:
    """The paths of a variable: a JSON list if it starts with `[`, else split at os.pathsep."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [path for path in value.split(os.pathsep) if path]
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}); {_PATHS}") from error


def spaced(value: Any) -> Any:
    """Words of a variable, parted by commas or spaces."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


Roots = Annotated[list[Path], NoDecode, BeforeValidator(listed)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FORGETTING_", extra="ignore")

    home: Path = Field(Path(".forgetting"), description="Embedded state: database, artifacts.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; default SQLite in home.")
    redis_url: str | None = Field(None, description="Broker; default a private server.")
    artifacts_url: str | None = Field(None, description="fsspec URL; default home/artifacts.")
    cache_dir: Path | None = Field(None, description="Base-pass cache; default home/cache.")
    cache_url: str | None = Field(
        None, description="Base passes shared between machines: an fsspec URL, s3://…; default no."
    )
    cache_max_bytes: int = Field(50_000_000_000, description="Least recently used passes go first.")
    model_roots: Roots = Field(
        [], description="Folders that `base_model` and adapter names may lie in."
    )
    data_roots: Roots = Field([], description="Folders that dataset and corpus names may lie in.")
    allow_hub: bool | None = Field(
        None, description="Whether hub ids are accepted; default only by a service of one machine."
    )
    hub_allow: Annotated[list[str], NoDecode, BeforeValidator(spaced)] = Field(
        [], description="Patterns of hub ids, as `Qwen/*`; with any, only those are accepted."
    )
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: SecretStr | None = Field(None, description="Bootstrap key, with every scope.")
    key_pepper: SecretStr | None = Field(None, description="Default a file in home.")
    rate_limit: str = Field("1200/minute", description="Requests of one key.")
    quota_jobs: int = Field(500, ge=1, description="Queued and running jobs of one owner.")
    quota_upload_bytes: int = Field(50_000_000_000, description="Adapters of one owner.")
    quota_job_cost: float = Field(1e19, gt=0, description="Of one job: tokens x parameters.")
    log: Literal["text", "json"] = "text"
    max_body_bytes: int = 1_000_000
    max_adapter_bytes: int = Field(2 << 30, description="Weights of one uploaded adapter.")
    lease_seconds: float = 60.0
    beat_seconds: float = 2.0
    sweep_seconds: float = 5.0
    grace_seconds: float = Field(2.0, description="Between SIGTERM and SIGKILL of a child.")
    warm_seconds: float = Field(
        60.0, description="How long a base stays loaded for the next evaluate or gate job of it."
    )
    max_failures: int = Field(3, description="Lost workers before a job fails.")
    job_time_limit_seconds: float = Field(86_400.0, description="One attempt's longest run.")
    stall_seconds: float = Field(
        3_600.0, description="A child that says nothing for so long hangs: its attempt ends."
    )
    min_free_bytes: int = Field(
        1_000_000_000, description="Of the disk of home; with less no attempt begins."
    )
    resume_checkpoint_seconds: float = 60.0

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.embedded_database}"

    @property
    def embedded_database(self) -> Path:
        return self.home.resolve() / "forgetting.sqlite3"

    @property
    def artifacts(self) -> str:
        return self.artifacts_url or (self.home.resolve() / "artifacts").as_uri()

    @property
    def hub_is_open(self) -> bool:
        """Whether hub ids are accepted. Unsaid: while one person's machine is all there is."""
        if self.allow_hub is not None:
            return self.allow_hub
        apart = self.database_url is not None and not self.database_url.startswith("sqlite")
        return bool(self.hub_allow) or not (apart or self.host not in LOOPBACK)

    @property
    def cache(self) -> Path:
        return self.cache_dir or self.home.resolve() / "cache"

    @property
    def leave_seconds(self) -> float:
        """How long a worker may take to write a checkpoint, release its job and end."""
        return RELEASE_PATIENCE * self.grace_seconds + 5.0


@cache
def settings() -> Settings:
    """The process's settings, read once. Raises SystemFault: the variable and what is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"FORGETTING_{first['loc'][0]}".upper()
        said = str(first["msg"]).removeprefix("Value error, ")
        if name.endswith("_ROOTS") and _PATHS not in said:
            said += f"; {_PATHS}"
        raise SystemFault(f"{name}: {said}") from error
    except SettingsError as error:
        raise SystemFault(f"FORGETTING_*: {error}") from error
