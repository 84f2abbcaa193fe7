"""When a foreign run is measured and on how much: functions of its arguments."""

from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerState, TrainingArguments

from service.schedule import log_spaced_steps
from worker.occasions import FEWEST, MOST, SHARE, affordable, occasions


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def run(max_steps: int, **changes) -> tuple[TrainingArguments, TrainerState]:
    options = {"per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none", **changes}
    args = TrainingArguments(output_dir="unused", **options)
    return args, TrainerState(max_steps=max_steps, eval_steps=int(args.eval_steps or 0))


def loader(n_rows: int, length: int = 100) -> DataLoader:
    rows = Dataset.from_dict({"input_ids": [[1] * length] * n_rows})
    return DataLoader(rows, batch_size=4)


def test_without_evaluations_steps_are_those_of_the_service() -> None:
    args, state = run(260)
    assert occasions(None, args, state, loader(100)) == set(log_spaced_steps(260))
    assert occasions([5, 50, 400], args, state, loader(100)) == {5, 50, 260}


def test_steps_move_to_evaluations_whose_loss_they_need() -> None:
    args, state = run(260, eval_strategy="steps", eval_steps=20)
    assert sorted(occasions(None, args, state, loader(100))) == [
        60, 80, 100, 120, 160, 200, 260,
    ]  # fmt: skip
    args, state = run(60, eval_strategy="epoch", gradient_accumulation_steps=2)
    # 100 rows, 4 a batch, 2 batches a step: an epoch is 13 steps.
    assert sorted(occasions(None, args, state, loader(100))) == [13, 26, 39, 52, 60]


def test_a_rhythm_that_is_unknown_or_too_slow_moves_nothing() -> None:
    for changes in ({"eval_strategy": "steps", "eval_steps": 500}, {"eval_strategy": "epoch"}):
        args, state = run(10, **changes)
        stream = DataLoader(Stream(), batch_size=4)
        assert occasions(None, args, state, stream) == set(log_spaced_steps(10))


def test_readings_take_the_share_that_is_promised() -> None:
    args, state = run(1000, gradient_accumulation_steps=2)
    n = affordable(args, state, loader(50), n_readings=8, context=512)
    trained = 4 * 2 * 1000 * 100
    assert FEWEST < n < MOST
    spent = 9 * n * 512
    assert spent <= SHARE * 3 * trained < spent + 9 * 512


def test_the_share_is_bounded_on_both_sides() -> None:
    args, state = run(1)
    assert affordable(args, state, loader(50), n_readings=8, context=512) == FEWEST
    args, state = run(10**6)
    assert affordable(args, state, loader(50), n_readings=8, context=512) == MOST
    # Of a stream nobody knows the rows: they count as windows.
    args, state = run(500)
    stream = DataLoader(Stream(), batch_size=4)
    assert affordable(args, state, stream, n_readings=8, context=50) == int(SHARE * 3 * 4 * 500 / 9)
