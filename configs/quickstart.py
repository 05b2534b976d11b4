"""The whole method in miniature: a small base model, then SFT on Countdown with and without traces.

    jax-sft quickstart
"""

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    Run,
    SnapshotConfig,
    Study,
)

MODEL = ModelConfig(
    vocab_size=400, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, mlp_size=384, qk_norm=True
)
SFT = OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.1, beta2=0.99)


def study() -> Study:
    """Three runs: the base, and two fine-tunings of it on the same puzzles."""
    base = Run(
        name="base",
        model=MODEL,
        compute_dtype="float32",
        epochs=1,
        data=DataConfig(source="miniature_base", rows=24_000, batch_size=64, row_length=128, rows_per_micro_batch=16),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_fraction=0.05, beta2=0.99),
        snapshots=SnapshotConfig(schedule="last", state_every=200),
    )
    cot = Run(
        name="cot",
        init="run:base",
        model=MODEL,
        compute_dtype="float32",
        epochs=4,
        data=DataConfig(
            source="countdown",
            options={"miniature": True, "traces": True},
            rows=1_600,
            batch_size=32,
            row_length=256,
            rows_per_micro_batch=12,
        ),
        optimizer=SFT,
        snapshots=SnapshotConfig(schedule="0, 2, 5, 10, 20, 40, 80, 140, last", state_every=100),
    )
    nocot = Run(
        name="nocot",
        init="run:base",
        model=MODEL,
        compute_dtype="float32",
        epochs=4,
        data=DataConfig(
            source="countdown",
            options={"miniature": True, "traces": False},
            rows=1_600,
            batch_size=32,
            row_length=128,
            rows_per_micro_batch=8,
        ),
        optimizer=SFT,
        snapshots=cot.snapshots,
    )
    benchmarks = (
        BenchmarkConfig("countdown", "countdown", "in_domain", limit=100, max_new_tokens=140, options={"miniature": True}),
        BenchmarkConfig("reasoning", "miniature", "reasoning", limit=100, max_new_tokens=64, options={"task": "reasoning"}),
        BenchmarkConfig("form", "miniature", "general", limit=100, max_new_tokens=64, options={"task": "general"}),
        BenchmarkConfig("refusals", "miniature_safety", "safety", limit=100, max_new_tokens=64),
    )
    return Study(
        name="quickstart",
        title="Reasoning fine-tuning in miniature",
        runs=(base, cot, nocot),
        benchmarks=benchmarks,
        evaluation=EvaluationConfig(slots=50, context=256, chunk=32, compute_dtype="float32", prefill_rows=25),
    )
