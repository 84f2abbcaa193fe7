"""`forgetting policy check` and what it says of files that are no policy: by line and column."""

import json
from pathlib import Path

import pytest
from forgetting_client import policy_file
from forgetting_client.command.app import app
from forgetting_client.policy_check import load
from forgetting_client.policy_file import BadPolicy, parse
from typer.testing import CliRunner, Result

GOOD = "# what ships\nchecks:\n  - {id: mean, metric: kl, fail_above: 0.08, warn_above: 5e-2}\n"
TEN = ", ".join(["{0}"] * 10)
BOMB = "a: &a [1, 2]\n" + "".join(
    f"{name}: &{name} [{TEN.format(f'*{before}')}]\n"
    for before, name in zip("abcd", "bcde", strict=True)
)


def command(*args: str) -> Result:
    return CliRunner().invoke(app, ["policy", *args])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: is empty"),
        ("- 1\n", "1:1: a policy is a mapping with version and checks"),
        ("checks: [\n", "2:1: not YAML: expected the node content"),
        ("checks: 3\nchecks: 4\n", "2:1: checks stands here a second time"),
        (
            "corpus: 2026-01-01\n",
            "1:9: of type timestamp, which means nothing here; put text in quotes",
        ),
        ("alpha: .inf\n", "1:8: .inf is no finite number"),
        ("alpha: 1e999\n", "1:8: 1e999 is no finite number"),
        ("? [a]\n: 1\n", "1:3: a field's name must be plain text"),
        ("x: &x {a: 1}\n<<: *x\n", "2:1: a field's name must be plain text"),
        ("a: !!python/name:os.system x\n", "1:4: of type python/name:os.system, which"),
        ("corpus: a\x07b\n", "1:10: not YAML: a control character, U+0007"),
        ("&a [*a]\n", "1:1: is nested too deeply"),
        ("[" * 5000, "1:1: is nested too deeply"),
        (BOMB, "1:1: holds more than 10,000 values"),
        ('{\n\t"checks": [],\n\t"alfa": 1}', "3:2: alfa: no such field; did you mean alpha?"),
        ("--- {}\n--- {}\n", "2:1: not YAML: but found another document"),
    ],
)
def test_a_file_that_is_no_policy(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.yml"
    file.write_text(text)
    ran = command("check", str(file))
    assert ran.exit_code == 2
    assert f"{file}:{said}" in ran.stdout


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_text("#" * (policy_file.MAX_BYTES + 1))
    names = ("binary", "large", "absent", ".")
    ran = command("check", *(str(tmp_path / name) for name in names))
    assert ran.exit_code == 2
    for said in ("is not UTF-8 text", "is larger than 256,000 bytes", "No such file", "directory"):
        assert said in ran.stdout


def test_every_fault_of_every_file_is_told(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("0.08", "0.04").replace("checks", "alpha: 3\nchecks"))
    ran = command("check", str(good), str(bad))
    assert ran.exit_code == 2
    assert ran.stderr == f"{good}: 1 check, no fault\n"
    told = [line for line in ran.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert told == [
        f"{bad}:2:1: alpha: must be at most 0.2, is 3",
        f"{bad}:4:46: checks.0.warn_above: 0.05 must lie below fail_above 0.04",
    ]


def test_faults_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("check").exit_code == 2  # there is no forgetting.yml
    (tmp_path / "forgetting.yml").write_text(GOOD)
    assert (ran := command("check", "--json")).exit_code == 0
    assert json.loads(ran.stdout) == {"faults": []}
    (tmp_path / "forgetting.yml").write_text(GOOD + "split: 3\n")
    ran = command("check", "--json")
    assert ran.exit_code == 2
    [fault] = json.loads(ran.stdout)["faults"]
    assert (fault["line"], fault["column"], fault["param"]) == (4, 1, "split")


def test_the_schema_is_printed_for_editors() -> None:
    ran = command("schema")
    assert (ran.exit_code, json.loads(ran.stdout)["title"]) == (0, "Forgetting policy")


def test_numbers_are_what_everybody_reads(tmp_path: Path) -> None:
    body = parse("a: 1e-3\nb: '1e-3'\nc: 1_000\nd: 0.5\ne: true\nf: null\n").body
    assert body == {"a": 0.001, "b": "1e-3", "c": 1000, "d": 0.5, "e": True, "f": None}


def test_a_policy_of_one_long_line_shows_the_part_that_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    checks = [{"id": f"c{i}", "metric": "kl", "fail_above": 1} for i in range(30)]
    checks[20]["fail_above"] = -1
    file.write_text(json.dumps({"checks": checks}))
    with pytest.raises(BadPolicy) as bad:
        load(file)
    _, shown, mark = bad.value.faults[0].shown().splitlines()
    assert len(shown) <= 80
    assert shown[mark.index("^") :].startswith('"fail_above": -1')


def test_a_metric_that_is_none_is_told_with_the_nearest_not_with_all(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(GOOD.replace("kl,", "same_topp,"))
    ran = command("check", str(tmp_path / "p.yml"))
    assert "no such metric; did you mean same_top?" in ran.stdout
    assert "ce_soft" not in ran.stdout
