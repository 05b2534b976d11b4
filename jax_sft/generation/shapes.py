"""What an engine is compiled for, from the settings of an evaluation and the platform. Host only, no jax."""

from jax_sft.config import EvaluationConfig
from jax_sft.errors import UsageError
from jax_sft.generation.shards import Shape

CPU_SLOTS = 32
"""More sequences at once are hardly faster on a CPU: its products take as long for each."""
CPU_PREFILL = 128
"""Prompt tokens at once, for the same reason."""
TABLE_BYTES = (1 << 20) - (1 << 15)
"""Most of the page table of a TPU's slots: the kernel reads it from the 1 MiB of scalar memory."""


def shape_of(evaluation: EvaluationConfig, platform: str, shards: int, units: int) -> Shape:
    """Slots, rows and pages, filled up so that `shards` devices share them equally.

    Args:
        evaluation: what is asked for.
        platform: `cpu`, `gpu` or `tpu`; on a CPU there are fewer slots and rows than asked, if many are.
        shards: devices that share the slots.
        units: of how many pages the memory of a device has a multiple; so many parts of it are read, or not,
            as a whole.

    UsageError when the memory does not hold a single context, or a TPU not the page table of so many slots.
    """
    slots, rows = evaluation.slots, evaluation.prefill_rows
    page = evaluation.page_size or page_size(platform, evaluation.context)
    chunk = evaluation.prefill_chunk or max(page, 64 if platform == "cpu" else 256)
    if chunk % page:
        raise UsageError(
            f"evaluation.prefill_chunk {chunk} is not a multiple of evaluation.page_size {page}; make it one"
        )
    if platform == "cpu":
        slots, rows = min(slots, CPU_SLOTS * shards), min(rows, max(CPU_PREFILL // chunk, 1) * shards)
    # Devices that share weights part the slots among them to choose tokens.
    slots, rows = fill_ways(slots, shards * evaluation.tensor), fill_ways(rows, shards)
    columns = -(-evaluation.context // page)
    pages = fill_ways(evaluation.pages or slots * columns, shards * units)
    if 0 < evaluation.pages < columns * shards:
        raise UsageError(
            f"evaluation.pages {evaluation.pages} of {page} positions do not hold a context of "
            f"{evaluation.context} on each of {shards} devices; raise it to {columns * shards}"
        )
    if platform == "tpu" and slots // shards > (most := most_slots(columns)):
        raise UsageError(
            f"evaluation.slots {slots}: a TPU's scalar memory has room for the page table of {most} slots of "
            f"{columns} pages; lower it to {most * shards}, or raise evaluation.page_size above {page}"
        )
    part = pages // (shards * units) if platform == "cpu" and units > 1 else 0
    return Shape(slots, pages, page, evaluation.context, evaluation.chunk, rows, chunk, shards, part)


def most_slots(columns: int) -> int:
    """Slots of a TPU whose sequences have so many pages each."""
    return TABLE_BYTES // (4 * columns)


def page_size(platform: str, context: int) -> int:
    """Positions of a page, if nobody asks for another.

    On a CPU a sequence has about eight pages: each costs a row of every small operation. On a TPU a page is
    what the kernel reads at once.
    """
    if platform != "cpu":
        return 128
    size = 16
    while size < 256 and 8 * size < context:
        size *= 2
    return size


def fill_ways(count: int, ways: int) -> int:
    """The least number of slots or rows, at least `count`, that `ways` devices share equally."""
    return -(-count // ways) * ways
