"""Files that may be large, copied so that whoever waits for us is heard between two chunks."""

import hashlib
from collections.abc import Callable
from typing import IO

CHUNK_BYTES = 4 << 20

Check = Callable[[], None]
"""Called often; raises when the work is no longer wanted."""


def unwatched() -> None:
    """For callers whom nobody interrupts."""


def copy(source: IO[bytes], target: IO[bytes], check: Check = unwatched) -> tuple[int, str]:
    """Copies to the end; (bytes, `sha256:<hex>`) of what was written. Raises what `check` does."""
    size, digest = 0, hashlib.sha256()
    check()
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        check()
    return size, f"sha256:{digest.hexdigest()}"
