"""Safetensors files, read a slice at a time and written a tensor at a time, local or gs://.

The format is a length, a JSON header and the raw bytes. The library of that name reads local files only and
wants a whole shard in memory to write one, so these pages speak the format themselves; tests compare with it.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from etils import epath

from jax_sft import files
from jax_sft.errors import JaxSftError, UsageError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 5_000_000_000
_DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_LARGEST_HEADER = 100_000_000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class TensorSource(Protocol):
    """Named tensors whose shapes are known before their values are read."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape by name."""

    def read(self, name: str) -> np.ndarray:
        """One tensor, possibly a view on a file that is read where it is touched."""


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies."""

    file: epath.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""


class SafetensorsFolder:
    """The tensors of a Hugging Face folder, from one file or from shards with an index."""

    def __init__(self, folder: epath.PathLike) -> None:
        """Read all headers. A whole file counts before an index and its shards, as in transformers.

        Raises:
            UsageError: no safetensors there.
            JaxSftError: a file is truncated or malformed, a shard is missing, or the index disagrees.
        """
        self.folder = epath.Path(folder)
        self._entries: dict[str, _Entry] = {}
        if (self.folder / SINGLE).exists():
            self._entries = read_header(self.folder / SINGLE)
        elif (self.folder / INDEX).exists():
            self._read_shards()
        else:
            raise UsageError(_nothing_there(self.folder))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape by name."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored type; of a local file a view, so that only the bytes touched are read."""
        entry = self._entries[name]
        if not files.in_bucket(entry.file):
            shape = entry.shape or (1,)
            mapped = np.memmap(entry.file, entry.dtype, mode="r", offset=entry.start, shape=shape)
            return mapped.reshape(entry.shape)
        with entry.file.open("rb") as stream:
            stream.seek(entry.start)
            raw = stream.read(entry.dtype.itemsize * math.prod(entry.shape))
        return np.frombuffer(raw, entry.dtype).reshape(entry.shape)

    def _read_shards(self) -> None:
        index = self.folder / INDEX
        content = files.read_json(index)
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise JaxSftError(f"{index}: has no weight_map; the index is damaged, download it again")
        headers: dict[str, dict[str, _Entry]] = {}
        for name, shard in weight_map.items():
            if shard not in headers:
                if not (self.folder / shard).exists():
                    raise JaxSftError(f"{index}: names the shard {shard}, which is not in the folder")
                headers[shard] = read_header(self.folder / shard)
            if name not in headers[shard]:
                raise JaxSftError(f"{index}: says that {name} is in {shard}, but it is not")
            self._entries[name] = headers[shard][name]


def read_header(file: epath.PathLike) -> dict[str, _Entry]:
    """Where each tensor lies in one file; JaxSftError when the file is truncated or not of this format."""
    path = epath.Path(file)
    size = path.stat().length
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise JaxSftError(f"{path}: not safetensors, or truncated inside its header ({size} bytes)")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise JaxSftError(f"{path}: header is not JSON ({error}); download the file again") from None
    if not isinstance(header, dict):
        raise JaxSftError(f"{path}: header is no JSON object; download the file again")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, described, 8 + length) for name, described in header.items()}
    needed = max((described["data_offsets"][1] for described in header.values()), default=0) + 8 + length
    if size != needed:
        raise JaxSftError(f"{path}: has {size} bytes where its header says {needed}; download the file again")
    return entries


def _entry(path: epath.Path, name: str, described: Any, data_start: int) -> _Entry:
    try:
        code, shape = str(described["dtype"]), tuple(map(int, described["shape"]))
        start, stop = map(int, described["data_offsets"])
    except (TypeError, KeyError, ValueError):
        raise JaxSftError(f"{path}: header of {name} is malformed; download the file again") from None
    if code not in _DTYPES:
        raise UsageError(f"{path}: {name} has type {code}; supported are {', '.join(_DTYPES)}")
    if stop - start != _DTYPES[code].itemsize * math.prod(shape):
        raise JaxSftError(f"{path}: {name} has {stop - start} bytes, which is not its shape {list(shape)}")
    return _Entry(path, _DTYPES[code], shape, data_start + start)


def _nothing_there(folder: epath.Path) -> str:
    if not folder.is_dir():
        return f"{folder}: no such folder of model weights"
    if any(files.named_like(folder, pattern) for pattern in _PICKLES):
        return (
            f"{folder}: holds only pickled weights, which can run code and are never loaded; "
            "save the model again with safe_serialization=True"
        )
    return f"{folder}: no {SINGLE} and no {INDEX}"


def write_shards(
    folder: epath.PathLike,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    dtype: Any = ml_dtypes.bfloat16,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors as model.safetensors, or as numbered shards with an index when they need more than one.

    Args:
        folder: must exist.
        shapes: name and shape of every tensor, in the order written.
        read: gives one tensor by name; asked once each, in order, so that one is in memory at a time.
        dtype: float32, float16 or bfloat16.
        shard_bytes: most bytes of tensors in one file; a larger tensor gets a file of its own.
    """
    target, kind = epath.Path(folder), np.dtype(dtype)
    shards = list(_split(shapes, kind.itemsize, shard_bytes))
    if len(shards) == 1:
        _write_file(target / SINGLE, shards[0], read, kind)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(target / name, shard, read, kind)
        weight_map.update(dict.fromkeys(shard, name))
    total = kind.itemsize * sum(math.prod(shape) for shape in shapes.values())
    files.write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _split(
    shapes: Mapping[str, tuple[int, ...]], itemsize: int, shard_bytes: int
) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    used = 0
    for name, shape in shapes.items():
        size = itemsize * math.prod(shape)
        if shard and used + size > shard_bytes:
            yield shard
            shard, used = {}, 0
        shard[name] = shape
        used += size
    yield shard


def _write_file(
    path: epath.Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    dtype: np.dtype,
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        stop = position + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in shapes.items():
            tensor = np.asarray(read(name)).astype(dtype, copy=False)
            if tensor.shape != tuple(shape):
                raise ValueError(f"{name}: announced as {shape}, given as {tensor.shape}")
            stream.write(tensor.tobytes())
