"""From adapters known to be good to a green and a red gate: the installed command, real workers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.house import ROOT, House, finetune, house

FORGETTING = str(Path(sys.executable).with_name("forgetting"))


class User:
    """Somebody with a terminal in an empty folder."""

    def __init__(self, home: House, folder: Path) -> None:
        self.home, self.folder = home, folder
        path = f"{ROOT / 'clients' / 'python'}:{ROOT}"
        self.environment = {**home.environment, "FORGETTING_URL": home.url, "PYTHONPATH": path}

    def types(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FORGETTING, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def trains(self, **changes: object) -> str:
        spec = finetune()
        spec["training"] |= changes
        job_id = self.home.submit(training=spec["training"])
        assert self.home.ends(job_id)["status"] == "succeeded"
        return job_id


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("user")
    with house(tmp_path_factory.mktemp("house")) as home:
        yield User(home, folder)


@pytest.mark.timeout(900)  # eight jobs, each in a child of its own
def test_good_adapters_set_limits_that_pass_them_and_stop_a_bad_one(user: User) -> None:
    good = [user.trains(seed=seed, learning_rate=3e-4) for seed in (1, 2)]
    bad = user.trains(learning_rate=2e-2)
    made = user.types("policy", "init", "--from", good[0], "--from", good[1])
    assert (made.returncode, made.stdout) == (0, "forgetting.yml\n"), made.stderr
    assert user.types("policy", "check").returncode == 0
    again = user.types("policy", "init", "--from", good[0])
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr

    def gate(adapter: str) -> subprocess.CompletedProcess[str]:
        return user.types("gate", "--adapter", adapter, "--base", "tiny_base")

    for adapter in good:
        passed = gate(adapter)
        assert passed.returncode == 0, passed.stdout + passed.stderr
        assert passed.stdout.splitlines()[-1].startswith("VERDICT: PASS (exit 0)")
    assert gate(bad).returncode == 1

    told = user.types("compare", *good, bad, "--json")
    assert told.returncode == 0, told.stderr
    body = json.loads(told.stdout)
    assert [(pair["a"], pair["b"]) for pair in body["pairs"]] == [(0, 1), (0, 2), (1, 2)]
    assert body["adapters"][2]["more_than_best"]["value"] > 0
    ready = user.types("compare", body["job"], "--json")
    assert json.loads(ready.stdout)["pairs"] == body["pairs"]


def test_unlike_windows_do_not_compare(user: User) -> None:
    ids = []
    for context in (32, 24):
        spec = finetune(max_steps=2)
        ids.append(user.home.submit(evaluation={**spec["evaluation"], "context": context}))
    told = user.types("compare", *ids)
    assert told.returncode == 5
    assert "not the same context: 32" in told.stderr
    assert "--context measures all alike" in told.stderr
