"""A study of seconds for the bucket: one run with four snapshots, two benchmarks."""

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Run,
    Sampling,
    SnapshotConfig,
    Study,
    TokensConfig,
)
from jax_sft.tokens.loading import load_tokenizer

MODEL = ModelConfig(
    vocab_size=load_tokenizer(TokensConfig()).vocab_size,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=64,
)


def study() -> Study:
    run = Run(
        name="run",
        model=MODEL,
        compute_dtype="float32",
        data=DataConfig(
            source="miniature_base", rows=160, batch_size=8, row_length=64, rows_per_micro_batch=8
        ),
        snapshots=SnapshotConfig(schedule="0, every 8, last", state_every=6),
    )
    benchmarks = (
        BenchmarkConfig("reasoning", "miniature", "reasoning", limit=11, max_new_tokens=12),
        BenchmarkConfig(
            "refusals",
            "miniature_safety",
            "safety",
            limit=6,
            samples=2,
            max_new_tokens=9,
            sampling=Sampling(1.0, top_p=0.95),
        ),
    )
    evaluation = EvaluationConfig(
        slots=8, context=128, chunk=4, prefill_rows=8, compute_dtype="float32", workers=1
    )
    return Study("tiny", (run,), benchmarks, evaluation)
