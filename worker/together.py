"""One process works, all of a distributed run know the answer, and none waits for a dead one."""

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils import broadcast_object_list
from transformers import TrainerState, TrainingArguments

Answer = TypeVar("Answer")


def together(args: TrainingArguments, state: TrainerState, work: Callable[[], Answer]) -> Answer:
    """The main process's `work()`, on every process; the others wait for it meanwhile.

    Where it raises, it raises there, and RuntimeError everywhere else.
    """
    box: list[tuple[Answer] | None] = [None]
    try:
        if state.is_world_process_zero:
            box[0] = (work(),)
    finally:
        if args.world_size > 1:
            broadcast_object_list(box)
    if box[0] is None:
        raise RuntimeError("the main process could not measure forgetting; its own error says why")
    return box[0][0]
