"""What a client does with adapters of other trainers. Part of `ForgettingClient`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypedDict, cast

import httpx2

from forgetting_client.connection import Connection
from forgetting_client.errors import Unsendable
from forgetting_client.pages import pages, segment
from forgetting_client.problem import error_of, json_of

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
PATIENCE = httpx2.Timeout(60.0, connect=5.0, read=900.0)
"""The service looks at every value, and stores all of them, before it answers."""


class Adapter(TypedDict):
    """An uploaded adapter; in a spec, `{"id": adapter["id"]}`."""

    id: str
    digest: str
    base_model: str
    revision: str | None
    base_layout: str
    rank: int
    trainable_params: int
    bytes: int
    created_at: str


class AdapterMethods:
    _connection: Connection

    def upload_adapter(
        self,
        folder: str | Path,
        *,
        base_model: str,
        revision: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Adapter:
        """Send a LoRA adapter as PEFT saved it. The same content is the same adapter again.

        `progress` hears how many bytes of how many have gone. AdapterUnreadable: it does not fit
        the base, or is not safetensors. Unsendable: the folder has not its two files.
        """
        files = adapter_files(Path(folder))
        total = sum(path.stat().st_size for path in files.values())
        params = {"base_model": base_model, **({"revision": revision} if revision else {})}

        def once() -> Adapter:
            sent = _Sent(total, progress)
            with ExitStack() as opened:
                parts = {
                    name: (name, sent.reading(opened.enter_context(path.open("rb"))))
                    for name, path in files.items()
                }
                response = self._connection.http.post(
                    "v1/adapters",
                    params=params,
                    files=cast(Any, parts),
                    timeout=PATIENCE,
                )
            if not response.is_success:
                raise error_of(response)
            return cast(Adapter, json_of(response))

        return self._connection.retrying(once)

    def adapters(
        self,
        *,
        base_model: str | None = None,
        digest: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Adapter]:
        """Uploaded adapters, newest first, page after page. `limit`: at most so many in all."""
        filters = {"base_model": base_model, "digest": digest}
        return cast(Iterator[Adapter], pages(self._connection, "v1/adapters", filters, limit))

    def adapter(self, adapter_id: str) -> Adapter:
        return cast(Adapter, self._connection.object("GET", _path(adapter_id)))

    def delete_adapter(self, adapter_id: str) -> None:
        """AdapterInUse while a queued or running job is to measure it."""
        self._connection.send("DELETE", _path(adapter_id))


def is_adapter(folder: Path) -> bool:
    """Whether a local folder is a PEFT adapter."""
    return (folder / CONFIG).is_file()


def adapter_files(folder: Path) -> dict[str, Path]:
    """The two files to send, the small one first, so that it is refused early. Unsendable."""
    if not is_adapter(folder):
        raise Unsendable(f"{folder} is no adapter: it has no {CONFIG}.")
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(one.name for one in folder.iterdir() if one.suffix in PICKLED)
        said = f"{folder} has no {WEIGHTS}."
        if pickled:
            said += f" {pickled[0]} is pickled, which can run code; save it as safetensors."
        raise Unsendable(said)
    return {name: folder / name for name in (CONFIG, WEIGHTS)}


class _Sent:
    """Counts what is read of several files, and tells."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def reading(self, file: IO[bytes]) -> "_Counted":
        return _Counted(file, self._count)

    def _count(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Counted:
    """As much of a file as a multipart body asks for."""

    def __init__(self, file: IO[bytes], count: Callable[[int], None]) -> None:
        self._file, self._count = file, count

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._count(len(chunk))
        return chunk


def _path(adapter_id: str) -> str:
    return f"v1/adapters/{segment(adapter_id, 'adapter')}"
