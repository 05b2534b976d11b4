"""A bucket server on this machine, for gcsfs, TensorStore and google-cloud-storage.

Requests and bytes are counted by kind, and answers can be slow, fail or break off:

    with BucketServer() as server:
        subprocess.run([...], env=os.environ | server.environment())
        server.fail(503, share=0.1)
        print(server.take_traffic())
"""

import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from tests.buckets.google_api import Buckets, Request, error_answer

Failure = int | Literal["reset", "lost", "cut"]
"""A status to answer with; or the connection ends before or after the work, or amid the answer."""


@dataclass
class Fault:
    """What is done to requests: to the next `count` of a kind, or to a share of all of them."""

    failure: Failure
    kind: str
    share: float
    count: int | None

    def strikes(self, kind: str, drawn: float) -> bool:
        """Whether a request goes wrong, by a number drawn from [0, 1)."""
        if self.kind not in ("", kind) or self.count == 0 or drawn >= self.share:
            return False
        if self.count is not None:
            self.count -= 1
        return True


@dataclass
class Traffic:
    """What was asked of a server in some time."""

    requests: Counter[str] = field(default_factory=Counter)
    """By kind: list, info, read, write, delete, copy, bucket."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of answers by kind."""
    received: Counter[str] = field(default_factory=Counter)
    """Bytes of requests by kind."""
    names: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by kind and object, or prefix for listings."""
    failed: int = 0
    """Requests that failed on purpose."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.requests.items()))
        read, written = self.sent.total(), self.received.total()
        return f"{self.requests.total()} requests ({kinds}); {read:,} bytes read, {written:,} written"


class BucketServer:
    """Buckets behind a port of this machine."""

    def __init__(self) -> None:
        self.buckets = Buckets()
        self.delay = 0.0
        """Seconds before each answer."""
        self._faults: list[Fault] = []
        self._random = random.Random(0)
        self._traffic = Traffic()
        self._lock = threading.Lock()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def environment(self) -> dict[str, str]:
        """What a process needs to take gs:// for this server, without credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "FSSPEC_GCS_TOKEN": "anon",
            # Asks whether a bucket is zonal by gRPC, which this server does not speak.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def fail(self, failure: Failure, kind: str = "", share: float = 1.0, count: int | None = None) -> None:
        """From now on do this to the next `count` requests of a kind, or to a share of them."""
        with self._lock:
            self._faults.append(Fault(failure, kind, share, count))

    def heal(self) -> None:
        """Answer every request, and at once."""
        with self._lock:
            self._faults, self.delay = [], 0.0

    def take_traffic(self) -> Traffic:
        """What was asked since the last call."""
        with self._lock:
            traffic, self._traffic = self._traffic, Traffic()
        return traffic

    def received(self, request: Request) -> Failure | None:
        """Count a request; what is to go wrong with it, if anything."""
        with self._lock:
            self._traffic.requests[request.kind] += 1
            self._traffic.received[request.kind] += len(request.body)
            self._traffic.names[request.kind, request.name or request.query.get("prefix", "")] += 1
            for fault in self._faults:
                if (
                    fault.kind in ("", request.kind)
                    and fault.count != 0
                    and self._random.random() < fault.share
                ):
                    fault.count = fault.count if fault.count is None else fault.count - 1
                    self._traffic.failed += 1
                    return fault.failure
        return None

    def sent(self, request: Request, size: int) -> None:
        """Count an answer."""
        with self._lock:
            self._traffic.sent[request.kind] += size


class _Http(ThreadingHTTPServer):
    """The server that a handler is handed."""

    daemon_threads = True

    def __init__(self, bucket_server: BucketServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket_server = bucket_server


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Http
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one packet each; without this, the second waits for the first's receipt.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # gcsfs takes the first of two answers and hangs up on the other
            self.close_connection = True

    def do_GET(self) -> None:
        server = self.server.bucket_server
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(server.buckets, server.url, self.command, url.path, query, headers, self._body())
        failure = server.received(request)
        time.sleep(server.delay)
        if failure == "reset":
            self._reset()
            return
        status, headers, data = error_answer(failure) if isinstance(failure, int) else request.answer()
        if failure == "lost":
            self._reset()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if failure == "cut":
            data, self.close_connection = data[: len(data) // 2], True
        server.sent(request, len(data))
        self.wfile.write(data)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _reset(self) -> None:
        """End the connection so that the other side is told that it was reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)
