"""Thousands of damaged and hostile adapter files: each is refused with a sentence, or fits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import AdapterUnreadable
from service.lora import CONFIG, WEIGHTS, check_lora, check_values
from service.weights import ModelFiles, folder_files
from tests.model_folders import write_adapter, write_model

N_EXAMPLES = 1_000
FUZZ = settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["F32", "BF16", "LORA", "../../etc/passwd", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(["dtype", "shape", "data_offsets", "extra"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    write_model(folder)
    return folder_files(folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("sound") / "adapter")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "adapter"))


def judge(folder: Path, base: ModelFiles) -> str | None:
    """Why it is refused; None where it fits. Anything but our own refusal passes through."""
    try:
        _, tensors = check_lora(folder, base, param=CONFIG, weights_param=WEIGHTS)
        check_values(folder, tensors, param=WEIGHTS)
    except AdapterUnreadable as refused:
        said, where = refused.message, refused.param
    else:
        return None
    assert said.strip()
    assert where in (CONFIG, WEIGHTS)
    return said


def split(weights: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(weights[:8], "little")
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def test_the_sound_one_fits(folder: Path, base: ModelFiles) -> None:
    assert judge(folder, base) is None


def test_damaged_headers(folder: Path, sound: Path, base: ModelFiles) -> None:
    header, data = split((sound / WEIGHTS).read_bytes())
    refused = 0

    @FUZZ
    @given(data_=st.data())
    def one(data_: Any) -> None:
        nonlocal refused
        changed = json.loads(json.dumps(header))
        name = data_.draw(st.sampled_from(sorted(name for name in header if name[0] != "_")))
        what = data_.draw(st.sampled_from(["field", "tensor", "rename", "drop", "add"]))
        if what == "field":
            changed[name][data_.draw(FIELDS)] = data_.draw(JSON)
        elif what == "tensor":
            changed[name] = data_.draw(JSON)
        elif what == "rename":
            changed[data_.draw(st.text(max_size=40))] = changed.pop(name)
        elif what == "drop":
            del changed[name]
        else:
            changed[data_.draw(st.text(max_size=40))] = data_.draw(JSON)
        text = json.dumps(changed).encode()
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data)
        refused += judge(folder, base) is not None

    one()
    assert refused > N_EXAMPLES * 0.8


def test_damaged_bytes(folder: Path, sound: Path, base: ModelFiles) -> None:
    whole = (sound / WEIGHTS).read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")

    @FUZZ
    @given(
        at=st.integers(0, head - 1),
        put=st.binary(max_size=16),
        cut=st.integers(0, 32),
        end=st.integers(0, len(whole)),
        torn=st.booleans(),
    )
    def one(at: int, put: bytes, cut: int, end: int, torn: bool) -> None:
        changed = whole[:at] + put + whole[at + cut :]
        (folder / WEIGHTS).write_bytes(changed[:end] if torn else changed)
        judge(folder, base)

    one()


def test_damaged_configs(folder: Path, sound: Path, base: ModelFiles) -> None:
    config = json.loads((sound / CONFIG).read_text())
    names = st.sampled_from([*config, "auto_map", "modules_to_save", "rank_pattern", "bias"])

    @FUZZ
    @given(change=st.dictionaries(names, JSON, min_size=1, max_size=3), raw=st.booleans())
    def one(change: dict[str, Any], raw: bool) -> None:
        text = json.dumps(change if raw else config | change)
        (folder / CONFIG).write_text(text, encoding="utf-8", errors="surrogatepass")
        judge(folder, base)

    one()
