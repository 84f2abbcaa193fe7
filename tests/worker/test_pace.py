"""How much is computed at once changes no number, and a wrong base row is noticed."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker.candidates_made import make_lora
from worker.cache import Cache
from worker.corpus import Document, corpus_of
from worker.divergence import Route
from worker.model import Base, tuned
from worker.score import BasePass, Pace, Scores, score_base, score_candidate
from worker.windows import Windows, cut

ROUTES: list[Route] = ["identity", "logits"]


@pytest.fixture(scope="module")
def windows(loaded_base: Base) -> Windows:
    texts = ["The river runs past the old mill. " * 9, "x y z", "Paris is in France. " * 7]
    corpus = corpus_of("made", "text", [Document(text[:9], text) for text in texts])
    return cut(corpus, loaded_base.tokenizer, 24)


def base_pass(base: Base, windows: Windows, cache: Path, route: Route, pace: Pace) -> BasePass:
    kept = Cache(cache, max_bytes=10**9)
    return score_base(base, windows, corpus_digest="c", route=route, cache=kept, pace=pace)


def scores(base: Base, windows: Windows, folder: Path, against: BasePass) -> Scores:
    with tuned(base, folder) as model:
        return score_candidate(model, windows, against)


@pytest.mark.parametrize("route", ROUTES)
def test_batches_and_chunks_change_no_number(
    loaded_base: Base, random_base: Path, windows: Windows, tmp_path: Path, route: Route
) -> None:
    folder = make_lora(random_base, tmp_path / "adapter", size=0.0161)
    found = []
    for pace in (Pace(2048, 512), Pace(24, 5), Pace(100, 64)):
        base = base_pass(loaded_base, windows, tmp_path / "cache", route, pace)
        found.append(scores(loaded_base, windows, folder, base))
    for other in found[1:]:
        for name in ("kl", "ce_soft", "ce_hard", "nll_tuned"):
            assert other[name].mean() == pytest.approx(found[0][name].mean(), abs=1e-6), name
            assert np.abs(other[name] - found[0][name]).max() < 1e-5, name


def test_the_order_of_candidates_changes_no_bit(
    loaded_base: Base, random_base: Path, windows: Windows, tmp_path: Path
) -> None:
    folders = [make_lora(random_base, tmp_path / str(s), size=s) for s in (0.01, 0.03)]
    base = base_pass(loaded_base, windows, tmp_path / "cache", "identity", Pace(2048, 512))
    forth = [scores(loaded_base, windows, folder, base)["kl"] for folder in folders]
    back = [scores(loaded_base, windows, folder, base)["kl"] for folder in folders[::-1]]
    assert np.array_equal(forth[0], back[1])
    assert np.array_equal(forth[1], back[0])


def test_a_wrong_row_shows(loaded_base: Base, windows: Windows, tmp_path: Path) -> None:
    """The base against itself is 0 by its own e, and by no other."""
    base = base_pass(loaded_base, windows, tmp_path / "cache", "identity", Pace(2048, 512))
    assert np.abs(score_candidate(loaded_base.model, windows, base)["kl"]).max() == 0
    swapped = {**base.rows, "vectors": np.roll(base.rows["vectors"], 1, axis=0)}
    wrong = BasePass(**{**vars(base), "rows": swapped})
    assert np.abs(score_candidate(loaded_base.model, windows, wrong)["kl"]).mean() > 1e-2


def test_a_position_takes_four_bytes_a_number_and_sixty(
    loaded_base: Base, windows: Windows, tmp_path: Path
) -> None:
    base = base_pass(loaded_base, windows, tmp_path / "cache", "identity", Pace(2048, 512))
    kept = sum(array.nbytes for array in base.rows.values())
    assert kept == windows.n_positions * (4 * loaded_base.config.hidden_size + 60)
