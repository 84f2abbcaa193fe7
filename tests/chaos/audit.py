"""What became of every job, from the database and from the ledger that knows no database."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from service.jobs import TERMINAL, JobState
from service.store import JobRow, Store


@dataclass(frozen=True)
class Audit:
    database: str
    n_jobs: int
    """Accepted: the client was given an id."""
    n_faults: int
    faults: Mapping[str, int]
    succeeded: int
    cancelled: int
    failed: Mapping[str, int]
    """By error code."""
    lost: int
    """Accepted and not in the database, or never at rest."""
    doubled: int
    """Jobs with two ends, two results or two law points, two jobs of one key, and a finished
    job without its one execution in the ledger."""
    attempts: int
    executions: int
    """That came to their end, by the ledger: more than succeeded jobs means work done again."""
    stale_refused: int
    """Ends and beats of attempts that had lost their lease."""
    recovery: tuple[float, float, float]
    """Seconds from a fault that took a busy worker or child to the next attempt: p50, p99, max."""
    submit: tuple[float, float, float]
    """Seconds of an answered submission: p50, p99, max."""
    seconds: float

    @property
    def clean(self) -> bool:
        return self.lost == 0 and self.doubled == 0

    def table(self) -> str:
        """Markdown rows, for docs/reliability.md."""
        kinds = ", ".join(f"{count} {code}" for code, count in sorted(self.failed.items())) or "0"
        harm = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        rows = {
            "jobs submitted": f"{self.n_jobs:,}",
            "faults": f"{self.n_faults:,} ({harm})",
            "succeeded, cancelled": f"{self.succeeded:,}, {self.cancelled:,}",
            "failed, by cause": kinds,
            "**lost**": f"**{self.lost}**",
            "**double-counted**": f"**{self.doubled}**",
            "attempts; executions to their end": f"{self.attempts:,}; {self.executions:,}",
            "stale writes refused": f"{self.stale_refused:,}",
            "recovery p50, p99, max": " s, ".join(f"{s:.1f}" for s in self.recovery) + " s",
            "submission p50, p99, max": " s, ".join(f"{s:.3f}" for s in self.submit) + " s",
            "wall-clock": f"{self.seconds:.0f} s",
        }
        head = f"| {self.database} | |\n|---|---|\n"
        return head + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def at_rest(store: Store) -> list[JobRow]:
    """Every job in a terminal state."""
    return [row for row in every(store) if row.state in TERMINAL]


def every(store: Store) -> list[JobRow]:
    found: list[JobRow] = []
    more = True
    while more:
        page, more = store.list_jobs(limit=100, after=found[-1].id if found else None)
        found += page
    return found


def audit(
    store: Store,
    *,
    database: str,
    accepted: Mapping[str, str],
    contradicted: Iterable[str],
    ledger: Iterable[str],
    faults: Iterable[tuple[float, str, str | None]],
    log: str,
    submit_seconds: list[float],
    seconds: float,
) -> Audit:
    rows = {row.id: row for row in every(store)}
    faults = list(faults)
    executed = Counter(line.split()[0] for line in ledger)
    points = Counter(p["run"] for group in store.points() for p in group.points)
    doubled = [*contradicted]
    for job_id, row in rows.items():
        ends = [e for e in store.events(job_id) if e.kind == "done"]
        expected = 1 if row.state is JobState.SUCCEEDED else 0
        if len(ends) > 1 or points[_run_of(row)] != expected or executed[job_id] < expected:
            doubled.append(job_id)
    doubled += [job_id for job_id in rows if job_id not in set(accepted.values())]
    missing = [job_id for job_id in accepted.values() if job_id not in rows]
    restless = [job_id for job_id, row in rows.items() if row.state not in TERMINAL]
    states = Counter(row.state for row in rows.values())
    failed = Counter(row.error["code"] for row in rows.values() if row.error is not None)
    return Audit(
        database=database,
        n_jobs=len(accepted),
        n_faults=len(faults),
        faults=Counter(name for _, name, _ in faults),
        succeeded=states[JobState.SUCCEEDED],
        cancelled=states[JobState.CANCELLED],
        failed=failed,
        lost=len(missing) + len(restless),
        doubled=len(doubled),
        attempts=sum(row.attempt for row in rows.values()),
        executions=sum(executed.values()),
        stale_refused=log.count("lease lost"),
        recovery=_quantiles(_recoveries(store, faults)),
        submit=_quantiles(submit_seconds),
        seconds=seconds,
    )


def _run_of(row: JobRow) -> str:
    """The name of the job's one law point."""
    return row.id if row.type == "finetune" else str(row.spec["adapters"][0]["run"])


def _recoveries(store: Store, faults: list[tuple[float, str, str | None]]) -> list[float]:
    found = []
    for at, _, job_id in faults:
        if job_id is None:
            continue
        starts = [e.at for e in store.events(job_id) if e.data.get("status") == "running"]
        later = [start for start in starts if start > at]
        if later:
            found.append(later[0] - at)
    return found


def _quantiles(values: list[float]) -> tuple[float, float, float]:
    if not values:
        return (float("nan"),) * 3
    p50, p99, most = np.quantile(values, [0.5, 0.99, 1.0])
    return float(p50), float(p99), float(most)
