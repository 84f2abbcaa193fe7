"""What 100,000 finished jobs cost those who list, claim and sweep: the same calls at 100 and there.

Medians over `--repeats` calls, on both databases, durable commits.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import text

from service.settings import Settings
from service.store import Store
from tests.chaos.parts import Part, closing, free_port, until
from tests.servers import postgres_program
from tests.service.test_store_indices import finished
from tests.specs import finetune

FEW, MANY = 100, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    sys.stdout.write("| database | call | ms at 100 jobs | ms at 100,000 | ratio |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    for database in ("sqlite", "postgresql"):
        few, many = (measured(database, n, given.repeats) for n in (FEW, MANY))
        for name, ms in few.items():
            row = f"| {database} | {name} | {ms:.2f} | {many[name]:.2f} | {many[name] / ms:.2f} |"
            sys.stdout.write(row + "\n")
        sys.stdout.flush()


def measured(database: str, n_finished: int, repeats: int) -> dict[str, float]:
    """Median milliseconds by call."""
    with opened(database) as store:
        finished(store, n_finished)
        for _ in range(repeats + 10):
            store.add_job(finetune("new"))
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
        calls: dict[str, Callable[[], object]] = {
            "GET /jobs, first page": store.list_jobs,
            "GET /jobs, of one status": lambda: store.list_jobs(status="queued"),
            "claim": lambda: store.claim("bench"),
            "sweep: reap": store.reap,
            "sweep: stale jobs": lambda: store.stale_queued(1.0),
        }
        return {name: _median(call, repeats) for name, call in calls.items()}


def _median(call: Callable[[], object], repeats: int) -> float:
    call()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


@contextlib.contextmanager
def opened(database: str) -> Iterator[Store]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forgetting-bench-")))
        url = f"sqlite:///{folder / 'bench.sqlite3'}"
        if database == "postgresql":
            program = stack.enter_context(postgres_program(fsync="on"))
            parts = stack.enter_context(closing([]))
            port = free_port()
            log = folder / "database.log"
            parts.append(Part("database", program.command(port), log, **program.popen))
            url = program.url.format(port=port)
            until(lambda: program.answers(url), 30, "the database")
        store = Store(url, Settings())
        stack.callback(store.dispose)
        store.migrate()
        yield store


if __name__ == "__main__":
    main()
