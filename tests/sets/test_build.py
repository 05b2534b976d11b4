"""Built sets: written and read back without TensorFlow, in order, by the recipe."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import DataConfig
from jax_sft.data.sources import load_rows
from jax_sft.data.transforms import query
from jax_sft.errors import UsageError
from jax_sft.options import BuildOptions
from jax_sft.sets.build import build
from jax_sft.tasks.rows import Row


def write_pool(folder: Path, teacher: str, queries: range) -> str:
    rows = [
        {
            "id": f"{teacher}{q}-{i}",
            "prompt": f"q{q}",
            "response": f"<think>{teacher} thinks</think>\n\\boxed{{{i}}}",
            "correct": i != 1,
        }
        for q in queries
        for i in range(3)
    ]
    (folder / f"{teacher}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"{teacher}.jsonl"


def read(folder: Path) -> list[Row]:
    return load_rows(DataConfig(source=str(folder)), 0)


def test_math_sets_share_their_queries(tmp_path: Path) -> None:
    root, out = str(tmp_path), tmp_path / "sets"
    pool = write_pool(tmp_path, "a", range(12))
    cot = read(build("math_cot", out, BuildOptions(pool, rows=8, seed=1, data_root=root)))
    nocot = read(build("math_nocot", out, BuildOptions(pool, rows=8, seed=1, data_root=root)))
    small = read(build("math_cot_small", out, BuildOptions(pool, rows=3, seed=1, data_root=root)))
    assert len(cot) == len(set(map(query, cot))) == 8
    assert all(row.correct for row in cot)
    assert [row.id for row in nocot] == [row.id for row in cot]
    assert all(one.response.endswith(other.response) for one, other in zip(cot, nocot, strict=True))
    assert not any("think" in row.response for row in nocot)
    assert [row for row in cot if row in small] == small
    assert [int(query(row)[7:]) for row in cot] == sorted(int(query(row)[7:]) for row in cot), "source order"
    other = write_pool(tmp_path, "b", range(11, 2, -1))
    matching = str(out / "math_cot" / "1.0.0")
    r1 = read(build("deepseek_r1", out, BuildOptions(str(tmp_path / other), matching=matching)))
    assert [query(row) for row in r1] == [query(row) for row in cot if int(query(row)[7:]) > 2]
    statistics = json.loads((out / "math_cot" / "1.0.0" / "metadata.json").read_text())["statistics"]
    assert (statistics["rows"], statistics["with_trace"]) == (8, 1.0)


def test_never_imports_tensorflow(tmp_path: Path) -> None:
    program = f"""
import sys
import tensorflow_datasets as tfds
from jax_sft.options import BuildOptions
from jax_sft.sets.build import build
build("countdown_cot", {str(tmp_path)!r}, BuildOptions(rows=20))
rows = tfds.data_source("countdown_cot", data_dir={str(tmp_path)!r}, split="train")
assert len(rows) == 20 and b"<think>" in rows[19]["response"]
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)


def test_bad_requests(tmp_path: Path) -> None:
    pool, root = write_pool(tmp_path, "a", range(4)), str(tmp_path)
    bad: tuple[tuple[dict[str, Any], str], ...] = (
        ({"name": "maths"}, "set 'maths' is not one of countdown_cot"),
        ({"name": "math_cot"}, "name it as the source"),
        ({"name": "numina_math", "source": pool}, "name that set as matching"),
        ({"name": "math_cot", "source": pool}, "subset asks for 20480 rows, there are 4"),
    )
    for arguments, message in bad:
        with pytest.raises(UsageError, match=message):
            build(arguments.pop("name"), tmp_path / "sets", BuildOptions(data_root=root, **arguments))
    build("math_cot", tmp_path / "sets", BuildOptions(pool, rows=2, data_root=root))
    with pytest.raises(UsageError, match="exists already; remove it"):
        build("math_cot", tmp_path / "sets", BuildOptions(pool, rows=2, data_root=root))
