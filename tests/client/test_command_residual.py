"""What `forgetting jobs show` and `jobs result` say of a run beside the others of its recipe."""

import json

from forgetting_client.command.residual import sentence, sentences
from forgetting_client.wire import LawResidual


def finish_runs(service, *kls: float) -> list[str]:
    """Jobs of one recipe, each with checkpoints on one line; the last one's KL counts."""
    ids = []
    for kl in kls:
        ids.append(service.submit())
        service.finish(service.start(), 0.5 * kl, kl)
    return ids


def test_a_run_beside_its_like_is_told_in_a_sentence(service) -> None:
    ids = finish_runs(service, 0.30, 0.32, 0.33, 0.34, 0.36, 0.31)
    law = service.client.job(ids[-1])["law"]
    assert law is not None
    assert service.client.law(law["id"])["n_runs"] == 5
    for command in ("show", "result"):
        out = " ".join(service.forgetting("jobs", command, ids[-1]).stdout.split())
        assert "Forgot as much as expected at its fine-tuning loss: 0.3100, expected 0.31" in out
        assert f"5 other runs; {law['id']})" in out
    told = json.loads(service.forgetting("jobs", "result", ids[-1], "--json").stdout)
    assert told["law"] == law


def test_a_run_alone_says_why_there_is_no_law(service) -> None:
    (job_id,) = finish_runs(service, 0.3)
    out = " ".join(service.forgetting("jobs", "result", job_id).stdout.split())
    assert "no law yet: a residual needs 3 other runs of the same recipe; there are 0" in out
    assert "expected" not in out


def judged(z: float, residual: float, **changes) -> LawResidual:
    body = {
        "id": "law_1",
        "form": "linear",
        "metric": "kl",
        "run": "r",
        "step": 140,
        "measured": 0.412 + residual,
        "expected": 0.412,
        "residual": residual,
        "z": z,
        "ci95": None,
        "pi95": (0.38, 0.44),
        "n_runs": 5,
        "extrapolating": False,
    }
    return body | changes  # type: ignore[return-value]


def test_more_less_and_as_much() -> None:
    assert sentence(judged(2.14, 0.031)) == (
        "Forgot 0.031 nats more than expected at its fine-tuning loss: 0.4430, "
        "expected 0.4120 (z +2.1, 5 other runs; law_1)"
    )
    assert sentence(judged(-3.0, -0.05, form="joint")).startswith(
        "Forgot 0.05 nats less than expected at its rank and step: 0.3620, expected 0.4120 (z -3"
    )
    assert sentence(judged(1.9, 0.03)).startswith("Forgot as much as expected")


def test_several_runs_are_told_by_name() -> None:
    law = judged(0.1, 0.001) | {"also": [judged(2.5, 0.1, run="seed-2")]}
    first, second = sentences({"law": law})  # type: ignore[typeddict-item]
    assert first.startswith("r: Forgot as much")
    assert second.startswith("seed-2: Forgot 0.1 nats more")
    assert list(sentences({"law": None})) == []  # type: ignore[typeddict-item]
