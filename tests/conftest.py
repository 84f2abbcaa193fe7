"""Fixtures for every ring of tests. Servers are real; data that is not ours is looked for."""

import os
import signal
from pathlib import Path

import pytest

pytest_plugins = ["tests.servers"]

ROOT = Path(__file__).parent.parent

# Settings of the person who runs the tests must not change what they test.
for name in list(os.environ):
    ours = name == "FORGETTING_DATA" or name.startswith("FORGETTING_TEST_")
    if name.startswith("FORGETTING_") and not ours:
        del os.environ[name]

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real WikiText-103 test articles and the Orca sample."""
    folder = Path(os.environ.get("FORGETTING_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "wikitext-103-raw-test.txt").is_file():
        pytest.skip("shared data absent: set FORGETTING_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_base() -> Path:
    """The demo's base model: Llama 4 x 128, vocabulary 1024."""
    return ROOT / "demo" / "tiny_base"
