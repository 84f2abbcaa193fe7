"""From names on a command line to one evaluate spec, with the real application behind."""

from typing import Any

import pytest
import typer
from forgetting_client.command.contenders import Incomparable, evaluation, laws_of, ready_made

from tests.client.conftest import Service

NOTHING_SAID: dict[str, Any] = {"base": None, "corpus": None, "context": None, "dataset": None}


def test_jobs_say_what_they_were_measured_on(service: Service) -> None:
    one, other = service.submit(), service.submit()
    spec = evaluation(service.client, [one, f"{other}:10"], base=None)
    assert spec["type"] == "evaluate"
    assert spec["base_model"] == service.spec["base_model"]
    assert spec["adapters"] == [{"job": one}, {"job": other, "step": 10}]
    assert spec["evaluation"]["context"] == 64
    assert spec["evaluation"]["corpus"] == "corpus.txt"


def test_unlike_contexts_are_incomparable_unless_one_is_said(service: Service) -> None:
    longer = {**service.spec["evaluation"], "context": 32}
    ids = [service.submit(), service.submit(evaluation=longer)]
    with pytest.raises(Incomparable, match=r"not the same context: 64 .*--context measures all"):
        evaluation(service.client, ids, base=None)
    spec = evaluation(service.client, ids, base=None, context=48)
    assert spec["evaluation"]["context"] == 48


def test_another_base_is_incomparable_whatever_is_said(service: Service) -> None:
    with pytest.raises(Incomparable, match="not the same base: other-base"):
        evaluation(service.client, [service.submit()], base="other-base")


def test_without_a_job_the_base_must_be_said(service: Service) -> None:
    with pytest.raises(typer.BadParameter, match="--base"):
        evaluation(service.client, ["some/path", "other/path"], base=None)


def test_one_job_measures_64_at_most(service: Service) -> None:
    with pytest.raises(typer.BadParameter, match="65 adapters; one job measures 64 at most"):
        evaluation(service.client, [f"path/{i}" for i in range(65)], base="tiny")


def test_one_job_alone_is_read_and_not_measured_again(service: Service) -> None:
    job = service.submit()
    found = ready_made(service.client, [job], NOTHING_SAID)
    assert found is not None
    assert found["id"] == job
    assert ready_made(service.client, [job, job], NOTHING_SAID) is None
    assert ready_made(service.client, [job], {**NOTHING_SAID, "context": 32}) is None


def test_an_evaluation_stands_for_its_adapters(service: Service) -> None:
    trained = service.submit()
    service.finish(service.start(), 0.1)
    asked = {
        "type": "evaluate",
        "base_model": service.spec["base_model"],
        "adapters": [{"job": trained}],
        "evaluation": service.spec["evaluation"],
    }
    measured = service.client.create_job(asked)
    spec = evaluation(service.client, [measured["id"], trained], base=None)
    assert [one["job"] for one in spec["adapters"]] == [trained, trained]
    assert laws_of(service.client, measured) == [None]


def test_command_exits_5_where_nothing_compares(service: Service) -> None:
    longer = {**service.spec["evaluation"], "context": 32}
    ids = [service.submit(), service.submit(evaluation=longer)]
    told = service.forgetting("compare", *ids)
    assert told.exit_code == 5
    told = service.forgetting("policy", "init", "--from", ids[0], "--from", ids[1], "-o", "-")
    assert told.exit_code == 5


def test_one_adapter_has_nothing_beside_it(service: Service) -> None:
    assert service.forgetting("compare", "some/path").exit_code == 2
    job = service.submit()
    service.finish(service.start(), 0.1)
    told = service.forgetting("compare", job)
    assert told.exit_code == 2
    assert "has measured one adapter" in told.stderr
