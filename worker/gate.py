"""A gate as one plain function: windows are scored until the policy's verdict is known, no longer.

`service.laws.gate` decides, and sees nothing but what was scored.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from service.digest import json_digest
from service.errors import InvalidSpec
from service.jobs import Phase
from service.laws.gate import Conditions, Gate, counts
from service.laws.order import order
from service.laws.sequential import Indices
from service.laws.statistic import BadCheck
from service.schemas.gate import GateResult
from service.schemas.spec import GateSpec
from service.settings import Settings
from worker.base_side import BaseSide, base_sides, lost_route, state_key, whole_side
from worker.cache import cache_of
from worker.corpus import load_corpus
from worker.expected import Expected
from worker.gate_answer import Told, answer
from worker.gate_cost import cost_of
from worker.grafts import Grafts
from worker.loaded import Loaded
from worker.pace import pace_for
from worker.phases import Phases, noting
from worker.question import Question, ask
from worker.reader import Reader, per_window
from worker.score import OnWindows
from worker.scored import FOLDER, Batch, Scored, begun
from worker.watch import Report
from worker.windows import Windows, windows_of

BATCH_TOKENS = {"cpu": 2048, "cuda": 8192}
"""Tokens between two looks: enough to keep an engine busy, and few to waste."""


def gate(
    spec: GateSpec,
    workdir: Path,
    report: Report,
    *,
    adapters: Mapping[str, Path],
    stop: Event,
    settings: Settings,
    law: Mapping[str, Any] | None = None,
    loaded: Loaded | None = None,
) -> GateResult:
    """May the candidate ship? `worker.run.execute` says what the arguments are and what it raises.

    Every batch is kept in workdir/scored; called again with the same workdir it goes on there.
    """
    warnings: list[str] = []
    report = noting(report, warnings)
    phases = Phases(report, stop)

    def warn(message: str) -> None:
        report({"kind": "warning", "message": message})

    cache = cache_of(settings, warn=warn)

    phases.enter(Phase.VALIDATING)
    corpus = load_corpus(spec.evaluation, settings)
    phases.enter(Phase.LOADING)
    loaded = loaded or Loaded()
    loaded.end_engine()  # vLLM's, of the job before
    base = loaded.base(
        spec.base_model,
        spec.revision,
        dtype=spec.dtype,
        settings=settings,
        dtype_param="dtype",
        told=lambda message: report({"kind": "log", "message": message}),
    )
    windows = windows_of(corpus, base, spec.evaluation.context)
    question = ask(spec, base, corpus, windows, adapters, settings)
    expected = Expected.of(question, law, cache=cache, phases=phases, settings=settings)
    with Grafts(base, question.named) as grafts:
        phases.enter(Phase.SCORING_BASE)
        different = question.different()
        exhaustive = not spec.policy.sequential or expected.needs_everything(question)
        whole = (exhaustive or not any(map(counts, question.checks))) and not different
        pace = pace_for(base.device, len(grafts.head.weight))
        sides = base_sides(question, grafts, cache, pace)
        if whole and spec.policy.max_windows is None:
            made = whole_side(question, grafts, cache, pace, phases.windows(1, 0), warn)
            sides = [made, *sides]
        asked = [json_digest(state_key(question, side, pace)) for side in sides]
        before = begun(workdir / FOLDER)
        if before not in asked:
            route = lost_route(question, grafts, pace, before)
            if route is not None:
                # Begun with a pass that was evicted since. Without it the gate would begin again,
                # and look twice.
                args = (question, grafts, cache, pace, phases.windows(1, 0), warn, route)
                sides, asked = [whole_side(*args), *sides], [str(before), *asked]
        scored = Scored(
            workdir / FOLDER,
            asked,
            batch_windows=max(1, BATCH_TOKENS[base.device.type] // int(windows.lengths.max())),
        )
        side = sides[scored.chosen]
        reader = Reader(grafts, windows, pace, side.rows, side.route, question.reverse, warn)
        noise = None if different else side.noise or reader.noise()
        conditions = Conditions(noise.kl if noise else None, different=different)
        deciding = _deciding(question, side, conditions, exhaustive=exhaustive)
        phases.enter(Phase.SCORING_TUNED)
        if scored.n_resumed:
            message = f"{len(scored.windows)} windows were scored before; going on after them"
            report({"kind": "log", "message": message})
        score(deciding, reader.read, scored, windows, phases.windows(1, 0))
        provenance = question.provenance(side.route, expected.dataset)
        numbers = expected.numbers(question, grafts, provenance, scored.mean("kl"), phases)
    told = Told(question, deciding, deciding.outcome(numbers), scored, noise, provenance)
    cost = cost_of(scored, side, reader, phases.seconds())
    result = answer(told, cost, warnings)
    artifacts = workdir / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "result.json").write_text(result.model_dump_json(indent=1) + "\n")
    return result


def score(
    deciding: Gate,
    read: Callable[[Indices], Batch],
    scored: Scored,
    windows: Windows,
    on_windows: OnWindows,
) -> None:
    """Until the gate is done: its next windows are read, kept, and looked at. What is kept already
    is looked at as it was the first time."""
    sizes = np.diff(windows.position_starts)

    def look(batch: Batch) -> None:
        deciding.observe(batch.windows, per_window(batch.columns, sizes[batch.windows]))
        on_windows(deciding.n_scored, deciding.max_windows)

    on_windows(0, deciding.max_windows)
    for batch in scored.batches:
        look(batch)
    while not deciding.done:
        look(scored.add(read(deciding.next_windows(scored.batch_windows))))


def _deciding(
    question: Question, side: BaseSide, conditions: Conditions, *, exhaustive: bool
) -> Gate:
    """Raises InvalidSpec for a check that cannot be tested on this corpus, naming its field."""
    policy, windows = question.spec.policy, question.windows
    try:
        return Gate(
            question.checks,
            np.diff(windows.position_starts),
            alpha=policy.alpha,
            order=order(question.text, len(windows)),
            control=side.control(windows),
            max_windows=policy.max_windows,
            exhaustive=exhaustive,
            conditions=conditions,
            on_inconclusive=policy.on_inconclusive,
        )
    except BadCheck as error:
        index = next(i for i, check in enumerate(question.checks) if check.id == error.check)
        param = f"policy.checks.{index}.{error.field}"
        raise InvalidSpec(error.message, param=param) from error
