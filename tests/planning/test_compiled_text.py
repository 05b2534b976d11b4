"""The train step as the TPU's own compiler makes it: what must be in it, and what must not."""

import math
import re
from typing import Any

import jax
import pytest

from jax_sft.config import DataConfig, ModelConfig, ParallelismConfig, Run
from jax_sft.planning.programs import lower, mesh_of, train_program
from jax_sft.planning.topologies import parse_topology

LAYERS, HIDDEN, VOCAB, LENGTH, ROWS = 3, 256, 4096, 2560, 4
RUN = Run(
    model=ModelConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_layers=LAYERS,
        num_heads=4,
        num_kv_heads=2,
        head_dim=128,
        mlp_size=1024,
        tie_embeddings=False,
        qk_norm=True,
    ),
    remat="full",
    data=DataConfig(row_length=LENGTH, rows_per_micro_batch=ROWS),
    parallelism=ParallelismConfig(fsdp=4),
)
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?\S+ = (.*?) ([a-z][\w\-]*)\(")

Program = list[tuple[str, list[tuple[int, ...]]]]
"""(operation, shapes of its results) of every instruction."""


@pytest.fixture(scope="module")
def text(libtpu: Any) -> str:
    """The program compiled for four v5e chips."""
    topology = parse_topology("v5e:4")
    program = train_program(RUN, topology, LENGTH, 2)
    lowered = lower(program, mesh_of(program, libtpu(topology)))
    # Programs for devices that are not here cannot be read back from JAX's cache.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        return str(lowered.compile().as_text())
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture(scope="module")
def compiled(text: str) -> Program:
    found = (INSTRUCTION.match(line) for line in text.splitlines())
    return [(match[2], shapes(match[1])) for match in found if match]


def shapes(result: str) -> list[tuple[int, ...]]:
    return [
        tuple(int(size) for size in sizes.split(",") if size)
        for sizes in re.findall(r"\w+\[([\d,]*)\]", result)
    ]


def of(compiled: Program, kind: str) -> list[tuple[int, ...]]:
    return [shape for operation, all_shapes in compiled if operation.startswith(kind) for shape in all_shapes]


def test_attention_is_the_splash_kernel(text: str, compiled: Program) -> None:
    """Forward, again in the backward pass, dq, and dk with dv."""
    assert sum(operation == "custom-call" for operation, _ in compiled) >= 4
    assert "splash_mha_dkv" in text
    scores = [shape for _, each in compiled for shape in each if shape.count(LENGTH) > 1]
    assert not scores, "no array holds all pairs of tokens"


def test_no_array_holds_all_logits(compiled: Program) -> None:
    whole = LENGTH * VOCAB
    with_vocabulary = [shape for _, each in compiled for shape in each if VOCAB in shape]
    assert with_vocabulary
    assert max(math.prod(shape) for shape in with_vocabulary) < whole


def test_weights_are_gathered_a_layer_at_a_time_and_by_gathering(
    compiled: Program,
) -> None:
    gathered = of(compiled, "all-gather")
    assert any(math.prod(shape) == HIDDEN * RUN.model.mlp_size for shape in gathered)
    assert not [shape for shape in gathered if LAYERS in shape], "never the weights of all layers"
    reduced = [shape for shape in of(compiled, "all-reduce") if math.prod(shape) == HIDDEN * VOCAB]
    assert len(reduced) <= 1, (
        "the head's gradient is summed by an all-reduce, the head itself gathered by none"
    )
