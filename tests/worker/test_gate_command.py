"""`forgetting gate --local` as CI runs it: the installed command and the real worker."""

from tests.client.gated import line, run
from tests.client.test_command_gate_local import installed
from tests.worker.candidates_made import make_lora

REAL = "gate = worker.local:gate\nrender = service.gate_reports:render\n"


def test_a_green_and_a_red_gate_by_the_real_worker(tmp_path, tiny_base) -> None:
    make_lora(tiny_base, tmp_path / "mine", size=0.03)
    (tmp_path / "corpus.txt").write_text("The old mill stands by the river.\n\n" * 60)
    path = installed(tmp_path, REAL)
    words = line("--local", base=str(tiny_base), adapter="mine")
    for limit, code in (("5", 0), ("0.0001", 1)):
        policy = f"checks: [{{id: mean, metric: kl, fail_above: {limit}}}]\n"
        ran = run(words, "http://127.0.0.1:1", tmp_path, policy=policy, PYTHONPATH=path)
        assert ran.returncode == code, ran.stderr
        word = "FAIL" if code else "PASS"
        assert ran.stdout.splitlines()[-1] == f"VERDICT: {word} (exit {code})"
