"""Who may call. With a key set, every path but the two probes needs it, known or not."""

import hmac
import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import InvalidSpec, Unauthorized
from service.problems import of_error
from service.settings import Settings

OPEN = frozenset({"/healthz", "/readyz", "/v1/healthz", "/v1/readyz"})


class BearerKey:
    """ASGI: default-deny, so a route that is added later is closed without anybody's doing."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._key is None or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key):
            await self.app(scope, receive, send)
            return
        said = "the key is wrong" if given else "send `Authorization: Bearer <key>`"
        await of_error(scope, Unauthorized(said))(scope, receive, send)


def check_exposure(settings: Settings) -> None:
    """Raises InvalidSpec when the service would listen beyond loopback without a key."""
    if settings.api_key is None and not is_loopback(settings.host):
        raise InvalidSpec(
            f"host {settings.host} is reachable from outside: set FORGETTING_API_KEY, "
            "or listen on 127.0.0.1",
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
