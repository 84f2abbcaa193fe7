"""Uploads that are refused or break off: a problem that names the part, and nothing is left."""

import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.errors import AdapterUnreadable
from service.routes.adapters import receive
from service.settings import Settings
from service.store import Store
from tests.model_folders import lora_shapes, write_adapter
from tests.refusals import refused
from tests.sent_adapters import CONFIG, WEIGHTS, Files, files_of, leftovers, send

QUERY = "base_model.model.model.layers.0.self_attn.q_proj"
Change = Callable[[Path], None]


@pytest.fixture(autouse=True)
def nothing_is_left(sqlite_store: Store, api_settings: Settings) -> Iterator[None]:
    yield
    assert leftovers(api_settings.home) == []
    uploads = api_settings.home / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []
    assert sqlite_store.list_adapters() == ([], False)


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


def parts(*given: tuple[str, str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (file_name, content)) for name, file_name, content in given]


def test_just_the_two_files_are_taken(sqlite_api: TestClient, tmp_path: Path) -> None:
    files = files_of(write_adapter(tmp_path / "mine"))
    small, large = (CONFIG, *files[CONFIG]), (WEIGHTS, *files[WEIGHTS])
    pickled = (WEIGHTS, "adapter_model.bin", files[WEIGHTS][1])
    for given, param, said in [
        (parts(small), WEIGHTS, "there is no part"),
        (parts(large), CONFIG, "there is no part"),
        (parts(small, large, small), CONFIG, "came twice"),
        (parts(small, ("model.py", "model.py", b"import os")), "model.py", "no place for"),
        (parts(("../../x", CONFIG, b"{}")), "../../x", "no place for"),
        (parts(small, pickled), WEIGHTS, "adapter_model.bin is pickled"),
    ]:
        problem = refused(send(sqlite_api, given), at="/adapters")
        assert (problem["code"], problem["param"]) == ("adapter_unreadable", param)
        assert said in problem["detail"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"x", 422),
        ("multipart/form-data; boundary=b", b"x", 422),
        ("multipart/form-data; boundary=b", b"", 422),
        ("multipart/form-data; boundary=" + "b" * 300, b"x", 422),
        ("multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\nx\r\n--b--", 422),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A" * 9000, 422),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422),
    ],
)
def test_bodies_that_are_no_form(
    sqlite_api: TestClient, kind: str, body: bytes, status: int
) -> None:
    answer = sqlite_api.post(
        "/adapters", params={"base_model": "tiny"}, content=body, headers={"Content-Type": kind}
    )
    refused(answer, status=status, at="/adapters")


@pytest.mark.parametrize(
    ("base_model", "code"),
    [
        ("absent", "model_unavailable"),
        ("../models/tiny", "path_not_allowed"),
        ("a\x01", "validation_error"),
        (None, "validation_error"),
    ],
)
def test_the_base_is_looked_at_first(
    sqlite_api: TestClient, base_model: str | None, code: str
) -> None:
    """Not a byte of the body is asked for."""
    params = {} if base_model is None else {"base_model": base_model}
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    asked = anyio.run(
        _call, sqlite_api, urlencode(params).encode(), kind["Content-Type"], [], False
    )
    assert asked == (422, 0), code
    problem = refused(
        sqlite_api.post("/adapters", params=params, content=b"", headers=kind), at="/adapters"
    )
    assert (problem["code"], problem["param"].rpartition(".")[2]) == (code, "base_model")


async def _call(
    web: TestClient, query: bytes, kind: str, chunks: list[bytes], disconnects: bool
) -> tuple[int | None, int]:
    """(status, messages read) of a body that comes in these chunks and then stays open or ends
    with the connection."""
    status: list[int] = []
    n_read = 0

    async def receive_() -> Message:
        nonlocal n_read
        n_read += 1
        if n_read <= len(chunks):
            return {"type": "http.request", "body": chunks[n_read - 1], "more_body": True}
        if disconnects:
            return {"type": "http.disconnect"}
        raise AssertionError("read past what there is")

    async def send_(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/adapters",
        "query_string": query,
        "headers": [(b"content-type", kind.encode())],
    }
    await web.app(scope, receive_, send_)
    return (status[0] if status else None), n_read


