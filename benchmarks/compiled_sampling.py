"""What choosing the next token costs on a TPU that is not here. Needs libtpu, no TPU.

    python benchmarks/compiled_sampling.py --chips v6e:1 v5p:4 --slots 64 256

Compiles `generation.sampling.choose` for one chip of each slice, with logits of so many slots over a
vocabulary of Qwen's size, once for each way of sampling (greedy, plain temperature, filtered: as usual, when
the blocks with the largest logits hold all that may be drawn, and with one round of up to 8 slots through all
tokens, as most steps have where some slot's blocks do not hold them). Printed are
the bytes it moves through HBM with the time these take at the chip's rate, the clock cycles that the compiler
expects (sorts, which it does not say, by the exchanges of a bitonic network), the sorts themselves, and the
instructions that take longest. A decode step of Qwen3-8B reads 16 GB of weights: 10 ms on v6e, 6 ms on v5p.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.generation import sampling
from jax_sft.generation.sampling import SlotSampling, choose
from jax_sft.planning.hlo.cost import cost_of
from jax_sft.planning.hlo.cycles import estimated_cycles
from jax_sft.planning.hlo.parse import Module, parse
from jax_sft.planning.topologies import Topology, parse_topology

VOCABULARY = 151_936
GREEDY = SlotSampling(**dict.fromkeys(SlotSampling._fields, 0.0) | {"top_p_B": 1.0})
WAYS = {
    "greedy": GREEDY,
    "temperature": GREEDY._replace(temperature_B=0.6),
    "filtered, as usual": None,
    "filtered, through all tokens": None,
}
"""Settings known when compiling, so that only what they need is compiled; None for those of each slot."""


def compile_for(topology: Topology, function: Callable[..., Any], arguments: Any) -> Any:
    """`function` compiled for one device of a slice."""
    device = topologies.get_topology_desc(**topology.description).devices[0]
    everywhere = NamedSharding(Mesh([device], ("device",)), P())

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    return jax.jit(function).lower(*jax.tree.map(placed, arguments)).compile()


def arguments_of(slots: int) -> tuple[Any, ...]:
    """Abstract arguments of `choose`."""

    def make() -> tuple[Any, ...]:
        floats_B, integers_B = jnp.zeros(slots), jnp.zeros(slots, jnp.int32)
        settings = {name: integers_B if name == "top_k_B" else floats_B for name in SlotSampling._fields}
        logits_BV, keys_B2 = jnp.zeros((slots, VOCABULARY)), jnp.zeros((slots, 2), jnp.uint32)
        return logits_BV, keys_B2, integers_B, SlotSampling(**settings)

    return jax.eval_shape(make)


def with_settings(settings: SlotSampling | None) -> Callable[..., Any]:
    """`choose`, with the settings of all slots given."""
    if settings is None:
        return lambda *arguments: choose(*arguments)  # a function of its own: jax keeps what it traced

    def choose_so(logits_BV: jax.Array, keys_B2: jax.Array, count_B: jax.Array, _: SlotSampling) -> jax.Array:
        slots = SlotSampling(
            *(
                jnp.full(count_B.shape, value, jnp.int32 if name == "top_k_B" else jnp.float32)
                for name, value in settings._asdict().items()
            )
        )
        return choose(logits_BV, keys_B2, count_B, slots)

    return choose_so


def proven(values_BGN: jax.Array, settings: SlotSampling) -> jax.Array:
    """The threshold where the blocks with the largest logits hold it."""
    most_B = values_BGN.max(axis=(1, 2))
    total_B = jnp.exp(values_BGN - most_B[:, None, None]).sum(axis=(1, 2))
    return sampling.among_candidates(values_BGN, total_B, settings)[0]


def longest(module: Module, most: int) -> list[str]:
    """The instructions with most cycles, each with its share of a million."""
    found = [
        (estimated_cycles(each), each.name, each.op_name.rpartition("/")[2])
        for computation in module.computations.values()
        for each in computation
    ]
    return [
        f"{cycles / 1e6:.2f}M {name} ({where})" for cycles, name, where in sorted(found)[: -most - 1 : -1]
    ]


def line(topology: Topology, slots: int, way: str, most: int) -> None:
    """One line, and those of what takes longest."""
    started = time.perf_counter()
    with mock.patch.object(sampling, "threshold", proven if "usual" in way else sampling.threshold):
        module = parse(compile_for(topology, with_settings(WAYS[way]), arguments_of(slots)).as_text())
    seconds = time.perf_counter() - started
    cost, chip = cost_of(module).total(), topology.chip
    sorts = sum(each.op == "sort" for computation in module.computations.values() for each in computation)
    print(
        f"| {chip.name} | {slots} | {way} | {cost.hbm_bytes / 1e6:,.0f} MB | "
        f"{cost.hbm_bytes / chip.hbm_bandwidth * 1e3:.2f} ms | {cost.cycles / 1e6:.2f} M | "
        f"{cost.cycles / chip.clock * 1e3:.2f} ms | {sorts} | {seconds:.0f} s |",
        flush=True,
    )
    for each in longest(module, most):
        print(f"    {each}")


def main() -> None:
    """Parse, then print line after line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chips", nargs="+", default=["v6e:1", "v5p:4"])
    parser.add_argument("--slots", nargs="+", type=int, default=[64])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--longest", type=int, default=0, help="instructions shown of each program")
    flags = parser.parse_args()
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1", TPU_ACCELERATOR_TYPE="")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    print("| chip | slots | sampling | HBM | at its rate | cycles | at the clock | sorts | compiled in |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for chips in flags.chips:
        for slots in flags.slots:
            for way in flags.ways:
                line(parse_topology(chips), slots, way, flags.longest)


if __name__ == "__main__":
    main()
