"""A gate that was stopped goes on where it was, in another attempt's folder too."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from service.schemas.gate import GateResult
from service.store import Claim
from tests.worker.gating import Place, kl, same
from worker.run import execute
from worker.scored import FOLDER
from worker.train import Released
from worker.workdir import prepare, root_of

ATTEMPT = "attempt-1"


@pytest.fixture(scope="module")
def place(tiny_base: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place.make(tmp_path_factory.mktemp("resume"), tiny_base, shared_data)
    place.measure("mild")
    return place


class StopAfter(threading.Event):
    """Set as soon as so many batches lie in the folder."""

    def __init__(self, n_batches: int, folder: Path) -> None:
        super().__init__()
        self.n_batches, self.folder = n_batches, folder

    def is_set(self) -> bool:
        return len(batches(self.folder)) >= self.n_batches


def ignore(event: dict[str, Any]) -> None:
    pass


def batches(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("batch-*.npz"))


def spec(place: Place) -> Any:
    return place.spec(kl(0.0061), {"id": "top", "metric": "same_top", "fail_below": 0.5})


@pytest.mark.parametrize("cold", [False, True])
def test_resumed_is_uninterrupted_to_the_bit(place: Place, cold: bool) -> None:
    settings = place.settings
    if cold:
        settings = settings.model_copy(update={"cache_dir": place.root / "empty"})
    whole = execute(spec(place), place.root / f"whole-{cold}", ignore, settings=settings)
    folder = place.root / f"parts-{cold}"
    for at in (3,) if cold else (2, 4):
        stop = StopAfter(at, folder)
        with pytest.raises(Released):
            execute(spec(place), folder, ignore, stop=stop, settings=settings)
        assert len(batches(folder)) == at
        # As if somebody had filled the cache meanwhile: a gate that began without stays without.
        settings = place.settings
    resumed = execute(spec(place), folder, ignore, settings=settings)
    assert isinstance(whole, GateResult)
    assert isinstance(resumed, GateResult)
    assert same(whole, resumed)
    assert whole.n_scored > 4 * 16


def test_a_base_pass_that_was_evicted_is_made_again_and_no_window_is_looked_at_twice(
    place: Place,
) -> None:
    whole = execute(spec(place), place.root / "kept", ignore, settings=place.settings)
    cache = place.root / "evicted"
    shutil.copytree(place.settings.cache, cache)
    settings = place.settings.model_copy(update={"cache_dir": cache})
    folder = place.root / "evicted-parts"
    with pytest.raises(Released):
        execute(spec(place), folder, ignore, stop=StopAfter(2, folder), settings=settings)
    before = [path.read_bytes() for path in batches(folder)]
    shutil.rmtree(cache)
    resumed = execute(spec(place), folder, ignore, settings=settings)
    assert isinstance(whole, GateResult)
    assert isinstance(resumed, GateResult)
    assert resumed.cost.base_forward_tokens > 0  # the pass; nothing else may differ
    resumed.cost.base_forward_tokens = whole.cost.base_forward_tokens
    assert same(whole, resumed)
    assert [path.read_bytes() for path in batches(folder)][:2] == before


def test_another_attempt_takes_over_what_was_scored(place: Place) -> None:
    claim = Claim("job_" + "0" * 26, 2, "token", {}, "")
    first = root_of(place.settings) / claim.job_id / ATTEMPT
    with pytest.raises(Released):
        execute(spec(place), first, ignore, stop=StopAfter(3, first), settings=place.settings)
    before = {path.name: path.read_bytes() for path in (first / FOLDER).iterdir()}
    second, step = prepare(claim, place.settings)
    assert step is None
    assert not first.exists()
    assert {path.name: path.read_bytes() for path in (second / FOLDER).iterdir()} == before
    result = execute(spec(place), second, ignore, settings=place.settings)
    assert isinstance(result, GateResult)
    assert result.n_scored >= 3 * 16
    for name, content in before.items():
        assert (second / FOLDER / name).read_bytes() == content
