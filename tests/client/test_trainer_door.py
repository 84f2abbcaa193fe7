"""`forgetting_client.trainer`: where the worker is, its callback; where it is not, what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CLIENT = ROOT / "clients" / "python"


def test_the_callback_is_the_worker_s_own() -> None:
    from forgetting_client.trainer import ForgettingCallback

    assert ForgettingCallback.__module__ == "worker.callback"


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        ("sys.path[:] = [p for p in sys.path if 'packages' not in p]", "needs the worker there"),
        ("sys.modules['peft'] = None", "pip install '.[worker]')"),
    ],
    ids=["no worker at all", "its extra is missing"],
)
def test_without_the_extra_it_names_the_command(tmp_path: Path, setup: str, said: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(CLIENT)!r}); {setup}\n"
        "try:\n    from forgetting_client.trainer import ForgettingCallback\n"
        "except ImportError as error:\n    print(error)"
    )
    line = [sys.executable, *(["-S"] if "path" in setup else []), "-c", code]
    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said in ran.stdout, ran.stderr
    assert "pip install 'forgetting-service[worker]'" in ran.stdout


def test_another_name_is_no_attribute() -> None:
    import forgetting_client.trainer as door

    with pytest.raises(AttributeError, match="no attribute 'Callback'"):
        _ = door.Callback
