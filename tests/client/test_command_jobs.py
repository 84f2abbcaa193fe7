"""`forgetting jobs …` over the real application: words, JSON, exit codes, and where each goes."""

import json
from pathlib import Path

import pytest


def flags(service) -> list[str]:
    training = service.spec["training"]
    return [
        *("--base-model", service.spec["base_model"], "--dataset", "rows.jsonl"),
        *("--corpus", "corpus.txt", "--context", "64", "--rank", "8"),
        *("--steps", str(training["max_steps"]), "--batch-size", "4"),
        *("--set", "training.max_length=64"),
    ]


def fail(service, job_id: str) -> None:
    error = {
        "code": "training_diverged",
        "detail": "loss became NaN at step 3",
        "class": "user",
        "param": "training.learning_rate",
    }
    service.store.fail(service.start(), error)


def test_submit_prints_the_id_alone(service) -> None:
    ran = service.forgetting("jobs", "submit", *flags(service), "--metadata", "team=a")
    assert ran.exit_code == 0, ran.stderr
    job = service.client.job(ran.stdout.strip())
    assert ran.stdout == job["id"] + "\n"
    assert f"forgetting jobs watch {job['id']}" in ran.stderr
    assert (job["spec"]["training"]["lora"]["r"], job["metadata"]) == (8, {"team": "a"})


def test_submit_from_a_file_and_from_stdin(service, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(service.spec))
    from_file = service.forgetting("jobs", "submit", str(path), "--rank", "4", "--json")
    assert json.loads(from_file.stdout)["spec"]["training"]["lora"]["r"] == 4
    from_stdin = service.forgetting("jobs", "submit", "-", input=json.dumps(service.spec))
    assert service.client.job(from_stdin.stdout.strip())["spec"]["training"]["lora"]["r"] == 8


def test_submit_makes_sweeps_and_evaluations(service) -> None:
    sweep = service.forgetting("jobs", "submit", *flags(service), "--ranks", "4,8", "--seeds", "17")
    assert service.client.job(sweep.stdout.strip())["children"]["total"] == 2
    adapter = ("--adapter", "nowhere/adapter", "--base-model", "tiny_base")
    where = ("--corpus", "corpus.txt", "--context", "64")
    refused = service.forgetting("jobs", "submit", *adapter, *where)
    assert refused.exit_code == 2
    assert "adapters.0" in refused.stderr


