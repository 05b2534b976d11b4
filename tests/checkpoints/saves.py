"""Small trees to save, and damage to what was saved."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def tree(seed: int) -> dict[str, Any]:
    """A few parameters that do not compress."""
    a, b = jax.random.split(jax.random.key(seed))
    return {"layers": {"kernel": jax.random.normal(a, (64, 300))}, "scale": jax.random.normal(b, (5,))}


TARGET = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), jax.tree.map(jnp.asarray, tree(0))
)


def assert_same(got: Any, want: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), got, want)


def largest_file(save: Path) -> Path:
    return max((path for path in save.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_byte(save: Path) -> None:
    path = largest_file(save)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forget_checksums(save: Path) -> None:
    """As if every file were too large for its checksum to be in the list."""
    listing = json.loads((save / "files.json").read_text())
    listing["files"] = {name: [size, None] for name, (size, _) in listing["files"].items()}
    (save / "files.json").write_text(json.dumps(listing))
