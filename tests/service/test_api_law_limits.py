"""What a law may be sent and asked at most, so that one request cannot occupy the service."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.routes.csv_body import EXAMPLE
from tests.law_points import grid

Json = dict[str, Any]


def refused(api: TestClient, points: list[Json]) -> Json:
    answer = api.post("/laws", json={"points": points, "metric": "kl"})
    assert answer.status_code == 422, answer.text
    problem: Json = answer.json()
    return problem


def test_more_points_than_the_document_says_are_refused(sqlite_api: TestClient) -> None:
    point = {"run": "a", "trainable_params": 1, "step": 1, "ft_loss": 1, "kl": 1}
    assert refused(sqlite_api, [point] * 5001)["param"] == "points"
    schema = sqlite_api.get("/openapi.json").json()["components"]["schemas"]["FitRequest"]
    (listed, _) = schema["properties"]["points"]["anyOf"]
    assert listed["maxItems"] == 5000
    assert "500 runs" in str(schema["properties"]["points"])


def test_more_runs_than_memory_is_good_for_are_refused(sqlite_api: TestClient) -> None:
    problem = refused(sqlite_api, [grid()[0] | {"run": f"r{i}"} for i in range(501)])
    assert "501 runs" in problem["detail"]
    assert problem["param"] == "points"


@pytest.mark.parametrize("field", ["rank", "trainable_params", "step"])
def test_numbers_beyond_float64_are_refused(sqlite_api: TestClient, field: str) -> None:
    """10**400 is a whole number to JSON and to Python, but none to float64."""
    points = grid()
    huge = [points[0] | {field: 10**400}, *points[1:]]
    assert refused(sqlite_api, huge)["param"] == f"points.0.{field}"
    told = {"points": points, "metric": "kl", "forms": ["joint"]}
    law = sqlite_api.post("/laws", json=told).json()["data"][0]["id"]
    asked = {"step": 40} | ({} if field == "trainable_params" else {"rank": 8}) | {field: 10**400}
    answer = sqlite_api.post(f"/laws/{law}/predict", json=asked)
    assert (answer.status_code, answer.json()["param"]) == (422, field)


@pytest.mark.parametrize("run", ["a\x00", "\x1b[2Ja", "a\nb", "\x9b31ma", "\x7f"])
def test_runs_are_named_without_control_characters(sqlite_api: TestClient, run: str) -> None:
    """They come back, in terminals too; and numpy takes `a` and `a` with a NUL for the same."""
    points = grid()
    problem = refused(sqlite_api, [points[0] | {"run": run}, *points[1:]])
    assert problem["param"] == "points.0.run"


def test_the_example_of_a_csv_body_works(sqlite_api: TestClient) -> None:
    answer = sqlite_api.post("/laws", content=EXAMPLE, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 201, answer.text
