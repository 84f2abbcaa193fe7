"""Law points by recipe, fitted laws, and the list of workers."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from service.errors import NotFound
from service.store import PointGroup, Store
from service.tables import workers
from tests.specs import claim, finetune, sweep

RECIPE = {
    "base_model": "org/base",
    "base_digest": "sha256:base",
    "dataset": "rows.jsonl",
    "dataset_digest": "sha256:rows",
    "corpus": "wikitext-103",
    "corpus_digest": "sha256:wiki",
    "context": 512,
}


def point(step: int, rank: int = 8, **fields: Any) -> dict[str, Any]:
    measured = {"ft_loss": 2.0, "ce_soft": 3.0, "kl": 0.1, "ce_hard": 3.5}
    measured |= {"learning_rate": 1e-4, "delta_norm": 0.5}
    return {"rank": rank, "trainable_params": rank * 2**32, "step": step, **measured, **fields}


def finish(store: Store, group: str, recipe: dict[str, Any], points: list[dict[str, Any]]) -> str:
    """Finish the oldest job with these points; its id."""
    held = claim(store)
    own = [{"run": held.job_id} | point for point in points]
    store.finish(held, {}, points=[PointGroup(group, recipe, own)])
    return held.job_id


def law(digest: str = "sha256:p", **fields: Any) -> dict[str, Any]:
    body = {"form": "linear", "metric": "kl", "group": "sha256:g", "fit_digest": digest}
    return {"series": "sha256:s", **body, "coefficients": {"slope": {"value": 1.5}}, **fields}


def test_points_come_back_by_recipe(store: Store) -> None:
    parent = store.add_job(sweep(2))[0].id
    store.add_job(finetune())
    two = finish(store, "sha256:g", RECIPE, [point(4, rank=16), point(2, rank=16)])
    one = finish(store, "sha256:g", RECIPE, [point(2, kl=math.nan)])
    other = RECIPE | {"corpus": "own.txt", "corpus_digest": "sha256:own"}
    alone = finish(store, "sha256:h", other, [point(1)])

    groups = {found.group: found for found in store.points()}
    assert groups.keys() == {"sha256:g", "sha256:h"}
    assert groups["sha256:g"].recipe == RECIPE
    points = groups["sha256:g"].points
    assert [(p["run"], p["rank"], p["step"]) for p in points] == [
        (one, 8, 2),
        (two, 16, 2),
        (two, 16, 4),
    ]
    assert points[0] == point(2, kl=None) | {"run": one}
    assert [g.group for g in store.points(corpus="own.txt")] == ["sha256:h"]
    assert [g.group for g in store.points(corpus="sha256:own")] == ["sha256:h"]
    assert len(store.points(base_model="org/base", dataset="rows.jsonl")) == 2
    assert len(store.points(base_model="sha256:base", dataset="sha256:rows")) == 2
    assert store.points(base_model="org/base", group="none") == []
    assert [g.group for g in store.points(sweep=parent)] == ["sha256:g"]
    store.delete_job(alone)
    assert [g.group for g in store.points()] == ["sha256:g"]


def test_a_checkpoint_measured_twice_is_one_point_the_newer(store: Store) -> None:
    for kl in (0.1, 0.3, 0.2):
        store.add_job(finetune())
        again = [point(4, kl=kl) | {"run": "theirs"}, point(8, kl=1 + kl) | {"run": "theirs"}]
        held = claim(store)
        store.finish(held, {}, points=[PointGroup("sha256:g", RECIPE, again)])
    (group,) = store.points()
    assert [(p["step"], p["kl"]) for p in group.points] == [(4, 0.2), (8, 1.2)]
    (own,) = store.points(job=held.job_id)
    assert own.points == group.points
    store.delete_job(held.job_id)
    assert [p["kl"] for p in store.points()[0].points] == [0.3, 1.3]


def test_one_job_may_leave_points_in_several_groups(store: Store) -> None:
    store.add_job(finetune())
    held = claim(store)
    runs = [PointGroup(f"sha256:{n}", RECIPE, [point(4) | {"run": n}]) for n in ("a", "b")]
    store.finish(held, {}, points=runs)
    assert [(g.group, g.points[0]["run"]) for g in store.points(job=held.job_id)] == [
        ("sha256:a", "a"),
        ("sha256:b", "b"),
    ]
    assert store.recipe("sha256:a") == RECIPE
    with pytest.raises(NotFound):
        store.recipe("sha256:c")


def test_only_finished_jobs_have_points(store: Store) -> None:
    store.add_job(finetune())
    store.fail(claim(store), {"code": "x", "class": "user"})
    assert store.points() == []


def test_a_law_is_stored_once_per_points_form_and_metric(store: Store) -> None:
    first = store.add_law(law(note=math.inf))
    assert first["id"].startswith("law_")
    assert abs(first["created_at"] - store.ping()) < 5
    assert first["note"] is None
    assert store.add_law(law(note=2)) == first
    assert store.law(first["id"]) == first
    assert store.laws_of_fit("sha256:p", "kl") == {"linear": first}
    assert store.laws_of_fit("sha256:p", "ce_soft") == {}
    others = [law(form="joint"), law(metric="ce_soft"), law("sha256:q")]
    ids = {store.add_law(body)["id"] for body in others}
    assert len(ids | {first["id"]}) == 4
    with pytest.raises(NotFound):
        store.law("law_none")


def test_a_law_knows_its_place_in_its_series(store: Store) -> None:
    first, second, third = (store.add_law(law(f"sha256:{i}")) for i in range(3))
    other = store.add_law(law("sha256:3", series="sha256:t"))
    joint = store.add_law(law("sha256:4", form="joint"))
    alone = store.add_law(law("sha256:5", series=None))
    places = [(body["version"], body["supersedes"]) for body in (first, second, third)]
    assert places == [(1, None), (2, first["id"]), (3, second["id"])]
    assert [body["version"] for body in (other, joint, alone)] == [1, 1, None]
    assert store.law(second["id"]) == second
    assert store.add_law(law("sha256:0")) == first
    named = {"group": ["sha256:g", "sha256:other"], "form": "joint"}
    assert store.list_laws(named)[0] == [joint]
    assert store.list_laws({"group": []})[0] == []


def test_a_law_fitted_twice_at_once_is_stored_once(store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(lambda i: store.add_law(law(fitted_by=i)), range(6)))
    assert len({body["id"] for body in stored}) == 1
    assert len({body["fitted_by"] for body in stored}) == 1


def test_laws_are_listed_newest_first(store: Store) -> None:
    store.add_job(finetune())
    finish(store, "sha256:g", RECIPE, [point(1)])
    ids = [store.add_law(law(f"sha256:{i}"))["id"] for i in range(5)]
    loose = store.add_law(law("sha256:x", group=None, series=None, form="joint"))["id"]
    store.add_law(law("sha256:y", series=None))  # for one residual
    page, more = store.list_laws(limit=2)
    assert ([body["id"] for body in page], more) == ([loose, ids[4]], True)
    page, more = store.list_laws(limit=4, after=ids[4])
    assert ([body["id"] for body in page], more) == (ids[3::-1], False)
    assert [body["id"] for body in store.list_laws({"form": "joint"})[0]] == [loose]
    with pytest.raises(NotFound):
        store.list_laws(after="law_none")


def test_living_workers_are_those_that_beat_lately(store: Store) -> None:
    store.beat_worker("b", state="idle", info={"host": "h"})
    store.beat_worker("a", state="busy", job_id="job_1")
    assert [(w.name, w.state, w.job_id, w.info) for w in store.living_workers()] == [
        ("a", "busy", "job_1", {}),
        ("b", "idle", None, {"host": "h"}),
    ]
    store.beat_worker("a", state="idle")
    assert [w.job_id for w in store.living_workers()] == [None, None]
    store.forget_worker("a")
    with store.engine.begin() as connection:
        connection.execute(update(workers).values(beaten_at=store.ping() - 60))
    assert store.living_workers() == []
    assert [w.name for w in store.living_workers(within_seconds=120)] == ["b"]
