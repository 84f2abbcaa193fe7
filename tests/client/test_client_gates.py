"""Gates by the client, against the real application."""

import pytest
from forgetting_client import errors

from tests.gate_results import check, end_gate, gate_spec


def spec_of(service, **changes):
    base = service.spec["base_model"]
    return gate_spec(base_model=base, adapters=[{"path": base}], **changes)


def test_a_gate_from_submission_to_verdict(service) -> None:
    client = service.client
    spec = spec_of(service)
    gate = client.create_gate(spec, idempotency_key="once")
    assert client.create_gate(spec, idempotency_key="once") == gate
    assert client.gate(gate["id"]) == client.gate(gate["job"]) == gate
    with pytest.raises(errors.WaitTimeout, match="is still queued"):
        client.wait_gate(gate["id"], timeout=0.01)
    end_gate(service.store, check("fail"))
    ended = client.wait_gate(gate["id"], timeout=5)
    assert (ended["verdict"], ended["exit_code"]) == ("fail", 1)
    assert client.result(gate["job"]) == ended["result"]
    assert client.job(gate["job"])["verdict"] == "fail"
    whole = client.gate_report(gate["id"])
    assert whole.startswith("## ❌ Gate: fail")
    short = client.gate_report(gate["id"], max_bytes=2_000)
    assert len(short) < len(whole)
    assert '<failure type="fail"' in client.gate_report(gate["id"], "application/junit+xml")


def test_gates_are_listed_by_verdict(service) -> None:
    client = service.client
    ids = [client.create_gate(spec_of(service))["id"] for _ in range(3)]
    for verdict in ("pass", "fail"):
        end_gate(service.store, check(verdict))
    assert [one["id"] for one in client.gates()] == ids[::-1]
    assert [one["id"] for one in client.gates(limit=2)] == ids[:0:-1]
    assert [one["id"] for one in client.gates(verdict="fail")] == [ids[1]]


def test_refusals_name_the_field(service) -> None:
    with pytest.raises(errors.InvalidSpec) as refused:
        service.client.create_gate(spec_of(service, policy={"checks": []}))
    assert refused.value.param == "policy.checks"
    with pytest.raises(errors.NotFound):
        service.client.gate("gate_none")
    with pytest.raises(errors.Unsendable):
        service.client.gate("")
    gate = service.client.create_gate(spec_of(service))
    with pytest.raises(errors.Rejected, match="there is application/json"):
        service.client.gate_report(gate["id"], "image/png")  # type: ignore[arg-type]
