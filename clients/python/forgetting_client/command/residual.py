"""Whether a run forgot more than its recipe's law expects, in a sentence."""

from collections.abc import Iterable

from forgetting_client.command.words import number
from forgetting_client.wire import LawResidual, Result

EDGE = 1.96
"""A |z| up to this lies within the law's 95 % interval of a new run."""
PLACE = {"linear": "at its fine-tuning loss", "joint": "at its rank and step"}


def sentences(result: Result) -> Iterable[str]:
    """One per run and form; of several runs each by its name. None where there is no law yet."""
    law = result.get("law")
    if not law:
        return
    told: list[LawResidual] = [law, *law["also"]]
    several = len({one["run"] for one in told}) > 1
    for one in told:
        yield (f"{one['run']}: " if several else "") + sentence(one)


def sentence(one: LawResidual) -> str:
    if abs(one["z"]) <= EDGE:
        found = "Forgot as much as expected"
    else:
        side = "more" if one["residual"] > 0 else "less"
        found = f"Forgot {abs(one['residual']):.2g} nats {side} than expected"
    far = ", extrapolating" if one["extrapolating"] else ""
    return (
        f"{found} {PLACE[one['form']]}: {number(one['measured'])}, "
        f"expected {number(one['expected'])} "
        f"(z {one['z']:+.1f}, {one['n_runs']} other runs{far}; {one['id']})"
    )
