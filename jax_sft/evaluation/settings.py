"""What a completion depends on besides snapshot, item and sample, as the record of its unit keeps it.

Settings that came after the first version are kept only where they matter, so that units of before are equal.
"""

import json

from etils import epath

from jax_sft.config import BenchmarkConfig, EvaluationConfig
from jax_sft.errors import UsageError
from jax_sft.generation.sampling import SAMPLER
from jax_sft.study.records import UnitRecord
from jax_sft.tasks.given_rows import Drift
from jax_sft.tasks.task import get_task

Settings = dict[str, int | float | str]
OURS = "jax_sft"
"""The backend that is our engine."""
AS_BEFORE: Settings = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop": "",
    "sampler": 1,
    "protocol": "standard",
    "loop_tokens": 0,
    "backend": OURS,
    "kv_dtype": "same",
    "weight_dtype": "same",
    "logprobs": "",
}
"""What a record means that does not name a setting."""


def loop_tokens(benchmark: BenchmarkConfig, evaluation: EvaluationConfig) -> int:
    """Tokens of an exact repetition that end a completion of the benchmark; 0 where that cannot happen."""
    possible = benchmark.protocol == "standard" and evaluation.loop_tokens < benchmark.max_new_tokens
    return evaluation.loop_tokens if possible else 0


def drawn_with(benchmark: BenchmarkConfig, evaluation: EvaluationConfig, backend: str = OURS) -> Settings:
    """The settings of a benchmark's completions, or likelihoods; `backend` names what draws them."""
    task = get_task(benchmark.task)
    if task.ask == "likelihood":
        base: Settings = {"from_step": task.base(benchmark)} if isinstance(task, Drift) else {}
        return {"ask": "likelihood", "compute_dtype": evaluation.compute_dtype, **base}
    sampling = benchmark.sampling
    later: Settings = {
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": json.dumps(sampling.stop, ensure_ascii=False) if sampling.stop else "",
        "sampler": SAMPLER if sampling.temperature > 0 else 1,  # greedy ones are the same by every sampler
        "protocol": benchmark.protocol,
        "loop_tokens": loop_tokens(benchmark, evaluation),
        "backend": backend,
        "kv_dtype": evaluation.kv_dtype,
        "weight_dtype": evaluation.weight_dtype,
        "logprobs": "kept" if benchmark.logprobs else "",
    }
    return {
        "max_new_tokens": benchmark.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": evaluation.seed,
        "compute_dtype": evaluation.compute_dtype,
        **{name: value for name, value in later.items() if value != AS_BEFORE[name]},
    }


def check_protocol(folder: epath.PathLike, benchmark: BenchmarkConfig) -> None:
    """UsageError when a unit was drawn by another protocol than its benchmark has: no curve holds both."""
    record = UnitRecord.read(folder)
    stored = {} if record is None else {"protocol": record.settings.get("protocol", "standard")}
    if stored and (changed := changed_setting(stored, {"protocol": benchmark.protocol})):
        raise UsageError(
            f"{folder}: was drawn with {changed}; one curve holds one protocol: restore it, or give the "
            "benchmark another name"
        )


def changed_setting(stored: Settings, wanted: Settings) -> str:
    """The first setting that differs, in words; empty when none does."""
    for name in dict.fromkeys([*wanted, *stored]):
        before, now = (settings.get(name, AS_BEFORE.get(name)) for settings in (stored, wanted))
        if before != now:
            return f"{name} {_shown(before)}, now it is {_shown(now)}"
    return ""


def _shown(value: int | float | str | None) -> str:
    return "none" if value == "" else str(value)
