"""The parts of a multipart/form-data body, written to disk as they come.

A part's name is the file's; what its sender calls the file (`filename`) does not count.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import AdapterUnreadable, PayloadTooLarge, SystemFault
from service.weights import PICKLED


@dataclass(frozen=True)
class Part:
    bytes: int
    sha256: str
    """`sha256:<hex>`."""


class Parts:
    """Feed the body, then `finish`. Just the parts named in `limits`, each once and at most so
    many bytes, become files of that name in `folder`.

    Raises AdapterUnreadable and PayloadTooLarge, which name the part, and SystemFault where the
    disk is full. Use as a context: leaving closes what is open.
    """

    def __init__(self, content_type: str, folder: Path, limits: Mapping[str, int]) -> None:
        self._folder = folder
        self._limits = limits
        self._found: dict[str, Part] = {}
        self._header = b""
        self._value = b""
        self._disposition = ""
        self._name = ""
        self._file: IO[bytes] | None = None
        self._n_bytes = 0
        self._sha256 = hashlib.sha256()
        self._ended = False
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise AdapterUnreadable("send multipart/form-data with its boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._take_header,
                    "on_header_value": self._take_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._write,
                    "on_part_end": self._close,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from error
        except OSError as error:
            raise SystemFault(f"the upload cannot be written: {error.strerror}") from error

    def finish(self) -> dict[str, Part]:
        """What came, by name: all that `limits` names."""
        if not self._ended:
            raise AdapterUnreadable("the multipart body is cut short")
        for name in self._limits:
            if name not in self._found:
                raise AdapterUnreadable(f"there is no part {name}", param=name)
        return self._found

    def _begin(self) -> None:
        self._disposition = ""

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        if name not in self._limits:
            said = f"there is no place for {name[:64]!r}; send just {' and '.join(self._limits)}"
            raise AdapterUnreadable(said, param=name[:64] or None)
        if Path(file_name).suffix in PICKLED:
            said = f"{file_name[:64]} is pickled, which can run code; send safetensors"
            raise AdapterUnreadable(said, param=name)
        if name in self._found:
            raise AdapterUnreadable(f"{name} came twice", param=name)
        self._name, self._n_bytes, self._sha256 = name, 0, hashlib.sha256()
        self._file = (self._folder / name).open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._n_bytes += end - start
        limit = self._limits[self._name]
        if self._n_bytes > limit:
            said = f"{self._name} is over {limit} bytes"
            raise PayloadTooLarge(said, param=self._name, max_bytes=limit)
        chunk = data[start:end]
        self._file.write(chunk)
        self._sha256.update(chunk)

    def _close(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        digest = f"sha256:{self._sha256.hexdigest()}"
        self._found[self._name] = Part(self._n_bytes, digest)

    def _end(self) -> None:
        self._ended = True


def _malformed(error: FormParserError) -> AdapterUnreadable:
    return AdapterUnreadable(f"the body is not multipart/form-data: {str(error)[:200]}")
