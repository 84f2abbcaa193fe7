"""Law points of a running training, one JSON object a line, as `POST /laws` takes them."""

import json
from pathlib import Path
from typing import Any


class LawLines:
    """A file that grows with the run. One that was resumed goes on in it; one that begins anew
    begins it anew."""

    def __init__(self, path: Path, *, resumed_at: int) -> None:
        self.path = path
        if path.is_file():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= resumed_at]
            path.write_text("".join(f"{line}\n" for line in kept))

    def add(self, point: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as out:
            out.write(json.dumps(point, allow_nan=False) + "\n")
