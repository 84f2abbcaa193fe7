"""Held-out loss: float32 logits whatever the model's dtype, and progress that can end it."""

import copy
import math
import threading

import pytest
import torch

from tests.worker.rehearsal import Run
from worker import heldout
from worker.data import IGNORED
from worker.head import hidden_states
from worker.heldout import heldout_loss
from worker.phases import Phases
from worker.train import Released


def test_a_bfloat16_model_loses_nothing_after_its_hidden_states(run: Run) -> None:
    model = copy.deepcopy(run.base.model).to(torch.bfloat16)
    row = max(run.dataset.heldout, key=lambda row: len(row.input_ids))
    with torch.no_grad():
        hidden = hidden_states(model, torch.tensor([row.input_ids]))[0]
        rounded = model(input_ids=torch.tensor([row.input_ids])).logits[0]
    assert hidden.dtype == torch.bfloat16
    exact = hidden.double() @ model.get_output_embeddings().weight.double().t()
    expected, in_bfloat16 = (
        -sum(
            math.log(torch.softmax(logits[t - 1].double(), -1)[row.labels[t]])
            for t in range(1, len(row.labels))
            if row.labels[t] != IGNORED
        )
        / sum(label != IGNORED for label in row.labels)
        for logits in (exact, rounded)
    )
    assert abs(in_bfloat16 - expected) > 4e-6  # else the two could not be told apart
    assert heldout_loss(model, [row]) == pytest.approx(expected, abs=1e-6)


def test_chunks_and_batches_do_not_change_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = heldout_loss(run.base.model, run.dataset.train)
    monkeypatch.setitem(heldout.LOGITS_BUDGET, "cpu", 320 * 3)
    monkeypatch.setitem(heldout.TOKENS_AT_ONCE, "cpu", 200)
    assert heldout_loss(run.base.model, run.dataset.train) == pytest.approx(whole, rel=1e-6)


def test_progress_counts_rows_and_may_end_it(run: Run) -> None:
    rows, seen = run.dataset.train, []
    heldout_loss(run.base.model, rows, on_rows=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(rows), len(rows))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heldout_loss(run.base.model, rows, on_rows=stop)


def test_a_stop_ends_it_between_batches(run: Run) -> None:
    stop = threading.Event()
    phases = Phases(lambda _: stop.set(), stop)
    with pytest.raises(Released):
        heldout_loss(run.base.model, [*run.dataset.train] * 9, on_rows=phases.rows(1, 0))
