"""Which of the media types on offer a request prefers (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException


def preferred(accept: str | None, offers: Sequence[str]) -> str:
    """The offer of the highest quality, the first of equals; 406 where none is acceptable."""
    wanted = _ranges(accept or "*/*")
    best = max(offers, key=lambda offer: _quality(offer, wanted))
    if _quality(best, wanted) == 0:
        raise HTTPException(406, f"there is {', '.join(offers)}")
    return best


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Media ranges and their qualities; one that cannot be read counts as not acceptable."""
    found = []
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        given = [p[2:] for p in parameters if p.startswith("q=")]
        try:
            quality = float(given[-1]) if given else 1.0
        except ValueError:
            quality = 0.0
        found.append((name, quality if 0 <= quality <= 1 else 0.0))
    return found


def _quality(offer: str, wanted: Sequence[tuple[str, float]]) -> float:
    """By the most specific range that matches."""
    kind = offer.partition("/")[0]
    for name in (offer, f"{kind}/*", "*/*"):
        qualities = [quality for given, quality in wanted if given == name]
        if qualities:
            return max(qualities)
    return 0.0
