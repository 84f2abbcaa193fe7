"""Files that jobs left, on any fsspec URL. Names come from the database, never from a request."""

import base64
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from fastapi.responses import Response, StreamingResponse

from service.errors import NotFound
from service.settings import Settings
from service.storage import folder_of, remove_folder, storage_faults
from service.store import JobRow, Store

CHUNK = 1 << 20
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def remove_job(store: Store, settings: Settings, job_id: str) -> None:
    """Rows first, then files: a file without a row is only waste, which the log names.

    Raises StillRunning, NotFound.
    """
    family = [*_children(store, job_id), store.delete_job(job_id)]
    for row in family:
        if row.artifacts_prefix:
            remove_folder(row.artifacts_prefix, settings)


def send(store: Store, settings: Settings, job_id: str, name: str, range_: str | None) -> Response:
    """The file, or the one range of it that was asked for. Raises NotFound, SystemFault."""
    listed = {artifact["name"]: artifact for artifact in store.artifacts(job_id)}
    prefix = store.job(job_id).artifacts_prefix
    if name not in listed or prefix is None:
        raise NotFound(f"{job_id} has no artifact of that name", param="name")
    artifact = listed[name]
    size = int(artifact["bytes"])
    part = asked_range(range_, size)
    headers = _headers(artifact)
    if part is not None and part[0] >= part[1]:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    start, stop = part or (0, size)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    with storage_faults(settings):
        try:
            chunks = _chunks(*folder_of(prefix, settings), name, start, stop)
            # Read before the answer starts: afterwards a fault could only cut it short.
            first = next(chunks, b"")
        except FileNotFoundError as error:
            raise NotFound(f"{name} is gone from the artifact store", param="name") from error
    return StreamingResponse(
        chain([first], chunks),
        206 if part else 200,
        headers,
        media_type="application/octet-stream",
    )


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """[start, stop) of a single byte range; None for no range or one that is not understood.

    Empty (start >= stop): it lies outside the file.
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _headers(artifact: dict[str, Any]) -> dict[str, str]:
    digest = str(artifact["sha256"]).removeprefix("sha256:")
    encoded = base64.b64encode(bytes.fromhex(digest)).decode()
    file_name = artifact["name"].rpartition("/")[2]
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", file_name)
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
        "Repr-Digest": f"sha-256=:{encoded}:",
        "Content-Disposition": f'attachment; filename="{safe}"',
        "X-Content-Type-Options": "nosniff",
    }


def _chunks(fs: Any, root: str, name: str, start: int, stop: int) -> Iterator[bytes]:
    with fs.open(f"{root}/{name}", "rb") as file:
        file.seek(start)
        left = stop - start
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _children(store: Store, job_id: str) -> list[JobRow]:
    rows: list[JobRow] = []
    more = store.job(job_id).type == "sweep"
    while more:
        after = rows[-1].id if rows else None
        page, more = store.list_jobs(limit=100, after=after, sweep=job_id)
        rows += page
    return rows
