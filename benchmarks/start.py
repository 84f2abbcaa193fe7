"""From `POST /jobs` to the start on an idle worker: `started_at` less `created_at`, both by the
database's clock.

Service, database, broker and one worker share this machine. The worker only claims (and ends the
job at once); each job is sent once the one before has ended and the worker has idled for a moment.
"""

import argparse
import random
import statistics
import sys
import time
from datetime import datetime
from typing import Any

import httpx2

from benchmarks.submit import served
from tests.e2e.house import finetune

DATABASES = ("sqlite", "postgresql")
PAUSE_SECONDS = (0.2, 0.6)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--database", choices=DATABASES)
    given = parser.parse_args()
    sys.stdout.write("| database | jobs | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|\n")
    for database in [given.database] if given.database else DATABASES:
        waits = sorted(measure(database, given.jobs))
        p50, p99 = statistics.median(waits), waits[round(0.99 * (len(waits) - 1))]
        said = " | ".join(f"{1000 * wait:.0f}" for wait in (p50, p99, waits[-1]))
        sys.stdout.write(f"| {database} | {len(waits)} | {said} |\n")
        sys.stdout.flush()


def measure(database: str, n_jobs: int) -> list[float]:
    """Seconds, of each job."""
    with (
        served(database, claimer=True) as (url, _, _),
        httpx2.Client(base_url=url, timeout=60) as client,
    ):

        def run() -> dict[str, Any]:
            time.sleep(random.uniform(*PAUSE_SECONDS))
            job = client.post("/jobs", json=finetune()).raise_for_status().json()
            while job["status"] in ("queued", "running"):
                time.sleep(0.05)
                job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
            found: dict[str, Any] = job
            return found

        run()  # until the worker is there
        ran = [run() for _ in range(n_jobs)]
    return [moment(job, "started_at") - moment(job, "created_at") for job in ran]


def moment(job: dict[str, Any], name: str) -> float:
    return datetime.fromisoformat(job[name]).timestamp()


if __name__ == "__main__":
    main()
