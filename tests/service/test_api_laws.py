"""Laws over HTTP: fitted from stored jobs or from points by hand, kept, and asked."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.store import Store
from tests.results import ft_loss_at, run_next

Json = dict[str, Any]


def run_ranks(api: TestClient, store: Store, finetune: Json, ranks: list[int]) -> str:
    """Id of a sweep over these ranks, all of it done."""
    sweep: str = api.post(
        "/jobs", json=finetune | {"type": "sweep", "ranks": ranks, "seeds": [17]}
    ).json()["id"]
    for _ in ranks:
        run_next(store)
    return sweep


def line(n: int = 6) -> list[Json]:
    """Points on ce_soft = 4 - 0.5 * ft_loss."""
    return [
        {
            "run": f"run-{i}",
            "trainable_params": 1000,
            "step": 10 + i,
            "ft_loss": 2.0 + 0.1 * i,
            "ce_soft": 4.0 - 0.5 * (2.0 + 0.1 * i),
        }
        for i in range(n)
    ]


def test_laws_of_stored_jobs(api: TestClient, store: Store, finetune: Json) -> None:
    run_ranks(api, store, finetune, [2, 8, 32])
    page = api.get("/laws").json()
    assert page["pending"] == []
    laws = {law["form"]: law for law in page["data"]}
    assert set(laws) == {"linear", "joint"}
    linear = laws["linear"]
    assert linear["coefficients"]["c_f_ft"]["value"] == pytest.approx(0.4, abs=1e-6)
    assert linear["coefficients"]["s_f_ft"]["value"] == pytest.approx(3.5, abs=1e-6)
    assert linear["r2"] == pytest.approx(1.0, abs=1e-6)
    assert (linear["n_points"], linear["n_runs"]) == (9, 3)
    assert linear["domain"]["ranks"] == [2, 8, 32]
    assert linear["params_per_rank"] == 1000
    assert linear["recipe"]["base_model"] == "tiny"
    assert linear["created_at"].endswith("Z")
    assert len(linear["points"]) == 9
    assert laws["joint"]["r2"] > 0.95
    assert api.get(f"/laws/{linear['id']}").json() == linear


def test_the_same_points_have_one_law_and_new_points_another(
    api: TestClient, store: Store, finetune: Json
) -> None:
    run_ranks(api, store, finetune, [2, 8, 32])
    first = api.get("/laws", params={"form": "linear"}).json()["data"]
    assert api.get("/laws", params={"form": "linear"}).json()["data"] == first
    run_ranks(api, store, finetune, [64])
    second = api.get("/laws", params={"form": "linear"}).json()["data"]
    assert len(first) == len(second) == 1
    assert second[0]["id"] != first[0]["id"]
    assert second[0]["n_points"] == 12
    assert api.get(f"/laws/{first[0]['id']}").json() == first[0]


def test_a_group_with_too_few_points_is_pending(
    api: TestClient, store: Store, finetune: Json
) -> None:
    run_ranks(api, store, finetune, [2])
    page = api.get("/laws").json()
    assert [law["form"] for law in page["data"]] == ["linear"]
    (pending,) = page["pending"]
    assert pending["form"] == "joint"
    assert (pending["n_points"], pending["n_runs"]) == (3, 1)
    assert pending["missing"] == {"points": 5, "trainable_params": 2}
    assert "8 points" in pending["detail"]
    assert pending["recipe"]["base_model"] == "tiny"


def test_filters(api: TestClient, store: Store, finetune: Json) -> None:
    sweep = run_ranks(api, store, finetune, [2, 8, 32])
    other = finetune | {"training": finetune["training"] | {"learning_rate": 0.01}}
    run_ranks(api, store, other, [2, 8])
    laws = api.get("/laws", params={"form": "linear"}).json()["data"]
    assert len(laws) == 2
    one = laws[0]["group"]
    for params, n in [
        ({"base_model": "tiny"}, 2),
        ({"base_model": "other"}, 0),
        ({"dataset": "rows.jsonl"}, 2),
        ({"corpus": "corpus.txt"}, 2),
        ({"corpus": "wikitext-103"}, 0),
        ({"group": one}, 1),
    ]:
        found = api.get("/laws", params={"form": "linear", **params}).json()["data"]
        assert len(found) == n, params
    assert api.get("/laws", params={"metric": "kl"}).json()["data"][0]["metric"] == "kl"
    fitted = api.post("/laws", json={"filter": {"sweep": sweep}, "forms": ["linear"]}).json()
    assert [law["n_points"] for law in fitted["data"]] == [9]


def test_laws_page_by_cursor(api: TestClient, store: Store, finetune: Json) -> None:
    run_ranks(api, store, finetune, [2, 8, 32])
    for n in (5, 6):
        api.post("/laws", json={"points": line(n), "forms": ["linear"]})
    ids = [law["id"] for law in api.get("/laws").json()["data"]]
    assert len(ids) == 4
    assert ids == sorted(ids, reverse=True)
    walked: list[str] = []
    after, more = None, True
    while more:
        page = api.get("/laws", params={"limit": 1, "after": after} if after else {"limit": 1})
        walked += [law["id"] for law in page.json()["data"]]
        after, more = walked[-1], page.json()["has_more"]
    assert walked == ids


def test_points_by_hand(api: TestClient) -> None:
    answer = api.post("/v1/laws", json={"points": line(), "forms": ["linear"]})
    assert answer.status_code == 201
    (law,) = answer.json()["data"]
    assert law["coefficients"]["c_f_ft"]["value"] == pytest.approx(0.5, abs=1e-9)
    assert law["group"] is None
    again = api.post("/v1/laws", json={"points": line()[::-1], "forms": ["linear"]}).json()
    assert again["data"][0]["id"] == law["id"]
    asked = api.post(f"/laws/{law['id']}/predict", json={"ft_loss": 2.2}).json()
    assert asked["value"] == pytest.approx(2.9, abs=1e-9)
    assert asked["extrapolating"] is False
    assert asked["pi95"][0] <= asked["ci95"][0] <= asked["value"] <= asked["ci95"][1]
    far = api.post(f"/laws/{law['id']}/predict", json={"ft_loss": 9.0}).json()
    assert far["extrapolating"] is True


def test_predicting_by_rank_and_step(api: TestClient, store: Store, finetune: Json) -> None:
    run_ranks(api, store, finetune, [2, 8, 32])
    (law,) = api.get("/laws", params={"form": "joint", "metric": "kl"}).json()["data"]
    asked = api.post(f"/laws/{law['id']}/predict", json={"rank": 8, "step": 30}).json()
    assert asked["law"] == law["id"]
    assert asked["value"] == pytest.approx(1.5 - 0.4 * ft_loss_at(8, 30), abs=0.002)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "ft_loss"),
        ({"rank": 8, "step": 30}, "rank"),
        ({"ft_loss": 1e300}, "ft_loss"),
        ({"ft_loss": -1}, "ft_loss"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_question_the_law_cannot_answer(sqlite_api: TestClient, body: Json, param: str) -> None:
    law = sqlite_api.post("/laws", json={"points": line(), "forms": ["linear"]}).json()["data"][0]
    answer = sqlite_api.post(f"/laws/{law['id']}/predict", json=body)
    assert (answer.status_code, answer.json()["param"]) == (422, param)


def test_too_few_points_says_how_many_and_which_axis(sqlite_api: TestClient) -> None:
    few = sqlite_api.post("/laws", json={"points": line(2), "forms": ["linear"]})
    assert (few.status_code, few.json()["code"]) == (422, "too_few_points")
    assert "3 points" in few.json()["detail"]
    assert few.json()["details"] == {"form": "linear", "axis": "points", "n_points": 2}
    flat = [point | {"step": 10 + i} for i, point in enumerate(line(9))]
    one_rank = sqlite_api.post("/laws", json={"points": flat, "forms": ["joint"]})
    assert one_rank.json()["details"]["axis"] == "trainable_params"
    nothing = sqlite_api.post("/laws", json={"filter": {"base_model": "nobody"}})
    assert (nothing.status_code, nothing.json()["param"]) == (422, "filter")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"ft_loss": 1e5}, "points.1.ft_loss"),
        ({"ce_soft": None}, "points.1.ce_soft"),
        ({"trainable_params": 10**400}, "points.1.trainable_params"),
        ({"step": 10**30}, "points.1.step"),
        ({"step": 0}, "points.1.step"),
        ({"run": ""}, "points.1.run"),
        ({"mood": "good"}, "points.1.mood"),
    ],
)
def test_points_that_cannot_be_true(sqlite_api: TestClient, change: Json, param: str) -> None:
    points = line()
    points[1] |= change
    answer = sqlite_api.post("/laws", json={"points": points, "forms": ["linear"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert answer.json()["param"] == param


@pytest.mark.parametrize("body", [{}, {"points": line(), "filter": {}}])
def test_points_or_filter_but_not_both(sqlite_api: TestClient, body: Json) -> None:
    answer = sqlite_api.post("/laws", json=body)
    assert (answer.status_code, answer.json()["param"]) == (422, "points")


def test_unknown_laws(sqlite_api: TestClient) -> None:
    for answer in (
        sqlite_api.get("/laws/law_nowhere"),
        sqlite_api.post("/laws/law_nowhere/predict", json={}),
        sqlite_api.get("/laws", params={"after": "law_nowhere"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
