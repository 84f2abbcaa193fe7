"""Leave a model as it was found. Trainers and adapters replace modules, hooks, flags and config.

Parameters and buffers are put back by reference, not by value: nothing may write into them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def pristine(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, afterwards every module of `model` has the children, parameters,
    hooks, `forward`, mode and flags it had before, and the configs their values."""
    modules = [(module, _attributes(module)) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    configs = [
        (config, copy.deepcopy(vars(config)))
        for config in (getattr(model, name, None) for name in ("config", "generation_config"))
        if config is not None
    ]
    try:
        yield
    finally:
        for module, attributes in modules:
            _restore(module, attributes)
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
        for config, values in configs:
            vars(config).clear()
            vars(config).update(values)


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Each instance attribute with a shallow copy of its content if it is a dict or a list."""
    return {
        name: (value, copy.copy(value) if isinstance(value, dict | list) else None)
        for name, value in vars(module).items()
    }


def _restore(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    vars(module).clear()
    for name, (value, content) in attributes.items():
        # In place: handles of hooks that were there before refer to these very containers.
        if isinstance(value, dict):
            value.clear()
            value.update(content)
        elif isinstance(value, list):
            value[:] = content
        vars(module)[name] = value
