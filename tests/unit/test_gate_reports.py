"""A gate as Markdown and JUnit, read by the parsers that others read it with."""

import itertools
from html.parser import HTMLParser
from typing import Any

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt

from service.gate_reason import reason_of
from service.gate_reports import JUNIT, MARKDOWN, render
from service.laws.verdict import Verdict
from service.schemas.gate import Gate, GateResult
from tests.gate_results import check, gate_result, policy
from tests.results import token

Json = dict[str, Any]
HOSTILE = [
    "| a | b |",
    "`code` ``two``",
    "</code></details><script>alert(1)</script><img src=x onerror=y>",
    "line\nbreak\r\n\n# heading\n- item",
    "\x00\x1b[31mred\x07",
    "\u202egnp.exe \ud800 \ufffe",
    "@everyone #1 GH-1 owner/repo#2 :tada: $x$ www.evil.example https://evil.example",
    "[text](javascript:alert(1)) ![img](x) <https://evil.example> &lt; \\| **bold** ~~gone~~",
    "<!-- -->]]>",
]
TAGS = {"h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "strong", "ul", "li"}
TAGS |= {"details", "summary"}


def gate(*checks: Json, **changes: Any) -> Json:
    """A finished gate with such a result."""
    result = GateResult.model_validate(gate_result(*checks, **changes))
    asked = [{"id": one.id, "metric": one.metric, _limit(one.metric): 0.5} for one in result.checks]
    view = Gate(
        id="gate_x",
        job="job_x",
        status="succeeded",
        phase=None,
        progress=None,
        verdict=result.verdict,
        exit_code=result.exit_code,
        reason=reason_of(result),
        error=None,
        base_model="tiny",
        corpus="corpus.txt",
        policy=policy(*asked, on_inconclusive=result.on_inconclusive),
        result=result,
        created_at="2026-01-31T12:00:00.000Z",
        finished_at="2026-01-31T12:00:09.500Z",
    )
    return view.model_dump(mode="json", by_alias=True)


def _limit(metric: str) -> str:
    return "fail_below" if metric.startswith("same_top") else "fail_above"


def unfinished(status: str, **changes: Any) -> Json:
    nothing = {"verdict": None, "exit_code": None, "reason": None, "result": None}
    return {**gate(), "status": status, **nothing, **changes}


class Seen(HTMLParser):
    """Tags, and the text without them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag == "th" or tag == "td" or not attrs, (tag, attrs)
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markdown: str) -> Seen:
    return Seen(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


def cases(gate: Json) -> list[Any]:
    suites = JUnitXml.fromstring(render(gate, JUNIT[0]).encode())
    [suite] = suites
    found = list(suite)
    kinds = [type(one) for case in found for one in case.result]
    counts = (suite.tests, suite.failures, suite.errors, suite.skipped)
    assert counts == (len(found), *(kinds.count(kind) for kind in (Failure, Error, Skipped)))
    assert (suites.tests, suites.failures, suites.errors) == counts[:3]
    return found


def test_markdown_begins_with_the_verdict_and_has_every_check() -> None:
    agreement = check("pass", id="agree", metric="same_top", value=0.95, limit=0.9, unit="share")
    agreement |= {"estimand": 0.05, "estimand_limit": 0.1, "interval": {"low": 0.03, "high": 0.08}}
    text = render(gate(check("fail", n_clipped=3), agreement), MARKDOWN)
    assert text.startswith(
        "## ❌ Gate: fail\n\nfail: mean kl 0.131 is above 0.08 after 62 of 4,927"
    )
    seen = read(text)
    for said in (
        "0.0917 to 0.17, 3 windows clipped",
        "≤ 0.08",
        "≥ 0.9",
        "0.92 to 0.97",
        "scored 62 of 4,927 windows (1.3%), 7,874 positions of corpus.txt",
        "saved 622,720 forward tokens, about 117.7 s",
        '" Rome"',
        f"sha256:{'a' * 64}",
    ):
        assert said in seen.text, said
    assert set(seen.tags) <= TAGS


@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_wrote_stays_text_in_markdown(text: str) -> None:
    plain = render(gate(warnings=["x"]), MARKDOWN)
    # As a service would store it: a lone surrogate cannot be sent.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    worst = [{**token(1, 5.0), "token": text, "context": text, "base_top": text}, token(0, 2.0)]
    candidate = {"name": text, "rank": 1, "trainable_params": 2}
    engine = {"name": "transformers", "reason": text}
    dirty = gate(
        check(reason=text), worst_tokens=worst, candidate=candidate, engine=engine, warnings=[text]
    )
    dirty |= {"base_model": text, "corpus": text}
    markdown = render(dirty, MARKDOWN)
    assert read(markdown).tags == read(plain).tags
    assert not set(markdown) & set("\x00\x07\x1b\r\u202e")
    for active in ("@everyone", "www.evil", "https://evil", "`", "<script", "<img", "javascript:"):
        assert active not in markdown
    for case in cases(dirty):
        assert case.name == "mean: mean kl"


def test_a_reason_from_outside_stays_text() -> None:
    error = {"code": "x", "detail": "y", "class": "user", "param": None, "details": {}}
    for text in [*HOSTILE[:7], "@", "\U000e0001"]:
        broken = unfinished("failed", verdict="not_measurable", exit_code=4, error=error)
        broken["reason"] = f"not measurable: {text}"
        markdown = render(broken, MARKDOWN)
        assert set(read(markdown).tags) == {"h2", "p"}
        broken["reason"] = text * 50
        assert len(render(broken, MARKDOWN, max_bytes=2_000).encode()) <= 2_000
        [case] = cases(broken)
        assert [type(one) for one in case.result] == [Error]


def test_details_go_first_and_the_verdict_never() -> None:
    text = "|<&`*_" * 40
    checks = [check("fail", id=f"c{i}", reason=text) for i in range(32)]
    worst = [{**token(i, 9.0), "context": text, "token": text} for i in range(20)]
    big = gate(*checks, worst_tokens=worst, warnings=[text] * 30)
    whole = render(big, MARKDOWN)
    assert "Shortened" not in whole
    previous = len(whole.encode())
    left = []
    for size in (previous - 1, 65_536, 40_000, 20_000, 10_000, 5_000, 2_000):
        short = render(big, MARKDOWN, max_bytes=size)
        assert len(short.encode()) <= size
        assert short.startswith(
            "## ❌ Gate: fail\n\nfail: mean kl 0.131 is above 0.08 (and 31 more)"
        )
        assert "Shortened to fit" in short
        assert set(read(short).tags) <= TAGS
        left.append([part in short for part in ("Worst tokens", "Provenance", "c0", "Gate")])
    assert left[0] == [True] * 4
    assert left[-1] == [False, False, False, True]
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize("lenient", ["fail", "warn", "pass"])
def test_junit_is_red_exactly_where_the_gate_does_not_exit_0(lenient: str) -> None:
    for verdicts in itertools.product(Verdict, repeat=2):
        for informational in itertools.product((False, True), repeat=2):
            told = gate(
                *(
                    check(verdict, id=f"c{i}", informational=info)
                    for i, (verdict, info) in enumerate(zip(verdicts, informational, strict=True))
                ),
                on_inconclusive=lenient,
            )
            red = [
                one for case in cases(told) for one in case.result if not isinstance(one, Skipped)
            ]
            assert bool(red) == bool(told["exit_code"]), (verdicts, informational)


def test_each_verdict_has_its_own_shape_in_junit() -> None:
    wanted = {
        "pass": None,
        "warn": None,
        "fail": (Failure, "fail"),
        "inconclusive": (Failure, "inconclusive"),
        "not_measurable": (Error, "not_measurable"),
        "incomparable": (Error, "incomparable"),
    }
    for case, shape in zip(
        cases(gate(*(check(verdict, id=verdict) for verdict in wanted))),
        wanted.values(),
        strict=True,
    ):
        assert [(type(one), one.type) for one in case.result] == ([shape] if shape else [])
    [case] = cases(gate(check("inconclusive"), on_inconclusive="warn"))
    assert [type(one) for one in case.result] == [Skipped]
    [case] = cases(gate(check("fail")))
    assert case.result[0].message == "fail: mean kl 0.131 is above 0.08"


def test_junit_carries_provenance() -> None:
    [suite] = JUnitXml.fromstring(render(gate(check("fail")), JUNIT[1]).encode())
    properties = {one.name: one.value for one in suite.properties()}
    assert properties["verdict"] == "fail"
    assert properties["provenance.base"] == f"sha256:{'a' * 64}"
    assert properties["version.torch"] == "2.13.0"
    assert properties["windows_scored"] == "62"
    assert (suite.time, suite.timestamp) == (5.5, "2026-01-31T12:00:09")


def test_no_report_of_an_unfinished_gate_is_green() -> None:
    for status in ("queued", "running"):
        [case] = cases(unfinished(status))
        assert [(type(one), one.type) for one in case.result] == [(Error, "unfinished")]
        assert "no verdict yet" in render(unfinished(status), MARKDOWN)


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no report of type text/html; there is text/markdown"):
        render(gate(), "text/html")
