"""Could a job that is submitted now be run? Database, broker and a living worker, each asked."""

from collections.abc import Callable

from service.broker import Bell
from service.errors import SystemFault
from service.schemas.views import Check, Readiness
from service.store import Store


def readiness(store: Store, ring: Bell) -> Readiness:
    database = _asked(store.ping)
    worker = _worker(store) if database.ok else Check(ok=False, detail="unknown: no database")
    broker = _asked(ring.ping)
    good = database.ok and broker.ok and worker.ok
    return Readiness(
        status="ready" if good else "not_ready",
        checks={"database": database, "broker": broker, "worker": worker},
    )


def _asked(ping: Callable[[], object]) -> Check:
    try:
        ping()
    except (SystemFault, OSError):
        return Check(ok=False, detail="does not answer")
    return Check(ok=True, detail="answers")


def _worker(store: Store) -> Check:
    living = store.living_workers()
    if not living:
        return Check(ok=False, detail="none lives; jobs wait in the queue")
    busy = sum(worker.state == "busy" for worker in living)
    return Check(ok=True, detail=f"{len(living)} alive, {busy} busy")
