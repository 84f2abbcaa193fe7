"""A route that takes CSV as well as JSON: the rows become the `points` of the JSON body.

Whatever is then refused is named by line and column of the file.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.types import Message, Scope

from service.csv_points import CsvPoints, read_csv
from service.errors import InvalidSpec
from service.field_faults import dotted, message
from service.middleware import CSV

QUERY = ("metric", "forms", "burn_in")
"""What stands in the address, because a CSV body has no place for it."""
EXAMPLE = """run,rank,trainable_params,step,ft_loss,ce_soft
a,8,98304,40,2.41,2.12
a,8,98304,80,2.22,2.19
b,16,196608,40,2.35,2.15
b,16,196608,80,2.17,2.23
c,32,393216,40,2.30,2.17
c,32,393216,80,2.13,2.25
c,32,393216,160,2.01,2.31
a,8,98304,160,2.12,2.24
b,16,196608,160,2.06,2.28
"""
DOCUMENTED: dict[str, Any] = {
    "requestBody": {
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": EXAMPLE,
            }
        }
    },
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": "Of a text/csv request; as in the JSON body.",
            "schema": {"type": "array", "items": {"type": "string"}}
            if name == "forms"
            else {"type": "string"},
        }
        for name in QUERY
    ],
}
"""For the OpenAPI document."""


class CsvOrJson(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def read(request: Request) -> Response:
            named = [name for name in QUERY if name in request.query_params]
            if not is_csv(request.scope):
                if named:
                    raise InvalidSpec("this belongs in the JSON body", param=named[0])
                return await answer(request)
            found = read_csv(await request.body())
            body: dict[str, Any] = {name: request.query_params[name] for name in named}
            if "forms" in body:
                body["forms"] = request.query_params.getlist("forms")
            body["points"] = found.points
            try:
                return await answer(as_json(request.scope, body))
            except RequestValidationError as error:
                fault = error.errors()[0]
                where = dotted(fault, error.body)
                raise at_line(found, where, message(fault)) from error
            except InvalidSpec as error:
                raise at_line(found, error.param, error.message) from error

        return read


def is_csv(scope: Scope) -> bool:
    return CSV.match(dict(scope["headers"]).get(b"content-type", b"").strip()) is not None


def as_json(scope: Scope, body: dict[str, Any]) -> Request:
    content = json.dumps(body).encode()
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-type", b"content-length")]

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    headers.append((b"content-type", b"application/json"))
    return Request({**scope, "headers": headers}, receive)


def at_line(found: CsvPoints, param: str | None, said: str) -> InvalidSpec:
    column, place = found.place(param)
    if place:
        named = f", column {column}" if column else ""
        said = f"line {place['line']}{named}: {said}"
    return InvalidSpec(said, param=column or "points", **place)
