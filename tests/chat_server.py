"""A server on this machine that speaks /chat/completions as it is told to: well, badly, late, or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "judge-1"


@dataclass
class Served:
    """One answer of the server."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False  # promises more bytes than it sends
    pause: float = 0.0  # before every tenth of the body


def said(text: str | None = "Verdict: A", *, model: str | None = MODEL, usage: Any = (10, 3), **changes: Any) -> Served:
    """A right answer."""
    message = {"role": "assistant", "content": text} | changes.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish", "stop")}
    body: dict[str, Any] = {"id": "1", "object": "chat.completion", "choices": [choice]}
    if model is not None:
        body["model"] = model
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Served(json.dumps(body | changes).encode())


def refused(status: int, message: str = "no", **fields: Any) -> Served:
    """An error as OpenAI-compatible servers word it."""
    return Served(json.dumps({"error": {"message": message, **fields}}).encode(), status)


class Fake:
    """The server's script: `script` is served in order, then `otherwise` (a Served, or a function of the body)."""

    def __init__(self) -> None:
        self.script: list[Served] = []
        self.otherwise: Any = said()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def serve(self, headers: dict[str, str], body: dict[str, Any]) -> Served:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            if self.script:
                return self.script.pop(0)
        return self.otherwise(body) if callable(self.otherwise) else self.otherwise

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        yield
        with self._lock:
            self._now -= 1


def text_of(body: dict[str, Any]) -> str:
    """The words of the user turn of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@contextmanager
def running() -> Iterator[Fake]:
    """The server, while the block runs."""
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with fake.counted():
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                served = fake.serve(
                    {"path": self.path} | {name.lower(): value for name, value in self.headers.items()}, body
                )
                time.sleep(served.delay)
                try:
                    self.send_response(served.status)
                    for name, value in {"Content-Type": "application/json", **served.headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(served.body) + 100 * served.cut))
                    self.end_headers()
                    tenth = max(1, len(served.body) // 10 if served.pause else len(served.body))
                    for start in range(0, len(served.body), tenth):
                        time.sleep(served.pause)
                        self.wfile.write(served.body[start : start + tenth])
                        self.wfile.flush()
                except OSError:  # the other side has given up
                    pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
