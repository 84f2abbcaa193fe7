"""A result as a worker would report it, with the KL of each checkpoint chosen by the test."""

from typing import Any

from service.schemas import result as wire


def measured(*kls: float) -> dict[str, Any]:
    """JSON of a Result with one checkpoint per KL, at steps 10, 20, …"""
    kls = kls or (0.0125,)
    checkpoints = [
        wire.Checkpoint(
            step=10 * (i + 1),
            adapter=f"checkpoints/step-{10 * (i + 1):06d}",
            rank=8,
            trainable_params=98_304,
            ft_loss=wire.FtLoss(train=2.0, heldout=2.5 - kl),
            forgetting=forgetting(kl),
        )
        for i, kl in enumerate(kls)
    ]
    tokens = [("\n", "the river runs past"), (" \x1b[31mred", "[bold]markup[/bold]")]
    whole = wire.Result(
        **dict(forgetting(kls[-1])),
        documents=[],
        n_documents=12,
        n_windows=340,
        n_positions=21_000,
        ft_loss=checkpoints[-1].ft_loss,
        checkpoints=checkpoints,
        worst_windows=[],
        worst_tokens=[token(7.5 - i, *one) for i, one in enumerate(tokens)],
        law=None,
        engine=wire.Engine(name="transformers", reason="no GPU"),
        noise_floor=wire.NoiseFloor(kl=2e-9, max_abs=1e-7, n_positions=300),
        parity=None,
        provenance=provenance(),
        cost=wire.Cost(
            base_forward_tokens=0,
            tuned_forward_tokens=21_000,
            training_tokens=5_000,
            seconds={"training": 61.0, "scoring_tuned": 4.0},
        ),
        warnings=["few documents"],
    )
    return whole.model_dump(mode="json")


def forgetting(kl: float) -> wire.Forgetting:
    def near(value: float) -> wire.Estimate:
        return wire.Estimate(value=value, ci95=(value * 0.9, value * 1.1))

    return wire.Forgetting(
        kl=near(kl),
        ce_soft=near(3.0 + kl),
        ce_hard=near(3.2 + kl),
        same_top=near(0.9),
        same_top5=near(0.7),
        nll_base=near(3.1),
        nll_tuned=near(3.2),
        kl_reverse=None,
        h_base=3.0,
        kl_percentiles={"max": 9.0, "median": 0.001, "min": 0.0},
        delta_p=wire.DeltaP(mean=0.0, rms=0.1),
        ppl=wire.Perplexity(base=22.0, tuned=24.0, ln_ratio=0.09),
        by_confidence=[],
    )


def token(kl: float, text: str, context: str) -> wire.TokenScore:
    return wire.TokenScore(
        document=3,
        position=17,
        token=text,
        context=context,
        kl=kl,
        base_top=" the",
        tuned_top="Answer",
        p_base=0.4,
        p_tuned=0.01,
    )


def provenance() -> wire.Provenance:
    return wire.Provenance(
        base="sha256:" + "a" * 64,
        tokenizer="sha256:" + "b" * 64,
        adapter="sha256:" + "c" * 64,
        corpus="sha256:" + "d" * 64,
        dataset="sha256:" + "e" * 64,
        context=64,
        begins_with_bos=True,
        dtype="float32",
        device="cpu",
        engine="transformers",
        route="identity",
        scoring_version=2,
        window_rule="made",
        versions={"torch": "2.13.0"},
        seed=17,
        base_revision=None,
        dataset_format="prompt_completion",
        corpus_kind="text",
    )
