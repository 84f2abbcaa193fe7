"""What a pilot says of the far corner: the whole sweep's largest rank at its last step."""

from collections.abc import Iterator

from forgetting_client.client import ForgettingClient
from forgetting_client.command.words import interval, number
from forgetting_client.errors import ForgettingError
from forgetting_client.law_wire import Law
from forgetting_client.wire import Job


def prophecy(client: ForgettingClient, job: Job) -> Iterator[str]:
    """A line for each law, one per learning rate; or why there is none. Asks the service."""
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
    except ForgettingError as error:
        yield f"No prediction for {where}: {error}"


def rate(law: Law) -> float:
    return float((law["recipe"] or {}).get("learning_rate", 0.0))
