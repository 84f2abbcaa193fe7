"""What a pilot says of the far corner: the whole sweep's largest rank at its last step."""

from collections.abc import Iterator

from forgetting_client.client import ForgettingClient
from forgetting_client.command.words import interval, number
from forgetting_client.errors import ForgettingError
from forgetting_client.law_wire import Law
from forgetting_client.wire import Job

HELD_OUT = {"later_steps": "later steps", "edge_rank": "a smallest or largest rank"}
"""Kinds of folds that, like the far corner, lie outside what was fitted."""


def prophecy(client: ForgettingClient, job: Job) -> Iterator[str]:
    """Two lines for each law, one law per learning rate; or why there is none. Asks the service."""
    pilot = job["pilot"]
    assert pilot is not None
    corner = pilot["far_corner"]
    where = f"rank {corner['rank']}, step {corner['step']}"
    try:
        laws = client.fit_law(filter={"sweep": job["id"]}, metric="kl", forms=["joint"])
        for law in sorted(laws, key=rate):
            said = client.predict(law["id"], rank=corner["rank"], step=corner["step"])
            at = f", learning rate {rate(law):g}" if len(laws) > 1 else ""
            within = (
                f"a new run within {interval(said['pi95'])} (95%)"
                if said["pi95"]
                else f"from too few runs ({law['n_runs']}) for an interval"
            )
            yield (
                f"Expected kl at {where}{at}: {number(said['value'])}, {within}"
                + ("; extrapolated" if said["extrapolating"] else "")
            )
            yield trial(law)
    except ForgettingError as error:
        yield f"No prediction for {where}: {error}"


def trial(law: Law) -> str:
    """What the interval rests on, and how far the law missed what it was not shown, if known."""
    held_out = (law["judgement"] or {}).get("held_out") or {}
    errors = {kind: (held_out.get(kind) or {}).get("errors") or {} for kind in HELD_OUT}
    missed = [
        f"{name} by {number(errors[kind][law['form']]['mae'])}"
        for kind, name in HELD_OUT.items()
        if errors[kind].get(law["form"])
    ]
    caution = "The interval holds only if the law's form does out there"
    if not missed:
        return f"{caution}, and the pilot is too small to try it on points held out."
    return f"{caution}. Fitted without them, it missed {' and '.join(missed)} nats on average."


def rate(law: Law) -> float:
    return float((law["recipe"] or {}).get("learning_rate", 0.0))
