"""Digests of files and folders: `sha256:<hex>` of content, never of paths or times."""

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.*",
)
"""What makes text into tokens, chat template included."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def digest_bytes(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of the content. Re-read only when path, mtime or size differ, within this process."""
    stat = path.stat()
    return _digest_file(str(path.resolve()), stat.st_mtime_ns, stat.st_size)


def digest_files(files: Iterable[Path]) -> str:
    """sha256 over the sorted (file name, sha256 of content) lines: renaming a folder keeps it."""
    lines = sorted(f"{file.name}\t{digest_file(file)}\n" for file in files)
    return digest_bytes("".join(lines).encode())


def digest_folder(folder: Path, patterns: Iterable[str] = ("*",)) -> str:
    """`digest_files` over the files directly in `folder` whose name matches one of the patterns."""
    return digest_files(matching(folder, patterns))


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files directly in `folder` whose name matches one of the patterns, sorted by name."""
    wanted = tuple(patterns)
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in wanted)
    )


def digest_now(path: Path) -> str:
    """sha256 of the content, read now: a flipped byte may leave size and mtime alone."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _digest_file(path: str, mtime_ns: int, size: int) -> str:
    # mtime and size are only the cache's key: an entry never outlives a change that they show.
    return digest_now(Path(path))
