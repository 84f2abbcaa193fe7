"""The client against the real application: every method, from submission to prediction."""

import threading
from pathlib import Path

import pytest
from forgetting_client import errors


def test_a_job_from_submission_to_result(service, tmp_path: Path) -> None:
    client = service.client
    job = client.create_job({**service.spec, "metadata": {"team": "a"}})
    assert (job["status"], job["type"], job["metadata"]) == ("queued", "finetune", {"team": "a"})
    with pytest.raises(errors.NotFinished):
        client.result(job["id"])
    claim = service.start()
    service.store.beat(
        claim,
        [
            {"kind": "phase", "phase": "training"},
            {"kind": "progress", "done": 5, "total": 20, "unit": "steps"},
            {"kind": "metric", "name": "train_loss", "step": 5, "value": 2.5},
            {"kind": "metric", "name": "kl", "step": 10, "value": 0.01},
        ],
    )
    running = client.job(job["id"])
    assert (running["phase"], running["progress"]["done"]) == ("training", 5)
    service.finish(claim, 0.01, 0.02)
    assert client.wait(job["id"], timeout=5)["status"] == "succeeded"
    result = client.result(job["id"])
    assert result["kl"]["value"] == 0.02
    assert [one["step"] for one in result["checkpoints"]] == [10, 20]
    assert client.metrics(job["id"])["series"].keys() == {"train_loss", "kl"}
    assert client.metrics(job["id"], ["kl"])["series"].keys() == {"kl"}
    assert client.checkpoints(job["id"]) == []
    assert [one["kl"] for one in client.tokens(job["id"], limit=1)] == [7.5]
    artifact = client.artifacts(job["id"])[0]
    path = client.download(job["id"], artifact["name"], tmp_path)
    assert path.read_text() == '{"r": 8}'
    client.delete(job["id"])
    with pytest.raises(errors.NotFound):
        client.job(job["id"])


def test_events_arrive_while_the_job_runs(service) -> None:
    job_id = service.submit()
    claim = service.start()
    seen: list[str] = []

    def work() -> None:
        # Only once the stream is open and has delivered: what follows cannot be a replay.
        assert opened.wait(10)
        service.store.beat(claim, [{"kind": "phase", "phase": "training"}])
        service.finish(claim)

    opened = threading.Event()
    worker = threading.Thread(target=work)
    worker.start()
    for event in service.client.events(job_id):
        seen.append(event["kind"])
        opened.set()
    worker.join()
    assert seen[0] == "status"
    assert "phase" in seen
    assert seen[-1] == "done"


def test_a_resumed_job_is_followed_to_its_last_end(service) -> None:
    job_id = service.submit()
    fault = {"code": "system_fault", "detail": "disk full", "class": "system"}
    service.store.fail(service.start(), fault)
    assert service.client.job(job_id)["error"]["detail"] == "disk full"
    assert service.client.resume(job_id)["status"] == "queued"
    service.finish(service.start())
    kinds = [event["kind"] for event in service.client.events(job_id)]
    assert kinds.count("done") == 2
    assert kinds[-1] == "done"
    first_done = kinds.index("done") + 1
    later = [event["id"] for event in service.client.events(job_id, after=first_done)]
    assert later == list(range(first_done + 1, len(kinds) + 1))


def test_wait_tells_when_time_is_up_and_leaves_the_job_alone(service) -> None:
    job_id = service.submit()
    with pytest.raises(errors.WaitTimeout, match="still queued"):
        service.client.wait(job_id, timeout=0.01)
    with pytest.raises(TimeoutError):
        service.client.wait(job_id, timeout=0)
    assert service.client.job(job_id)["cancel_requested"] is False


def test_the_same_key_never_makes_two_jobs(service) -> None:
    first = service.client.create_job(service.spec, idempotency_key="k")
    again = service.client.create_job(service.spec, idempotency_key="k")
    assert first["id"] == again["id"]
    with pytest.raises(errors.IdempotencyKeyReused):
        service.client.create_job({**service.spec, "metadata": {"a": "b"}}, idempotency_key="k")
    assert len(list(service.client.jobs())) == 1


def test_cancel_resume_delete_and_their_refusals(service) -> None:
    client, job_id = service.client, service.submit()
    with pytest.raises(errors.StillRunning):
        client.delete(job_id)
    with pytest.raises(errors.NotResumable):
        client.resume(job_id)
    assert client.cancel(job_id)["status"] == "cancelled"
    assert client.cancel(job_id)["status"] == "cancelled"
    assert client.resume(job_id)["status"] == "queued"
    service.start()
    assert client.cancel(job_id)["cancel_requested"] is True


def test_lists_are_filtered_and_walked_to_their_end(service) -> None:
    for i in range(5):
        service.submit(metadata={"even": str(i % 2 == 0), "n": str(i)})
    client = service.client
    assert [job["metadata"]["n"] for job in client.jobs()] == ["4", "3", "2", "1", "0"]
    assert [job["metadata"]["n"] for job in client.jobs(limit=2)] == ["4", "3"]
    even = client.jobs(metadata={"even": "True"}, status="queued", type="finetune")
    assert [job["metadata"]["n"] for job in even] == ["4", "2", "0"]
    assert list(client.jobs(base_model="another")) == []


def test_a_sweep_and_its_laws(service) -> None:
    sweep_id = service.submit(type="sweep", ranks=[4, 8, 16], seeds=[17])
    assert service.client.job(sweep_id)["children"]["total"] == 3
    for rank in (4, 8, 16):
        service.finish(service.start(), *(0.002 * rank**0.5 * n for n in (1, 2, 3, 4)))
    children = list(service.client.jobs(sweep=sweep_id))
    assert {child["status"] for child in children} == {"succeeded"}
    (law,) = service.client.fit_law(filter={"sweep": sweep_id}, metric="kl", forms=["linear"])
    assert (law["form"], law["metric"], law["n_points"]) == ("linear", "kl", 12)
    assert service.client.law(law["id"]) == law
    assert [one["id"] for one in service.client.laws(metric="kl", form="linear")] == [law["id"]]
    prediction = service.client.predict(law["id"], ft_loss=2.45)
    assert prediction["value"] == pytest.approx(0.05, abs=0.02)
    assert service.client.pending_laws(metric="kl", form="joint")[0]["form"] == "joint"


def test_what_the_service_refuses_names_the_field(service) -> None:
    with pytest.raises(errors.DatasetUnreadable) as caught:
        service.submit(dataset={"path": "absent.jsonl"})
    assert caught.value.param == "dataset.path"
    with pytest.raises(errors.InvalidSpec) as invalid:
        service.submit(training={"lora": {"r": 0}})
    assert invalid.value.param == "training.lora.r"
    assert invalid.value.request_id
    with pytest.raises(errors.TooFewPoints):
        service.client.fit_law(filter={"base_model": "none"})


def test_health_and_a_readiness_that_is_none(service) -> None:
    assert service.client.health()["status"] == "ok"
    readiness = service.client.ready()
    assert readiness["status"] == "not_ready"
    assert readiness["checks"]["database"]["ok"] is True
    assert readiness["checks"]["worker"]["ok"] is False
    service.store.beat_worker("w", state="idle")
    assert service.client.ready()["status"] == "ready"
