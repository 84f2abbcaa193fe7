"""Who may call. With a key set, every path but the two probes needs one, known or not."""

import ipaddress

from anyio.to_thread import run_sync
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import scopes
from service.errors import ForgettingError, InsufficientScope, InvalidSpec, Unauthorized
from service.keys import EVERYBODY, NOBODY, Caller, caller_of
from service.problems import of_error
from service.rate import Rate
from service.settings import Settings
from service.store import Store

OPEN = frozenset({"/healthz", "/readyz", "/v1/healthz", "/v1/readyz"})


class BearerKey:
    """ASGI: default-deny, so a route that is added later is closed without anybody's doing."""

    def __init__(self, app: ASGIApp, store: Store, settings: Settings, rate: Rate) -> None:
        self.app, self._store, self._settings, self._rate = app, store, settings, rate
        self._needed = settings.api_key is not None or not is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] in OPEN:
            scope.setdefault("state", {})["caller"] = NOBODY
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        try:
            caller = await run_sync(self._caller, given)
        except ForgettingError as error:
            await of_error(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def _caller(self, given: str) -> Caller:
        """Raises Unauthorized, RateLimited, SystemFault."""
        if not self._keys_are_needed():
            return EVERYBODY
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("send `Authorization: Bearer <key>`")
        caller = caller_of(token.strip(), self._store, self._settings)
        if not caller.is_admin:
            self._rate.take(caller.id)
        return caller

    def _keys_are_needed(self) -> bool:
        """From the moment that one is made, for good: revoking the last opens nothing."""
        self._needed = self._needed or self._store.has_keys()
        return self._needed


def caller(request: Request) -> Caller:
    found: Caller = request.state.caller
    return found


async def guard(request: Request) -> None:
    """Holds every route to the scope that it names. Raises InsufficientScope."""
    needed = scopes.needed(getattr(request.scope["route"], "openapi_extra", None))
    if needed is None or caller(request).may(needed):
        return
    raise InsufficientScope(f"this needs a key with the scope {needed}", scope=needed)


def check_exposure(settings: Settings, *, has_keys: bool = False) -> None:
    """Raises InvalidSpec when the service would listen beyond loopback without a key."""
    if settings.api_key is None and not has_keys and not is_loopback(settings.host):
        raise InvalidSpec(
            f"host {settings.host} is reachable from outside: make a key with "
            "`forgetting-service keys create`, set FORGETTING_API_KEY, or listen on 127.0.0.1",
            param="host",
        )
    if settings.api_key is not None and len(settings.api_key.get_secret_value()) < 16:
        raise InvalidSpec("FORGETTING_API_KEY needs at least 16 characters", param="api_key")


def is_loopback(host: str) -> bool:
    """Of a literal address or `localhost`; any other name may resolve anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