def test_the_same_key_prints_the_same_id(service) -> None:
    line = ["jobs", "submit", *flags(service), "--idempotency-key", "k"]
    assert service.forgetting(*line).stdout == service.forgetting(*line).stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["jobs", "submit"], "give a spec file"),
        (["jobs", "submit", "absent.json"], "cannot read absent.json"),
        (["jobs", "submit", "--base-model", "m", "--rank", "big"], "rank"),
        (["jobs", "submit", "--type", "dream"], "dream"),
        (["jobs", "show"], "Missing argument"),
        (["jobs", "lst"], "Did you mean 'list'"),
        (["jobs", "list", "--limit", "0"], "limit"),
        (["jobs", "show", "job_none"], "no job job_none"),
        (["jobs", "submit", "--base-model", "absent", "--dataset", "rows.jsonl"], "absent"),
        (["jobs", "delete", "job_none"], "add --yes"),
        (["laws", "fit"], "give either"),
        (["laws", "fit", "--points", "x", "--sweep", "y"], "give either"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_exits_2(service, args, said) -> None:
    ran = service.forgetting(*args)
    assert ran.exit_code == 2
    assert said in " ".join(ran.stderr.split())
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr


def test_a_refusal_names_field_and_request(service) -> None:
    ran = service.forgetting("jobs", "submit", *flags(service), "--set", "training.lora.r=0")
    assert ran.exit_code == 2
    assert ran.stderr.startswith("Error: training.lora.r")
    assert "(validation_error, request req_" in ran.stderr
    ran = service.forgetting("jobs", "submit", *flags(service), "--set", "tpyo=1", "--json")
    assert ran.stdout == ""
    error = json.loads(ran.stderr)["error"]
    assert (error["code"], error["param"], error["exit_code"]) == ("validation_error", "tpyo", 2)


def test_list_filters_and_says_when_there_is_more(service) -> None:
    assert "No such jobs" in service.forgetting("jobs", "list").stderr
    ids = [service.submit(metadata={"n": str(i)}) for i in range(3)]
    ran = service.forgetting("jobs", "list")
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["id", "type", "status", "created", "about"]
    assert [line.split()[0] for line in lines[1:]] == ids[::-1]
    assert "tiny_base: rows.jsonl, rank 8, 20 steps" in lines[1]
    assert ran.stderr == ""
    short = service.forgetting("jobs", "list", "--limit", "2")
    assert len(short.stdout.splitlines()) == 3
    assert "--all" in short.stderr
    one = service.forgetting("jobs", "list", "--metadata", "n=1", "--json")
    assert [job["id"] for job in json.loads(one.stdout)] == [ids[1]]


def test_show_tells_where_a_job_stands(service) -> None:
    job_id = service.submit()
    assert "queued" in service.forgetting("jobs", "show", job_id).stdout
    claim = service.start()
    events = [
        {"kind": "phase", "phase": "training"},
        {"kind": "progress", "done": 5, "total": 20, "unit": "steps"},
        {"kind": "checkpoint", "step": 10, "adapter": "a", "train_loss": 2.5},
    ]
    service.store.beat(claim, events)
    running = service.forgetting("jobs", "show", job_id).stdout
    assert "training 5/20 steps" in running
    assert "2.500" in running
    service.finish(claim, 0.01, 0.0125)
    done = service.forgetting("jobs", "show", job_id).stdout
    assert "rank 8, 20 steps of 4 rows, adafactor at 5e-05" in done
    rows = [line.split() for line in done.splitlines() if line.split()]
    means = {row[0]: row[1:] for row in reversed(rows)}
    assert means["kl"][:3] == ["0.01250", "[0.01125,", "0.01375]"]
    assert means["same_top"][0] == "0.9000"
    assert means["L_ft"][0] == "2.487"
    assert means["20"][:6] == ["8", "98,304", "2.487", "0.01250", "3.013", "0.9000"]
    assert "base pass from the cache" in done
    assert "warning: few documents" in done
    assert json.loads(service.forgetting("jobs", "show", job_id, "--json").stdout)["id"] == job_id


def test_an_evaluation_is_shown_with_and_without_rows(service) -> None:
    base = service.spec["base_model"]
    spec = {"type": "evaluate", "base_model": base, "adapters": [{"path": base}]}
    spec["evaluation"] = service.spec["evaluation"]
    bare = service.client.create_job(spec)["id"]
    assert "dataset" not in service.forgetting("jobs", "show", bare).stdout
    rows = {"dataset": {"path": "rows.jsonl"}, "max_length": 64}
    with_rows = service.client.create_job(spec | rows)["id"]
    assert "rows.jsonl" in service.forgetting("jobs", "show", with_rows).stdout


def test_what_a_model_writes_cannot_steer_the_terminal(service) -> None:
    job_id = service.submit()
    service.finish(service.start())
    out = service.forgetting("jobs", "result", job_id).stdout
    assert "\x1b" not in out
    assert r"' \x1b[31mred'" in out
    assert "[bold]markup[/bold]" in out


def test_result_is_every_field_as_json_and_refused_before_its_time(service) -> None:
    job_id = service.submit()
    early = service.forgetting("jobs", "result", job_id)
    assert early.exit_code == 2
    assert "has no result yet" in early.stderr
    assert "forgetting jobs watch" in early.stderr
    service.finish(service.start(), 0.01)
    whole = json.loads(service.forgetting("jobs", "result", job_id, "--json").stdout)
    assert whole == service.client.result(job_id)


def test_watch_prints_what_happened_and_succeeds(service) -> None:
    job_id = service.submit()
    claim = service.start()
    service.store.beat(claim, [{"kind": "phase", "phase": "training"}])
    service.store.beat(claim, [{"kind": "progress", "done": 20, "total": 20, "unit": "steps"}])
    service.finish(claim, 0.0125)
    ran = service.forgetting("jobs", "watch", job_id)
    assert ran.exit_code == 0
    said = [line.split(maxsplit=1)[1] for line in ran.stdout.splitlines()]
    assert [line for line in said if line in ("running", "training", "succeeded")]
    assert "training 20/20 steps" in said
    assert f"{job_id} succeeded" in ran.stdout
    assert "0.01250  [0.01125, 0.01375]" in ran.stdout
    ran = service.forgetting("jobs", "watch", job_id, "--json")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert events[-1]["kind"] == "done"
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    last = service.forgetting("jobs", "watch", job_id, "--after", str(len(events) - 1), "--json")
    assert [json.loads(line) for line in last.stdout.splitlines()] == events[-1:]


def test_watch_of_a_failure_says_why_and_exits_4(service) -> None:
    job_id = service.submit()
    fail(service, job_id)
    ran = service.forgetting("jobs", "watch", job_id)
    assert ran.exit_code == 4
    assert "training.learning_rate: loss became NaN at step 3" in ran.stdout
    shown = service.forgetting("jobs", "show", job_id).stdout
    assert "loss became NaN at step 3 (training.learning_rate)" in shown
    assert "mend the spec or the data" in shown
    service.client.resume(job_id)
    service.client.cancel(job_id)
    assert service.forgetting("jobs", "watch", job_id, "--json").exit_code == 4


def test_submit_and_watch_keep_the_id_alone_on_stdout(service) -> None:
    job_id = service.submit()
    service.client.cancel(job_id)
    ran = service.forgetting("jobs", "submit", *flags(service), "--idempotency-key", "k")
    service.client.cancel(ran.stdout.strip())
    again = [*flags(service), "--idempotency-key", "k", "--watch"]
    watched = service.forgetting("jobs", "submit", *again)
    assert watched.exit_code == 4
    assert watched.stdout == ran.stdout
    assert "cancelled" in watched.stderr


def test_cancel_resume_and_delete(service) -> None:
    job_id = service.submit()
    refused = service.forgetting("jobs", "delete", job_id, "--yes")
    assert refused.exit_code == 2
    assert "forgetting jobs cancel" in refused.stderr
    assert "is cancelled" in service.forgetting("jobs", "cancel", job_id).stderr
    assert "queued again" in service.forgetting("jobs", "resume", job_id).stderr
    service.start()
    assert "being stopped" in service.forgetting("jobs", "cancel", job_id).stderr
    assert "cancelling" in service.forgetting("jobs", "list").stdout
    other = service.submit()
    service.client.cancel(other)
    gone = service.forgetting("jobs", "delete", other, "--yes", "--json")
    assert json.loads(gone.stdout) == {"id": other, "deleted": True}
    assert service.forgetting("jobs", "show", other).exit_code == 2


def test_download_writes_files_and_prints_their_names(service, tmp_path: Path) -> None:
    job_id = service.submit()
    service.finish(service.start())
    into = tmp_path / "into"
    ran = service.forgetting("jobs", "download", job_id, "checkpoints", "--to", str(into))
    path = into / "checkpoints/step-000010/adapter_config.json"
    assert ran.stdout == f"{path}\n"
    assert path.read_text() == '{"r": 8}'
    ran = service.forgetting("jobs", "download", job_id, "nothing", "--to", str(into))
    assert ran.exit_code == 2
    assert "it has: checkpoints/step-000010/adapter_config.json" in " ".join(ran.stderr.split())
    (tmp_path / "file").write_text("")
    ran = service.forgetting("jobs", "download", job_id, "--to", str(tmp_path / "file"))
    assert ran.exit_code == 4
    assert "Traceback" not in ran.stderr


def test_sweeps_are_shown_with_their_children(service) -> None:
    sweep_id = service.submit(type="sweep", ranks=[4, 8], seeds=[17])
    service.finish(service.start())
    out = service.forgetting("jobs", "show", sweep_id).stdout
    assert "2: 1 queued, 1 succeeded" in out
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("job_")]
    assert rows[1:] == ["4", "8"]
    assert "running 50%" in service.forgetting("jobs", "list").stdout
    service.finish(service.start())
    watched = service.forgetting("jobs", "watch", sweep_id)
    assert watched.exit_code == 0
    said = [line.split(maxsplit=1)[1] for line in watched.stdout.splitlines()]
    assert said[:2] == ["rank 4: succeeded", "rank 8: succeeded"]
    assert "forgetting laws fit --sweep" in watched.stdout
    as_events = service.forgetting("jobs", "watch", sweep_id, "--json").stdout
    assert json.loads(as_events.splitlines()[-1])["kind"] == "done"


def test_watch_of_a_sweep_counts_what_failed_and_exits_4(service) -> None:
    sweep_id = service.submit(type="sweep", ranks=[2, 4, 8], seeds=[17])
    service.finish(service.start())
    for _ in range(2):
        fail(service, sweep_id)
    assert service.client.job(sweep_id)["status"] == "succeeded"
    watched = service.forgetting("jobs", "watch", sweep_id)
    assert watched.exit_code == 4
    assert "2 of 3 failed" in watched.stdout.splitlines()
    assert f"forgetting jobs resume {sweep_id}" in watched.stdout
    assert service.forgetting("jobs", "watch", sweep_id, "--json").exit_code == 4
    assert "queued again" in service.forgetting("jobs", "resume", sweep_id).stderr
    service.finish(service.start())
    service.client.cancel(sweep_id)
    watched = service.forgetting("jobs", "watch", sweep_id)
    assert watched.exit_code == 4
    assert "1 of 3 cancelled" in watched.stdout
