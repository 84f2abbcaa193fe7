"""A fixed part of a corpus's windows: drawn once by seed, whole windows, in document order."""

import numpy as np

from worker.windows import Windows


def sampled(windows: Windows, n: int, *, seed: int) -> Windows:
    """`n` of the windows, each as likely as the next; all of them where there are no more."""
    if n >= len(windows):
        return windows
    drawn = np.random.default_rng(seed).choice(len(windows), size=n, replace=False)
    return windows.only(np.sort(drawn))
