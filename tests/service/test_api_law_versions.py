"""A law's identity: same points, same law; a new point, a new version; old ones stay readable."""

from typing import Any

from starlette.testclient import TestClient

from service.store import Store
from tests.law_points import grid
from tests.refusals import merged
from tests.results import run_next

Json = dict[str, Any]
LINEAR = {"form": "linear"}


def run_ranks(api: TestClient, store: Store, spec: Json, ranks: list[int]) -> str:
    sweep: str = api.post("/jobs", json=spec | {"type": "sweep", "ranks": ranks, "seeds": [17]})
    for _ in ranks:
        run_next(store)
    return sweep.json()["id"]


def listed(api: TestClient, **params: Any) -> list[Json]:
    found: list[Json] = api.get("/laws", params=params).json()["data"]
    return found


def test_new_points_make_a_new_version_and_the_old_one_stays(
    api: TestClient, store: Store, finetune: Json
) -> None:
    run_ranks(api, store, finetune, [2, 8, 32])
    (first,) = listed(api, form="linear")
    assert (first["version"], first["supersedes"]) == (1, None)
    assert listed(api, form="linear") == [first]
    last = run_ranks(api, store, finetune, [64])
    (second,) = listed(api, form="linear")
    assert (second["version"], second["supersedes"]) == (2, first["id"])
    assert second["group"] == first["group"]
    assert api.get(f"/laws/{first['id']}").json() == first
    by_group = {"group": first["group"], **LINEAR}
    assert listed(api, all_versions=True, **by_group) == [second, first]
    assert listed(api, all_versions=True, base_model="tiny", **LINEAR) == [second, first]
    assert listed(api, all_versions=True, base_model="other") == []
    assert listed(api, all_versions=True, group="sha256:other") == []
    # Without its last job the group has the points of the first version again: no third fit.
    assert api.delete(f"/jobs/{last}").status_code == 204
    assert listed(api, form="linear") == [first]


def test_a_part_of_a_group_and_another_burn_in_are_series_of_their_own(
    api: TestClient, store: Store, finetune: Json
) -> None:
    sweep = run_ranks(api, store, finetune, [2, 8])
    run_ranks(api, store, finetune, [32])

    def fit(**body: Any) -> Json:
        answer = api.post("/laws", json={"forms": ["linear"], **body})
        law: Json = answer.json()["data"][0]
        return law

    part = fit(filter={"sweep": sweep})
    whole = fit(filter={"base_model": "tiny"})
    late = fit(filter={"base_model": "tiny"}, burn_in=30)
    assert len({part["id"], whole["id"], late["id"]}) == 3
    for law in (part, whole, late):
        assert (law["version"], law["supersedes"]) == (1, None)
    assert late["provenance"]["burn_in"] == 30
    assert late["provenance"]["left_out"] == {"burn_in": 3, "unmeasured": 0}
    assert late["n_points"] == whole["n_points"] - 3
    assert len(late["points"]) == len(whole["points"]) == 9
    assert late["domain"]["step"] == [50, 100]
    assert listed(api, form="linear") == [whole]


def test_versions_are_listed_page_by_page(
    sqlite_api: TestClient, sqlite_store: Store, finetune: Json
) -> None:
    for rank in (2, 8, 32):
        run_ranks(sqlite_api, sqlite_store, finetune, [rank])
        listed(sqlite_api, form="linear")
    walked: list[int] = []
    params: Json = {"all_versions": True, "limit": 2, **LINEAR}
    page = sqlite_api.get("/laws", params=params).json()
    assert page["has_more"] is True
    walked += [law["version"] for law in page["data"]]
    params["after"] = page["data"][-1]["id"]
    page = sqlite_api.get("/laws", params=params).json()
    walked += [law["version"] for law in page["data"]]
    assert (walked, page["has_more"]) == ([3, 2, 1], False)


def test_points_by_hand_have_no_version_but_a_digest_of_their_content(
    sqlite_api: TestClient,
) -> None:
    def fit(points: list[Json], **body: Any) -> Json:
        told = {"points": points, "metric": "kl", "forms": ["linear"], "burn_in": 0, **body}
        law: Json = sqlite_api.post("/laws", json=told).json()["data"][0]
        return law

    law = fit(grid())
    assert (law["version"], law["supersedes"], law["group"]) == (None, None, None)
    shuffled = [point | {"ce_hard": None} for point in grid()[::-1]]
    assert fit(shuffled)["id"] == law["id"]
    assert law["provenance"]["versions"].keys() == {"numpy", "scipy"}
    other = fit(grid(), burn_in=30)
    assert other["id"] != law["id"]
    assert other["provenance"]["points_digest"] == law["provenance"]["points_digest"]
    moved = fit(merged({"p": grid()}, {})["p"][:-1])
    assert moved["provenance"]["points_digest"] != law["provenance"]["points_digest"]


def test_a_checkpoint_without_the_metric_is_left_out_and_counted(
    sqlite_api: TestClient, sqlite_store: Store, finetune: Json
) -> None:
    run_ranks(sqlite_api, sqlite_store, finetune, [2, 8])
    with sqlite_store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE points SET ce_hard = NULL WHERE step = 25")
    (law,) = listed(sqlite_api, metric="ce_hard", form="linear")
    assert law["provenance"]["left_out"]["unmeasured"] == 2
    assert (len(law["points"]), law["n_points"]) == (6, 4)


def test_a_part_of_a_family_is_a_series_of_its_own_too(
    api: TestClient, store: Store, finetune: Json
) -> None:
    grid = {"type": "sweep", "ranks": [2, 8, 32], "seeds": [17], "learning_rates": [1e-4, 1e-3]}
    sweep = api.post("/jobs", json=finetune | grid).json()["id"]
    for _ in range(6):
        run_next(store)
    run_ranks(api, store, finetune, [64])

    def fit(**wanted: Any) -> Json:
        answer = api.post("/laws", json={"forms": ["joint_lr"], "filter": wanted})
        law: Json = answer.json()["data"][0]
        return law

    part = fit(sweep=sweep)
    whole = fit(base_model="tiny")
    assert whole["group"] == part["group"]
    assert whole["n_points"] > part["n_points"]
    assert (part["version"], whole["version"], whole["supersedes"]) == (1, 1, None)
