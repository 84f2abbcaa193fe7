"""Artifacts to disk: whole and as announced, or not at all."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from forgetting_client.connection import Connection
from forgetting_client.errors import DigestMismatch, Unsendable
from forgetting_client.wire import Artifact


def download(
    connection: Connection,
    job_path: str,
    name: str,
    artifact: Artifact | None,
    target: Path,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """The artifact in a file beside `target`, renamed onto it once its sha256 is right."""
    if ".." in name.split("/"):
        raise Unsendable(f"{name!r} is not the name of an artifact.")
    if target.is_dir():
        target = target / Path(name).name
    url = f"{job_path}/artifacts/{quote(name)}"

    def once() -> Path:
        digest = hashlib.sha256()
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        done = 0
        try:
            with part.open("xb") as file, connection.stream(url) as response:
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done)
            got = f"sha256:{digest.hexdigest()}"
            if artifact is not None and artifact["sha256"] != got:
                raise DigestMismatch(f"{name} came as {got}, announced was {artifact['sha256']}.")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return target

    return connection.retrying(once)
