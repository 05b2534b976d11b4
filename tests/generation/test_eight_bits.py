"""Generation with weights and pages in 8 bits: as fixed by its inputs as ever, and near what it was."""

from functools import cache
from typing import Literal

import jax
import pytest

from jax_sft.config import EvaluationConfig
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.generation.precision import agreement
from jax_sft.sharding import make_generation_mesh
from tests.generation.tiny import CONTEXT, LENGTHS, MODEL, STOPS, params

REQUESTS = tuple(Request(f"r{n}", 0, tuple(7 * (n + i) % 96 for i in range(n)), 24) for n in LENGTHS[:7])


@cache
def completions(
    weights: Literal["same", "int8"] = "same", pages: Literal["same", "int8"] = "same", slots: int = 3
) -> dict[str, tuple[int, ...]]:
    evaluation = EvaluationConfig(
        slots=slots,
        context=CONTEXT,
        chunk=8,
        compute_dtype="float32",
        weight_dtype=weights,
        kv_dtype=pages,
    )
    engine = Engine(MODEL, evaluation, STOPS, make_generation_mesh(1, jax.devices()[:1]))
    engine.load(jax.device_put(params(), jax.tree.map(lambda leaf: leaf.sharding, engine.abstract_params())))
    return {request.id: made.tokens for request, made in engine.generate(REQUESTS)}


@pytest.mark.slow
def test_completions_in_8_bit_pages_depend_on_no_neighbour() -> None:
    assert completions(pages="int8", slots=1) == completions(pages="int8", slots=3)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "pages", "least"), [("int8", "same", 0.2), ("same", "int8", 0.3)])
def test_greedy_tokens_mostly_agree_until_a_near_tie(
    weights: Literal["same", "int8"], pages: Literal["same", "int8"], least: float
) -> None:
    exact, coarse = completions(), completions(weights, pages)
    found = agreement(exact, coarse)
    assert least < found.tokens <= 1
