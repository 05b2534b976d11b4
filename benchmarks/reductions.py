"""How TPU's compiler sums the gradient of one weight over a slice, by how it is asked. Needs libtpu, no TPU.

    python benchmarks/reductions.py --chips v5p:64

Each device has its own tokens and ends with its own rows of the sum over all devices. Shown are the
collectives that come out, with the algorithm the compiler names: `colors` is the number of parts that travel
at once, each along other links. Received is by the ring algorithms: a reduction that leaves every device with
the whole sum takes twice what one takes that leaves it a part.
"""

import argparse
import os
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.chips import GIB
from jax_sft.config import ParallelismConfig
from jax_sft.planning.hlo import Traffic
from jax_sft.planning.roofline import received_bytes
from jax_sft.planning.topologies import parse_topology
from jax_sft.sharding import make_mesh
from jax_sft.training.step import TPU_OPTIONS

TOKENS, D, F = 2048, 5120, 17_408
"""Tokens of a device, and an MLP weight of Qwen3-14B."""


def scattered(x_BTD: jax.Array, y_BTF: jax.Array, stages: tuple[int, ...]) -> jax.Array:
    """This device's rows of the sum of x^T y, in so many stages, each over groups of that size."""
    w_DF = jnp.einsum("btd,btf->df", x_BTD, y_BTF)
    places = np.arange(np.prod(stages)).reshape(stages)
    for stage, size in enumerate(stages):
        groups = np.moveaxis(places, stage, -1).reshape(-1, size).tolist()
        w_DF = jax.lax.psum_scatter(w_DF, "fsdp", axis_index_groups=groups, tiled=True)
    return w_DF


def told(mesh: Mesh, stages: tuple[int, ...] | None) -> None:
    """One line: how the sum was asked for, and what came out."""
    rows = P("fsdp", None, None)
    if stages is None:
        own = NamedSharding(mesh, P("fsdp"))

        def program(x: jax.Array, y: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(jnp.einsum("btd,btf->df", x, y), own)
    else:
        program = jax.shard_map(
            partial(scattered, stages=stages),
            mesh=mesh,
            in_specs=(rows, rows),
            out_specs=P("fsdp"),
            check_vma=False,
        )
    x, y = (
        jax.ShapeDtypeStruct((mesh.size, TOKENS, width), jnp.bfloat16, sharding=NamedSharding(mesh, rows))
        for width in (D, F)
    )
    text = jax.jit(program).lower(x, y).compile(compiler_options=TPU_OPTIONS).as_text()
    kinds = re.findall(r" (all-reduce|reduce-scatter)\(.*?\"strategy\":\"(\w+)\".*?colors:(\d+)", text)
    sizes = (mesh.size,) if len(kinds) == 1 else stages or ()
    size, received = 2.0 * D * F, 0.0
    for (kind, _, _), group in zip(kinds, sizes, strict=True):
        received += received_bytes(Traffic(kind, group, False), size)
        size /= group
    made = ", ".join(f"{kind} ({strategy}, {colors} colors)" for kind, strategy, colors in kinds)
    asked = "sharding constraint" if stages is None else "psum_scatter " + " x ".join(map(str, stages))
    print(f"| {asked} | {made} | {received / GIB:.2f} GiB |", flush=True)


def main() -> None:
    """Parse, then print a line for each way to ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chips", default="v5p:64")
    topology = parse_topology(parser.parse_args().chips)
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    devices = list(topologies.get_topology_desc(**topology.description).devices)
    mesh = make_mesh(ParallelismConfig(fsdp=len(devices)), devices)
    line = topology.shape[-1]
    told(mesh, None)
    for stages in ((mesh.size,), (mesh.size // 2, 2), (mesh.size // line, line)):
        told(mesh, stages)


if __name__ == "__main__":
    main()
