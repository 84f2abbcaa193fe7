"""What a holder of the scope `admin` does with keys. Part of `ForgettingClient`."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, cast

from forgetting_client.connection import Connection
from forgetting_client.pages import object_list, segment

Scope = Literal["jobs:read", "jobs:write", "laws:read", "laws:write", "admin"]


class Key(TypedDict):
    """A key without its secret."""

    id: str
    owner: str
    name: str
    scopes: list[Scope]
    live: bool
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewKey(Key):
    key: str
    """Shown only now."""


class KeyMethods:
    _connection: Connection

    def create_key(
        self,
        *,
        owner: str,
        name: str,
        scopes: Sequence[Scope] | None = None,
        expires_in_days: float | None = 365,
    ) -> NewKey:
        """`scopes`: all but admin unless said. `expires_in_days`: None is never."""
        body: dict[str, Any] = {"owner": owner, "name": name, "expires_in_days": expires_in_days}
        if scopes is not None:
            body["scopes"] = list(scopes)
        # Were a lost answer asked for again, there would be a second key that nobody knows.
        found = self._connection.object("POST", "v1/keys", body=body, repeatable=False)
        return cast(NewKey, found)

    def keys(self) -> list[Key]:
        """Newest first, revoked and expired ones too."""
        return cast(list[Key], object_list(self._connection, "data", "GET", "v1/keys"))

    def revoke_key(self, key_id: str) -> Key:
        """From then on it opens nothing; the same answer however often."""
        path = f"v1/keys/{segment(key_id, 'key')}"
        return cast(Key, self._connection.object("DELETE", path))
