"""The README names every setting, and every file that it points to exists."""

import re
from pathlib import Path

import pytest

from service.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "clients").rglob("README.md")),
]


def test_every_setting_is_documented() -> None:
    text = (ROOT / "README.md").read_text()
    assert [
        name for name in Settings.model_fields if f"`FORGETTING_{name.upper()}`" not in text
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
