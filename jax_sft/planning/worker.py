"""Compiles one program with libtpu's compiler and writes what came of it: `python -m … REQUEST RESULT CACHE`.

A process of its own, because the compiler may hang, crash or take much memory, and is stopped with it.
"""

import hashlib
import json
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jax.experimental import topologies

from jax_sft.errors import JaxSftError
from jax_sft.files import write_json
from jax_sft.planning.hlo import cost_of
from jax_sft.planning.programs import Program, lower, mesh_of
from jax_sft.training.step import TPU_OPTIONS

FORMAT = 5
"""Raised when the facts that are kept change."""
_SIZE = r"([\d.]+)([KMGT])"
_OUT_OF_MEMORY = (rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)", rf"Used {_SIZE} of {_SIZE} hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def main() -> None:
    """Read the request, write the result: the facts, or {"error": …, "usage": bool}."""
    request, result, cache = (Path(argument) for argument in sys.argv[1:4])
    program = json.loads(request.read_text())
    try:
        answer = compile_program(Program.from_json(program["program"]), program["options"], cache)
    except JaxSftError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    write_json(result, answer)


def compile_program(program: Program, options: dict[str, str], cache: Path) -> dict[str, Any]:
    """The facts of a program, from the cache when the very same was compiled before.

    It is found by a hash of its lowered text, the compiler's options and the compiler's version.
    """
    description = topologies.get_topology_desc(**program.topology.description)
    mesh = mesh_of(program, list(description.devices))
    started = time.perf_counter()
    lowered, given = lower(program, mesh)
    text = lowered.as_text()
    named = json.dumps([FORMAT, version("libtpu"), TPU_OPTIONS, options, program.topology.label, text])
    key = hashlib.sha256(named.encode()).hexdigest()[:32]
    stored = cache / f"{key}.json"
    if stored.exists():
        return json.loads(stored.read_text()) | {"cached": True}
    facts = {
        "program": program.to_json(),
        "libtpu": version("libtpu"),
        "jax": version("jax"),
        "options": options,
        "lower_seconds": time.perf_counter() - started,
        **_compile(program, lowered, given, options),
    }
    cache.mkdir(parents=True, exist_ok=True)
    write_json(stored, facts)
    return facts | {"cached": False}


def out_of_memory(message: str) -> tuple[float, float] | None:
    """Bytes needed and available, if that is what the compiler's message is about."""
    for pattern in _OUT_OF_MEMORY:
        if found := re.search(pattern, message):
            needed, available = (float(found[at]) * _UNITS[found[at + 1]] for at in (1, 3))
            return needed, available
    return None


def _compile(
    program: Program, lowered: Any, given: dict[str, int], options: dict[str, str]
) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=options or None)
    except Exception as error:
        if (sizes := out_of_memory(str(error))) is None:
            raise JaxSftError(f"the compiler failed: {str(error).splitlines()[0][:300]}") from None
        memory = {**given, "needed": sizes[0], "available": sizes[1]}
        return {"fits": False, "memory": memory, "compile_seconds": time.perf_counter() - started}
    seconds = time.perf_counter() - started
    stats = compiled.memory_analysis()
    text = compiled.as_text()
    per_slice = program.topology.devices // program.topology.slices
    return {
        "fits": True,
        "memory": {
            **given,
            "arguments": stats.argument_size_in_bytes,
            "outputs": stats.output_size_in_bytes,
            "aliased": stats.alias_size_in_bytes,
            "temporaries": stats.temp_size_in_bytes,
            "code": stats.generated_code_size_in_bytes,
            # The compiler's peak is of both memories. Arguments in the host's are there all the time; of
            # what is offloaded that is not known, so it counts as if it stayed on the device.
            "peak": stats.peak_memory_in_bytes - stats.host_argument_size_in_bytes,
            "host": stats.host_temp_size_in_bytes + stats.host_argument_size_in_bytes,
        },
        "compile_seconds": seconds,
        "hlo_characters": len(text),
        "cost": cost_of(text, per_slice, program.topology.slices).to_json(),
    }


if __name__ == "__main__":
    main()
