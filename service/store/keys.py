"""API keys: never the secret itself, only its HMAC. A revoked key stays, so that it is known."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, Select, insert, or_, select, update

from service.columns import epoch_now
from service.errors import NotFound
from service.store.database import Database
from service.store.rows import KeyRow
from service.tables import keys

USED_EVERY_SECONDS = 60.0
"""`last_used_at` is as exact as this: a write for every request would be too many."""


class Keys(Database):
    def add_key(
        self,
        *,
        key_id: str,
        digest: str,
        owner: str,
        name: str,
        scopes: Collection[str],
        lifetime_seconds: float | None,
    ) -> KeyRow:
        expires_at = None if lifetime_seconds is None else epoch_now() + lifetime_seconds
        with self._write() as connection:
            connection.execute(
                insert(keys).values(
                    id=key_id,
                    digest=digest,
                    owner=owner,
                    name=name,
                    scopes=sorted(scopes),
                    expires_at=expires_at,
                )
            )
            return _row(connection.execute(_keys().where(keys.c.id == key_id)).one())

    def key(self, key_id: str) -> KeyRow:
        """Raises NotFound."""
        with self._read() as connection:
            row = connection.execute(_keys().where(keys.c.id == key_id)).one_or_none()
        if row is None:
            raise NotFound(f"no key {key_id}", id=key_id)
        return _row(row)

    def list_keys(self) -> list[KeyRow]:
        """Newest first, revoked and expired ones too."""
        with self._read() as connection:
            return [_row(row) for row in connection.execute(_keys().order_by(keys.c.id.desc()))]

    def revoke_key(self, key_id: str) -> KeyRow:
        """From now on it opens nothing. Twice is once. Raises NotFound."""
        with self._write() as connection:
            connection.execute(
                update(keys)
                .where(keys.c.id == key_id, keys.c.revoked_at.is_(None))
                .values(revoked_at=epoch_now())
            )
        return self.key(key_id)

    def touch_key(self, key_id: str) -> None:
        """Note that it was used, where the last note is old."""
        old = epoch_now() - USED_EVERY_SECONDS
        with self._write() as connection:
            connection.execute(
                update(keys)
                .where(
                    keys.c.id == key_id,
                    or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < old),
                )
                .values(last_used_at=epoch_now())
            )

    def has_keys(self) -> bool:
        """Whether one was ever made: a service whose last key is revoked is closed, not open."""
        with self._read() as connection:
            return connection.execute(select(keys.c.id).limit(1)).first() is not None


def _keys() -> Select[Any]:
    live = keys.c.revoked_at.is_(None) & (
        keys.c.expires_at.is_(None) | (keys.c.expires_at > epoch_now())
    )
    stale = keys.c.last_used_at.is_(None) | (keys.c.last_used_at < epoch_now() - USED_EVERY_SECONDS)
    return select(keys, live.label("live"), stale.label("stale"))


def _row(row: Row[Any]) -> KeyRow:
    return KeyRow(**row._asdict())
