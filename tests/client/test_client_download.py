"""Artifacts arrive whole and as announced, or not at all."""

import hashlib
from pathlib import Path

import httpx2
import pytest
from forgetting_client import Retry, errors

CONTENT = bytes(range(256)) * 300
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
NAME = "checkpoints/step-000140/adapter model.safetensors"


def listing(sha=SHA):
    data = [{"name": NAME, "bytes": len(CONTENT), "sha256": sha}]
    return httpx2.Response(200, json={"data": data})


def content(data=CONTENT):
    return httpx2.Response(200, content=data)


def test_a_download_is_checked_and_named(scripted, tmp_path: Path) -> None:
    client, script = scripted(listing(), content())
    heard: list[int] = []
    path = client.download("job_1", NAME, tmp_path, progress=heard.append)
    assert path == tmp_path / "adapter model.safetensors"
    assert path.read_bytes() == CONTENT
    assert heard[-1] == len(CONTENT)
    asked = "/v1/jobs/job_1/artifacts/checkpoints/step-000140/adapter%20model.safetensors"
    assert script.requests[1].url.raw_path == asked.encode()


@pytest.mark.parametrize("data", [CONTENT[:-1], CONTENT + b"x", b"", CONTENT[:-1] + b"\0"])
def test_other_content_than_announced_leaves_no_file(scripted, tmp_path: Path, data) -> None:
    client, _ = scripted(listing(), content(data))
    with pytest.raises(errors.DigestMismatch):
        client.download("job_1", NAME, tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_until_the_new_one_is_right(scripted, tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"before")
    client, _ = scripted(listing(), content(b"torn"))
    with pytest.raises(errors.DigestMismatch):
        client.download("job_1", NAME, target)
    assert target.read_bytes() == b"before"


def test_a_broken_download_begins_again(scripted, tmp_path: Path) -> None:
    client, _ = scripted(listing(), httpx2.ReadError("reset"), httpx2.Response(503), content())
    assert client.download("job_1", NAME, tmp_path / "a.bin").read_bytes() == CONTENT
    client, _ = scripted(listing(), *[httpx2.ReadError("reset")] * 2, retry=Retry(attempts=2))
    with pytest.raises(errors.Unreachable):
        client.download("job_1", NAME, tmp_path / "b.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_an_unknown_artifact_is_the_services_to_refuse(scripted, tmp_path: Path) -> None:
    refusal = httpx2.Response(404, json={"code": "not_found", "detail": "no artifact x"})
    client, _ = scripted(listing(), refusal)
    with pytest.raises(errors.NotFound, match="no artifact x"):
        client.download("job_1", "x", tmp_path)


def test_a_name_cannot_leave_its_folder(scripted, tmp_path: Path) -> None:
    client, _ = scripted(listing())
    with pytest.raises(errors.Unsendable):
        client.download("job_1", "../result", tmp_path)
