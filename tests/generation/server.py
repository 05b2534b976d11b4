"""An OpenAI-compatible server of the tests' own, that answers a prompt with itself and can be at fault."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Fault = int | str
"""A status; or `drop` (no answer), `cut` (half of one), `slow` (later than anyone waits), `few` (no choices),
`odd` (a choice that ended by an error), `busy` (429 with Retry-After), `text` (not JSON)."""
Answer = Callable[[Any], dict[str, Any]]
"""Fields of a choice for a prompt."""


def repeat(prompt: Any) -> dict[str, Any]:
    """The prompt again, ended by the limit."""
    ids = {} if isinstance(prompt, str) else {"token_ids": prompt}
    return {"text": prompt if isinstance(prompt, str) else "", "finish_reason": "length", **ids}


class FaultyServer:
    """Serves one model; the faults strike one request each, in order, and then no more."""

    def __init__(self, model: str = "snapshot", answer: Answer = repeat) -> None:
        self.model, self.answer = model, answer
        self.names = model
        """What its answers say the model is."""
        self.listed: list[str] | None = [model]
        """What /v1/models has; None for a server without the list."""
        self.owner = "tests"
        self.unknown: set[str] = set()
        """Fields that it refuses with 422; `ids` refuses prompts of token ids."""
        self.most_choices = 99
        self.counts_prompt = True
        self.faults: list[Fault] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.hold = 0.0
        """Seconds that each answer takes."""
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fail(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)

    def take_fault(self, body: dict[str, Any]) -> Fault | None:
        with self._lock:
            self.bodies.append(body)
            return self.faults.pop(0) if self.faults else None

    def enter(self, change: int) -> None:
        with self._lock:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)

    def refusal(self, body: dict[str, Any]) -> str:
        unknown = sorted(self.unknown & body.keys())
        if "ids" in self.unknown and isinstance(body.get("prompt"), list):
            return "prompt must be a string"
        return f"unexpected fields {unknown}" if unknown else ""

    def completion(self, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        prompt = body.get("prompt", body.get("messages"))
        count = 0 if fault == "few" else min(body.get("n", 1), self.most_choices)
        choices = [self.answer(prompt) | {"index": index} for index in range(count)]
        if fault == "odd":
            choices = [{"index": 0, "text": "", "finish_reason": "abort"}]
        counts = (choice.pop("counted", len(choice.get("token_ids", ""))) for choice in choices)
        usage = {"completion_tokens": sum(counts)}
        if self.counts_prompt:
            usage["prompt_tokens"] = len(prompt)
        return {"model": self.names, "choices": choices, "usage": usage if choices else None}


def _handler(server: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            fault = server.take_fault({})
            if isinstance(fault, int):
                self.give(fault, {"error": {"message": "not now"}})
            elif server.listed is None:
                self.give(404, {"detail": "Not Found"})
            else:
                self.give(200, {"data": [{"id": name, "owned_by": server.owner} for name in server.listed]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.headers.append(dict(self.headers))
            fault = server.take_fault(body)
            server.enter(1)
            time.sleep(server.hold)
            server.enter(-1)
            if isinstance(fault, int):
                self.give(fault, {"error": {"message": "not now"}})
            elif fault == "busy":
                self.give(429, {"message": "wait"}, {"Retry-After": "1"})
            elif fault == "drop":
                self.close_connection = True
            elif fault == "slow":
                time.sleep(0.6)
            elif refusal := server.refusal(body):
                self.give(422, {"detail": refusal})
            else:
                self.give(200, server.completion(body, fault), cut=fault == "cut", text=fault == "text")

        def give(
            self,
            status: int,
            value: Any,
            headers: dict[str, str] | None = None,
            cut: bool = False,
            text: bool = False,
        ) -> None:
            raw = b"<html>" if text else json.dumps(value).encode()
            self.send_response(status)
            for name, content in {"Content-Length": str(len(raw)), **(headers or {})}.items():
                self.send_header(name, content)
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2] if cut else raw)
            self.close_connection = True

    return Handler
