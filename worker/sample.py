"""A fixed part of a corpus's windows: drawn once by seed, whole windows, in document order."""

import numpy as np

from worker.windows import Windows


def sampled(windows: Windows, n: int, *, seed: int) -> Windows:
    """`n` of the windows, each as likely as the next; all of them where there are no more."""
    if n >= len(windows):
        return windows
    drawn = np.random.default_rng(seed).choice(len(windows), size=n, replace=False)
    return part(windows, np.sort(drawn))


def part(windows: Windows, chosen: np.ndarray) -> Windows:
    """The windows with those indices, in that order."""
    spans = [slice(windows.starts[w], windows.starts[w + 1]) for w in chosen]
    return Windows(
        ids=np.concatenate([windows.ids[span] for span in spans]),
        starts=np.concatenate([[0], np.cumsum(windows.lengths[chosen])]),
        scored=np.concatenate([windows.scored[span] for span in spans]),
        document=windows.document[chosen],
        first=windows.first[chosen],
        begins_with_bos=windows.begins_with_bos,
        context=windows.context,
    )
