"""A real HTTP server that answers as a test says, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    status: int = 200
    body: Any = None
    """Text as it is, anything else as JSON."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Answering:
    url: str
    asked: list[Asked]

    def lines(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.asked]


@contextmanager
def answering(reply: Callable[[Asked], Reply]) -> Iterator[Answering]:
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            sent = self.rfile.read(length)
            body = json.loads(sent) if sent else None
            one = Asked(self.command, self.path, dict(self.headers), body)
            asked.append(one)
            said = reply(one)
            text = said.body if isinstance(said.body, str) else json.dumps(said.body)
            kind = "text/html" if isinstance(said.body, str) else "application/json"
            self.send_response(said.status)
            headers = {"Content-Type": kind, **said.headers}
            for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Answering(f"http://127.0.0.1:{server.server_address[1]}", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
