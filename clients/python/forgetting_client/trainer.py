"""`ForgettingCallback` for a training script of your own.

from forgetting_client.trainer import ForgettingCallback

trainer.add_callback(ForgettingCallback("wikitext.txt", limit=0.1))

It measures with the service's own scoring code, which the worker's distribution brings: this
package finds it through the entry point `trainer` of `forgetting.local`, and never imports it.
"""

from importlib.metadata import entry_points
from typing import Any

GROUP, NAME = "forgetting.local", "trainer"
ADVICE = (
    "ForgettingCallback measures in your training process and needs the worker there: "
    "pip install 'forgetting-service[worker]' (from a checkout: pip install '.[worker]')"
)


def __getattr__(name: str) -> Any:
    if name != "ForgettingCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = next(iter(entry_points(group=GROUP, name=NAME)), None)
    if found is None:
        raise ImportError(ADVICE)
    try:
        return found.load()
    except ModuleNotFoundError as error:
        raise ImportError(f"{ADVICE}; {error.name} is missing") from error
