"""JUnit of a gate: one test case per check. A case is red where the check keeps the gate from
exiting 0, so that a CI which reads only this file judges alike."""

from xml.etree import ElementTree

from service.gate_reason import clause, named
from service.gate_reports.escape import xml_text
from service.laws.verdict import Verdict
from service.schemas.gate import Gate, GateCheck, GateResult

SUITE = "forgetting"


def junit(gate: Gate) -> str:
    suite = ElementTree.Element("testsuite", name=SUITE)
    _properties(suite, gate)
    result = gate.result
    for index, asked in enumerate(gate.policy.checks):
        check = None if result is None else result.checks[index]
        name = f"{asked.id}: {asked.metric if check is None else named(check)}"
        case = _add(suite, "testcase", classname=f"{SUITE}.gate", name=name, time="0")
        if result is None or check is None:
            kind = gate.verdict or "unfinished"
            _add(case, "error", type=kind, message=gate.reason or f"the gate is {gate.status}")
        else:
            _judge(case, check, result)
    seconds = 0.0 if result is None else sum(result.cost.seconds.values())
    counts = {"tests": len(gate.policy.checks)}
    counts |= {f"{kind}s": len(suite.findall(f".//{kind}")) for kind in ("failure", "error")}
    counts |= {"skipped": len(suite.findall(".//skipped"))}
    totals = {name: str(n) for name, n in counts.items()} | {"time": f"{seconds:.3f}"}
    suite.attrib |= totals
    if gate.finished_at is not None:
        suite.set("timestamp", gate.finished_at[:19])
    suites = ElementTree.Element("testsuites", {"name": SUITE, **totals})
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=False).join(
        ['<?xml version="1.0" encoding="UTF-8"?>\n', "\n"]
    )


def _judge(case: ElementTree.Element, check: GateCheck, result: GateResult) -> None:
    said = f"{check.verdict}: {clause(check)}"
    verdict = check.verdict
    if verdict is Verdict.PASS:
        return
    if check.informational:
        _add(case, "skipped", type=verdict, message=f"for information: {said}")
    elif verdict is Verdict.WARN:
        _add(case, "system-out").text = xml_text(said)
    elif verdict is Verdict.INCONCLUSIVE and result.on_inconclusive != "fail":
        _add(case, "skipped", type=verdict, message=said)
    else:
        ours = verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
        red = _add(case, "failure" if ours else "error", type=verdict, message=said)
        red.text = xml_text(check.reason)


def _properties(suite: ElementTree.Element, gate: Gate) -> None:
    facts: dict[str, object] = {
        "gate": gate.id,
        "job": gate.job,
        "verdict": gate.verdict,
        "exit_code": gate.exit_code,
        "base_model": gate.base_model,
        "corpus": gate.corpus,
    }
    if gate.result is not None:
        result = gate.result
        facts |= {
            "candidate": result.candidate.name,
            "alpha": result.alpha,
            "windows_scored": result.n_scored,
            "windows": result.n_windows,
            "tokens_saved": result.cost.tokens_saved,
            "order": result.order,
        }
        provenance = result.provenance.model_dump(exclude={"versions"})
        facts |= {f"provenance.{name}": value for name, value in provenance.items()}
        facts |= {f"version.{name}": value for name, value in result.provenance.versions.items()}
    properties = _add(suite, "properties")
    for name, value in facts.items():
        if value is not None:
            _add(properties, "property", name=name, value=str(value))


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    clean = {name: xml_text(value) for name, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, clean)
