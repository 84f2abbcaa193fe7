"""Where the candidate departs most from the base: single tokens and whole windows, as text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.schemas.result import TokenScore, WindowScore
from worker.windows import Windows

N_TOKENS = 30
N_WINDOWS = 10
CONTEXT_CHARS = 40
CONTEXT_TOKENS = 48
WINDOW_CHARS = 600


def worst_tokens(
    windows: Windows,
    rows: Mapping[str, NDArray[Any]],
    scores: Mapping[str, NDArray[Any]],
    tokenizer: Any,
) -> list[TokenScore]:
    """The positions with the largest KL, largest first."""
    order = np.argsort(-scores["kl"], kind="stable")[:N_TOKENS]
    token_index, in_document = windows.position_token, windows.position_in_document
    window_of, document_of = windows.position_window, windows.position_document
    found = []
    for position in order:
        at = int(token_index[position])
        start = max(int(windows.starts[window_of[position]]), at - CONTEXT_TOKENS)
        context = _text(tokenizer, windows.ids[start:at])
        found.append(
            TokenScore(
                document=int(document_of[position]),
                position=int(in_document[position]),
                token=_text(tokenizer, windows.ids[at : at + 1]),
                context=context[-CONTEXT_CHARS:],
                kl=float(scores["kl"][position]),
                base_top=_text(tokenizer, rows["top_id"][position : position + 1]),
                tuned_top=_text(tokenizer, scores["tuned_top"][position : position + 1]),
                p_base=float(np.exp(-rows["nll_base"][position])),
                p_tuned=float(np.exp(-scores["nll_tuned"][position])),
            )
        )
    return found


def worst_windows(
    windows: Windows, scores: Mapping[str, NDArray[Any]], tokenizer: Any
) -> list[WindowScore]:
    """The windows that carry the most KL in all (not the short ones with one bad token)."""
    window_of = windows.position_window
    sums = np.bincount(window_of, scores["kl"], len(windows))
    counts = np.bincount(window_of, minlength=len(windows))
    within = _index_in_document(windows)
    found = []
    for window in np.argsort(-sums, kind="stable")[:N_WINDOWS]:
        ids = windows.ids[windows.starts[window] : windows.starts[window + 1]]
        text = _text(tokenizer, ids[int(windows.begins_with_bos) :])
        found.append(
            WindowScore(
                document=int(windows.document[window]),
                window=int(within[window]),
                n_positions=int(counts[window]),
                kl=float(sums[window] / counts[window]),
                text=text if len(text) <= WINDOW_CHARS else text[: WINDOW_CHARS - 1] + "…",
            )
        )
    return found


def _index_in_document(windows: Windows) -> NDArray[np.int64]:
    """Which of its document's scored windows each one is, from 0."""
    opens = np.concatenate([[True], np.diff(windows.document) != 0])
    return np.arange(len(windows)) - np.flatnonzero(opens)[np.cumsum(opens) - 1]


def _text(tokenizer: Any, ids: NDArray[Any]) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False))