START = f'--b\r\nContent-Disposition: form-data; name="{WEIGHTS}"\r\n\r\n'.encode()


@pytest.mark.parametrize("n_chunks", [0, 1, 5])
def test_a_client_that_goes_away_midway_leaves_nothing(
    sqlite_api: TestClient, api_settings: Settings, n_chunks: int
) -> None:
    chunks = [START, *[bytes(1 << 20)] * n_chunks]
    kind = "multipart/form-data; boundary=b"
    told = anyio.run(_call, sqlite_api, b"base_model=tiny", kind, chunks, True)
    assert told == (None, len(chunks) + 1)
    assert (api_settings.home / "uploads").is_dir()  # it had begun to write there


def test_a_client_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    async def silence() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    kind = b"multipart/form-data; boundary=b"
    request = Request({"type": "http", "headers": [(b"content-type", kind)]}, silence)

    async def ask() -> None:
        await receive(request, tmp_path, {WEIGHTS: 10}, idle_seconds=0.01)

    with pytest.raises(AdapterUnreadable, match="stood still"):
        anyio.run(ask)


@pytest.fixture
def narrow(sqlite_store: Store, api_settings: Settings, bell: Any) -> Iterator[TestClient]:
    """Takes adapters of at most 100 kB."""
    small = api_settings.model_copy(update={"max_adapter_bytes": 100_000})
    with TestClient(create_app(sqlite_store, small, bell)) as web:
        yield web


def test_the_limit_counts_what_arrives(narrow: TestClient, tmp_path: Path) -> None:
    """Content-Length may be absent, and what comes after the limit is not waited for."""
    files = files_of(write_adapter(tmp_path / "mine"))
    over: Files = {**files, WEIGHTS: (WEIGHTS, bytes(100_001))}
    problem = refused(send(narrow, over), status=413, at="/adapters")
    assert (problem["code"], problem["param"]) == ("payload_too_large", WEIGHTS)
    assert problem["details"] == {"max_bytes": 100_000}
    long: Files = {**files, CONFIG: (CONFIG, b" " * 1_000_001)}
    assert refused(send(narrow, long), status=413, at="/adapters")["param"] == CONFIG
    # Content-Length says at once that it is too much.
    declared: Files = {**files, WEIGHTS: (WEIGHTS, bytes(2_000_000))}
    problem = refused(send(narrow, declared), status=413, at="/adapters")
    assert problem["details"] == {"max_body_bytes": 1_110_000}
    # A part without end is cut off at its limit, headers without end at the parser's.
    kind = "multipart/form-data; boundary=b"
    for chunks, status in [([START, *[bytes(65_536)] * 64], 413), ([b"-" * 65_536] * 64, 422)]:
        told, n_read = anyio.run(_call, narrow, b"base_model=tiny", kind, chunks, False)
        assert told == status
        assert n_read < 25


def test_other_routes_keep_their_limit(sqlite_api: TestClient) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for path in ("/v1/jobs", "/v1/laws"):
        answer = sqlite_api.post(path, content=bytes(1_000_001), headers=kind)
        refused(answer, status=413, at=path)


def test_a_large_upload_is_never_in_memory(sqlite_api: TestClient) -> None:
    """48 MB go by; the process holds a few chunks of them."""
    chunk = bytes(1 << 20)
    chunks = [START, *[chunk] * 48, b"\r\n--b--\r\n"]
    kind = "multipart/form-data; boundary=b"
    tracemalloc.start()
    try:
        anyio.run(_call, sqlite_api, b"base_model=tiny", kind, chunks, True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
