"""SmolLM2-135M-Instruct and its fine-tuning on GSM8K over the suite `quick`: real data of all four groups.

    make smollm2
    jax-sft train configs/smollm2_quick.py --data-root DATA
    jax-sft sweep configs/smollm2_quick.py --data-root DATA
    jax-sft report configs/smollm2_quick.py

The run is that of configs/smollm2.py. DATA holds what that needs, and `benchmarks/ifeval_input_data.jsonl`.
"""

from smollm2 import study as smollm2

from jax_sft.config import EvaluationConfig, Study, replace
from jax_sft.evaluation.suites import suite


def study() -> Study:
    """The same run, another sweep: GSM8K, CommonsenseQA, IFEval and XSTest, up to 512 new tokens."""
    return replace(
        smollm2(),
        name="smollm2_quick",
        title="SmolLM2-135M-Instruct fine-tuned on GSM8K, looked at from four sides",
        benchmarks=suite("quick"),
        evaluation=EvaluationConfig(
            slots=16, context=1024, chunk=16, compute_dtype="float32", prefill_rows=4
        ),
    )
