"""What a watcher makes of events."""

from forgetting_client.command.picture import Picture, numbers

START = {"status": "queued", "attempt": 0}


def event(kind, **data):
    return {"id": 1, "at": "2026-01-01T00:00:00.000Z", "kind": kind, "data": data}


def told(*events):
    """The picture after `events`, and every line that it had for the screen or a log."""
    picture = Picture.of(START)
    lines = [line for one in events if (line := picture.take(one) or picture.tenth())]
    return picture, lines


def test_a_job_from_queue_to_end() -> None:
    picture, lines = told(
        event("status", status="running", attempt=1),
        event("phase", phase="training"),
        event("progress", done=1, total=20, unit="steps"),
        event("metric", name="train_loss", step=10, value=2.34567),
        event("metric", name="grad_norm", step=10, value=1.0),
        event("progress", done=10, total=20, unit="steps"),
        event("progress", done=11, total=20, unit="steps"),
        event("checkpoint", step=10, adapter="a", heldout_loss=2.5),
        event("phase", phase="scoring_tuned"),
        event("checkpoint", step=10, adapter="a", heldout_loss=2.5, kl=0.0123456, same_top=0.9),
        event("warning", message="few documents"),
        event("status", status="succeeded", attempt=1),
        event("done", status="succeeded"),
    )
    assert lines == [
        "running",
        "training",
        "training 10/20 steps  loss 2.346",
        "step 10: adapter kept  L_ft 2.500",
        "scoring tuned",
        "step 10: L_ft 2.500  kl 0.01235  same_top 0.9000",
        "warning: few documents",
        "succeeded",
    ]
    assert numbers(picture.metrics) == "loss 2.346  L_ft 2.500  kl 0.01235  same_top 0.9000"
    assert picture.headline() == "succeeded"


def test_a_second_attempt_is_said() -> None:
    _, lines = told(
        event("status", status="running", attempt=1),
        event("status", status="queued", attempt=1, reason="worker lost"),
        event("status", status="running", attempt=2),
    )
    assert lines == ["running", "queued: worker lost", "running, attempt 2"]


def test_a_phase_begins_its_progress_anew() -> None:
    picture, lines = told(
        event("phase", phase="training"),
        event("progress", done=20, total=20, unit="steps"),
        event("phase", phase="scoring_base"),
        event("progress", done=5, total=50, unit="windows"),
    )
    assert lines == [
        "training",
        "training 20/20 steps",
        "scoring base",
        "scoring base 5/50 windows",
    ]
    assert (picture.done, picture.total) == (5, 50)


def test_a_line_tells_only_what_is_new() -> None:
    _, lines = told(
        event("phase", phase="training"),
        event("metric", name="train_loss", step=1, value=2.0),
        event("metric", name="kl", step=1, value=0.5),
        event("progress", done=10, total=100, unit="steps"),
        event("metric", name="train_loss", step=2, value=1.0),
        event("progress", done=20, total=100, unit="steps"),
        event("progress", done=30, total=100, unit="steps"),
    )
    assert lines == [
        "training",
        "training 10/100 steps  loss 2.000  kl 0.5000",
        "training 20/100 steps  loss 1.000",
        "training 30/100 steps",
    ]


def test_kinds_and_fields_from_a_newer_service_do_no_harm() -> None:
    _, lines = told(
        event("hologram", x=1),
        event("metric", name="train_loss", value=None),
        event("metric"),
        event("progress"),
        event("phase"),
        event("status"),
        event("checkpoint"),
        event("log"),
    )
    assert "queued" in lines
