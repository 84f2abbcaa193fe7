"""Run on the service's machine: a worker is cut off in the middle of a job, and healed later.

Machines are given as name=namespace=address. Prints what became of the job, as JSON.
"""

import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from service.settings import Settings
from service.store import Store
from tests.chaos.child import LEDGER
from tests.chaos.networks import NETWORK, Machine
from tests.chaos.parts import Part, closing, environment, module, until
from tests.chaos.town import FAST, answers
from tests.e2e.house import ROOT, finetune, write_data
from tests.servers import postgres_program, redis_program

KEY = "a-key-for-machines-on-one-desk"
DATABASE_PORT, BROKER_PORT, PORT = 5432, 6379, 8000
WORKERS = ("one", "two")


def main(given: list[str]) -> None:
    found = {m.name: m for m in (Machine(*text.split("=")) for text in given)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forgetting-desk-")))
        folder.chmod(0o755)
        write_data(folder)
        program = stack.enter_context(postgres_program(fsync="on"))
        parts = stack.enter_context(closing([]))
        hba = folder / "hba.conf"
        hba.write_text(f"host all all {NETWORK}.0/24 scram-sha-256\n")
        listen = ["--listen_addresses=*", f"--hba_file={hba}"]
        line = found["database"].command([*program.command(DATABASE_PORT), *listen])
        # As root here, and as PostgreSQL's own user only inside the namespace.
        parts.append(Part("database", _as_owner(line, program.popen), folder / "database.log"))
        url = program.url.format(port=DATABASE_PORT)
        url = url.replace("127.0.0.1", found["database"].address)
        until(lambda: program.answers(url), 30, "the database")
        broker = [*redis_program(folder).command(BROKER_PORT), "--protected-mode", "no"]
        broker[broker.index("127.0.0.1")] = "0.0.0.0"  # of a namespace that nobody else can reach
        parts.append(Part("broker", found["broker"].command(broker), folder / "broker.log"))
        store = Store(url, Settings())
        stack.callback(store.dispose)
        store.migrate()
        own = environment(
            ROOT,
            **FAST,
            FORGETTING_HOST=found["service"].address,
            FORGETTING_PORT=str(PORT),
            FORGETTING_API_KEY=KEY,
            FORGETTING_DATABASE_URL=url,
            FORGETTING_REDIS_URL=f"redis://{found['broker'].address}:{BROKER_PORT}/0",
            FORGETTING_ARTIFACTS_URL=(folder / "artifacts").as_uri(),
            FORGETTING_HOME=str(folder / "service"),
            FORGETTING_MODEL_ROOTS=json.dumps([str(ROOT / "demo")]),
            FORGETTING_DATA_ROOTS=json.dumps([str(folder)]),
            **{LEDGER: str(folder / "ledger")},
        )
        serve = module("service.command", "serve", "--no-worker")
        parts.append(Part("service", serve, folder / "service.log", env=own, cwd=folder))
        at = f"http://{found['service'].address}:{PORT}/v1"
        until(lambda: answers(at), 60, "the service")
        workers = {
            name: Part(
                name,
                found[name].command(module("tests.chaos.worker")),
                folder / f"{name}.log",
                lifeline=True,
                env=own | {"FORGETTING_HOME": str(folder / name)},
                cwd=folder,
            )
            for name in WORKERS
        }
        parts += workers.values()
        until(lambda: len(store.living_workers()) == len(WORKERS), 60, "workers")
        print(json.dumps(cut_off(at, store, found, workers, folder)))  # noqa: T201


def cut_off(
    at: str, store: Store, found: dict[str, Machine], workers: dict[str, Part], folder: Path
) -> dict[str, Any]:
    hold = folder / "hold"
    hold.touch()
    body = finetune(metadata={"deed": "hold"})
    answer = httpx2.post(f"{at}/jobs", json=body, headers={"Authorization": f"Bearer {KEY}"})
    job_id = answer.raise_for_status().json()["id"]
    holders: list[str] = []

    def held() -> bool:
        pids = {w.info["pid"] for w in store.living_workers() if w.job_id == job_id}
        holders[:] = [name for name, part in workers.items() if _family(part) & pids]
        return bool(holders)

    until(held, 60, "a worker at the job")
    [lost] = holders
    found[lost].cut()
    until(lambda: store.job(job_id).attempt == 2, 60, "another attempt")
    hold.unlink()
    until(lambda: store.job(job_id).state == "succeeded", 60, "its end")
    before = store.result(job_id), [event.id for event in store.events(job_id)]
    found[lost].heal()
    log = folder / f"{lost}.log"
    until(lambda: "lease lost" in log.read_text(), 60, "the late writer's refusal")
    # It is a worker like any other again.
    [other] = set(WORKERS) - {lost}
    workers[other].send(signal.SIGSTOP)
    try:
        body = finetune(metadata={"deed": "nothing"})
        answer = httpx2.post(f"{at}/jobs", json=body, headers={"Authorization": f"Bearer {KEY}"})
        after = answer.raise_for_status().json()["id"]
        until(lambda: store.job(after).state == "succeeded", 90, "the healed worker's next job")
    finally:
        workers[other].send(signal.SIGCONT)
    job = store.job(job_id)
    return {
        "state": job.state,
        "attempt": job.attempt,
        "failures": job.failures,
        "ends": [event.kind for event in store.events(job_id)].count("done"),
        "unchanged": (store.result(job_id), [e.id for e in store.events(job_id)]) == before,
        "points": sum(p["run"] == job_id for g in store.points() for p in g.points),
    }


def _family(part: Part) -> set[int]:
    return {part.pid, *(child.pid for child in part.children())}


def _as_owner(line: list[str], popen: dict[str, Any]) -> list[str]:
    """`ip netns exec` is for root; the server behind it is not."""
    if "user" not in popen:
        return line
    cut = line.index("exec") + 2
    who = ["setpriv", f"--reuid={popen['user']}", f"--regid={popen['group']}", "--clear-groups"]
    return [*line[:cut], *who, "--", *line[cut:]]


if __name__ == "__main__":
    main(sys.argv[1:])
