"""A gate as a report. No I/O, so that a gate without a service reads the same."""

from collections.abc import Mapping
from typing import Any

from service.gate_reports.junit import junit
from service.gate_reports.markdown import markdown
from service.schemas.gate import Gate

JSON, MARKDOWN = "application/json", "text/markdown"
JUNIT = ("application/junit+xml", "application/xml")
MEDIA = (JSON, MARKDOWN, *JUNIT)
MAX_BYTES = 1_000_000
"""A step summary of GitHub takes 1,024 KiB."""


def render(gate: Mapping[str, Any], media: str, *, max_bytes: int = MAX_BYTES) -> str:
    """`gate`: JSON of `service.schemas.gate.Gate`. Markdown of more than `max_bytes` in UTF-8 loses
    its details first and never its verdict, which takes 2,000 of them at most.

    Raises ValueError for another media type.
    """
    view = Gate.model_validate(gate)
    if media == MARKDOWN:
        return markdown(view, max_bytes=max_bytes)
    if media in JUNIT:
        return junit(view)
    raise ValueError(f"no report of type {media}; there is {MARKDOWN}, {', '.join(JUNIT)}")
