"""Train step and decode as the TPU's own compiler makes them: what must be in them, and what must not."""

import math
import re
from typing import Any

import pytest

from jax_sft.config import DataConfig, EvaluationConfig, ModelConfig, ParallelismConfig, Run
from jax_sft.planning.programs import Program, engine_program, lower, mesh_of, train_program
from jax_sft.planning.topologies import parse_topology
from tests.planning.compiler import compile_lowered

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

Instructions = list[tuple[str, list[tuple[int, ...]]]]
"""(operation, shapes of its results) of every instruction."""


V5E = parse_topology("v5e:4")


def compile_program(program: Program, devices: list[Any]) -> Any:
    return compile_lowered(lower(program, mesh_of(program, devices))[0])


@pytest.fixture(scope="module")
def text(libtpu: Any) -> str:
    """The train step compiled for four v5e chips."""
    return str(compile_program(train_program(RUN, V5E, LENGTH, 2), libtpu(V5E)).as_text())


@pytest.fixture(scope="module")
def compiled(text: str) -> Instructions:
    found = (INSTRUCTION.match(line) for line in text.splitlines())
    return [(match[2], shapes(match[1])) for match in found if match]


def shapes(result: str) -> list[tuple[int, ...]]:
    return [
        tuple(int(size) for size in sizes.split(",") if size)
        for sizes in re.findall(r"\w+\[([\d,]*)\]", result)
    ]


def of(compiled: Instructions, kind: str) -> list[tuple[int, ...]]:
    return [shape for operation, all_shapes in compiled if operation.startswith(kind) for shape in all_shapes]


def test_attention_is_the_splash_kernel(text: str, compiled: Instructions) -> None:
    """Forward, again in the backward pass, dq, and dk with dv."""
    assert sum(operation == "custom-call" for operation, _ in compiled) >= 4
    assert "splash_mha_dkv" in text
    scores = [shape for _, each in compiled for shape in each if shape.count(LENGTH) > 1]
    assert not scores, "no array holds all pairs of tokens"


def test_no_array_holds_all_logits(compiled: Instructions) -> None:
    whole = LENGTH * VOCAB
    with_vocabulary = [shape for _, each in compiled for shape in each if VOCAB in shape]
    assert with_vocabulary
    assert max(math.prod(shape) for shape in with_vocabulary) < whole


def test_weights_are_gathered_a_layer_at_a_time_and_by_gathering(
    compiled: Instructions,
) -> None:
    gathered = of(compiled, "all-gather")
    assert any(math.prod(shape) == HIDDEN * RUN.model.mlp_size for shape in gathered)
    assert not [shape for shape in gathered if LAYERS in shape], "never the weights of all layers"
    reduced = [shape for shape in of(compiled, "all-reduce") if math.prod(shape) == HIDDEN * VOCAB]
    assert len(reduced) <= 1, (
        "the head's gradient is summed by an all-reduce, the head itself gathered by none"
    )


def test_decoding_holds_the_cache_once(libtpu: Any) -> None:
    """No copy of it in another layout, at the edges of the loop or inside."""
    evaluation = EvaluationConfig(slots=64, context=4096, chunk=8)
    decode = compile_program(engine_program("decode", RUN, V5E, evaluation), libtpu(V5E))
    cache = 2 * LAYERS * 64 * 4096 * 2 * 128 * 2 // V5E.devices
    memory = decode.memory_analysis()
    text = decode.as_text()
    assert "ragged_paged_attention" in text
    pool = re.escape(f"[{64 * 4096 // 128 // V5E.devices},128,4,128]")
    assert re.search(pool, text)
    assert not re.search(rf"= \w+{pool}\S* (copy|copy-start|transpose|fusion)\(", text)
    assert memory.argument_size_in_bytes > cache
    assert memory.temp_size_in_bytes < cache / 4
