"""Adapters as a client sends them."""

from pathlib import Path
from typing import Any

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Files = dict[str, tuple[str, bytes]]


def files_of(folder: Path) -> Files:
    """The multipart parts: name, (file name, content)."""
    return {name: (name, (folder / name).read_bytes()) for name in (CONFIG, WEIGHTS)}


def send(web: Any, files: Any, *, base_model: str = "tiny") -> Any:
    return web.post("/v1/adapters", params={"base_model": base_model}, files=files)


def leftovers(home: Path) -> list[str]:
    """Files that uploads left under the embedded home, kept adapters apart from broken ones."""
    roots = (home / "uploads", home / "artifacts")
    return sorted(
        str(path.relative_to(home)) for root in roots for path in root.rglob("*") if path.is_file()
    )
