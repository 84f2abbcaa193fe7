"""Rows kept in flat arrays: the same rows, a bounded held-out split, only what is drawn."""

import pytest

from service.schemas.spec import MAX_HELD_OUT_ROWS
from tests.worker.rehearsal import Run, other, same, spec
from worker.data import IGNORED, PackedRows, Row, heldout_keys
from worker.schedule import RowOrder
from worker.sft import _drawn

ROWS = [
    Row([1, 7, 9], [IGNORED, IGNORED, 9]),
    Row([3], [IGNORED]),
    Row([2, 70_000], [-100, 70_000]),
]


def test_packed_rows_are_the_rows() -> None:
    packed = PackedRows(iter(ROWS))
    assert list(packed) == ROWS
    assert (packed[-1], packed[1:]) == (ROWS[-1], ROWS[1:])
    assert [packed.length(i) for i in range(3)] == [3, 1, 2]
    assert list(packed.part([2, 0])) == [ROWS[2], ROWS[0]]
    with pytest.raises(IndexError):
        packed[3]


def test_held_out_rows_are_bounded_whatever_the_share() -> None:
    keys = [i.to_bytes(4, "big") for i in range(100_000)]
    assert len(heldout_keys(keys, 0.5)) == MAX_HELD_OUT_ROWS
    assert len(heldout_keys(keys, 0.05)) == MAX_HELD_OUT_ROWS
    assert len(heldout_keys(keys, 0.01)) == 1000
    assert len(heldout_keys(keys[:1000], 0.05)) == 50
    assert heldout_keys([b"a", b"a", b"b", b"b", b"b"], 0.2) == {b"a"}


def test_less_than_one_pass_copies_only_the_rows_drawn(run: Run) -> None:
    n = len(run.dataset.train)
    order = RowOrder(n, n // 2, seed=17)
    some, sampler = _drawn(run.dataset.train, order)
    assert [some[i] for i in sampler] == [run.dataset.train[i] for i in order]
    assert len(some) == n // 2
    longer = RowOrder(n, n + 1, seed=17)
    assert _drawn(run.dataset.train, longer) == (run.dataset.train, longer)


def test_a_run_of_less_than_one_pass_is_the_beginning_of_a_longer_one(run: Run) -> None:
    short, longer = other(run, "short"), other(run, "longer")
    checkpoints = [4]
    a = short(spec(max_steps=4, checkpoints=checkpoints))
    longer(spec(max_steps=9, checkpoints=checkpoints))
    assert 4 * 8 < len(run.dataset.train) < 9 * 8
    assert short.series("train_loss") == longer.series("train_loss")[:4]
    assert same(a, other(run, "again")(spec(max_steps=4, checkpoints=checkpoints)))
