"""Decode and prefill compiled for TPUs that are not here: what fits, what moves, tokens/s. Needs libtpu.

    python benchmarks/compiled_decode.py --cases qwen3-8b:v6e:1:1 qwen3-14b:v5p:4:4 --kv same int8

A case is MODEL:CHIP:CHIPS:TENSOR. Sequences of 8,192 and of 32,768 positions are those that fit beside the
weights in `--hbm-share` of the memory. Then as many are decoded as fit when each has half of the shorter
length, its mean while it grows, and whose page table has room: bytes that a device moves for a token of each,
the share that is weights or alive, the least time (memory, products, links and elementwise work side by side)
and that with nothing overlapping, as tokens a second and chip; and a prefill of 8 chunks of 256 tokens. What
was compiled before is taken from the cache.
"""

import argparse
from dataclasses import replace

import jax

from jax_sft.config import EvaluationConfig, Run
from jax_sft.generation.shapes import most_slots
from jax_sft.models.families import PRESETS
from jax_sft.models.size import model_size
from jax_sft.planning.costing import Settings
from jax_sft.planning.expected import SweepWorkload
from jax_sft.planning.sweeping import Attention, SweepPlan, plan_sweep
from jax_sft.planning.topologies import Topology, parse_topology

GIB = 2**30
SHORT, LONG, PAGE = 8192, 32_768, 128
TEMPORARIES = 0.7 * GIB
"""Left beside weights and pages before anything is compiled."""


def evaluation_of(
    run: Run, topology: Topology, asked: EvaluationConfig, hbm_share: float
) -> EvaluationConfig:
    """With as many slots and pages as fit."""
    weights = model_size(run.model).total * (1 if asked.weight_dtype == "int8" else 2) / asked.tensor
    room = hbm_share * topology.hbm_bytes - weights - TEMPORARIES
    pages = int(room / (Attention(run.model, asked, PAGE).position_bytes() * PAGE))
    shards = topology.devices // asked.tensor
    slots = min(max(pages * PAGE // (SHORT // 2), 1), most_slots(LONG // PAGE))
    return replace(asked, pages=max(pages, LONG // PAGE) * shards, slots=slots * shards)


def line(case: str, asked: EvaluationConfig, hbm_share: float) -> None:
    """One line of the table."""
    model, chip, chips, tensor = case.split(":")
    topology, run = parse_topology(f"{chip}:{chips}"), Run(model=PRESETS[model])
    evaluation = evaluation_of(run, topology, replace(asked, tensor=int(tensor)), hbm_share)
    tokens = float(evaluation.slots * SHORT)
    work = SweepWorkload(evaluation.slots, evaluation.slots, tokens, live=SHORT / 2 - PAGE / 2)
    plan = plan_sweep(run, evaluation, work, topology, Settings(hbm_share=hbm_share))
    assert plan is not None
    print(_cells(case, evaluation, topology, plan), flush=True)


def _cells(case: str, evaluation: EvaluationConfig, topology: Topology, plan: SweepPlan) -> str:
    slow, fast = (rate / topology.chips for rate in plan.tokens_per_second)
    positions, decode = evaluation.pages * PAGE, plan.decode
    prompts = plan.prefill_tokens / topology.chips
    cells = [
        case,
        f"{evaluation.kv_dtype}/{evaluation.weight_dtype}",
        f"{plan.facts.peak / GIB:.1f} GiB",
        f"{positions // SHORT} / {positions // LONG}",
        f"{decode.hbm_bytes / 1e9:.1f} GB",
        f"{plan.useful:.0%}",
        f"{decode.bound * 1e3:.1f}-{decode.serial * 1e3:.1f} ms ({decode.limit})",
        f"{decode.elementwise_seconds * 1e3:.1f} ms",
        f"{slow:,.0f}-{fast:,.0f}",
        f"{prompts / plan.prefill.serial:,.0f}-{prompts / plan.prefill.bound:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Parse, then print line after line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=["qwen3-8b:v6e:1:1"])
    parser.add_argument("--kv", nargs="+", default=["same", "int8"])
    parser.add_argument("--weights", default="same", choices=("same", "int8"))
    parser.add_argument("--hbm-share", type=float, default=0.92)
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    for case in flags.cases:
        for kv in flags.kv:
            asked = EvaluationConfig(context=LONG, page_size=PAGE, kv_dtype=kv, weight_dtype=flags.weights)
            line(case, asked, flags.hbm_share)


if __name__ == "__main__":
    main()
