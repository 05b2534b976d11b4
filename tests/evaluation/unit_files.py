"""A unit with ten completions on disk, for the tests of what may happen to it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath

from jax_sft.evaluation.completions import CompletionsFile
from jax_sft.study.records import CompletionLine, Key, UnitRecord

SETTINGS: dict[str, int | float | str] = {"temperature": 0.7, "seed": 0}
RECORD = UnitRecord(
    "a",
    20,
    "game",
    "trained",
    "snapshot",
    "template",
    SETTINGS,
    {f"item {n}": f"prompt {n}" for n in range(5)},
)
EXPECTED: list[Key] = [(f"item {n}", sample) for n in range(5) for sample in range(2)]


def line(key: Key) -> CompletionLine:
    return CompletionLine(*key, f"text of {key}\n\u2028 « »", 3, "stop")


def row(key: Key) -> dict[str, Any]:
    return line(key).fields


def opened(root: Path, samples: int = 2, said: list[str] | None = None, **changes: Any) -> CompletionsFile:
    """The unit in `root`/unit; what is set aside goes to `root`/aside."""
    record, said = replace(RECORD, **changes), [] if said is None else said
    return CompletionsFile(
        epath.Path(root / "unit"), epath.Path(root / "aside"), record, samples, said.append
    )


def aside(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "aside").iterdir()) if (root / "aside").exists() else []


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def parts(root: Path) -> list[Path]:
    return sorted((root / "unit" / "parts").iterdir())


def finish(folder: Path) -> None:
    """Draw what is missing, last first, and check the final file."""
    file = opened(folder)
    for key in reversed(file.missing()):
        file.add(line(key))
    assert rows_of(folder / "unit" / "completions.jsonl") == [row(key) for key in EXPECTED]
    assert sorted(path.name for path in (folder / "unit").iterdir()) == ["completions.jsonl", "unit.json"]
    said: list[str] = []
    assert opened(folder, said=said).missing() == []
    assert said == []
