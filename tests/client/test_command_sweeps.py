"""Sweeps on the command line: time left, what failed, pilots and going on from them."""

import io
import json

from forgetting_client.command.pilot_page import trial
from forgetting_client.command.sweep_watch import PlainBoard
from forgetting_client.command.words import outlook, standing

from tests.results import run_next

PILOT = {"type": "sweep", "ranks": [8, 16, 32, 64, 128, 256], "seeds": [17, 18, 19], "pilot": True}
HALF = [
    {"kind": "phase", "phase": "training"},
    {"kind": "metric", "name": "train_loss", "step": 10, "value": 2.0},
    {"kind": "progress", "done": 10, "total": 20, "unit": "steps"},
]


def words(text: str) -> str:
    return " ".join(text.split())


def test_show_tells_how_far_a_sweep_is_and_until_when(service) -> None:
    sweep = service.submit(type="sweep", ranks=[4, 8], seeds=[17])
    assert "now" not in service.forgetting("jobs", "show", sweep).stdout
    service.store.beat(service.start(), HALF)
    shown = words(service.forgetting("jobs", "show", sweep).stdout)
    # 10 of 20 steps; 8 checkpoints that count 10 steps each are still to be measured.
    assert "now 5% done, about " in shown
    assert " left" in shown
    assert "running 5%" in service.forgetting("jobs", "list", "--type", "sweep").stdout


def test_show_lists_the_children_that_failed(service) -> None:
    sweep = service.submit(type="sweep", ranks=[4, 8], seeds=[17])
    claim = service.start()
    service.store.fail(claim, {"code": "out_of_memory", "detail": "too big", "class": "system"})
    shown = words(service.forgetting("jobs", "show", sweep).stdout)
    assert f"failed rank 4, seed 17, 5e-05: out_of_memory: too big ({claim.job_id})" in shown


def test_flags_make_a_pilot(service) -> None:
    flags = ["--base-model", "tiny_base", "--dataset", "rows.jsonl", "--corpus", "corpus.txt"]
    flags += ["--context", "64", "--steps", "20", "--batch-size", "4"]
    flags += ["--set", "training.max_length=64", "--ranks", "8,16,32,64,128,256", "--pilot"]
    made = service.forgetting("jobs", "submit", *flags, "--learning-rates", "1e-4,1e-3")
    job = service.client.job(made.stdout.strip())
    assert job["pilot"]["far_corner"] == {"rank": 256, "step": 20}
    assert job["children"]["total"] == 12
    refused = service.forgetting("jobs", "submit", *flags, "--seeds", "1", "--set", "ranks=[1,2,3]")
    assert refused.exit_code == 2
    assert "pilot" in refused.stderr


def test_a_pilot_predicts_the_far_corner_and_goes_on(service) -> None:
    pilot = service.submit(**PILOT)
    shown = words(service.forgetting("jobs", "show", pilot).stdout)
    assert "pilot at most 17% of the sweep: rank 8,16,32, seed 17,18" in shown
    assert "Expected kl" not in shown
    refused = service.forgetting("jobs", "extend", pilot)
    assert refused.exit_code == 2
    assert "has ended" in refused.stderr
    for _ in range(6):
        run_next(service.store)
    shown = words(service.forgetting("jobs", "show", pilot).stdout)
    (law,) = service.client.fit_law(filter={"sweep": pilot}, metric="kl", forms=["joint"])
    said = service.client.predict(law["id"], rank=256, step=20)
    assert f"Expected kl at rank 256, step 20: {said['value']:#.4g}, a new run within [" in shown
    assert "; extrapolated The interval holds only if the law's form does out there" in shown
    assert shown.endswith("too small to try it on points held out.")
    watched = words(service.forgetting("jobs", "watch", pilot).stdout)
    assert "Expected kl at rank 256" in watched
    assert f"forgetting jobs extend {pilot}" in watched
    whole = service.forgetting("jobs", "extend", pilot).stdout.strip()
    assert service.client.job(whole)["extends"] == pilot
    again = service.forgetting("jobs", "extend", pilot, "--json")
    assert json.loads(again.stdout)["id"] == whole
    assert f"goes on from {pilot}" in words(service.forgetting("jobs", "show", whole).stdout)
    assert "jobs extend" not in service.forgetting("jobs", "watch", pilot).stdout


def test_a_prediction_stands_beside_what_the_law_missed() -> None:
    later, edge = {"errors": {"joint": {"mae": 0.28}, "linear": {"mae": 0.1}}}, {"errors": {}}
    law = {"form": "joint", "judgement": {"held_out": {"later_steps": later, "edge_rank": edge}}}
    said = "Fitted without them, it missed later steps by 0.2800 nats on average."
    assert trial(law).endswith(said)
    edge["errors"] = {"joint": {"mae": 0.05}}
    said = "missed later steps by 0.2800 and a smallest or largest rank by 0.05000 nats on average."
    assert trial(law).endswith(said)
    # What a service says of a law that it could not try.
    small = "too small to try it"
    for held_out in ({"later_steps": None}, {"later_steps": {"errors": {"joint": None}}}):
        assert small in trial({"form": "joint", "judgement": {"held_out": held_out}})
    assert small in trial({"form": "joint", "judgement": None})


def test_a_pilot_whose_points_do_not_suffice_says_so(service) -> None:
    pilot = service.submit(**PILOT)
    for _ in range(6):
        service.finish(service.start(), 0.01, 0.02)  # all of them claim rank 8
    shown = words(service.forgetting("jobs", "show", pilot).stdout)
    assert "No prediction for rank 256, step 20: " in shown


def test_watch_tells_every_tenth_of_the_work_in_a_log() -> None:
    log = io.StringIO()
    screen = PlainBoard(log)
    for share, left in [(0.0, None), (0.04, None), (0.12, 90.0), (0.13, 80.0), (0.35, 60.0)]:
        screen.draw({"work": {"share_done": share, "eta_seconds": left}}, [])
    screen.draw({"work": {"share_done": 1.0, "eta_seconds": 0.0}}, [])
    said = [line.split(maxsplit=1)[1] for line in log.getvalue().splitlines()]
    assert said == [
        "sweep: 12% done, about 1 min 30 s left",
        "sweep: 35% done, about 1 min 00 s left",
    ]


def test_a_sweep_that_is_being_stopped_promises_no_time() -> None:
    job = {
        "status": "running",
        "cancel_requested": True,
        "work": {"share_done": 0.88, "eta_seconds": 322.0},
    }
    assert (standing(job), outlook(job)) == ("cancelling", "stopping")
