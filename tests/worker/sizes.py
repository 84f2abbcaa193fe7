"""What exists at a time: a recorder of the sizes of all tensors that operations return."""

from collections.abc import Callable

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """`size` is the most values that any returned tensor which is `counted` has held."""

    def __init__(self, counted: Callable[[Tensor], bool] = lambda tensor: True) -> None:
        super().__init__()
        self.size = 0
        self._counted = counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and self._counted(tensor):
                self.size = max(self.size, tensor.numel())
        return out
