"""Keys and limits on the wire."""

from typing import Annotated

from pydantic import Field

from service.schemas.fields import Strict
from service.schemas.result import View
from service.scopes import Scope

Label = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 @._/-]*$")
]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=5)]


class NewKeyRequest(Strict):
    owner: Label = Field(description="Whose jobs, adapters and laws it sees: a team or a person.")
    name: Label = Field(description="What it is for, as `CI of repository x`.")
    scopes: Scopes = Field([Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.LAWS_READ, Scope.LAWS_WRITE])
    expires_in_days: Annotated[float, Field(gt=0, le=3650)] | None = Field(
        365, description="Null: never."
    )


class Key(View):
    """A key without its secret."""

    id: str
    owner: str
    name: str
    scopes: list[Scope]
    live: bool = Field(description="Neither revoked nor expired.")
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None = Field(description="To the minute.")


class NewKey(Key):
    key: str = Field(description="Send it as `Authorization: Bearer <key>`. Shown only now.")


class Limited(View):
    """What the caller may use, and has used. Null: as much as one likes."""

    owner: str
    scopes: list[Scope]
    requests: str | None = Field(description="As `1200/minute`.")
    max_jobs: int | None = Field(description="Queued and running, children of sweeps counted.")
    max_upload_bytes: int | None = Field(description="Of all stored adapters.")
    uploaded_bytes: int
    max_job_cost: float | None = Field(description="Tokens x parameters of one job.")
    max_body_bytes: int
    max_adapter_bytes: int
