"""The hub inside a request: what is half downloaded is asked for, and patience has an end."""

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service import hub
from service.errors import ModelUnavailable
from service.weights import ModelFiles
from tests.model_folders import write_model, write_safetensors

SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
COMMIT = "0" * 40


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Of org/tiny in a cache under tmp_path: config, index, and the first of two shards."""
    repo = tmp_path / "models--org--tiny"
    folder = write_model(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict(zip("ab", SHARDS, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_safetensors(folder / SHARDS[0], {"a": (2, 2)})
    return folder


def test_a_snapshot_counts_once_every_shard_is_there(tmp_path: Path, snapshot: Path) -> None:
    assert hub.cached_snapshot("org/tiny", None, cache_dir=tmp_path) is None
    write_safetensors(snapshot / SHARDS[1], {"b": (2, 2)})
    assert hub.cached_snapshot("org/tiny", None, cache_dir=tmp_path) == snapshot
    files = hub.model_files("org/tiny", None, cache_dir=tmp_path)
    assert files.tensors.keys() == {"a", "b"}


class Hub(ThreadingHTTPServer):
    """Serves one model from a folder; where it is silent, its files never come."""

    folder = Path()
    silent = False
    ended = threading.Event()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        folder = self.server.folder
        if self.path.startswith("/api/models/org/tiny"):
            files = [{"rfilename": path.name} for path in folder.iterdir()]
            body = json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": files}).encode()
        else:
            if self.server.silent:
                self.server.ended.wait(30)
            body = (folder / self.path.rpartition("/")[2]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(snapshot: Path) -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Answer) as server:
        server.folder, server.ended = snapshot, threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


def ask(server: Hub, cache: Path) -> ModelFiles:
    address = f"http://127.0.0.1:{server.server_port}"
    return hub.model_files("org/tiny", None, cache_dir=cache, endpoint=address)


def test_half_a_snapshot_does_not_keep_the_hub_from_being_asked(
    server: Hub, tmp_path: Path, snapshot: Path
) -> None:
    whole = shutil.copytree(snapshot, tmp_path / "whole")
    write_safetensors(whole / SHARDS[1], {"b": (3, 2)})
    server.folder = whole
    files = ask(server, tmp_path)
    assert {name: one.shape for name, one in files.tensors.items()} == {"a": (2, 2), "b": (3, 2)}


def test_a_model_without_safetensors_is_refused(server: Hub, tmp_path: Path) -> None:
    (server.folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelUnavailable, match="pickled"):
        ask(server, tmp_path / "empty")


def test_a_silent_hub_is_given_up_within_seconds(server: Hub, tmp_path: Path) -> None:
    server.silent = True
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match="does not answer"):
        ask(server, tmp_path / "empty")
    assert time.monotonic() - began < 2 * hub.TIMEOUT_SECONDS
