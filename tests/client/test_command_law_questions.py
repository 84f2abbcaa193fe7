"""`forgetting laws fit | predict | plan | plot` over the real application; the files it reads."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.law_points import csv_of, ft_loss_at, grid, kl_at

KL = ("--metric", "kl")
PNG = b"\x89PNG\r\n\x1a\n"


def run(service: Any, *args: str, exit_code: int = 0) -> Any:
    ran = service.forgetting("laws", *args)
    assert ran.exit_code == exit_code, ran.output
    return ran


def fitted(service: Any, tmp_path: Path, form: str = "joint", *more: str) -> str:
    path = tmp_path / "points.csv"
    path.write_text(csv_of(grid()))
    ran = run(service, "fit", "--points", str(path), *KL, "--form", form, "--json", *more)
    return str(json.loads(ran.stdout)[0]["id"])


def written(tmp_path: Path, kind: str) -> Path:
    points = grid()
    content = {
        ".csv": csv_of(points),
        ".jsonl": "\n".join(map(json.dumps, points)) + "\n\n",
        ".json": json.dumps({"points": points}),
    }
    path = tmp_path / f"points{kind}"
    path.write_text(content[kind])
    return path


def test_three_kinds_of_file_are_one_law(service, tmp_path: Path) -> None:
    ids = {
        json.loads(
            run(
                service,
                *("fit", "--points", str(written(tmp_path, kind)), *KL),
                *("--form", "linear", "--burn-in", "30", "--json"),
            ).stdout
        )[0]["id"]
        for kind in (".csv", ".jsonl", ".json")
    }
    assert len(ids) == 1
    law = json.loads(run(service, "show", ids.pop(), "--json").stdout)
    assert law["provenance"]["burn_in"] == 30
    assert law["provenance"]["left_out"]["burn_in"] == len([p for p in grid() if p["step"] < 30])


def test_a_file_over_the_limit_names_the_setting_that_holds(service, tmp_path: Path) -> None:
    csv = tmp_path / "points.csv"
    csv.write_text(csv_of(grid()) + "\n" * 1_000_000)
    ran = run(service, "fit", "--points", str(csv), *KL, exit_code=2)
    assert "over 1000000 bytes" in ran.stderr
    assert "FORGETTING_MAX_BODY_BYTES" in ran.stderr


def test_faults_in_files_name_their_line(service, tmp_path: Path) -> None:
    csv = tmp_path / "points.csv"
    csv.write_text(csv_of(grid()).replace("\nr4-s1,4,4000,40,", "\nr4-s1,4,4000,soon,"))
    ran = run(service, "fit", "--points", str(csv), *KL, exit_code=2)
    assert "line 3, column step" in ran.stderr
    lines = tmp_path / "points.jsonl"
    for bad, said in (
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"a": NaN}', "not JSON"),
    ):
        lines.write_text(json.dumps(grid()[0]) + "\n\n" + bad)
        ran = run(service, "fit", "--points", str(lines), *KL, exit_code=2)
        assert "line 3" in ran.stderr
        assert said in ran.stderr
    ran = run(service, "fit", "--points", str(tmp_path / "absent.csv"), exit_code=2)
    assert "cannot read" in ran.stderr


def test_asking_backwards(service, tmp_path: Path) -> None:
    law_id, limit = fitted(service, tmp_path), f"{kl_at(8, 100):.3f}"
    asked = ("predict", law_id, "--max-forgetting", limit)
    told = run(service, *asked, "--rank", "8").stdout.splitlines()
    assert told[0] == f"largest step with kl of at most {float(limit):g} nats per token"
    assert "95 % of new runs stay below" in told[1]
    assert "half of new runs forget more" in told[2]
    answer = json.loads(run(service, *asked, "--rank", "8", "--json").stdout)
    assert f"{answer['value']['at']:.0f}:" in told[2]
    assert answer["value"]["at"] == pytest.approx(100, rel=0.2)
    rank = json.loads(run(service, *asked, "--step", "100", "--json").stdout)
    assert rank["axis"] == "rank"
    assert "always" not in run(service, *asked, "--rank", "8").stdout
    never = run(service, "predict", law_id, "--rank", "8", "--max-forgetting", "50").stdout
    assert "never reached" in never
    run(service, *asked, "--ft-loss", "2", exit_code=2)
    run(service, *asked, exit_code=2)


def test_a_plan_is_a_table_and_a_sentence(service, tmp_path: Path) -> None:
    law_id, goal = fitted(service, tmp_path), f"{ft_loss_at(8, 120):.3f}"
    asked = ("plan", law_id, "--max-loss", goal, "--ranks", "4,8,32", "--limit", "4")
    ran = run(service, *asked)
    head, *rows = ran.stdout.splitlines()
    assert head.split()[:3] == ["rank", "step", "L_ft"]
    found = json.loads(run(service, *asked, "--json").stdout)
    assert len(rows) == len(found["options"]) <= 4
    assert rows[0].split()[:2] == [
        str(found["options"][0]["rank"]),
        str(found["options"][0]["step"]),
    ]
    assert ran.stderr.strip() == found["answer"]
    run(service, "plan", law_id, exit_code=2)
    run(service, "plan", law_id, "--max-loss", "2", "--ranks", "a", exit_code=2)


def test_pictures_are_written(service, tmp_path: Path) -> None:
    law_id = fitted(service, tmp_path, "joint", "--plot", str(tmp_path / "fit.svg"))
    root = ET.fromstring((tmp_path / "fit.svg").read_text())
    assert root.tag.endswith("svg")
    ran = run(service, "plot", law_id, str(tmp_path / "law.png"), "--max-forgetting", "0.4")
    assert (tmp_path / "law.png").read_bytes().startswith(PNG)
    assert "law.png" in ran.stderr
    question = ("--rank", "8", "--max-forgetting", "0.4", "--plot", str(tmp_path / "asked.svg"))
    run(service, "predict", law_id, *question)
    assert "limit 0.4" in (tmp_path / "asked.svg").read_text()
    run(service, "show", law_id, "--plot", str(tmp_path / "shown.svg"))
    assert ">limit " not in (tmp_path / "shown.svg").read_text()
    for bad in ("law.gif", "nowhere/law.svg"):
        ran = run(service, "plot", law_id, str(tmp_path / bad), exit_code=2)
        assert "Invalid value for FILE: " in ran.stderr
        ran = run(service, "show", law_id, "--plot", str(tmp_path / bad), exit_code=2)
        assert "Invalid value for --plot: " in ran.stderr
    run(service, "plot", law_id, str(tmp_path / "law.svg"), "--kind", "loss", exit_code=2)


def test_two_laws_make_two_pictures(service, tmp_path: Path) -> None:
    path = written(tmp_path, ".csv")
    run(service, "fit", "--points", str(path), *KL, "--plot", str(tmp_path / "law.svg"))
    assert {one.name for one in tmp_path.glob("law*.svg")} == {"law-linear.svg", "law-joint.svg"}


def test_the_page_tells_how_far_the_law_can_be_trusted(service, tmp_path: Path) -> None:
    law_id = fitted(service, tmp_path)
    law = json.loads(run(service, "show", law_id, "--json").stdout)
    page = run(service, "show", law_id).stdout
    judged = law["judgement"]
    assert judged["choice"]["reason"] in page
    assert judged["sufficiency"]["sentence"] in page
    for notice in judged["notices"]:
        assert notice in page
    titles = "inner rank", "edge rank", "later steps", "unseen run", "within runs", "unseen runs"
    assert [one for one in titles if one not in page] == []
    rows = {line.split()[0]: line.split()[1:] for line in page.splitlines() if line.strip()}
    missed = judged["held_out"]["inner_rank"]["errors"]["quadratic"]["mae"]
    assert float(rows["quadratic"][0]) == pytest.approx(missed, rel=1e-3)
    assert law["provenance"]["points_digest"] in page
    ran = run(service, "fit", "--points", str(written(tmp_path, ".csv")), *KL)
    assert ran.stderr.count("Held out: ") == 1


def test_versions_are_listed(service) -> None:
    for _ in range(2):
        service.submit()
        service.finish(service.start(), 0.01, 0.02, 0.03, 0.04)
        run(service, "list", *KL, "--form", "linear")
    now = run(service, "list", *KL, "--form", "linear").stdout.splitlines()[1:]
    every = run(service, "list", *KL, "--form", "linear", "--all-versions").stdout.splitlines()[1:]
    assert [line.split()[3] for line in now] == ["2"]
    assert [line.split()[3] for line in every] == ["2", "1"]
    page = run(service, "show", every[0].split()[0]).stdout
    assert f"version 2, after {every[1].split()[0]}" in page
