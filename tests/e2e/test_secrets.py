"""Secrets that a whole set-up was given, sought in everything that it wrote."""

from pathlib import Path

import psutil

from tests.e2e.house import House

API_KEY = "planted-api-key-1234567890"
PEPPER = "planted-pepper-1234567890"
TOKEN = "hf_plantedtoken1234567890"
BEARER = "planted-bearer-of-a-stranger"
PLANTED = (API_KEY, PEPPER, TOKEN, BEARER)


def test_planted_secrets_are_nowhere(tmp_path: Path) -> None:
    house = House(
        tmp_path,
        FORGETTING_API_KEY=API_KEY,
        FORGETTING_KEY_PEPPER=PEPPER,
        FORGETTING_LOG="json",
        HF_TOKEN=TOKEN,
    )
    try:
        house.client.headers["Authorization"] = f"Bearer {API_KEY}"
        made = house.client.post("/keys", json={"owner": "one", "name": "CI"}).json()["key"]
        house.client.get("/jobs", headers={"Authorization": f"Bearer {BEARER}"})
        house.client.get("/jobs", headers={"Authorization": f"Bearer {made}"})
        job = house.submit()
        child = house.until(lambda: house.find("worker.run"))
        environments = {
            "child": child.environ(),
            "service": psutil.Process(house.process.pid).environ(),
        }
        assert house.ends(job)["status"] == "succeeded"
    finally:
        house.stop()
    # The negative control: they were there to be leaked.
    assert environments["service"]["HF_TOKEN"] == TOKEN
    assert not set(PLANTED) & set(environments["child"].values())
    written = [*house.said]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            written.append(path.read_bytes().decode("latin-1"))
    secrets = (*PLANTED, made.split("_", 2)[2])
    assert [secret for secret in secrets for text in written if secret in text] == []
