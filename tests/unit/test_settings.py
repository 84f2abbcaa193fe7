"""Settings come from variables that people write by hand."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import SystemFault
from service.settings import Settings, settings


@pytest.fixture(autouse=True)
def unread() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/models", ["/models"]),
        (f"/models{os.pathsep}/more", ["/models", "/more"]),
        ('["/models", "/more"]', ["/models", "/more"]),
        (' ["/a:b"]', ["/a:b"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("name", ["MODEL_ROOTS", "DATA_ROOTS"])
def test_roots_are_a_json_list_or_paths(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str, meant: list[str]
) -> None:
    monkeypatch.setenv(f"FORGETTING_{name}", written)
    assert getattr(Settings(), name.lower()) == [Path(path) for path in meant]


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("MODEL_ROOTS", '["/models"', r'MODEL_ROOTS: not JSON .*such as \["/models"\]'),
        ("DATA_ROOTS", "[7]", r'DATA_ROOTS: .*such as \["/models"\]'),
        ("PORT", "http", "FORGETTING_PORT: .*integer"),
    ],
)
def test_a_wrong_variable_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str, said: str
) -> None:
    monkeypatch.setenv(f"FORGETTING_{name}", written)
    with pytest.raises(SystemFault, match=said) as caught:
        settings()
    assert "\n" not in caught.value.message


def test_a_workers_patience_grows_with_the_grace() -> None:
    assert Settings(grace_seconds=30).leave_seconds == 4 * 30 + 5
