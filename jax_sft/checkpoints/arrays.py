"""The arrays of a save, as Orbax writes and reads them: each chunk uncompressed, followed by its CRC-32C.

TensorStore makes the checksum as it writes a chunk and compares it as it reads one, on the processes that
need the chunk: a changed byte is an error of the load, and nothing is read for the checksum's sake. Orbax
offers no choice of codecs; the one function in which it names them is wrapped here. Saves that do not ask
with CHECKED, those of a program that uses this one as a library, are laid out as ever.
"""

import asyncio
from collections.abc import Callable, Iterator
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from etils.epath.gpath import PosixGPath
from orbax.checkpoint._src.serialization import tensorstore_utils


class _Codec(IntEnum):
    """What is given to Orbax for `use_compression`: not compressed, but checked."""

    CHECKED = 0


@cache
def _enable_checked_chunks() -> None:
    """Have Orbax understand CHECKED, from the first call on."""
    described: Callable[..., dict[str, Any]] = tensorstore_utils._build_zarr3_metadata

    def describe(global_shape: Any, chunk_shape: Any, use_compression: Any) -> dict[str, Any]:
        if use_compression is not _Codec.CHECKED:
            return described(global_shape, chunk_shape, use_compression)
        return {
            "shape": global_shape,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        }

    tensorstore_utils._build_zarr3_metadata = describe


class _Literal(PosixGPath):
    """A folder in whose own name no character stands for others, as Orbax would take it."""

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        """What in this folder is named like the pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))


class Arrays:
    """Writes and reads trees of arrays in folders; with several processes, each its own part of them."""

    def __init__(self) -> None:
        _enable_checked_chunks()
        handlers = ocp.type_handlers
        types = handlers.create_type_handler_registry(
            (jax.Array, handlers.ArrayHandler(enable_write_sharding_file=False)),
            (np.ndarray, handlers.NumpyHandler()),
        )
        self._handler = ocp.PyTreeCheckpointHandler(
            # Compressed, bfloat16 weights are a fifth smaller and take three times the processor to write.
            use_compression=_Codec.CHECKED,
            use_zarr3=True,
            type_handler_registry=types,
        )

    def start(self, folder: epath.Path, tree: Any) -> Callable[[], None]:
        """Start writing `tree`, and return when it is copied; what is returned waits for the end of that."""
        saving = self._handler.async_save(_Literal(folder), args=ocp.args.PyTreeSave(tree))
        parts = asyncio.run(saving) or []

        def wait() -> None:
            errors = []
            for part in parts:
                try:
                    part.result()
                except Exception as error:
                    errors.append(error)
            if errors:
                raise errors[0]

        return wait

    def finish(self, folder: epath.Path) -> None:
        """Make one tree of what all processes have written; for process 0."""
        self._handler.finalize(_Literal(folder))

    def read(self, folder: epath.Path, target: Any) -> Any:
        """The tree in `folder`, in the shapes, types and shardings of the abstract `target`.

        What has no sharding there is read as numpy arrays. ValueError when shapes differ.
        """
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
        tree = self._handler.restore(
            _Literal(folder), args=ocp.args.PyTreeRestore(item=target, restore_args=restore_args)
        )
        wanted = jax.tree_util.tree_leaves_with_path(target)
        for (path, leaf), found in zip(wanted, jax.tree.leaves(tree), strict=True):
            if found.shape != leaf.shape:  # Orbax looks at those of jax arrays alone
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise ValueError(f"{name} is {list(found.shape)}, not {list(leaf.shape)}")
        return tree
