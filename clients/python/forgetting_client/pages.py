"""Paths and lists, page after page."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from forgetting_client.connection import Connection
from forgetting_client.errors import UnexpectedReply, Unsendable

LARGEST = 100
"""Items of one page."""


def pages(
    connection: Connection, path: str, filters: Mapping[str, Any], limit: int | None
) -> Iterator[Any]:
    """Items one by one, a page asked for when it is needed; at most `limit` in all."""
    after, left = None, limit
    while left is None or left > 0:
        size = LARGEST if left is None else min(left, LARGEST)
        page = connection.object("GET", path, params={**filters, "limit": size, "after": after})
        found = listed(connection, path, page, "data")
        yield from found[:left]
        if not found or not page.get("has_more"):
            return
        after = found[-1]["id"]
        left = None if left is None else left - len(found)


def listed(connection: Connection, path: str, body: Mapping[str, Any], name: str) -> list[Any]:
    """The list that `body` has as `name`."""
    found = body.get(name)
    if not isinstance(found, list):
        raise UnexpectedReply(f"{connection.url}/{path} answered without its list `{name}`.")
    return found


def segment(given: str, noun: str) -> str:
    """An id as a part of a path."""
    # An empty id, as from an unset shell variable, would address the whole list.
    if not re.fullmatch(r"[A-Za-z0-9_-]+", given):
        raise Unsendable(f"{given!r} is not the id of a {noun}.")
    return given
