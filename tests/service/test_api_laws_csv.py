"""Points as CSV: the same laws as from JSON, and every fault named by line and column."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.law_points import csv_of, grid

CSV = {"Content-Type": "text/csv; charset=utf-8"}
KL = {"metric": "kl"}


def send(api: TestClient, content: str | bytes, **params: Any) -> Any:
    return api.post("/v1/laws", content=content, headers=CSV, params=KL | params)


def test_csv_gives_the_law_that_json_gives(api: TestClient) -> None:
    points = grid()
    told = {"points": points, "metric": "kl", "forms": ["linear"], "burn_in": 20}
    first = api.post("/laws", json=told).json()["data"]
    answer = send(api, csv_of(points), forms=["linear"], burn_in=20)
    assert answer.status_code == 201
    assert answer.json()["data"] == first
    both = send(api, "\ufeff" + csv_of(points[::-1]).replace("\n", "\r\n"), burn_in=20).json()
    assert [law["form"] for law in both["data"]] == ["linear", "joint"]
    assert both["data"][0]["id"] == first[0]["id"]


def test_empty_cells_spaces_and_blank_lines_are_nothing(sqlite_api: TestClient) -> None:
    points = grid()
    text = csv_of(points).replace(",", " , ").replace("run", "run", 1)
    text = text.replace("\n", " ,\n\n").replace("kl ,", "kl , ce_hard", 1)
    law = send(sqlite_api, text, forms="linear").json()["data"][0]
    plain = send(sqlite_api, csv_of(points), forms="linear").json()["data"][0]
    assert law["id"] == plain["id"]


def changed(line: int, column: str, cell: str) -> str:
    points = grid()
    if line > 1:
        points[line - 2] |= {column: cell}
    return csv_of(points)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        (changed(3, "ft_loss", "much"), 3, "ft_loss", "number"),
        (changed(4, "step", "0"), 4, "step", "greater than or equal to 1"),
        (changed(5, "step", "1.5"), 5, "step", "integer"),
        (changed(6, "kl", "nan"), 6, "kl", "finite"),
        (changed(7, "kl", ""), 7, "kl", "missing"),
        (changed(8, "run", ""), 8, "run", "required"),
        (changed(9, "ft_loss", "20000"), 9, "ft_loss", "10000"),
        (changed(3, "step", "20"), 3, "step", "both"),
        (csv_of(grid(mood=1)), 1, "mood", "trainable_params"),
        (csv_of(grid()).replace("rank,", "kl,", 1), 1, "kl", "twice"),
        (csv_of(grid()).replace("ft_loss", "kl2", 1), 1, "kl2", "ft_loss"),
        (
            csv_of([{k: v for k, v in p.items() if k != "step"} for p in grid()]),
            1,
            "step",
            "header",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) and len(one) < 30 else "",
)
def test_a_fault_is_named_by_line_and_column(
    sqlite_api: TestClient, text: str, line: int, column: str, said: str
) -> None:
    answer = send(sqlite_api, text, forms="linear")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "validation_error")
    assert problem["detail"].startswith(f"line {line}, column {column}: ")
    assert said in problem["detail"]
    assert (problem["param"], problem["details"]) == (column, {"line": line, "column": column})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no point"),
        (b"\n\n", "no point"),
        (b"run,trainable_params,step,ft_loss,kl\n", "no point"),
        (b"run,trainable_params,step,ft_loss,kl\na,1,2\n", "line 2 has 3 cells, the header 5"),
        (b'run,trainable_params,step,ft_loss,kl\na,"1\n', "line 2 is not CSV"),
        (b"run,trainable_params,step,ft_loss,kl\n\xff,1,2,3,4\n", "line 2 is not UTF-8"),
        (
            b"run;trainable_params;step;ft_loss;kl\na;1;2;3;4\n",
            "line 1, column run;trainable_params",
        ),
    ],
)
def test_what_is_no_table(sqlite_api: TestClient, content: bytes, said: str) -> None:
    answer = send(sqlite_api, content)
    assert answer.status_code in (415, 422), answer.text
    assert said in answer.json()["detail"]


def test_what_stands_in_the_address_is_checked_too(sqlite_api: TestClient) -> None:
    text = csv_of(grid())
    for params, param in (
        ({"metric": "mood"}, "metric"),
        ({"forms": "curve"}, "forms.0"),
        ({"burn_in": "-1"}, "burn_in"),
        ({"burn_in": "soon"}, "burn_in"),
    ):
        answer = send(sqlite_api, text, **params)
        assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text


def test_metric_in_the_address_of_a_json_request_is_not_passed_over(sqlite_api: TestClient) -> None:
    answer = sqlite_api.post("/laws", params=KL, json={"points": grid()})
    assert (answer.status_code, answer.json()["param"]) == (422, "metric")


def test_csv_is_for_laws_alone(sqlite_api: TestClient) -> None:
    assert sqlite_api.post("/jobs", content="a,b", headers=CSV).status_code == 415
    other = sqlite_api.post("/laws", content="a,b", headers={"Content-Type": "text/plain"})
    assert other.status_code == 415
    assert "text/csv" in other.json()["detail"]


def test_too_few_rows_say_how_many(sqlite_api: TestClient) -> None:
    answer = send(sqlite_api, csv_of(grid()[:2]), forms="linear", burn_in=0)
    assert (answer.status_code, answer.json()["code"]) == (422, "too_few_points")
    assert answer.json()["details"]["axis"] == "points"
