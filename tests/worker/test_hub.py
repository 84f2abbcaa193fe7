"""Who is to blame when the hub's files do not come. The hub is a small server on this machine."""

import errno
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from service.errors import DatasetUnreadable, ModelUnavailable, SystemFault
from service.sources import HubModel
from tests.model_folders import write_model, write_safetensors
from worker.hub import fetching, model_folder

NOWHERE = "http://127.0.0.1:9"
MODEL = HubModel("org/tiny", None)


class Hub(ThreadingHTTPServer):
    """Answers every question with one status and the hub's own word for it."""

    status = 503
    word = ""


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        if self.server.word:
            self.send_header("X-Error-Code", self.server.word)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def download(server: Hub, cache: Path) -> Path:
    return model_folder(MODEL, cache_dir=cache, endpoint=f"http://127.0.0.1:{server.server_port}")


def snapshot(cache: Path) -> Path:
    repo = cache / "models--org--tiny"
    folder = write_model(repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    return folder


def halve(folder: Path) -> None:
    """What an interrupted download of two shards leaves."""
    (folder / "model.safetensors").unlink()
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    write_safetensors(folder / places["a"], {"a": (2, 2)})


@pytest.mark.parametrize(
    ("status", "word"),
    [(404, "RepoNotFound"), (404, "RevisionNotFound"), (403, "GatedRepo"), (401, "RepoNotFound")],
)
def test_what_the_hub_refuses_is_the_callers_to_mend(
    server: Hub, tmp_path: Path, status: int, word: str
) -> None:
    server.status, server.word = status, word
    with pytest.raises(ModelUnavailable) as caught:
        download(server, tmp_path)
    assert caught.value.param == "base_model"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_not(server: Hub, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(SystemFault, match="org/tiny"):
        download(server, tmp_path)


def test_a_hub_that_is_away_is_not(tmp_path: Path) -> None:
    with pytest.raises(SystemFault, match="org/tiny"):
        model_folder(MODEL, cache_dir=tmp_path, endpoint=NOWHERE)


def test_a_whole_snapshot_needs_no_hub(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    assert model_folder(MODEL, cache_dir=tmp_path, endpoint=NOWHERE) == folder


def test_half_a_snapshot_is_asked_for_again(server: Hub, tmp_path: Path) -> None:
    server.status = 418  # trouble of a kind that the library does not wait for
    halve(snapshot(tmp_path))
    with pytest.raises(SystemFault):
        download(server, tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stays_one_behind_whatever_wrapped_it(number: int) -> None:
    wrapped = DatasetGenerationError("generation failed")
    wrapped.__cause__ = OSError(number, "no room")
    with (
        pytest.raises(OSError, match="org/rows") as caught,
        fetching("org/rows", DatasetUnreadable, param="dataset.path"),
    ):
        raise wrapped
    assert caught.value.errno == number


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (DatasetNotFoundError("no such"), DatasetUnreadable),
        (ValueError("Unknown split"), DatasetUnreadable),
        (RuntimeError("Dataset scripts are no longer supported"), DatasetUnreadable),
        (DatasetGenerationError("line 3 is torn"), DatasetUnreadable),
        (ConnectionError("couldn't reach"), SystemFault),
        (OSError(errno.EIO, "broken disk"), SystemFault),
    ],
)
def test_datasets_say_who_is_to_blame(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), fetching("org/rows", DatasetUnreadable, param="dataset.path"):
        raise raised
