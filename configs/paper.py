"""The 33 runs of arXiv 2604.06628, "Rethinking Generalization in Reasoning SFT", by its scripts' names.

    jax-sft plan configs/paper.py --chips v5p:16
    jax-sft train configs/paper.py --root gs://BUCKET/runs --runs 'Qwen3-*_Math-CoT-20k_lr5e-5_ep8*'
    jax-sft sweep configs/paper.py --root gs://BUCKET/runs --data-root DATA --runs 'Qwen3-*_Math-CoT*'
    jax-sft report configs/paper.py --root gs://BUCKET/runs

What belongs to which table or figure stands in `TABLES`; a plan sums the runs of each. docs/paper.md has the
plan, what is not known of the original, and where we depart from it.

The objective, the order of rows, bfloat16 weights and moments and the averaging of the loss over 8 GPUs are
those of the original trainer, and so is the protocol of the suites. DATA holds the benchmarks; GPQA, HEx-PHI,
HaluEval, AlpacaEval and LiveCodeBench you bring, and errors say where from. The judges of AlpacaEval and
TruthfulQA take weights of their own: docs/judges.md. Rows come from the hub. The set Math-CoT-2.5k was not
published: here it is the first 2,560 rows of Math-CoT-20k.
"""

from typing import NamedTuple

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    Run,
    SnapshotConfig,
    Study,
    TokensConfig,
    replace,
)
from jax_sft.evaluation.suites import suite
from jax_sft.models.families import PRESETS
from jax_sft.tasks.protocols import STOPS

MODELS = {
    **{f"Qwen3-{size}": f"Qwen/Qwen3-{size}-Base" for size in ("1.7B", "4B", "8B", "14B")},
    **{f"Qwen2.5-{size}": f"Qwen/Qwen2.5-{size}" for size in ("1.5B", "3B", "7B", "14B")},
    "InternLM2.5-20B": "internlm/internlm2_5-20b",
}
"""Hub ids by the paper's names."""
DATA = {
    "Math-CoT-20k": ("hub:jasonrqh/Math-CoT-20k", 20_480),
    "Math-CoT-2.5k": ("hub:jasonrqh/Math-CoT-20k", 2_560),
    "Math-NoCoT-20k": ("hub:jasonrqh/Math-NoCoT-20k", 20_480),
    "Numina-Math-20k": ("hub:jasonrqh/NuminaMath-20k", 20_480),
    "Countdown-CoT-20k": ("hub:jasonrqh/Countdown-CoT-20k", 20_480),
    "DeepSeek-R1-20k": ("hub:jasonrqh/DeepSeek-R1-20k", 20_480),
}
"""(Source, rows) by the name in the scripts."""
GRID = (0, 10, 20, 40, 80, 160, 320, 480, 640, 960, 1280)
"""Steps that are kept and swept, as far as a run goes; beyond 640 the paper's own are not known."""


class Schedule(NamedTuple):
    """The end of a script's name: learning rate, epochs, batch size, and whether the rate stays constant."""

    rate: str
    epochs: int
    batch: int
    constant: bool = False

    @property
    def name(self) -> str:
        """`lr5e-5_ep8_bs256`"""
        return f"lr{self.rate}_ep{self.epochs}_bs{self.batch}" + "_ConstLR" * self.constant


