"""What a sweep takes: the arithmetic of attention to pages, and programs of few layers carried on to all."""

from dataclasses import replace
from pathlib import Path

import pytest

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.planning import sweeping
from jax_sft.planning.compiling import Facts
from jax_sft.planning.costing import Settings
from jax_sft.planning.expected import SweepWorkload
from jax_sft.planning.hlo.cost import Cost, Loop
from jax_sft.planning.programs import Program
from jax_sft.planning.sweeping import Attention, plan_sweep
from jax_sft.planning.topologies import parse_topology
from tests.planning.fakes import GIB, RUN

pytestmark = pytest.mark.short

V6E = parse_topology("v6e:1")
QWEN3_14B = ModelConfig(num_layers=40, num_heads=40, num_kv_heads=8, head_dim=128)
MODEL = replace(RUN.model, num_layers=12, num_heads=8, num_kv_heads=4, head_dim=128)
WORK = SweepWorkload(completions=16, prompts=8, tokens=16 * 200.0, live=356.0)
EVALUATION = EvaluationConfig(slots=4, context=1024, chunk=8, page_size=128, prefill_rows=2)


def test_a_position_of_qwen3_14b_takes_160_kib_and_half_of_that_in_8_bits() -> None:
    for kv_dtype, size in (("same", 160 * 1024), ("int8", 80 * 1024)):
        evaluation = EvaluationConfig(kv_dtype=kv_dtype)
        attention = Attention(QWEN3_14B, evaluation, 128)
        assert attention.position_bytes() == size
        # Blocks are 2 MiB: 4 pages of bfloat16, 8 of 8 bits.
        half = 256 if kv_dtype == "same" else 512
        assert attention.read_bytes(8000.0) == size * (8000 + half)
        assert attention.flops(8000.0) == 4 * 40 * 40 * 128 * 8000
    split = Attention(QWEN3_14B, EvaluationConfig(tensor=4), 128)
    assert split.position_bytes() == 40 * 1024
    narrow = Attention(replace(QWEN3_14B, head_dim=64), EvaluationConfig(), 128)
    assert narrow.position_bytes() == 160 * 1024, "heads of 64 are padded to 128"


def layers_cost(program: Program, cache: Path | None, timeout: float) -> Facts:
    """1 GB and 3 million cycles a token or call, and 0.1 GB and 0.2 million more of each layer."""
    layers = program.run.model.num_layers
    body = Cost(flops=1e9 * layers, hbm_bytes=1e9 + 1e8 * layers, cycles=3e6 + 2e5 * layers)
    memory = {"parameters": 0.1 * GIB * layers, "peak": GIB * (1 + 0.2 * layers)}
    loops = [Loop("tokens", None, body)] if program.kind == "decode" else []
    return Facts(True, memory, Cost(loops=loops) if loops else body, 1.0, False)


def test_programs_of_few_layers_are_carried_on_to_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "compile_facts", layers_cost)
    plan = plan_sweep(replace(RUN, model=MODEL), EVALUATION, WORK, V6E, Settings())
    assert plan is not None
    assert plan.facts.peak == pytest.approx(GIB * 3.4)
    assert plan.live == 356
    assert plan.sequences == 4
    # 12 layers x 8 heads of 128 in bfloat16; blocks of 1,024 positions.
    kv = 4 * 12 * 8 * 128 * 2
    assert plan.decode.hbm_bytes == pytest.approx(2.2e9 + kv * (356 + 512))
    assert plan.useful_bytes == pytest.approx(1.2 * GIB + kv * 356)
    assert plan.decode.elementwise_seconds == pytest.approx(5.4e6 / 1.75e9)
    assert plan.tokens_per_second[1] == pytest.approx(4 / plan.decode.bound)
    assert plan.prefill.flops == pytest.approx(12e9)
    low, high = plan.seconds()
    calls = 8 * 256 / 512
    assert low == pytest.approx(800 * plan.decode.bound + calls * plan.prefill.bound)
    assert high > low
    # Prompts of a chunk and a half take as many more calls; shorter ones a chunk all the same.
    for prompt_tokens, times in ((384.0, 1.5), (10.0, 1.0)):
        other = replace(plan, work=replace(WORK, prompt_tokens=prompt_tokens))
        assert other.seconds()[0] == pytest.approx(
            800 * plan.decode.bound + times * calls * plan.prefill.bound
        )


def test_pages_that_are_fewer_than_slots_need_hold_fewer_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "compile_facts", layers_cost)
    few = replace(EVALUATION, pages=9)
    plan = plan_sweep(replace(RUN, model=MODEL), few, WORK, V6E, Settings())
    assert plan is not None
    assert plan.sequences == pytest.approx(9 * 128 / (356 + 64))


def test_a_study_that_draws_nothing_has_no_sweep() -> None:
    assert plan_sweep(RUN, EVALUATION, SweepWorkload(0, 0, 0.0), V6E, Settings()) is None
