"""One digest of JSON: what means the same has the same, whatever order its keys came in."""

import hashlib
import json
from typing import Any


def json_digest(content: Any) -> str:
    """`sha256:<hex>` of the canonical JSON. Raises ValueError for NaN and infinity."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
