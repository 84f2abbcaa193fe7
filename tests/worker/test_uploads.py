"""An uploaded adapter in a job: it comes whole, and is measured as the same folder would be."""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import AdapterUnreadable
from service.schemas.spec import EvaluateSpec
from service.settings import Settings
from service.store import Store
from tests.refusals import refused
from tests.sent_adapters import CONFIG, WEIGHTS, files_of, leftovers, send
from tests.worker.candidates_made import make_lora
from worker.adapter import read_tensors
from worker.digest import ADAPTER, digest_folder
from worker.publish import fetch_adapters
from worker.run import execute

BASE = "random-base"
N_MUTANTS = 400


class Silent:
    def __call__(self, job_id: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ping(self) -> None: ...


@pytest.fixture(scope="module")
def place(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/random-base, models/mine (a LoRA of plain PEFT), data/corpus.txt, home/."""
    root = tmp_path_factory.mktemp("uploads")
    shutil.copytree(random_base, root / "models" / BASE)
    make_lora(root / "models" / BASE, root / "models" / "mine", size=0.1)
    (root / "data").mkdir()
    (root / "data" / "corpus.txt").write_text("The mill grinds the corn of the valley. " * 20)
    return root


@pytest.fixture(scope="module")
def service_settings(place: Path) -> Settings:
    return Settings(
        home=place / "home",
        model_roots=[place / "models"],
        data_roots=[place / "data"],
        allow_hub=False,
        sweep_seconds=3600,
    )


@pytest.fixture(scope="module")
def store(service_settings: Settings) -> Iterator[Store]:
    opened = Store(service_settings.database, service_settings)
    opened.migrate()
    yield opened
    opened.dispose()


@pytest.fixture(scope="module")
def web(store: Store, service_settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(store, service_settings, Silent())) as client:
        yield client


@pytest.fixture
def uploaded(web: TestClient, place: Path) -> Iterator[dict[str, Any]]:
    answer = send(web, files_of(place / "models" / "mine"), base_model=BASE)
    assert answer.is_success, answer.text
    yield answer.json()
    web.delete(f"/v1/adapters/{answer.json()['id']}")


def evaluate(*adapters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "evaluate",
        "base_model": BASE,
        "adapters": list(adapters),
        "evaluation": {"corpus": "corpus.txt", "context": 32},
    }


def test_an_upload_is_measured_as_the_folder_that_it_was(
    web: TestClient,
    store: Store,
    service_settings: Settings,
    place: Path,
    uploaded: dict[str, Any],
    tmp_path: Path,
) -> None:
    spec = evaluate({"path": "mine"}, {"id": uploaded["id"]})
    assert web.post("/v1/jobs", json=spec).status_code == 202
    claim = store.claim("worker")
    assert claim is not None
    adapters = fetch_adapters(store, claim.spec, tmp_path, service_settings)
    assert adapters.keys() == {uploaded["id"]}
    assert digest_folder(adapters[uploaded["id"]], ADAPTER) == uploaded["digest"]
    spec_ = EvaluateSpec.model_validate(claim.spec)
    result = execute(
        spec_, tmp_path, lambda event: None, adapters=adapters, settings=service_settings
    )
    by_path, by_id = result.checkpoints
    assert (by_path.adapter, by_id.adapter) == ("mine", uploaded["id"])
    assert by_id.forgetting == by_path.forgetting
    assert by_id.forgetting.kl.value > 0
    assert result.provenance.adapter == uploaded["digest"]
    sizes = (by_id.rank, by_id.trainable_params)
    assert sizes == (uploaded["rank"], uploaded["trainable_params"])
    store.finish_cancelled(claim)


@pytest.mark.parametrize("harm", ["flip", "lose", "delete"])
def test_an_upload_that_is_not_what_it_was_is_refused_by_name(
    web: TestClient,
    store: Store,
    service_settings: Settings,
    uploaded: dict[str, Any],
    tmp_path: Path,
    harm: str,
) -> None:
    file = service_settings.home / "artifacts" / store.adapter(uploaded["id"]).prefix / WEIGHTS
    if harm == "flip":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif harm == "lose":
        file.unlink()
    else:
        web.delete(f"/v1/adapters/{uploaded['id']}")
    with pytest.raises(AdapterUnreadable) as caught:
        fetch_adapters(store, evaluate({"id": uploaded["id"]}), tmp_path, service_settings)
    assert caught.value.param == "adapters.0.id"
    assert uploaded["id"] in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KINDS = ["bytes", "cut", "insert", "value", "entry", "rename", "config", "raw"]
DTYPES = st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "F8_E4M3", "", "f32"])
FIELDS = ["r", "peft_type", "bias", "rank_pattern", "modules_to_save", "init_lora_weights"]
FIELDS += ["auto_map", "megatron_config", "trainable_token_indices", "lora_alpha", "new"]


@st.composite
def mutated(draw: st.DrawFn, weights: bytes, config: bytes) -> tuple[bytes, bytes]:
    """(weights, config), one or both of them damaged in one to three places."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(KINDS))
        at = draw(st.integers(0, min(len(weights), 4096) - 1)) if weights else 0
        if kind == "bytes":
            new = draw(st.binary(min_size=1, max_size=8))
            weights = weights[:at] + new + weights[at + len(new) :]
        elif kind == "cut":
            weights = weights[: draw(st.integers(0, len(weights)))]
        elif kind == "value" and len(weights) > 4:
            place = max(0, len(weights) - 4 * draw(st.integers(1, 1000)))  # one float32
            new = draw(st.just(b"\x00\x00\xc0\x7f") | st.binary(min_size=4, max_size=4))
            weights = weights[:place] + new + weights[place + 4 :]
        elif kind == "insert":
            weights = weights[:at] + draw(st.binary(max_size=16)) + weights[at:]
        elif kind in ("entry", "rename"):
            weights = reheaded(draw, weights, rename=kind == "rename")
        elif kind == "config":
            entries = _object(config) or {}
            entries[draw(st.sampled_from(FIELDS))] = draw(JSON)
            config = json.dumps(entries).encode()
        else:
            place = draw(st.integers(0, len(config)))
            config = config[:place] + draw(st.binary(max_size=4)) + config[place + 2 :]
    return weights, config


def reheaded(draw: st.DrawFn, weights: bytes, *, rename: bool) -> bytes:
    """The same data under a header with one entry changed."""
    length = int.from_bytes(weights[:8], "little")
    entries = _object(weights[8 : 8 + length]) if length < 10**6 else None
    if not entries:
        return weights
    name = draw(st.sampled_from(sorted(entries)))
    entry = entries[name]
    if rename:
        entries[draw(st.text(max_size=20) | st.just(f"{name}x"))] = entries.pop(name)
    elif isinstance(entry, dict):
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        old = entry.get(field)
        near = st.just(old)
        if isinstance(old, list):
            near = st.permutations(old) | st.just([*old, 1]) | st.just([n * 2 for n in old])
        entry[field] = draw(DTYPES if field == "dtype" else near | JSON)
    else:
        entries[name] = draw(JSON)
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + weights[8 + length :]


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def test_mutants_are_refused_in_words_or_can_be_read(
    web: TestClient, service_settings: Settings, place: Path
) -> None:
    """What is taken, the format's own reader reads, and every value is finite."""
    home, original = service_settings.home, files_of(place / "models" / "mine")
    taken: list[bool] = []

    @settings(max_examples=N_MUTANTS, deadline=None, derandomize=True, database=None)
    @given(mutant=mutated(original[WEIGHTS][1], original[CONFIG][1]))
    def judge(mutant: tuple[bytes, bytes]) -> None:
        weights, config = mutant
        files = {CONFIG: (CONFIG, config), WEIGHTS: (WEIGHTS, weights)}
        answer = send(web, files, base_model=BASE)
        taken.append(answer.is_success)
        if not answer.is_success:
            problem = refused(answer, at="/adapters")
            assert problem["code"] == "adapter_unreadable"
            assert problem["param"] in (CONFIG, WEIGHTS)
            assert leftovers(home) == []
            return
        [kept] = {(home / name).parent for name in leftovers(home)}
        assert read_tensors(kept)
        assert web.delete(f"/v1/adapters/{answer.json()['id']}").status_code == 204

    judge()
    assert 0.05 < sum(taken) / len(taken) < 0.5
