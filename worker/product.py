"""Matrix products on a CPU that torch has no name for, or a slower one.

float32 by oneDNN, which torch itself takes for bfloat16 only; on AMD's cores it is faster than the
BLAS that torch takes. bfloat16 to float32, which torch has on GPUs only. docs/performance.md has
what they gain.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from worker.native import native, threads

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., inner), weight (columns, inner) -> x W^T + b (..., columns)."""
    if x.dtype == torch.float32 and x.device.type == "cpu" and by_onednn():
        assert _ONEDNN is not None
        return _ONEDNN(x, weight, bias, "none", [], "")
    return linear(x, weight, bias)


def by_onednn() -> bool:
    """Whether products in float32 on a CPU go that way."""
    return _ONEDNN is not None and torch.backends.mkldnn.is_available()


def bfloat16_product(x: Tensor, weight: Tensor) -> Tensor | None:
    """x (rows, inner), weight (columns, inner), both bfloat16 on a CPU -> x W^T in float32.

    Products are exact and sums float32's, so it is x.float() @ W.float()^T at twice its speed.
    None where operands or machine are others.
    """
    if not x.dtype == weight.dtype == torch.bfloat16 or x.device.type != "cpu":
        return None
    library = native()
    if library is None or x.shape[1] % 2 or not weight.is_contiguous():
        return None
    x = x.contiguous()
    out = torch.empty(len(x), len(weight))
    sizes = (len(x), len(weight), x.shape[1])
    failed = library.bfloat16_product(
        x.data_ptr(), weight.data_ptr(), *sizes, out.data_ptr(), threads()
    )
    return None if failed else out
