"""How others get the number: two models and a full softmax, in plain transformers."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from worker.windows import Windows

WINDOWS_AT_ONCE = 4


@torch.inference_mode()
def naive(
    base: PreTrainedModel, tuned: PreTrainedModel, windows: Windows, *, double: bool = False
) -> NDArray[np.float64]:
    """KL per position (positions,). With `double` both models are float64: the reference."""
    ids = torch.from_numpy(windows.ids.astype(np.int64)).view(len(windows), -1).to(base.device)
    found = []
    for batch in ids.split(1 if double else WINDOWS_AT_ONCE):
        log_b = _log_p(base, batch, double)
        log_t = _log_p(tuned, batch, double)
        found.append((log_b.exp() * (log_b - log_t)).sum(-1).flatten().cpu().double())
    return torch.cat(found).numpy()


def _log_p(model: PreTrainedModel, ids: torch.Tensor, double: bool) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return (logits if double else logits.float()).log_softmax(-1)
