"""Adapters that are not what they say: refused at the door by their headers, and in the worker
before any engine starts, both times with the tensor's name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.errors import AdapterUnreadable
from service.lora import check_lora, check_values
from service.weights import folder_files
from tests.worker.candidates_made import make_lora
from worker.adapter import WEIGHTS_FILE
from worker.candidates import Candidate
from worker.measure import choose_route
from worker.model import Base

LAYER = "base_model.model.model.layers.1.self_attn.q_proj"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
EMBEDDING = "base_model.model.model.embed_tokens"
Tensors = dict[str, Tensor]


def of_another_base(tensors: Tensors) -> None:
    for name in (A, B):
        tensors[name.replace("layers.1", "layers.9")] = tensors.pop(name)


def of_another_width(tensors: Tensors) -> None:
    tensors[A] = torch.ones(len(tensors[A]), tensors[A].shape[1] + 1)


def of_another_vocabulary(tensors: Tensors) -> None:
    tensors[f"{EMBEDDING}.lora_embedding_A"] = torch.ones(4, 999)
    tensors[f"{EMBEDDING}.lora_embedding_B"] = torch.ones(64, 4)


def of_another_rank(tensors: Tensors) -> None:
    tensors[A] = torch.ones(3, tensors[A].shape[1])


def of_two_ranks(tensors: Tensors) -> None:
    """Each is one of those that `rank_pattern` allows."""
    tensors[B] = torch.ones(len(tensors[B]), 2)


def not_a_number(tensors: Tensors) -> None:
    tensors[B][1, 1] = float("nan")


def cut(folder: Path) -> None:
    """In the middle of the data, so that the last tensors are gone."""
    raw = (folder / WEIGHTS_FILE).read_bytes()
    head = 8 + int.from_bytes(raw[:8], "little")
    places = json.loads(raw[8:head])
    begin, _ = places[A]["data_offsets"]
    (folder / WEIGHTS_FILE).write_bytes(raw[: head + begin + 1])


def changed(damage: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        damage(tensors)
        save_file(tensors, folder / WEIGHTS_FILE)

    return change


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (changed(of_another_base), r"layers\.9\.self_attn\.q_proj\.lora_"),
    (changed(of_another_width), r"layers\.1\.self_attn\.q_proj\.lora_A"),
    (changed(of_another_vocabulary), r"embed_tokens\.lora_embedding_"),
    (changed(of_another_rank), r"layers\.1\.self_attn\.q_proj\.lora_A"),
    (changed(of_two_ranks), r"layers\.1\.self_attn\.q_proj\.lora_"),
    (changed(not_a_number), r"layers\.1\.self_attn\.q_proj\.lora_B"),
    (cut, r"layers\.1\.self_attn\.q_proj\.lora_A"),
]
NAMES = ["base", "width", "vocabulary", "rank", "two ranks", "NaN", "cut"]


@pytest.fixture
def folder(random_base: Path, tmp_path: Path) -> Path:
    """A sound one, with a second rank in another layer."""
    ranks = {"layers.0.self_attn.k_proj": 2}
    return make_lora(random_base, tmp_path / "adapter", size=0.05, rank_pattern=ranks)


def at_the_door(base: Base, folder: Path) -> None:
    _, tensors = check_lora(folder, folder_files(base.folder), param="adapters.0")
    check_values(folder, tensors, param="adapters.0")


def in_the_worker(base: Base, folder: Path) -> None:
    """As a job does it between loading the base and starting the engine."""
    candidate = Candidate("a", folder, None, 4, None, None, "adapters.0")
    choose_route(base, [candidate], n_positions=100_000, reverse=False)


@pytest.mark.parametrize("place", [at_the_door, in_the_worker])
def test_the_sound_one_is_taken(
    loaded_base: Base, folder: Path, place: Callable[[Base, Path], None]
) -> None:
    place(loaded_base, folder)


@pytest.mark.parametrize("place", [at_the_door, in_the_worker])
@pytest.mark.parametrize(("damage", "tensor"), FAULTS, ids=NAMES)
def test_what_does_not_fit_is_named(
    loaded_base: Base,
    folder: Path,
    damage: Callable[[Path], None],
    tensor: str,
    place: Callable[[Base, Path], None],
) -> None:
    damage(folder)
    with pytest.raises(AdapterUnreadable, match=tensor) as caught:
        place(loaded_base, folder)
    assert caught.value.param == "adapters.0"
    assert str(caught.value.details["tensor"]) in caught.value.message
