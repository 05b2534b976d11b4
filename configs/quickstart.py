"""The whole method in miniature: a small base model, then SFT on Countdown with traces and without.

    jax-sft quickstart

Trains a base on short answers (reasoning, instructions about form, refusals), fine-tunes it on a small
Countdown game with traces and, in a second run, without, and sweeps the snapshots of both.

About 5 minutes on two CPU cores. At the last step, of 100 items each: Countdown 36% with traces and 58%
without, from 0% of the base; the base's 90% on reasoning, 97% on form and 100% of refusals are mostly lost
(0%, 7% and 0% with traces; 6%, 47% and 0% without).
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
    vocab_size=560,
    hidden_size=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    mlp_size=384,
    qk_norm=True,
)
BASE = Run(
    name="base",
    model=MODEL,
    compute_dtype="float32",
    data=DataConfig(
        source="miniature_base", rows=26_000, batch_size=32, row_length=128, rows_per_micro_batch=10
    ),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_fraction=0.05, beta2=0.99),
    snapshots=SnapshotConfig(schedule="last", state_every=200),
)


def fine_tuning(name: str, traces: bool, row_length: int, rows_per_micro_batch: int) -> Run:
    """SFT of the base on the miniature game; a dense schedule early, where the curves bend."""
    return Run(
        name=name,
        init="run:base",
        model=MODEL,
        compute_dtype="float32",
        epochs=4,
        data=DataConfig(
            source="countdown",
            options={"miniature": True, "traces": traces},
            rows=2_400,
            batch_size=32,
            row_length=row_length,
            rows_per_micro_batch=rows_per_micro_batch,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99),
        snapshots=SnapshotConfig(schedule="0, 5, 10, 20, 40, 80, 150, last", state_every=100),
    )


def study() -> Study:
    """Three runs and a benchmark of each group."""
    cot = fine_tuning("cot", traces=True, row_length=264, rows_per_micro_batch=16)
    nocot = fine_tuning("nocot", traces=False, row_length=128, rows_per_micro_batch=8)
    game = {"miniature": True}
    benchmarks = (
        BenchmarkConfig("countdown", "countdown", "in_domain", limit=100, max_new_tokens=140, options=game),
        BenchmarkConfig("reasoning", "miniature", "reasoning", limit=100, max_new_tokens=64),
        BenchmarkConfig(
            "form", "miniature", "general", limit=100, max_new_tokens=64, options={"task": "general"}
        ),
        BenchmarkConfig("refusals", "miniature_safety", "safety", limit=100, max_new_tokens=64),
    )
    return Study(
        name="quickstart",
        title="Reasoning fine-tuning in miniature",
        description=(
            "A base model of 0.8 million parameters, trained on short answers, is fine-tuned on a Countdown "
            "game (reach a target with two of three digits) with reasoning traces (cot) and without (nocot)."
        ),
        runs=(BASE, cot, nocot),
        benchmarks=benchmarks,
        evaluation=EvaluationConfig(
            slots=50, context=256, chunk=32, compute_dtype="float32", prefill_rows=25
        ),
    )