USUAL = Schedule("5e-5", 8, 256)
_THREE = ("Math-CoT-20k", "Math-NoCoT-20k", "Countdown-CoT-20k")
_FIVE = (*_THREE, "Numina-Math-20k", "DeepSeek-R1-20k")
RUNS = {
    "Qwen3-14B": {
        "Math-CoT-20k": (
            USUAL,
            Schedule("5e-5", 1, 256),
            Schedule("1e-5", 1, 256),
            Schedule("1e-5", 2, 256),
            Schedule("5e-5", 1, 32),
            Schedule("5e-5", 16, 256),
            Schedule("5e-5", 16, 256, constant=True),
            Schedule("1e-4", 16, 256, constant=True),
        ),
        "Math-CoT-2.5k": (Schedule("5e-5", 8, 32),),
        **dict.fromkeys(_FIVE[1:], (USUAL,)),
    },
    **dict.fromkeys(("Qwen3-8B", "InternLM2.5-20B"), dict.fromkeys(_FIVE, (USUAL,))),
    **dict.fromkeys(("Qwen3-4B", "Qwen3-1.7B"), dict.fromkeys(_THREE, (USUAL,))),
    **{f"Qwen2.5-{size}": {"Math-CoT-20k": (USUAL,)} for size in ("1.5B", "3B", "7B", "14B")},
}
"""Schedules by model and data set."""
_DEFAULT = "Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256"
_LARGE = ("Qwen3-14B", "Qwen3-8B", "InternLM2.5-20B")
TABLES = {
    "Table 1 (repeat or one pass)": f"{_DEFAULT}, Qwen3-14B_Math-CoT-2.5k_*, Qwen3-14B_*_ep1_bs32",
    "Table 2 (four data sets)": ", ".join(
        f"{model}_{data}-20k_lr5e-5_ep8_bs256"
        for model in _LARGE
        for data in ("Math-CoT", "Math-NoCoT", "Numina-Math", "Countdown-CoT")
    ),
    "Figure 3 (dip and recovery)": f"{_DEFAULT}, Qwen3-8B_Math-CoT-*, InternLM2.5-20B_Math-CoT-*",
    "Figure 4 (overfitting)": f"{_DEFAULT}, Qwen3-14B_Math-CoT-20k_*_ep16_*",
    "Figure 5 (capability)": "Qwen3-*_Math-CoT-20k_lr5e-5_ep8_bs256",
    "Figure 6 (safety)": ", ".join(
        f"{model}_Math-{data}-20k_lr5e-5_ep8_bs256" for model in _LARGE for data in ("CoT", "NoCoT")
    ),
    "Table 4 (short and slow)": "Qwen3-14B_Math-CoT-20k_*_ep1_bs256, Qwen3-14B_Math-CoT-20k_*_ep2_bs256",
    "Figure 7 (another teacher)": "*_DeepSeek-R1-20k_*",
    "Figures 8, 14, 15 (Qwen2.5)": "Qwen2.5-*",
    "Tables 6-11 (small models)": "Qwen3-1.7B_*, Qwen3-4B_*",
}
"""Runs by what the paper shows of them; several tables share runs."""
ROW_TOKENS = {
    "*_Math-CoT-*": 6_000,
    "*_DeepSeek-R1-*": 4_500,
    "*_Countdown-CoT-*": 3_000,
    "*_Math-NoCoT-*": 700,
    "*_Numina-Math-*": 500,
}
"""Mean tokens of a row, assumed for a plan without the data: the paper's lengths were not found."""

COMPLETION_TOKENS = {"halueval_*": 100}
"""Mean tokens of a completion, assumed for a plan: HaluEval's end at their first blank line."""


def run(model: str, data: str, schedule: Schedule) -> Run:
    """A run as its script says it."""
    hub = MODELS[model]
    preset = hub.partition("/")[2].removesuffix("-Base").lower()
    source, rows = DATA[data]
    steps = rows * schedule.epochs // schedule.batch
    # Qwen2.5's template without the system prompt that it adds; InternLM's base model has none of its own.
    template = {"Qwen2.5": "chatml", "InternLM2.5": "internlm2"}.get(model.partition("-")[0], "auto")
    # The only script with another length; its solutions are short.
    length = 10_240 if (model, data) == ("InternLM2.5-20B", "Numina-Math-20k") else 20_480
    return Run(
        name=f"{model}_{data}_{schedule.name}",
        init=hub,
        model=PRESETS[preset],
        tokens=TokensConfig(tokenizer=hub, template=template, end="end_of_text"),
        epochs=schedule.epochs,
        param_dtype="bfloat16",
        remat="save_attention",
        data=DataConfig(
            source=source,
            rows=rows,
            batch_size=schedule.batch,
            row_length=length,
            rows_per_micro_batch=16,
            too_long="truncate",
            weighting="original",
            original_micro_batch=2 if model == "InternLM2.5-20B" else 4,
        ),
        optimizer=OptimizerConfig(
            learning_rate=float(schedule.rate), schedule="constant" if schedule.constant else "cosine"
        ),
        snapshots=SnapshotConfig(schedule=", ".join(str(step) for step in GRID if step <= steps)),
    )


def stopped(benchmark: BenchmarkConfig) -> BenchmarkConfig:
    """The benchmark, drawn no further than the texts that end the original's completions."""
    stop = STOPS.get(benchmark.task, ())
    return replace(benchmark, sampling=replace(benchmark.sampling, stop=stop))


def study() -> Study:
    """All 33 runs, swept over the paper's benchmarks by the paper's protocol."""
    return Study(
        name="paper",
        title="Rethinking Generalization in Reasoning SFT, again",
        description="The runs of arXiv 2604.06628, trained and swept by jax_sft.",
        runs=tuple(
            run(model, data, schedule)
            for model, sets in RUNS.items()
            for data, schedules in sets.items()
            for schedule in schedules
        ),
        benchmarks=tuple(
            stopped(benchmark)
            for name in ("paper", "paper_judged")
            for benchmark in suite(name, protocol="paper")
        ),
        # 32,768 new tokens and the longest prompt; memory for 8,192 positions of each sequence on the mean,
        # which InternLM2.5-20B leaves beside its weights on 16 v5p chips. Where they are longer, some wait.
        evaluation=EvaluationConfig(
            slots=512, pages=32_768, context=36_864, chunk=64, prefill_rows=16, tensor=2, penalties=True
        ),
        tables=TABLES,
        row_tokens=ROW_TOKENS,
        completion_tokens=COMPLETION_TOKENS,
    )
