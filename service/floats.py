"""The values in a safetensors file, read a few MB at a time, without torch.

A dtype's name is safetensors' own: F32, BF16, …
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from service.weights import TensorHeader

CHUNK_BYTES = 4 << 20
FLOATS: Mapping[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""Unsigned integers of the same width, and the exponent's bits: NaN and infinity have them all."""


def misplaced(tensors: Mapping[str, TensorHeader]) -> tuple[str, str] | None:
    """The first tensor whose bytes are not where and as many as they must be, and why.

    Tensors follow each other without gap or overlap, and their dtypes are those of FLOATS.
    """
    at = 0
    for name, header in sorted(tensors.items(), key=lambda item: item[1].offsets):
        if header.dtype not in FLOATS:
            return name, f"dtype {header.dtype[:16]}, where one of {', '.join(FLOATS)} is read"
        begin, end = header.offsets
        if begin != at:
            return name, f"its data begin at byte {begin}, the tensor before it ends at {at}"
        width = np.dtype(FLOATS[header.dtype][0]).itemsize
        n_bytes = math.prod(header.shape) * width
        if end - begin != n_bytes:
            return name, f"{end - begin} bytes of data, where its shape needs {n_bytes}"
        at = end
    return None


def not_finite(path: Path, tensors: Mapping[str, TensorHeader]) -> str | None:
    """Name of the first tensor that holds NaN or infinity. `misplaced` must have found none."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        for name, header in tensors.items():
            unsigned, exponent = FLOATS[header.dtype]
            begin, end = header.offsets
            file.seek(start + begin)
            for done in range(0, end - begin, CHUNK_BYTES):
                chunk = file.read(min(CHUNK_BYTES, end - begin - done))
                bits = np.frombuffer(chunk, unsigned)
                if bool(((bits & exponent) == exponent).any()):
                    return name
    return None
