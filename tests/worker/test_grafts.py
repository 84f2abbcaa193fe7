"""Candidates put in and taken out of one base: each as if it were alone, the base as it was."""

from pathlib import Path

import pytest
import torch

from service.errors import AdapterUnreadable
from service.settings import Settings
from tests.worker.candidates_made import make_lora, make_model
from worker.candidates import Candidate
from worker.grafts import Grafts
from worker.head import bears_adapter
from worker.model import Base, load_base, tuned

KINDS = {
    "plain": {"r": 4},
    "other": {"r": 2, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "patterned": {"rank_pattern": {"q_proj": 2}},
    "dora": {"use_dora": True},
    "saved": {"modules_to_save": ["lm_head"], "target_modules": ["v_proj"]},
}
IDS = torch.arange(40)[None] % 320


@pytest.fixture(scope="module")
def folders(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("grafts")
    made = {
        name: make_lora(random_base, root / name, size=0.1, **options)
        for name, options in KINDS.items()
    }
    return {**made, "model": make_model(random_base, root / "model", size=0.02)}


@pytest.fixture
def base(random_base: Path, worker_settings: Settings) -> Base:
    return load_base(random_base.name, None, dtype="float32", settings=worker_settings)


def candidate(name: str, folder: Path) -> Candidate:
    rank = None if name == "model" else 4
    return Candidate(name, folder, None, rank, None, None, param=f"policy.baselines.{name}")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
def test_each_is_as_if_alone_and_the_base_as_it_was(base: Base, folders: dict[str, Path]) -> None:
    before = logits(base.model)
    alone = {}
    for name, folder in folders.items():
        with tuned(base, folder) as model:
            alone[name] = logits(model)
        assert not torch.equal(alone[name], before)
    with Grafts(base, {name: candidate(name, folder) for name, folder in folders.items()}) as all_:
        for name in [*folders, *reversed(folders)]:
            with all_.on(name) as (model, head):
                assert torch.equal(logits(model), alone[name])
                assert head.weight.shape == (320, 64)
            assert torch.equal(logits(base.model), before)
            assert not bears_adapter(base.model)
        assert not all_.share_head  # `saved` has a head of its own, and so has the full model
    assert torch.equal(logits(base.model), before)
    with Grafts(base, {"plain": candidate("plain", folders["plain"])}) as one:
        assert one.share_head


def test_a_fault_inside_leaves_the_base_as_it_was_and_names_the_field(
    base: Base, folders: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    before = logits(base.model)
    with Grafts(base, {"plain": candidate("plain", folders["plain"])}) as grafts:
        with pytest.raises(AdapterUnreadable) as error, grafts.on("plain"):
            raise AdapterUnreadable("NaN", param="adapters")
        assert error.value.param == "policy.baselines.plain"
        assert torch.equal(logits(base.model), before)
    alien = make_lora(tiny_base, tmp_path / "alien", size=0.1)
    with pytest.raises(AdapterUnreadable) as error:
        Grafts(base, {"plain": candidate("plain", folders["plain"]), "a": candidate("a", alien)})
    assert error.value.param == "policy.baselines.a"
    assert torch.equal(logits(base.model), before)
