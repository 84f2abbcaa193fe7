"""A policy as a file that explains itself to a reader who never heard of nats."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from forgetting_client.command.limits import Limit
from forgetting_client.command.words import number

MEASURED_ON = ("base", "tokenizer", "corpus", "context", "begins_with_bos", "window_rule")


def policy_text(
    result: Mapping[str, Any],
    names: Sequence[str],
    found: Sequence[Limit],
    *,
    evaluation: Mapping[str, Any],
    margin: float,
) -> str:
    """YAML. `names` are those of the good adapters, `evaluation` where they were measured."""
    kl, tail, same = found
    worst = result["checkpoints"][kl.which]["forgetting"]
    provenance = result["provenance"]
    lines = [
        "# What an adapter must keep to, to ship:",
        "#     forgetting gate --adapter ADAPTER --base BASE -c THIS_FILE",
        "# Limits come from adapters that are known to be good:",
        *(f"#     {_word(name)}" for name in names),
        f"# Rule: the worst of them times {margin:g}, or plus twice their spread and half its",
        "# 95 % interval (root of the squares) where that is more; never below 3 noise",
        "# floors.",
        *_doubts(kl, len(names)),
        "version: 1",
        f"corpus: {_word(evaluation['corpus'])}",
        f"split: {_word(evaluation['split'])}",
        f"context: {evaluation['context']}  # tokens in a window",
        "alpha: 0.05  # chance of a wrong verdict; smaller needs more windows",
        "on_inconclusive: fail  # or warn, pass: undecided is then no reason to stop",
        "checks:",
        "  # How far the predictions moved from the base's, averaged over every token:",
        "  # KL, in nats (0 is unmoved). " + _meaning(worst),
        "  - id: forgetting",
        "    metric: kl",
        f"    fail_above: {kl.fail:g}  # the worst: {number(kl.worst)}{_half(kl)}",
        f"    warn_above: {kl.warn:g}",
        "    clip: 4  # a window's worth, in limits; a smaller one passes sooner",
        "  # How often the likeliest next token is still the base's: 1 is always.",
        "  - id: agreement",
        "    metric: same_top",
        f"    fail_below: {same.fail:g}  # the worst: {number(same.worst)}{_half(same)}",
        f"    warn_below: {same.warn:g}",
        "  # The token in a hundred that moved most: damage that an average hides. It only",
        "  # warns, by what was scored; with fail_above it is tested, which takes many",
        "  # more windows.",
        "  - id: tail",
        "    metric: kl_percentiles.p99",
        f"    warn_above: {tail.fail:g}  # the worst: {number(tail.worst)}",
        "# Found on this. On anything else a gate is incomparable and exits with 5.",
        "measured_on:",
        *(f"  {name}: {json.dumps(provenance[name], ensure_ascii=False)}" for name in MEASURED_ON),
    ]
    return "\n".join(lines) + "\n"


def _doubts(kl: Limit, n: int) -> list[str]:
    told = []
    if n == 1:
        told.append(
            "# From one adapter: how far good ones differ is unknown. Name more if you can."
        )
    if kl.half is None:
        told.append("# From a corpus of few documents: how far another corpus differs is unknown.")
    return told


def _meaning(worst: Mapping[str, Any]) -> str:
    """What the worst good adapter's KL means, in things that can be pictured."""
    lost = 100 * (1 - worst["same_top"]["value"])
    ratio = math.exp(min(worst["ppl"]["ln_ratio"], 50.0))
    return (
        f"{number(worst['kl']['value'])} meant here: another first\n"
        f"  # choice at {lost:.1f} of 100 tokens, and {ratio:.3g} times the base's perplexity."
    )


def _half(one: Limit) -> str:
    return "" if one.half is None else f" ± {one.half:.2g}"


def _word(text: Any) -> str:
    """As YAML takes any string: JSON's quotes, kept only where they are needed."""
    word = str(text)
    plain = word.replace("-", "a").replace("_", "a").replace("/", "a").replace(".", "a")
    safe = plain.isalnum() and plain.isascii() and word[0].isalpha() and not word.isnumeric()
    reserved = word.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
    return word if safe and not reserved else json.dumps(word, ensure_ascii=False)
