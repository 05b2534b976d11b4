"""What gcsfs, TensorStore and google-cloud-storage ask of Google's JSON API, answered from memory."""

import base64
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import google_crc32c

PAGE = 1000
"""Objects of one answer to a listing."""


@dataclass(frozen=True)
class Blob:
    """One object as it was last written."""

    data: bytes
    generation: int
    content_type: str
    time: str

    def hashes(self) -> dict[str, str]:
        """As Google gives them: base64 of big-endian bytes."""
        crc = google_crc32c.value(self.data).to_bytes(4, "big")
        return {
            "crc32c": base64.b64encode(crc).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(self.data).digest()).decode(),
        }


class Buckets:
    """Every bucket that is named exists; objects live in memory."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], Blob] = {}
        """By bucket and name."""
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        """Begun in pieces: name, type and what has come, by upload."""
        self.lock = threading.RLock()
        self._generation = 1_000

    def put(self, bucket: str, name: str, data: bytes, content_type: str = "") -> Blob:
        """Write an object."""
        with self.lock:
            self._generation += 1
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            blob = Blob(data, self._generation, content_type or "application/octet-stream", now)
            self.blobs[bucket, name] = blob
            return blob

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Objects of a bucket, in order."""
        with self.lock:
            return sorted(name for at, name in self.blobs if at == bucket and name.startswith(prefix))


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Request:
    """One request, and its answer."""

    buckets: Buckets
    url: str
    """Of the server."""
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def __post_init__(self) -> None:
        words = (
            self.path.removeprefix("/upload")
            .removeprefix("/download")
            .removeprefix("/storage/v1/")
            .split("/")
        )
        self.bucket = unquote(words[1]) if len(words) > 1 else ""
        self.name = unquote(words[3]) if len(words) > 3 else ""
        self.rest = [unquote(word) for word in words[4:]]

    @property
    def kind(self) -> str:
        """What it is counted as."""
        if self.path.startswith("/upload/"):
            return "write"
        if len(self.path.removeprefix("/storage/v1/b/").split("/")) == 1:
            return "bucket"
        if self.rest:
            return "copy"
        if self.method == "DELETE":
            return "delete"
        if not self.name:
            return "list"
        return "read" if self.query.get("alt") == "media" else "info"

    def answer(self) -> Answer:
        """Do it."""
        with self.buckets.lock:
            return self._answer()

    def _answer(self) -> Answer:
        if self.kind == "bucket":
            return _json({"kind": "storage#bucket", "name": self.bucket, "id": self.bucket})
        if self.kind == "write":
            return self._upload()
        if self.kind == "list":
            return self._list()
        blob = self.buckets.blobs.get((self.bucket, self.name))
        if (refused := self._refused(blob)) is not None:
            return error_answer(refused)
        if blob is None:
            return error_answer(404)
        if self.kind == "delete":
            del self.buckets.blobs[self.bucket, self.name]
            return 204, {}, b""
        if self.kind == "copy":
            return self._copy(blob)
        return self._read(blob) if self.kind == "read" else _json(self._resource(self.name, blob))

    def _refused(self, blob: Blob | None) -> int | None:
        """Status for a condition that does not hold."""
        generation = 0 if blob is None else blob.generation
        if "ifGenerationMatch" in self.query and int(self.query["ifGenerationMatch"]) != generation:
            return 412
        if "ifGenerationNotMatch" in self.query and int(self.query["ifGenerationNotMatch"]) == generation:
            return 304 if self.method == "GET" else 412
        if blob and "generation" in self.query and int(self.query["generation"]) != generation:
            return 404
        return None

    def _read(self, blob: Blob) -> Answer:
        data, status = blob.data, 200
        hashes = blob.hashes()
        headers = {
            "Content-Type": blob.content_type,
            "x-goog-generation": str(blob.generation),
            "x-goog-metageneration": "1",
            "x-goog-stored-content-length": str(len(data)),
            "x-goog-hash": f"crc32c={hashes['crc32c']},md5={hashes['md5Hash']}",
        }
        if asked := self.headers.get("range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, len(data) - int(last))
            end = min(len(data), int(last) + 1 if first and last else len(data))
            if start >= len(data):
                return error_answer(416)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[start:end], 206
        return status, headers, data

    def _list(self) -> Answer:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        first, last = self.query.get("startOffset", ""), self.query.get("endOffset", "")
        after, limit = self.query.get("pageToken", ""), min(PAGE, int(self.query.get("maxResults", PAGE)))
        found: dict[str, str] = {}
        for name in self.buckets.names(self.bucket, prefix):
            if name < first or (last and name >= last):
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            key = name if cut < 0 else name[: cut + len(delimiter)]
            if key > after:
                found.setdefault(key, name)
        page = list(found.items())[:limit]
        items = [
            self._resource(name, self.buckets.blobs[self.bucket, name]) for key, name in page if key == name
        ]
        value: dict[str, Any] = {"kind": "storage#objects"}
        if items:
            value["items"] = items
        if prefixes := [key for key, name in page if key != name]:
            value["prefixes"] = prefixes
        if len(found) > limit:
            value["nextPageToken"] = page[-1][0]
        return _json(value)

    def _upload(self) -> Answer:
        kind, name, data = self.query.get("uploadType"), self.query.get("name", ""), self.body
        content_type = self.headers.get("content-type", "")
        if "upload_id" in self.query:
            return self._piece()
        if kind == "resumable":
            name = name or json.loads(data)["name"]
            upload = uuid.uuid4().hex
            self.buckets.uploads[upload] = name, content_type, bytearray()
            place = f"{self.url}{self.path}?uploadType=resumable&upload_id={upload}"
            return 200, {"Location": place}, b""
        if kind == "multipart":
            boundary = content_type.split("boundary=")[1].strip('"').encode()
            _, first, rest = data.split(b"--" + boundary, 2)
            name = json.loads(_content(first))["name"]
            data = _content(rest[: rest.rindex(b"\n--" + boundary)]).removesuffix(b"\r")
        if (refused := self._refused(self.buckets.blobs.get((self.bucket, name)))) is not None:
            return error_answer(refused)
        return self._written(name, data, content_type)

    def _piece(self) -> Answer:
        name, content_type, held = self.buckets.uploads[self.query["upload_id"]]
        if self.method == "DELETE":
            del self.buckets.uploads[self.query["upload_id"]]
            return 204, {}, b""
        place, _, total = self.headers["content-range"].removeprefix("bytes ").partition("/")
        if place != "*":
            del held[int(place.split("-")[0]) :]
            held += self.body
        if total == "*" or len(held) < int(total):
            return 308, {"Range": f"bytes=0-{len(held) - 1}"}, b""
        return self._written(name, bytes(held), content_type)

    def _written(self, name: str, data: bytes, content_type: str) -> Answer:
        self.name = name
        return _json(self._resource(name, self.buckets.put(self.bucket, name, data, content_type)))

    def _copy(self, blob: Blob) -> Answer:
        """rewriteTo/b/BUCKET/o/NAME, or moveTo/o/NAME."""
        bucket = self.rest[2] if self.rest[0] == "rewriteTo" else self.bucket
        written = self.buckets.put(bucket, self.rest[-1], blob.data, blob.content_type)
        if self.rest[0] == "moveTo":
            del self.buckets.blobs[self.bucket, self.name]
            return _json(self._resource(self.rest[-1], written))
        return _json({"done": True, "resource": self._resource(self.rest[-1], written)})

    def _resource(self, name: str, blob: Blob) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": name,
            "size": str(len(blob.data)),
            "generation": str(blob.generation),
            "metageneration": "1",
            "contentType": blob.content_type,
            "timeCreated": blob.time,
            "updated": blob.time,
            **blob.hashes(),
        }


def _content(part: bytes) -> bytes:
    """What follows the empty line of a part."""
    lines: Iterator[int] = (part.find(mark) + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if mark in part)
    return part[min(lines) :]


def _json(value: dict[str, Any]) -> Answer:
    return 200, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value).encode()


def error_answer(status: int) -> Answer:
    """As Google words one."""
    if status == 304:
        return status, {}, b""
    message = {404: "No such object", 412: "A condition does not hold"}.get(
        status, "The server fails on purpose"
    )
    value = {"error": {"code": status, "message": message, "errors": [{"reason": "test"}]}}
    return status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value).encode()
