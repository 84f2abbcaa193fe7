"""What FastAPI does not know of the OpenAPI document: problems, the key, what an address may be."""

from collections.abc import Iterator
from typing import Any

from service import problems, scopes

Json = dict[str, Any]

REQUEST_ID = {
    "required": True,
    "description": "As sent, or made here; the log has it too.",
    "schema": {"type": "string"},
}
RETRY_AFTER = {
    "description": "Seconds; where trying again later helps.",
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
}
REFUSALS = {
    "4XX": (
        "Refused",
        "400 no JSON, 401 no key, 403 not by this key, 404 not there, 405 another method (see "
        "`Allow`), 406 another `Accept`, 409 not now, 413 too large, 415 another `Content-Type`, "
        "422 it cannot work, 429 too much at once. `code` tells more: `/v1/problems/{code}`.",
    ),
    "5XX": ("Failed", "500 a fault of ours, 503 a part that is away for now."),
}
"""By range of status: its name among the document's responses, and what it means."""
NO_NUL = r"^[^\x00]*$"


def completed(document: Json) -> Json:
    """The document as it is to be published. The argument is changed."""
    parts = document["components"]
    parts["securitySchemes"] = {scopes.SCHEME: {"type": "http", "scheme": "bearer"}}
    parts["responses"] = {name: refusal(said) for name, said in REFUSALS.values()}
    for operation in operations(document):
        for status, (name, _) in REFUSALS.items():
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
        for parameter in operation.get("parameters", []):
            if parameter["in"] in ("path", "query"):
                exclude_nul(parameter["schema"])
    return document


def operations(document: Json) -> Iterator[Json]:
    return (one for methods in document["paths"].values() for one in methods.values())


def refusal(said: str) -> Json:
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    headers = {"x-request-id": REQUEST_ID, "Retry-After": RETRY_AFTER}
    return {"description": said, "headers": headers, "content": content}


def exclude_nul(schema: Json) -> None:
    """`service.middleware.Limits` refuses an address with one, whatever the parameter."""
    for one in [schema, *schema.get("anyOf", []), *schema.get("prefixItems", [])]:
        if one.get("type") == "string" and not one.keys() & {"pattern", "enum", "const"}:
            one["pattern"] = NO_NUL
        if "items" in one:
            exclude_nul(one["items"])
