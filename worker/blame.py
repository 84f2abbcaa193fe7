"""A fault of the rows names the field of the spec that was sent."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import DatasetUnreadable
from service.schemas.spec import FinetuneSpec, Runnable

TRAINING = "training."


@contextmanager
def named_as_in(spec: Runnable) -> Iterator[None]:
    """An evaluation has at its top what a finetune has under `training`."""
    try:
        yield
    except DatasetUnreadable as error:
        if isinstance(spec, FinetuneSpec) or error.param is None:
            raise
        param = error.param.removeprefix(TRAINING)
        raise DatasetUnreadable(error.message, param=param, **error.details) from error
