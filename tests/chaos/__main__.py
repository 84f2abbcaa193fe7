"""`make chaos`: submissions under random faults, then a settle, then the books are read.

Exit 1 where a job was lost or counted twice. Faults, deeds and cancels follow --seed; how they
meet is the machine's.
"""

import argparse
import contextlib
import random
import sys
import time

from service.errors import SystemFault
from service.store import Store
from tests.chaos.audit import Audit, at_rest, audit
from tests.chaos.clients import Clients
from tests.chaos.parts import until
from tests.chaos.town import LEASE_SECONDS, town

FAULT_SECONDS = 1.0
"""Mean pause between two faults."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=300, help="at least so many")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--limit", type=float, default=3600, help="seconds for one database")
    given = parser.parse_args()
    chosen = ["sqlite", "postgresql"] if given.database == "both" else [given.database]
    clean = True
    for database in chosen:
        found = chaos(
            database, given.jobs, given.faults, seed=given.seed, limit=given.limit, tell=True
        )
        sys.stdout.write(found.table() + "\n")
        sys.stdout.flush()
        clean = clean and found.clean
    sys.exit(0 if clean else 1)


def chaos(
    database: str,
    n_jobs: int,
    n_faults: int,
    *,
    seed: int,
    limit: float,
    settle: float = 60 + 20 * LEASE_SECONDS,
    tell: bool = False,
    **settings: str,
) -> Audit:
    """One bounded run, with these settings over the fast ones.

    Raises TimeoutError where its jobs cannot even be submitted within `limit` seconds.
    """
    rng = random.Random(seed)
    began = time.monotonic()
    with town(database, **settings) as place:
        until(lambda: len(place.store.living_workers()) >= 2, 60, "no workers")
        clients = Clients(place.urls, n_jobs, seed=seed)
        clients.start()
        while not clients.done or len(place.faults) < n_faults:
            if time.monotonic() - began > limit:
                raise TimeoutError(f"{len(clients.accepted)} of {n_jobs} jobs were accepted")
            place.harm(rng)
            time.sleep(rng.expovariate(1 / FAULT_SECONDS))
            _look(place.store, clients)
            if tell and len(place.faults) % 20 == 0:
                said = f"{len(place.faults)} faults, {len(clients.accepted)} jobs accepted"
                sys.stderr.write(f"{database}: {said}\n")

        if len(clients.accepted) < n_jobs:
            raise RuntimeError(f"only {len(clients.accepted)} of {n_jobs} jobs were accepted")

        def settled() -> bool:
            _look(place.store, clients)
            return clients.n_open == 0

        try:
            until(settled, settle, "the settle")
        except TimeoutError as late:
            sys.stderr.write(f"{database}: {late}\n")  # the audit counts them as lost
        return audit(
            place.store,
            database=database,
            accepted=clients.accepted,
            contradicted=clients.contradicted,
            ledger=place.ledger(),
            faults=place.faults,
            log=place.logs(),
            submit_seconds=clients.submit_seconds,
            seconds=time.monotonic() - began,
        )


def _look(store: Store, clients: Clients) -> None:
    """How many jobs are at rest; the database may be away just now."""
    with contextlib.suppress(SystemFault):
        clients.note_over([row.id for row in at_rest(store)])


if __name__ == "__main__":
    main()
