"""Look at a model in the middle of its training, and leave no trace in it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode and without autocast, while nothing that the training goes on from
    changes: each module's mode, each parameter's gradient flag, Python's, numpy's and torch's
    random generators.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    # Accelerate puts autocast into `forward` itself, where no outer context can switch it off.
    wrapped = [
        (module, vars(module).pop("forward"))
        for module in model.modules()
        if "_original_forward" in vars(module) and "forward" in vars(module)
    ]
    python, numbers = random.getstate(), np.random.get_state()
    device = next(model.parameters()).device
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    try:
        with torch.random.fork_rng(gpus), torch.autocast(device.type, enabled=False):
            model.eval()
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        for module, forward in wrapped:
            module.forward = forward
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
