"""Pictures from points: both files are written, hold every point, and say what is true of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from demo.pictures import (
    against_loss,
    against_steps,
    equal_loss_finding,
    loss_finding,
    save,
    steps_finding,
)
from demo.points import Measured, Picture, Predicted, rows

PNG = b"\x89PNG\r\n\x1a\n"


def measured(*, slope: float = -0.2, by_rank: float = 0.01) -> list[Measured]:
    """Loss falls with step and rank; forgetting is a line over it, moved a little by rank."""
    points = []
    for rank in (4, 8, 16):
        for step in (30, 60, 120):
            loss = 5.0 - step / 100 - rank / 40
            kl = 1.3 + slope * loss + by_rank * rank / 4
            points.append(
                Measured(f"job_{rank}", rank, rank * 9_760, step, loss, kl + 2.9, kl, 0.6)
            )
    return points


def curves() -> list[Predicted]:
    return [
        Predicted("law_2", 0.3 + step / 400, 0.2, 0.5, rank=rank, step=step)
        for rank in (4, 8, 16)
        for step in range(30, 121, 10)
    ]


def line() -> list[Predicted]:
    return [Predicted("law_1", 1.3 - 0.2 * x, None, None, ft_loss=x) for x in (3.0, 4.0, 5.0)]


@pytest.fixture(scope="module")
def both() -> list[Picture]:
    return [
        against_loss(measured(), line(), r2=0.96123),
        against_steps(measured(), curves(), r2=0.98765),
    ]


def test_a_picture_holds_exactly_what_was_given(both: list[Picture]) -> None:
    for picture, law in zip(both, (line(), curves()), strict=True):
        dots, drawn = rows(picture)
        assert sorted(dots, key=repr) == sorted(measured(), key=repr)
        assert sorted(drawn, key=repr) == sorted(law, key=repr)


def test_both_files_are_written_and_the_page_needs_no_network(
    both: list[Picture], tmp_path: Path
) -> None:
    for picture in both:
        png, html = save(picture, tmp_path / "new")
        assert png.read_bytes().startswith(PNG)
        width = int.from_bytes(png.read_bytes()[16:20], "big")
        assert width > 1_200
        page = html.read_text(encoding="utf-8")
        assert not re.search(r"<(script|link)[^>]+(src|href)\s*=\s*[\"']?https?:", page)
        assert "vegaEmbed" in page
        assert json.dumps(measured()[0].kl) in page


def test_r2_and_units_are_shown(both: list[Picture]) -> None:
    for picture, r2 in zip(both, ("0.961", "0.988"), strict=True):
        said = json.dumps(picture.spec, ensure_ascii=False)
        assert f"R² {r2}" in said
        assert "nats per token" in said


def test_the_first_title_follows_the_sign_and_the_fit() -> None:
    assert "the more it forgot, close to a straight line" in loss_finding(measured(), 0.95)
    assert "the more it forgot, roughly along a straight line" in loss_finding(measured(), 0.8)
    assert "the less it forgot" in loss_finding(measured(slope=0.2), 0.95)
    assert "does not tell" in loss_finding(measured(), 0.3)


def test_what_rank_tells_at_equal_loss_is_said_only_where_it_goes_one_way() -> None:
    assert "larger ranks forgot more" in equal_loss_finding(measured(by_rank=0.01), line())[0]
    [said] = equal_loss_finding(measured(by_rank=-0.01), line())
    assert "larger ranks forgot less: r 4 lies -0.010 and r 16 -0.040 nats" in said
    uneven = [replace(p, kl=p.kl + 0.3) if p.rank == 8 else p for p in measured()]
    assert equal_loss_finding(uneven, line()) == []


def test_the_second_title_follows_steps_and_ranks() -> None:
    assert steps_finding(measured()) == (
        "Every rank forgot more at each checkpoint, and larger ranks forgot more"
    )
    assert "larger ranks forgot less" in steps_finding(measured(by_rank=-0.1))
    dipped = [replace(p, kl=p.kl + 0.2) if p.step == 60 else p for p in measured()]
    assert "by the end than at the start" in steps_finding(dipped)
    fell = [replace(p, kl=1 - p.kl) if p.rank == 4 else p for p in measured()]
    assert steps_finding(fell).startswith("2 of 3 ranks forgot more by the end")
    uneven = [replace(p, kl=p.kl + 0.3) if p.rank == 8 else p for p in measured()]
    assert steps_finding(uneven).endswith("rank made no steady difference")
