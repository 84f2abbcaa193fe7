"""The law residual as a check: the law of the recipe's other runs, at the candidate's loss."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.expectation import expectation
from service.laws.fit import fit
from service.laws.quantities import Point
from service.laws.residual import compare
from service.recipe import points_of
from service.schemas.result import Result
from service.schemas.spec import FinetuneSpec, GateSpec
from service.settings import Settings
from service.store import PointGroup, Store
from tests.worker.gating import CONTEXT, CORPUS, Place, check, kl
from worker.run import execute

TRAINING = {
    **{"max_steps": 3, "batch_size": 4, "max_length": 64, "learning_rate": 5e-3},
    **{"warmup_steps": 0, "checkpoints": [3], "lora": {"r": 4}},
}
RESIDUAL: dict[str, Any] = {"id": "law", "metric": "law_residual", "fail_above": 0.01}


@pytest.fixture(scope="module")
def place(
    tiny_base: Path,
    shared_data: Path,
    question_answers: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    place = Place.make(tmp_path_factory.mktemp("law"), tiny_base, shared_data)
    (place.root / "questions.jsonl").write_bytes(question_answers.read_bytes())
    return place


@pytest.fixture(scope="module")
def trained(place: Place) -> tuple[FinetuneSpec, Result]:
    spec = FinetuneSpec.model_validate(
        {
            "base_model": "tiny",
            "dataset": {"path": "questions.jsonl"},
            "training": TRAINING,
            "evaluation": {"corpus": CORPUS, "context": CONTEXT},
        }
    )
    result = execute(spec, place.root / "train", lambda event: None, settings=place.settings)
    assert isinstance(result, Result)
    return spec, result


@pytest.fixture(scope="module")
def group(trained: tuple[FinetuneSpec, Result]) -> PointGroup:
    """The real run's recipe, with five more runs made along a line through its point."""
    [own] = points_of("job_own", trained[0], trained[1].model_dump(mode="json"))
    [point] = own.points
    others = [
        {**point, "run": f"run-{i}", "rank": 4 + i, "kl": point["kl"] + gap, "ft_loss": loss}
        for i in range(5)
        for gap, loss in [(0.001 * (i - 2) + 1e-5 * (-1) ** i, point["ft_loss"] - 0.1 * (i - 2))]
    ]
    return PointGroup(own.group, own.recipe, [point, *others])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = Settings(home=tmp_path)
    store = Store(settings.database, settings)
    store.migrate()
    yield store
    store.dispose()


def law(group: PointGroup, **changes: Any) -> dict[str, Any]:
    [own] = [point for point in group.points if point["run"] == "job_own"]
    body = {"recipe": group.recipe, "points": group.points, "run": "job_own"}
    return {**body, "ft_loss": own["ft_loss"], **changes}


def spec(place: Place, *checks: dict[str, Any], **policy: Any) -> GateSpec:
    return place.spec(*checks, adapter="train/artifacts/checkpoints/step-000003", **policy)


def test_a_residual_that_counts_scores_everything_and_judges_by_the_other_runs(
    place: Place, trained: tuple[FinetuneSpec, Result], group: PointGroup
) -> None:
    asked = spec(place, RESIDUAL, kl(1e-4, informational=True))
    result = place.gate(asked, "counted", law=law(group))
    found = check(result, "law")
    assert (result.fraction, found.tested, found.verdict) == (1, "as one number", "pass")
    others = [Point(**point) for point in group.points if point["run"] != "job_own"]
    [own] = [point for point in group.points if point["run"] == "job_own"]
    expected = compare(fit(others, "linear", metric="kl"), Point(**own)).residual
    assert found.value == pytest.approx(expected, abs=1e-5)
    strict = {**RESIDUAL, "fail_above": expected - 0.001}
    assert place.gate(spec(place, strict), "strict", law=law(group)).verdict == "fail"


def test_an_informational_one_costs_no_window(place: Place, group: PointGroup) -> None:
    shown = {**RESIDUAL, "informational": True, "metric": "law_residual_z"}
    result = place.gate(spec(place, kl(1e-4), shown), "shown", law=law(group))
    assert (result.verdict, result.n_scored) == ("fail", 16)
    found = check(result, "law")
    assert (found.tested, found.unit) == ("not", "z")
    assert found.value is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "job_x left no law point"}, "job_x left no law point"),
        ({"ft_loss": None}, "give the `dataset`"),
        ({"recipe": {"corpus_digest": "sha256:other"}}, "corpus_digest is sha256:"),
        ({"points": []}, "3 other runs"),
    ],
)
def test_where_there_is_none_it_says_why(
    place: Place, group: PointGroup, changes: dict[str, Any], said: str
) -> None:
    name = "none-" + "-".join(changes)
    asked = spec(place, RESIDUAL, kl(9, informational=True), max_windows=16)
    result = place.gate(asked, name, law=law(group, **changes))
    assert (result.verdict, result.exit_code) == ("not_measurable", 4)
    assert said in check(result, "law").reason
    assert check(result, "law").value is None
    shown = spec(place, {**RESIDUAL, "informational": True}, kl(1e-4))
    assert place.gate(shown, f"{name}-shown", law=law(group, **changes)).verdict == "fail"


def test_a_held_out_loss_that_nobody_knows_is_measured(
    place: Place, trained: tuple[FinetuneSpec, Result], group: PointGroup
) -> None:
    body = spec(place, {**RESIDUAL, "informational": True}, kl(1e-4)).model_dump()
    asked = GateSpec.model_validate(
        {**body, "dataset": {"path": "questions.jsonl"}, "max_length": 64}
    )
    given = place.gate(
        spec(place, kl(1e-4), RESIDUAL | {"informational": True}), "a", law=law(group)
    )
    measured = place.gate(asked, "b", law=law(group, ft_loss=None))
    assert measured.provenance.dataset == trained[1].provenance.dataset
    values = [check(one, "law").value for one in (given, measured)]
    assert values[0] is not None
    assert values[0] == pytest.approx(values[1], abs=0.01)


def test_the_store_knows_the_recipe_of_a_job_and_of_a_named_group(
    place: Place,
    trained: tuple[FinetuneSpec, Result],
    group: PointGroup,
    store: Store,
) -> None:
    job, _ = store.add_job(trained[0])
    claim = store.claim("tester")
    assert claim is not None
    own = [{**point, "run": job.id} for point in group.points[:1]]
    stored = PointGroup(group.group, group.recipe, own + group.points[1:])
    body = trained[1].model_dump(mode="json")
    store.finish(claim, body, points=[stored], artifacts=[], artifacts_prefix="none")

    def asked(**adapter: Any) -> dict[str, Any] | None:
        body = spec(place, RESIDUAL).model_dump()
        return expectation(GateSpec.model_validate({**body, "adapters": [adapter]}), store)

    by_job = asked(job=job.id)
    assert by_job is not None
    assert by_job["run"] == job.id
    assert by_job["ft_loss"] == own[0]["ft_loss"]
    assert len(by_job["points"]) == 6
    by_group = asked(path="mild", group=group.group)
    assert by_group == {**by_job, "run": None, "ft_loss": None}
    assert asked(path="mild") == {"reason": "the adapter's recipe is not known: give its `group`"}
    assert asked(path="mild", group="mine") == {"reason": "no law points of group mine"}
    assert asked(job=job.id, step=2) == {"reason": f"{job.id} left no law point of step 2"}
    assert expectation(spec(place, kl(1)), store) is None
