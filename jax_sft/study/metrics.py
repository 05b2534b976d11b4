"""What each step of a run reported, as it lies on disk.

metrics.jsonl holds a line a step. Where files cannot be appended to (gs://), what is new lies beside it in
parts, each named after its first step, until training ends and the file is written whole.
"""

from typing import Any

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import list_files, read_jsonl, remove_folder, write_jsonl
from jax_sft.study.folder import metrics_file, metrics_parts

Line = dict[str, Any]


def read_metrics(folder: epath.PathLike) -> list[Line]:
    """The lines of the run in `folder`, one a step, by step; none when it reported nothing.

    A last line that an interruption cut off does not count. UsageError with file and line for any other that
    is malformed.
    """
    lines: dict[int, Line] = {}
    for path in (metrics_file(folder), *_parts(folder)):
        for number, line in enumerate(read_jsonl(path, ended=True, missing_ok=True), start=1):
            if not isinstance(line.get("step"), int):
                raise UsageError(f"{path}, line {number}: has no step")
            lines[line["step"]] = line
    return [lines[step] for step in sorted(lines)]


def write_metrics(folder: epath.PathLike, lines: list[Line]) -> None:
    """Write all lines of a run into its one file."""
    write_jsonl(metrics_file(folder), lines)
    if list_files(metrics_parts(folder)):
        remove_folder(metrics_parts(folder))


def write_part(folder: epath.PathLike, lines: list[Line]) -> None:
    """Write lines that the run's file does not hold yet."""
    write_jsonl(metrics_parts(folder) / f"{lines[0]['step']:08d}.jsonl", lines)


def _parts(folder: epath.PathLike) -> list[epath.Path]:
    return [metrics_parts(folder) / name for name in sorted(list_files(metrics_parts(folder)))]
