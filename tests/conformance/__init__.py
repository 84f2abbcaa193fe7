"""The service held to its own OpenAPI document by schemathesis: over HTTP, with every check on."""
