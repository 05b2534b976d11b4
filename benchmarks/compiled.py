"""The train step compiled for TPUs that are not here: memory, collectives, roofline. Needs libtpu, no TPU.

    python benchmarks/compiled.py step --model qwen3-14b --remat full save_qkv     # one row a chip
    python benchmarks/compiled.py table --models qwen3-8b --chips v5e:16 v6e:32    # the fastest that fits

`step` compiles one row of `--row-length` tokens a chip and prints GiB per chip and micro-batch: the peak,
and the results of gathers and reductions. `table` searches remat, rows of a micro-batch and parallelism for
a batch of 256 full rows of 20,480 tokens, each of four examples, with float32 weights and moments. The time
that counts in a search is halfway between all parts of the machine overlapping and none. What was compiled
before is taken from the cache.
"""

import argparse

import jax

from jax_sft.config import DataConfig, OptimizerMemory, Remat, Run, SnapshotConfig
from jax_sft.models.families import PRESETS
from jax_sft.planning.compiling import compile_facts
from jax_sft.planning.costing import Settings, TrainPlan
from jax_sft.planning.programs import train_program
from jax_sft.planning.search import search
from jax_sft.planning.topologies import Topology, parse_topology
from jax_sft.planning.workload import Workload, workload

GIB = 2**30
BATCH, ROW_LENGTH, EXAMPLES = 256, 20_480, 4


def step(
    model: str, remat: Remat, optimizer_memory: OptimizerMemory, topology: Topology, row_length: int
) -> None:
    """One line: peak, all-gathers and all-reduces of one micro-batch."""
    data = DataConfig(rows_per_micro_batch=topology.devices)
    run = Run(model=PRESETS[model], remat=remat, optimizer_memory=optimizer_memory, data=data)
    program = train_program(run, topology, row_length, 4)
    facts = compile_facts(program)
    told = f"| {model}, {remat} | {facts.peak / GIB:.1f} |"
    if facts.cost is not None:
        total = facts.cost.total((1, -(-row_length // 2048)))
        moved = " | ".join(f"{total.bytes_of(kind) / GIB:.1f}" for kind in ("all-gather", "all-reduce"))
        told += f" {moved} | {facts.seconds:.0f} s"
    print(told, flush=True)


def table(
    model: str, optimizer_memory: OptimizerMemory, topology: Topology, most: int, hbm_share: float
) -> None:
    """One line: the settings with the least bound that fit."""
    run = Run(
        name=model,
        model=PRESETS[model],
        remat="full",
        optimizer_memory=optimizer_memory,
        data=DataConfig(rows=20_480, batch_size=BATCH * EXAMPLES, row_length=ROW_LENGTH),
        snapshots=SnapshotConfig("last"),
    )

    def work_of(changed: Run) -> Workload:
        return workload(changed, None, 0, ROW_LENGTH // EXAMPLES)

    best, tried = search(run, work_of, topology, Settings(hbm_share=hbm_share), most)
    head = f"| {model} | {topology.label} ({topology.slice_name}) |"
    if best is None:
        print(f"{head} does not fit | | | | {len(tried)} tried |", flush=True)
        return
    print(f"{head} {_line(best, topology)} |", flush=True)


def _line(best: TrainPlan, topology: Topology) -> str:
    peak = best.widest.peak
    axes = " x ".join(f"{axis} {size}" for axis, size in best.mesh.items() if size > 1)
    rows = best.run.data.rows_per_micro_batch
    moved = best.main.ici_bytes / GIB
    return (
        f"{peak / GIB:.1f} GiB ({1 - peak / topology.hbm_bytes:.0%} free) | {best.mfu:.0%} | "
        f"{best.bound:.1f}-{best.serial:.1f} s, {best.main.limit} | {moved:.0f} GiB | "
        f"{best.run.remat}, {axes}, {rows} rows"
    )


def main() -> None:
    """Parse, then print line after line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("step")
    one.add_argument("--model", default="qwen3-14b", choices=PRESETS)
    one.add_argument("--remat", nargs="+", default=["full"])
    one.add_argument("--chips", default="v5p:64")
    one.add_argument("--row-length", type=int, default=16_384)
    many = kinds.add_parser("table")
    many.add_argument("--models", nargs="+", default=["qwen3-14b"])
    many.add_argument("--chips", nargs="+", default=["v5p:64"])
    many.add_argument("--most", type=int, default=3, help="settings compiled for each line")
    many.add_argument("--hbm-share", type=float, default=0.92)
    for each in (one, many):
        each.add_argument("--optimizer-memory", default="device", choices=("device", "host"))
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    if flags.kind == "step":
        for remat in flags.remat:
            topology = parse_topology(flags.chips)
            step(flags.model, remat, flags.optimizer_memory, topology, flags.row_length)
        return
    for model in flags.models:
        for chips in flags.chips:
            table(model, flags.optimizer_memory, parse_topology(chips), flags.most, flags.hbm_share)


if __name__ == "__main__":
    main()
