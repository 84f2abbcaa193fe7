"""Client of the forgetting service. `ForgettingClient` is the door; `errors` what it raises.

Names are loaded on first use, so that `forgetting --help` does not wait for the HTTP library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetting_client.client import ForgettingClient
    from forgetting_client.connection import Retry
    from forgetting_client.errors import ForgettingError, ServiceError, Unreachable

__version__ = "0.1.0"
__all__ = ["ForgettingClient", "ForgettingError", "Retry", "ServiceError", "Unreachable"]

_HOMES = {
    "ForgettingClient": "forgetting_client.client",
    "Retry": "forgetting_client.connection",
    "ForgettingError": "forgetting_client.errors",
    "ServiceError": "forgetting_client.errors",
    "Unreachable": "forgetting_client.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
