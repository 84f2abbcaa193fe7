"""Keys are made, and callers known by them. `fgt_<id>_<secret>`: the id is public, 256 bits not.

A slow hash would add nothing: nobody guesses 256 random bits.
"""

import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from service.errors import NotFound, Unauthorized
from service.pepper import pepper
from service.scopes import Scope
from service.settings import Settings
from service.store import Access, KeyRow, Store
from service.store.ids import new_id

SECRET_BYTES = 32
TOKEN = re.compile(r"fgt_([0-9A-HJKMNP-TV-Z]{26})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Caller:
    """Who sends a request."""

    id: str
    """Of the key; "" where none is needed."""
    owner: str
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """`admin` may do everything."""
        return self.is_admin or scope in self.scopes

    def access(self, settings: Settings) -> Access:
        if self.is_admin:
            return Access(owner=self.owner)
        return Access(owner=self.owner, sees_all=False, max_jobs=settings.quota_jobs)


EVERYBODY = Caller("", "", frozenset(Scope))
"""Where there are no keys, on loopback."""
NOBODY = Caller("", "", frozenset())
"""At the probes, which are open."""
BOOTSTRAP = Caller("FORGETTING_API_KEY", "", frozenset(Scope))


def create_key(
    store: Store,
    settings: Settings,
    *,
    owner: str,
    name: str,
    scopes: Collection[Scope],
    lifetime_seconds: float | None = None,
) -> tuple[KeyRow, str]:
    """The row, and the key itself, which is nowhere else and cannot be had again."""
    key_id, secret = new_id("key", at=store.ping()), secrets.token_urlsafe(SECRET_BYTES)
    row = store.add_key(
        key_id=key_id,
        digest=digest_of(key_id, secret, settings),
        owner=owner,
        name=name,
        scopes=[scope.value for scope in scopes],
        lifetime_seconds=lifetime_seconds,
    )
    return row, f"fgt_{key_id.removeprefix('key_')}_{secret}"


def caller_of(token: str, store: Store, settings: Settings) -> Caller:
    """Raises Unauthorized, with one sentence for whatever is wrong: a guesser learns nothing."""
    if settings.api_key is not None:
        bootstrap = settings.api_key.get_secret_value().encode()
        if hmac.compare_digest(token.encode("utf-8", "replace"), bootstrap):
            return BOOTSTRAP
    row = _found(token, store, settings)
    if row is None:
        raise Unauthorized("the key is unknown, expired or revoked")
    if row.stale:
        store.touch_key(row.id)
    return Caller(row.id, row.owner, frozenset(Scope(scope) for scope in row.scopes))


def _found(token: str, store: Store, settings: Settings) -> KeyRow | None:
    match = TOKEN.fullmatch(token)
    if match is None:
        return None
    key_id = f"key_{match[1]}"
    try:
        row = store.key(key_id)
    except NotFound:
        return None
    good = hmac.compare_digest(row.digest, digest_of(key_id, match[2], settings))
    return row if good and row.live else None


def digest_of(key_id: str, secret: str, settings: Settings) -> str:
    """HMAC-SHA256 of id and secret under the pepper: a digest cannot be moved to another row."""
    mac = hmac.new(pepper(settings), f"{key_id}.{secret}".encode(), "sha256")
    return f"sha256:{mac.hexdigest()}"
