"""A whole job as one plain function: `execute`. It knows no queue, no store and no server."""

import gc
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.jobs import Phase
from service.schemas.gate import GateResult
from service.schemas.result import Cost, NoiseFloor, Result
from service.schemas.spec import FinetuneSpec, GateSpec, Runnable
from service.settings import Settings
from service.settings import settings as process_settings
from worker.blame import named_as_in
from worker.cache import cache_of
from worker.candidates import of_run, of_spec
from worker.corpus import Corpus, load_corpus
from worker.data import TokenisedDataset, load_rows
from worker.engine import pick_engine, require_engine, started
from worker.estimate import document_table
from worker.gate import gate
from worker.loaded import Loaded
from worker.measure import Measurement, Report, choose_route, measure, report_measured
from worker.model import Base
from worker.pairs import Side, pairs
from worker.parity import Parity, warning_of, worst_of
from worker.phases import Phases, noting
from worker.provenance import provenance_of
from worker.score import BasePass
from worker.tokenised import tokenised
from worker.train import train
from worker.windows import Windows, windows_of
from worker.worst import worst_tokens, worst_windows


def execute(
    spec: Runnable,
    workdir: Path,
    report: Report,
    *,
    adapters: Mapping[str, Path] | None = None,
    stop: threading.Event | None = None,
    settings: Settings | None = None,
    law: Mapping[str, Any] | None = None,
    loaded: Loaded | None = None,
) -> Result | GateResult:
    """Fine-tune if the spec says so, then measure every candidate against the base; or gate one.

    What is worth keeping lies under workdir/artifacts afterwards: adapters, positions.npz (KL of
    the last candidate per position), result.json. `adapters` are local folders of other jobs'
    adapters, by `job_…:step` or `job_…:last`; `law` is what a gate's law residual is measured by
    (`service.expectation`), `loaded` what an earlier call left in memory. Raises the errors of
    service.errors, and Released soon after `stop` is set; called again with the same workdir it
    then continues.
    """
    settings = settings or process_settings()
    stop = stop or threading.Event()
    if isinstance(spec, GateSpec):
        return gate(
            spec,
            workdir,
            report,
            adapters=adapters or {},
            stop=stop,
            settings=settings,
            law=law,
            loaded=loaded,
        )
    warnings: list[str] = []
    report = noting(report, warnings)
    artifacts = workdir / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    phases = Phases(report, stop)

    def warn(message: str) -> None:
        report({"kind": "warning", "message": message})

    phases.enter(Phase.VALIDATING)
    require_engine(spec.evaluation)
    corpus = load_corpus(spec.evaluation, settings)
    rows = load_rows(spec.dataset, settings) if spec.dataset is not None else None

    phases.enter(Phase.LOADING)
    dtype = spec.training.dtype if isinstance(spec, FinetuneSpec) else spec.dtype
    base = (loaded or Loaded()).base(
        spec.base_model,
        spec.revision,
        dtype=dtype,
        settings=settings,
        dtype_param="training.dtype" if isinstance(spec, FinetuneSpec) else "dtype",
        told=lambda message: report({"kind": "log", "message": message}),
    )
    windows = windows_of(corpus, base, spec.evaluation.context)

    dataset: TokenisedDataset | None = None
    dataset_cached: bool | None = None
    training_tokens = 0
    cache = cache_of(settings, warn=warn)
    if rows is not None:
        with named_as_in(spec):
            dataset, dataset_cached = tokenised(
                rows,
                base.tokenizer,
                spec.supervision,
                tokenizer_digest=base.tokenizer_digest,
                cache=cache,
                waiting=phases.waiting("another run tokenises this dataset; waiting for it"),
            )
        if dataset_cached:
            report({"kind": "log", "message": "tokenised dataset from the cache"})
    if isinstance(spec, FinetuneSpec):
        assert dataset is not None
        phases.enter(Phase.TRAINING)
        trained = train(
            base,
            dataset,
            spec.training,
            workdir=workdir,
            report=report,
            stop=stop,
            settings=settings,
        )
        if base.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()  # what the trainer held, for the passes
        training_tokens = trained.training_tokens
        kept = trained.adapters[-1:] if spec.evaluation.at == "final" else trained.adapters
        candidates = of_run(kept, artifacts, rank=spec.training.lora.r)
        seed = spec.training.seed
    else:
        for message in dataset.warnings if dataset is not None else ():
            report({"kind": "warning", "message": message})
        candidates = of_spec(spec, adapters or {}, settings)
        seed = spec.seed

    phases.step = candidates[-1].step or 0
    phases.enter(Phase.SCORING_BASE)
    reverse = spec.evaluation.reverse
    # A run's checkpoints adapt the same modules: the last one tells for all.
    probed = candidates[-1:] if isinstance(spec, FinetuneSpec) else candidates
    engine = pick_engine(spec.evaluation, base, candidates)
    route = choose_route(base, probed, n_positions=windows.n_positions, reverse=reverse)
    last, checkpoints, compared = None, [], []
    sides: list[Side] = []
    with started(engine, base, windows, loaded=loaded, warn=warn) as scorer:
        base_pass = scorer.base_pass(
            windows,
            corpus_digest=corpus.digest,
            route=route,
            cache=cache,
            on_windows=phases.windows(1, 0),
            warn=warn,
        )
        phases.enter(Phase.SCORING_TUNED)
        parity = Parity(base, windows) if engine.name == "vllm" else None
        for index, candidate in enumerate(candidates):
            last = None  # its arrays go before the next one's come
            last = measure(
                base,
                windows,
                base_pass,
                candidate,
                scorer=scorer,
                parity=parity,
                heldout=dataset.heldout if dataset is not None else None,
                reverse=reverse,
                seed=seed,
                on_windows=phases.windows(len(candidates), index),
                on_rows=phases.rows(len(candidates), index),
            )
            checkpoints.append(last.checkpoint)
            sides.append(Side.of(last, windows))
            if last.parity is not None:
                compared.append(last.parity)
                if last.parity["failed"]:
                    warn(warning_of(last.parity))
            report_measured(report, last.checkpoint)
        engine = engine.model_copy(update={"used": scorer.used(base_pass)})
    assert last is not None  # a spec names one candidate at least

    seconds = phases.seconds() | scorer.seconds
    result = Result(
        **dict(last.checkpoint.forgetting),
        **_where(last, windows, corpus, base, base_pass),
        ft_loss=last.checkpoint.ft_loss,
        checkpoints=checkpoints,
        pairs=pairs(sides, seed=seed),
        law=None,
        engine=engine,
        noise_floor=NoiseFloor(
            kl=base_pass.noise_kl,
            max_abs=base_pass.noise_max_abs,
            n_positions=base_pass.noise_positions,
        ),
        parity=worst_of(compared),
        provenance=provenance_of(
            base, windows, corpus, candidates[-1], dataset, engine, base_pass.route, seed
        ),
        cost=Cost(
            base_forward_tokens=base_pass.forward_tokens,
            tuned_forward_tokens=len(windows.ids) * len(candidates),
            training_tokens=training_tokens,
            dataset_cached=dataset_cached,
            seconds=seconds,
        ),
        warnings=warnings,
    )
    _save_positions(artifacts / "positions.npz", windows, last)
    (artifacts / "result.json").write_text(result.model_dump_json(indent=1) + "\n")
    return result


def _where(
    last: Measurement, windows: Windows, corpus: Corpus, base: Base, base_pass: BasePass
) -> dict[str, Any]:
    """The last candidate's forgetting by document, window and token, and how many there are."""
    documents = document_table(last.positions, [document.title for document in corpus.documents])
    return {
        "documents": documents,
        "n_documents": len(documents),
        "n_windows": len(windows),
        "n_positions": windows.n_positions,
        "worst_windows": worst_windows(windows, last.scores, base.tokenizer),
        "worst_tokens": worst_tokens(windows, base_pass.rows, last.scores, base.tokenizer),
    }


def _save_positions(path: Path, windows: Windows, last: Measurement) -> None:
    """Per scored position, documents in order: KL in nats, and where the token stands."""
    np.savez_compressed(
        path,
        kl=last.scores["kl"].astype(np.float32),
        document=windows.position_document,
        window=windows.position_window.astype(np.int32),
        position=windows.position_in_document.astype(np.int32),
    )


if __name__ == "__main__":
    from worker.child import main

    main()
