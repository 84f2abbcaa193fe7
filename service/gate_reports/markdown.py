"""Markdown of a gate, for a step summary or a comment. The verdict comes first and always stays;
whatever a model, a path or an error says is escaped."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from service.gate_reason import named, told_apart
from service.gate_reports.escape import code, prose, quoted
from service.laws.statistic import AGREEMENTS, PERCENTILES
from service.laws.verdict import Verdict
from service.schemas.gate import Gate, GateCheck, GateResult

SIGNS = {
    Verdict.PASS: "✅",
    Verdict.WARN: "⚠️",
    Verdict.FAIL: "❌",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.NOT_MEASURABLE: "🚫",
    Verdict.INCOMPARABLE: "🚫",
}
MAX_SENTENCE = 200
MAX_WARNING = 500


@dataclass(frozen=True)
class Room:
    """How much of each part there is room for."""

    tokens: int = 20
    provenance: bool = True
    warnings: int = 20
    facts: bool = True
    checks: int = 1_000

    def smaller(self) -> Iterator["Room"]:
        """Ever less, in the order in which it is missed least."""
        yield self
        less = self
        while less.tokens:
            less = replace(less, tokens=less.tokens // 2)
            yield less
        for change in ({"provenance": False}, {"warnings": 0}, {"facts": False}):
            less = replace(less, **change)
            yield less
        for checks in (16, 8, 4, 0):
            yield replace(less, checks=checks)


def markdown(gate: Gate, *, max_bytes: int) -> str:
    text = ""
    for room in Room().smaller():
        text = "\n".join(_blocks(gate, room, whole=room == Room()))
        if len(text.encode()) <= max_bytes:
            break
    return text


def _blocks(gate: Gate, room: Room, *, whole: bool) -> Iterator[str]:
    """Blank lines between them; Markdown inside `<details>` needs one too."""
    if gate.verdict is None:
        yield f"## Gate: no verdict yet\n\nIts job is {gate.status}.\n"
    else:
        sign, word = SIGNS[gate.verdict], gate.verdict.replace("_", " ")
        yield f"## {sign} Gate: {word}\n\n{prose(gate.reason or word, most=MAX_SENTENCE)}\n"
    if gate.result is not None:
        yield from _result(gate, gate.result, room)
    if not whole:
        yield "Shortened to fit; the gate's JSON has all of it.\n"


def _result(gate: Gate, result: GateResult, room: Room) -> Iterator[str]:
    shown = result.checks[: room.checks]
    if shown:
        yield _table(
            ("check", "metric", "value", "limit", "interval, of this corpus", "verdict", "why"),
            map(_row, shown),
        )
    if len(shown) < len(result.checks):
        yield f"{len(result.checks) - len(shown)} checks are not shown.\n"
    if room.facts:
        yield "\n".join(f"- {fact}" for fact in _facts(gate, result)) + "\n"
    if room.warnings and result.warnings:
        said = [prose(one, most=MAX_WARNING) for one in result.warnings[: room.warnings]]
        yield "\n".join(f"- ⚠️ {one}" for one in said) + "\n"
    tokens = result.worst_tokens[: room.tokens]
    if tokens:
        rows = (
            (
                f"{one.kl:.3g}",
                quoted(one.token),
                quoted(one.base_top),
                quoted(one.tuned_top),
                quoted(one.context[-60:]),
            )
            for one in tokens
        )
        columns = ("kl, nats", "token", "base's likeliest", "tuned's likeliest", "after")
        yield _details(f"Worst tokens of what was scored ({len(tokens)})", _table(columns, rows))
    if room.provenance:
        yield _details("Provenance", _table(("", ""), _provenance(gate, result)))


def _row(check: GateCheck) -> Sequence[str]:
    value, limit = "-", "-"
    if check.value is not None:
        value = f"{check.value:.3g}"
    if check.limit is not None:
        near = check.limit if check.value is None else check.value
        value, limit = (value, told_apart(near, check.limit)[1])
        if check.value is not None:
            value = told_apart(check.value, check.limit)[0]
        limit = f"{'≥' if check.metric in AGREEMENTS else '≤'} {limit}"
    verdict = check.verdict.replace("_", " ")
    return (
        code(check.id),
        prose(named(check), most=120),
        value,
        limit,
        _interval(check),
        f"{verdict}, for information" if check.informational else f"**{verdict}**",
        prose(check.reason, most=MAX_SENTENCE),
    )


def _interval(check: GateCheck) -> str:
    """Of what was tested, in the metric's own unit; of a percentile a share of positions."""
    if check.interval is None:
        return "-"
    ends = f"{check.interval.low:.3g} to {check.interval.high:.3g}"
    if check.metric in AGREEMENTS:
        return f"{1 - check.interval.high:.3g} to {1 - check.interval.low:.3g}"
    if check.metric in PERCENTILES:
        most = "" if check.estimand_limit is None else f", at most {check.estimand_limit:.3g} may"
        return f"{ends} of positions lie above{most}"
    return ends + (f", {check.n_clipped:,} windows clipped" if check.n_clipped else "")


def _facts(gate: Gate, result: GateResult) -> Iterator[str]:
    candidate, cost = result.candidate, result.cost
    size = "a full model" if candidate.rank is None else f"rank {candidate.rank}"
    yield f"{code(candidate.name, most=120)}, {size}, on {code(gate.base_model, most=120)}"
    yield (
        f"scored {result.n_scored:,} of {result.n_windows:,} windows ({result.fraction:.1%}), "
        f"{result.n_positions_scored:,} positions of {code(gate.corpus, most=120)}"
    )
    saved = "" if cost.seconds_saved is None else f", about {cost.seconds_saved:,.1f} s"
    phases = ", ".join(
        f"{name.replace('_', ' ')} {took:.1f}" for name, took in cost.seconds.items()
    )
    took = f"{sum(cost.seconds.values()):.1f} s ({prose(phases, most=300)})"
    yield f"saved {cost.tokens_saved:,} forward tokens{saved}; took {took}"
    floor = result.noise_floor
    noise = "" if floor is None else f"; noise floor {floor.kl:.2g} nats per token"
    engine = prose(result.engine.reason, most=MAX_SENTENCE)
    yield f"by {result.engine.name} ({engine}){noise}; alpha {result.alpha:g}"


def _provenance(gate: Gate, result: GateResult) -> Iterator[Sequence[str]]:
    facts: dict[str, object] = {"gate": gate.id, "job": gate.job, "order": result.order}
    facts |= result.provenance.model_dump(exclude={"versions"}) | result.provenance.versions
    for name, value in facts.items():
        if value is not None:
            yield prose(name, most=60), code(str(value), most=120)


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{inside}\n</details>\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
