"""The demo shows what the service answers, and notices when it does not."""

import json
from dataclasses import replace

import pytest

from demo import findings, sweep
from demo.findings import DemoError
from demo.pictures import against_loss, against_steps
from demo.points import Measured, Picture
from tests.client.conftest import Service
from tests.results import STEPS, run_next

RANKS = [4, 8, 16]


@pytest.fixture
def swept(service: Service) -> list[sweep.Child]:
    """A sweep whose runs have all finished, as its last state."""
    job = service.client.create_job(
        {**service.spec, "type": "sweep", "ranks": RANKS, "seeds": [17]}
    )
    for _ in RANKS:
        run_next(service.store)
    return list(sweep.follow(service.client, job["id"], pause=0))[-1]


@pytest.fixture
def points(service: Service, swept: list[sweep.Child]) -> list[Measured]:
    return findings.measured(service.client, swept)


@pytest.fixture
def drawn(service: Service, points: list[Measured]) -> list[Picture]:
    found = findings.laws(service.client, points)
    curves = [p for rank in RANKS for p in findings.curve(service.client, found.joint, rank)]
    line = findings.line(service.client, found.linear)
    return [
        against_loss(points, line, r2=found.linear["r2"]),
        against_steps(points, curves, r2=found.joint["r2"]),
    ]


def test_the_last_state_names_every_run_in_order(swept: list[sweep.Child]) -> None:
    assert [child.rank for child in swept] == RANKS
    assert {(child.status, child.done) for child in swept} == {("succeeded", 1.0)}


def test_every_checkpoint_becomes_a_point(points: list[Measured]) -> None:
    assert [(p.rank, p.step) for p in points] == [(r, s) for r in RANKS for s in STEPS]
    for point in points:
        assert point.kl == pytest.approx(1.5 - 0.4 * point.ft_loss)
        assert point.ce_soft == pytest.approx(point.kl + 2.0)


def test_the_laws_are_those_of_these_points(service: Service, points: list[Measured]) -> None:
    found = findings.laws(service.client, points)
    assert found.linear["r2"] > 0.999
    assert "KL = -0.4000 · L_ft +1.5000" in findings.equation(found.linear)
    assert findings.equation(found.joint).startswith("KL = ")
    with pytest.raises(DemoError, match="no joint and no linear law"):
        findings.laws(service.client, points[1:])


def test_what_is_plotted_is_what_the_service_answers(
    service: Service, drawn: list[Picture], points: list[Measured]
) -> None:
    by_loss, by_step = (list(findings.check_plotted(service.client, one)) for one in drawn)
    assert by_loss[-1] == len(by_loss) == len(points) + findings.N_LINE
    assert by_step[-1] == len(by_step) > len(points) + len(RANKS) * 10


@pytest.mark.parametrize("number", ["kl", "ft_loss", "value"])
def test_a_number_changed_after_it_was_fetched_is_noticed(
    service: Service, drawn: list[Picture], number: str
) -> None:
    body = json.loads(json.dumps(drawn[0].spec))
    row = next(row for data in body["datasets"].values() for row in data if row.get(number))
    row[number] += 1e-6
    with pytest.raises(DemoError, match="forgetting-against-loss plots"):
        list(findings.check_plotted(service.client, replace(drawn[0], spec=body)))


def test_a_failed_run_is_told_with_its_reason(service: Service) -> None:
    job = service.client.create_job(
        {**service.spec, "type": "sweep", "ranks": RANKS, "seeds": [17]}
    )
    claim = service.start()
    service.store.fail(claim, {"code": "training_diverged", "detail": "step 7", "class": "user"})
    run_next(service.store)
    service.client.cancel(job["id"])
    last = list(sweep.follow(service.client, job["id"], pause=0))[-1]
    with pytest.raises(DemoError, match=r"2 of 3 runs.*\n.*training_diverged: step 7\n.*cancelled"):
        findings.measured(service.client, last)


def test_forgetting_out_of_range_is_refused(points: list[Measured]) -> None:
    findings.check_range(points)
    for kl in (0.049, 1.001):
        with pytest.raises(DemoError, match=f"rank 4: {kl:.4f}"):
            findings.check_range([replace(p, kl=kl) if p.rank == 4 else p for p in points])


def test_only_the_last_checkpoint_must_be_in_range(points: list[Measured]) -> None:
    findings.check_range([replace(p, kl=0.01) if p.step == STEPS[0] else p for p in points])


def test_the_demo_s_own_job_is_admitted(service: Service) -> None:
    """The very spec, against real files of the demo, at POST."""
    [folder] = service.settings.data_roots
    sweep.write_data(folder)
    job = service.client.create_job(sweep.spec("tiny_base"))
    children = list(service.client.jobs(sweep=job["id"]))
    assert sorted(sweep.rank(child) for child in children) == sweep.RANKS
