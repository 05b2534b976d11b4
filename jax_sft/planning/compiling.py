"""Compiling a program for a TPU that is not there, in a process of its own with a time limit.

libtpu brings the compiler; it needs no TPU. The facts that come back are kept by the hash of what was
compiled.
"""

import importlib.util
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jax_sft.errors import JaxSftError, UsageError
from jax_sft.machine import run_apart
from jax_sft.options import TIMEOUT
from jax_sft.planning.hlo import Cost
from jax_sft.planning.programs import Program

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "",
}
"""The compiler must not look for a TPU of this machine, nor for the cloud's metadata server."""


@dataclass(frozen=True)
class Facts:
    """What compiling a program told. Bytes are per device."""

    fits: bool
    """Whether the compiler found room for it at all."""
    memory: Mapping[str, float]
    """By kind: parameters, optimizer (or cache), arguments, temporaries, peak, …; or `needed`."""
    cost: Cost | None
    """Loops not yet expanded; None when it does not fit."""
    seconds: float
    """That lowering and compiling took when it was done."""
    cached: bool

    @property
    def peak(self) -> float:
        """Most bytes in use at once on a device."""
        return self.memory["peak" if self.fits else "needed"]


KNOWN: dict[tuple[str, str], Facts] = {}
"""What this process asked before, by program and cache: finding it on disk takes tracing it again."""


def cache_folder() -> Path:
    """Where facts are kept unless told otherwise: `$XDG_CACHE_HOME/jax_sft/plans`, by default in ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "jax_sft" / "plans"


def compile_facts(
    program: Program,
    cache: Path | None = None,
    timeout: float = TIMEOUT,
    options: Mapping[str, str] | None = None,
) -> Facts:
    """Compile `program`, or find it compiled. `timeout` is in seconds, `options` are the compiler's own.

    UsageError when it cannot be compiled as configured (mesh, batch and model do not fit one another) or
    libtpu is not installed; JaxSftError when the compiler fails or takes too long.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            "libtpu, whose compiler makes the plan, is not installed: pip install 'jax_sft[plan]'"
        )
    asked = json.dumps({"program": program.to_json(), "options": dict(options or {})})
    place = str(cache or cache_folder())
    if known := KNOWN.get((asked, place)):
        return replace(known, cached=True)
    with tempfile.TemporaryDirectory(prefix="jax_sft_plan_") as folder:
        request, result = Path(folder) / "request.json", Path(folder) / "result.json"
        request.write_text(asked)
        _run(program, [str(request), str(result), place], timeout)
        answer = json.loads(result.read_text())
    if "error" in answer:
        kind = UsageError if answer["exit_code"] == UsageError.exit_code else JaxSftError
        raise kind(f"{program.topology.label}: {answer['error']}")
    KNOWN[asked, place] = _facts(answer, program)
    return KNOWN[asked, place]


def _facts(answer: dict[str, Any], program: Program) -> Facts:
    memory = answer["memory"]
    if answer["fits"]:
        # A peak with what is offloaded in it may be more than a device has, but was found room for.
        memory = memory | {"peak": min(memory["peak"], program.topology.hbm_bytes)}
    return Facts(
        fits=answer["fits"],
        memory=memory,
        cost=Cost.from_json(answer["cost"]) if answer["fits"] else None,
        seconds=answer["lower_seconds"] + answer["compile_seconds"],
        cached=answer["cached"],
    )


def _run(program: Program, arguments: list[str], timeout: float) -> None:
    """Run the worker to its end, or end it and all that it started."""
    at = program.topology.label
    try:
        ended = run_apart("jax_sft.planning.worker", arguments, ENVIRONMENT, timeout=timeout)
    except TimeoutError as error:
        raise JaxSftError(f"{at}: compiling the {program.kind} program {error}; raise --timeout") from None
    if ended.code:
        raise JaxSftError(
            f"{at}: the compiler of the {program.kind} program ended with code {ended.code}: "
            f"{ended.last_words}"
        )
