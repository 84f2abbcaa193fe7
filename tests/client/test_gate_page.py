"""The page of a gate, in the metric's own units and within 80 columns."""

from typing import Any

from forgetting_client.command.gate_page import page_text

from tests.gate_results import check, gate_result


def page(*checks: dict[str, Any], code: int = 0, **changes: Any) -> str:
    measured_on = changes.pop("measured_on", None)
    result = gate_result(*checks, **changes)
    body = {
        "id": None,
        "result": result,
        "verdict": result["verdict"],
        "reason": "a sentence",
        "base_model": "tiny_base",
        "corpus": "corpus.txt",
        "policy": {"measured_on": measured_on},
    }
    return page_text(body, code, width=80)


def test_agreement_is_told_in_its_own_unit() -> None:
    same = check("pass", id="agree", metric="same_top", value=0.95, limit=0.9, unit="share")
    same |= {"estimand": 0.05, "estimand_limit": 0.1, "interval": {"low": 0.03, "high": 0.08}}
    text = page(same, check("pass"))
    assert "on this corpus 0.9200 to 0.9700" in text
    assert "disagree" not in text
    assert text.endswith("VERDICT: PASS (exit 0)")
    assert max(map(len, text.splitlines())) <= 80


def test_what_differs_stands_beside_what_the_limits_were_found_on() -> None:
    refused = check("incomparable", value=None, interval=None, reason="another context")
    text = page(
        refused, refused | {"id": "b"}, code=5, different=["context"], measured_on={"context": 7}
    )
    assert "context: the limits were found on 7, this is " in text
    assert "forgetting policy init" in text
    assert "another context" not in text, "the same reason of every check is told once, below"
