"""A gate over HTTP, decided by the worker: the same adapter passes one policy and fails another."""

from pathlib import Path
from typing import Any

from tests.e2e.house import House, house


def ended(home: House, adapter: dict[str, Any], limit: float) -> dict[str, Any]:
    """The gate on mean KL below `limit`, once it has a verdict."""
    body = {
        "base_model": "tiny_base",
        "adapters": [adapter],
        "policy": {
            "corpus": "prose.txt",
            "context": 32,
            "checks": [{"id": "mean", "metric": "kl", "fail_above": limit}],
        },
    }
    answer = home.client.post("/gates", json=body)
    assert answer.status_code == 202, answer.text
    path = f"/gates/{answer.json()['id']}"
    home.ends(answer.json()["job"])
    gate: dict[str, Any] = home.client.get(path).json()
    assert gate["status"] == "succeeded", gate["error"]
    return gate


def test_one_adapter_passes_a_wide_limit_and_fails_a_narrow_one(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        trained = home.submit()
        assert home.ends(trained)["status"] == "succeeded"
        kl = home.client.get(f"/jobs/{trained}/result").json()["kl"]["value"]
        wide, narrow = (ended(home, {"job": trained}, limit) for limit in (20 * kl, kl / 20))
        assert (wide["verdict"], wide["exit_code"]) == ("pass", 0)
        assert (narrow["verdict"], narrow["exit_code"]) == ("fail", 1)
        for gate in (wide, narrow):
            assert gate["reason"].startswith(f"{gate['verdict']}: mean kl ")
            assert 0 < gate["result"]["n_scored"] <= gate["result"]["n_windows"]
        for gate, red in ((wide, 0), (narrow, 1)):
            headers = {"Accept": "application/junit+xml"}
            report = home.client.get(f"/gates/{gate['id']}", headers=headers).text
            assert report.count("<failure") == red
        found = home.client.get("/gates", params={"verdict": "fail"}).json()["data"]
        assert [one["id"] for one in found] == [narrow["id"]]
        metrics = home.client.get("/metrics").text
        assert 'fgt_gate_verdicts_total{verdict="fail"} 1.0' in metrics
