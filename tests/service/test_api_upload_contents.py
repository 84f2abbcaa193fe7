"""Uploads that are no adapter of the base: a problem that names the part, and nothing is left."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.model_folders import lora_shapes, write_adapter
from tests.refusals import refused
from tests.sent_adapters import CONFIG, WEIGHTS, files_of, send

QUERY = "base_model.model.model.layers.0.self_attn.q_proj"
Change = Callable[[Path], None]
pytestmark = pytest.mark.usefixtures("nothing_kept")


def values(dtype: str, pattern: bytes, at: int = -1) -> Change:
    """Every value of a LoRA that is zero but for one."""

    def change(folder: Path) -> None:
        header: dict[str, Any] = {}
        end, width = 0, len(pattern)
        for name, (rows, columns) in lora_shapes(4).items():
            begin, end = end, end + rows * columns * width
            shape = [rows, columns]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        raw = json.dumps(header).encode()
        data = bytearray(end)
        place = at % (end // width) * width
        data[place : place + width] = pattern
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + data)

    return change


def config(**fields: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def header(edit: Callable[[dict[str, Any]], None]) -> Change:
    """The same data under another header."""

    def change(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        entries = json.loads(content[8 : 8 + length])
        edit(entries)
        raw = json.dumps(entries).encode()
        written = struct.pack("<Q", len(raw)) + raw + content[8 + length :]
        (folder / WEIGHTS).write_bytes(written)

    return change


def weights(content: bytes) -> Change:
    return lambda folder: (folder / WEIGHTS).write_bytes(content) and None


def edited(field: str, value: Any) -> Change:
    return header(lambda entries: entries[f"{QUERY}.lora_A.weight"].update({field: value}))


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4])


def twice(folder: Path) -> None:
    """The first tensor's entry stands again at the end."""
    raw = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8:end])
    name = f"{QUERY}.lora_A.weight"
    again = f",{json.dumps(name)}:{json.dumps(entries[name])}}}"
    head = raw[8:end].rstrip()[:-1] + again.encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(head)) + head + raw[end:])


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / WEIGHTS, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)


CONTENTS: list[tuple[str, Change, str, str]] = [
    ("zip", zipped, WEIGHTS, "pickled"),
    ("empty", weights(b""), WEIGHTS, "not safetensors"),
    ("text", weights(b"hello there, this is no tensor"), WEIGHTS, "not safetensors"),
    ("huge header", weights(struct.pack("<Q", 2**40) + b"{}"), WEIGHTS, "not safetensors"),
    ("header cap", weights(struct.pack("<Q", 10**7 + 1) + b" " * 10**7 + b" {}"), WEIGHTS, "cut"),
    ("no object", weights(struct.pack("<Q", 2) + b"[]"), WEIGHTS, "damaged header"),
    ("cut short", cut_short, WEIGHTS, "cut short"),
    ("utf-16", weights(struct.pack("<Q", 6) + '{"'.encode("utf-16")), WEIGHTS, "damaged header"),
    ("key twice", twice, WEIGHTS, "damaged header"),
    ("NaN F32", values("F32", struct.pack("<f", float("nan"))), WEIGHTS, "NaN or infinity"),
    ("inf F64", values("F64", struct.pack("<d", float("-inf"))), WEIGHTS, "NaN or infinity"),
    ("NaN BF16", values("BF16", b"\xc0\x7f", at=0), WEIGHTS, "NaN or infinity"),
    ("inf F16", values("F16", b"\x00\x7c"), WEIGHTS, "NaN or infinity"),
    ("integers", values("I32", b"\x01\x00\x00\x00"), WEIGHTS, "dtype I32"),
    ("shape", edited("shape", [4, 17]), WEIGHTS, "17 features, where the base has 16"),
    ("negative", edited("shape", [-4, -16]), WEIGHTS, "damaged header"),
    ("half bytes", edited("dtype", "F16"), WEIGHTS, "bytes of data, where its shape needs"),
    ("overlap", edited("data_offsets", [256, 512]), WEIGHTS, "the tensor before it ends"),
    ("rank", config(r=8), WEIGHTS, "rank 4, where adapter_config.json says 8"),
    ("pattern", config(r=8, rank_pattern={"q": 16}), WEIGHTS, "says 8 or 16"),
    ("no rank", config(r=True), CONFIG, "no usable rank"),
    ("ia3", config(peft_type="IA3"), CONFIG, "IA3"),
    ("code", config(auto_map={"a": "b"}), CONFIG, "code of its own"),
    ("megatron", config(megatron_config={"a": 1}), CONFIG, "code of its own"),
    ("bias", config(bias="all"), CONFIG, "bias"),
    ("pissa", config(init_lora_weights="pissa"), CONFIG, "rewrites the base's weights"),
    ("whole", config(modules_to_save="lm_head"), CONFIG, "modules_to_save"),
    ("json", lambda folder: (folder / CONFIG).write_text("{") and None, CONFIG, "not JSON"),
]


@pytest.mark.parametrize(
    ("change", "param", "said"), [row[1:] for row in CONTENTS], ids=[row[0] for row in CONTENTS]
)
def test_contents_that_are_no_adapter_of_the_base(
    sqlite_api: TestClient, tmp_path: Path, change: Change, param: str, said: str
) -> None:
    folder = write_adapter(tmp_path / "mine")
    change(folder)
    problem = refused(send(sqlite_api, files_of(folder)), at="/adapters")
    assert (problem["code"], problem["param"]) == ("adapter_unreadable", param), problem
    assert said in problem["detail"]


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("evil.weight", (4, 4), "does not begin with base_model.model."),
        ("base_model.model.model.layers.0.self_attn.q_proj.weight", (16, 16), "modules_to_save"),
        ("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", (4, 16), "has no"),
        (f"{QUERY}.lora_C.weight", (4, 16), "no part of a LoRA"),
        (f"{QUERY}.lora_magnitude_vector", (17,), "17 values"),
        ("base_model.model.model.embed_tokens.weight", (64, 17), "shape [64, 17]"),
    ],
)
def test_tensors_without_a_place_are_named(
    sqlite_api: TestClient, tmp_path: Path, name: str, shape: tuple[int, ...], said: str
) -> None:
    folder = write_adapter(tmp_path / "mine", shapes={**lora_shapes(4), name: shape})
    problem = refused(send(sqlite_api, files_of(folder)), at="/adapters")
    assert (problem["param"], problem["details"]["tensor"]) == (WEIGHTS, name)
    assert said in problem["detail"]


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_never_opened(sqlite_api: TestClient, tmp_path: Path, protocol: int) -> None:
    sprung = tmp_path / "sprung"
    files = files_of(write_adapter(tmp_path / "mine"))
    files[WEIGHTS] = (WEIGHTS, pickle.dumps(Trap(sprung), protocol))
    problem = refused(send(sqlite_api, files), at="/adapters")
    assert problem["param"] == WEIGHTS
    assert "pickled" in problem["detail"]
    assert not sprung.exists()
