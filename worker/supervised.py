"""The spec's dataset as tokens: one way and one held-out split, whether it is trained on or not."""

from service.errors import DatasetUnreadable
from service.schemas.spec import FinetuneSpec, Runnable
from worker.data import Rows, TokenisedDataset, tokenise
from worker.model import Base


def tokenised(rows: Rows, base: Base, spec: Runnable) -> TokenisedDataset:
    """Raises DatasetUnreadable, naming the field of this spec."""
    if isinstance(spec, FinetuneSpec):
        return tokenise(rows, base.tokenizer, spec.training)
    try:
        return tokenise(rows, base.tokenizer, spec.supervision)
    except DatasetUnreadable as error:
        param = (error.param or "dataset.path").removeprefix("training.")
        raise DatasetUnreadable(error.message, param=param, **error.details) from error
