"""The order in which a gate scores windows: random, and the same for the same question."""

import hashlib

import numpy as np
import numpy.typing as npt


def order(seed_text: str, n: int) -> npt.NDArray[np.int64]:
    """A uniform permutation of 0 … n-1, equal on every machine for one `seed_text`.

    The text names all that the verdict is about (digests of adapter, base, corpus and policy),
    so running again cannot draw a luckier order. Windows are sorted by Philox's 64-bit words,
    whose stream numpy never changes, keyed by SHA-256; ties (chance n^2 / 2^65) by number.
    """
    digest = hashlib.sha256(seed_text.encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "big")).random_raw(n)
    return np.asarray(np.argsort(words, kind="stable"), np.int64)
