"""Two processes train together; one of them measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_one_measures_all_know_and_none_is_left_waiting(random_base: Path, tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("ddp_script.py"))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*line, script, str(random_base), str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    main, other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert main["alone"]["weights"] == main["watched"]["weights"] == other["watched"]["weights"]
    assert main["watched"]["kl"] == other["watched"]["kl"]
    assert list(main["watched"]["kl"]) == ["1", "3", "4"]
    assert main["watched"]["kl"]["4"] > 0
    assert main["watched"]["kept"] == other["watched"]["kept"]
    assert (tmp_path / "watched" / "forgetting" / "step-000004").is_dir()
    assert main["broken"].startswith("CorpusUnreadable: no-such.txt")
    assert other["broken"].startswith("RuntimeError: the main process could not measure")
