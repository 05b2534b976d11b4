"""What every study must satisfy before any work begins; each room checks what only it can know."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelismConfig,
    Run,
    Sampling,
    Study,
)
from jax_sft.errors import UsageError
from jax_sft.judge_config import PARTS
from jax_sft.judges.pages import PAGES
from jax_sft.study.folder import RESERVED_RUNS, RESERVED_STUDIES
from jax_sft.study.patterns import matching
from jax_sft.study.starts import parse_init

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

LEAST_LOOP_TOKENS = 128
_PENALTIES = ("presence_penalty", "frequency_penalty")

Problems = Iterator[str]


def validate(study: Study, where: str = "") -> Study:
    """The study itself, or a UsageError naming the first field that cannot be and how many more there are."""
    problems = list(_study(study))
    if problems:
        place = f"{where}: " if where else ""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UsageError(f"{place}{problems[0]}{more}")
    return study


def _study(study: Study) -> Problems:
    yield from _folder_name("name", study.name)
    if study.name in RESERVED_STUDIES:
        yield f"name: {', '.join(RESERVED_STUDIES)} is another folder of the root; rename the study"
    if not study.runs:
        yield "runs: a study needs at least one"
    yield from _unique("runs", (run.name for run in study.runs))
    yield from _unique("benchmarks", (benchmark.name for benchmark in study.benchmarks))
    earlier: list[str] = []
    for run in study.runs:
        yield from _run(run, earlier, [other.name for other in study.runs])
        earlier.append(run.name)
    for benchmark in study.benchmarks:
        yield from _benchmark(benchmark, study.evaluation)
    yield from _judges(study)
    yield from _patterns(study)
    yield from _evaluation(study.evaluation)


def _judges(study: Study) -> Problems:
    yield from _unique("judges", (judge.name for judge in study.judges))
    for judge in study.judges:
        at = f"judges.{judge.name}"
        if not _METRIC_NAME.fullmatch(judge.name):
            yield f"judges.name: {judge.name!r} begins no metric; use small letters, digits and `_`"
        if judge.page not in PAGES:
            yield f"{at}.page: unknown judge {judge.page!r}; known: {', '.join(PAGES)}"
        if not judge.parts or len(set(judge.parts)) < len(judge.parts):
            yield f"{at}.parts: are some of {', '.join(PARTS)}, each once; found {judge.parts}"
        for name in ("max_new_tokens", "context", "slots"):
            yield from _at_least(f"{at}.{name}", getattr(judge, name), 0)
    known = {*PAGES, *(judge.name for judge in study.judges)}
    for benchmark in study.benchmarks:
        yield from _unique(f"benchmarks.{benchmark.name}.judges", benchmark.judges)
        for name in benchmark.judges:
            if name not in known:
                at = f"benchmarks.{benchmark.name}.judges"
                yield f"{at}: no judge {name!r}; known: {', '.join(sorted(known))}"


def _patterns(study: Study) -> Problems:
    """What is said of runs by patterns is said of some."""
    names = [run.name for run in study.runs]
    said = {f"tables.{name}": runs for name, runs in study.tables.items()}
    said["row_tokens"] = ",".join(study.row_tokens)
    for where, patterns in said.items():
        try:
            matching(patterns, names, where)
        except UsageError as error:
            yield str(error)
    for pattern, count in study.row_tokens.items():
        yield from _at_least(f"row_tokens.{pattern}", count, 1)
    for pattern, count in study.completion_tokens.items():
        try:
            matching(pattern, [benchmark.name for benchmark in study.benchmarks], "completion_tokens")
        except UsageError as error:
            yield str(error)
        yield from _at_least(f"completion_tokens.{pattern}", count, 1)


def _run(run: Run, earlier: list[str], all_names: list[str]) -> Problems:
    at = f"runs.{run.name}"
    yield from _folder_name("runs.name", run.name)
    if run.name in RESERVED_RUNS:
        yield f"{at}.name: {', '.join(RESERVED_RUNS)} are other folders of the study; rename the run"
    yield from _above(f"{at}.epochs", run.epochs, 0)
    yield from _init(f"{at}.init", run.init, earlier, all_names)
    yield from _model(f"{at}.model", run.model)
    yield from _data(f"{at}.data", run.data)
    yield from _optimizer(f"{at}.optimizer", run.optimizer)
    yield from _lora(f"{at}.lora", run.lora)
    yield from _parallelism(f"{at}.parallelism", run.parallelism)
    yield from _at_least(f"{at}.snapshots.state_every", run.snapshots.state_every, 1)
    if not run.snapshots.schedule.strip():
        yield f"{at}.snapshots.schedule: is empty; name at least `last`"


def _lora(at: str, lora: LoraConfig) -> Problems:
    yield from _at_least(f"{at}.rank", lora.rank, 0)
    known = LoraConfig().targets
    if not lora.targets or not set(lora.targets) <= set(known):
        yield f"{at}.targets: are some of {', '.join(known)}; found {', '.join(lora.targets) or 'none'}"


def _init(at: str, init: str, earlier: list[str], all_names: list[str]) -> Problems:
    if not init.strip():
        yield f"{at}: is empty; choose `random`, `smollm2`, `run:NAME`, `run:NAME@STEP` or a folder"
    try:
        start = parse_init(init)
    except UsageError as error:
        yield f"{at}: {error}"
        return
    if start is None:
        return
    if start.run not in all_names:
        yield f"{at}: there is no run {start.run!r} in this study; it has {', '.join(all_names)}"
    elif start.run not in earlier:
        yield f"{at}: run {start.run!r} must come earlier in the study than the run that starts from it"


def _model(at: str, model: ModelConfig) -> Problems:
    for name in (
        "vocab_size",
        "hidden_size",
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "head_dim",
        "mlp_size",
    ):
        yield from _at_least(f"{at}.{name}", getattr(model, name), 1)
    yield from _at_least(f"{at}.max_positions", model.max_positions, 1)
    yield from _at_least(f"{at}.rope_scaling.factor", model.rope_scaling.factor, 1)
    yield from _above(f"{at}.rope_theta", model.rope_theta, 0)
    yield from _above(f"{at}.norm_eps", model.norm_eps, 0)
    if model.num_kv_heads > 0 and model.num_heads % model.num_kv_heads:
        yield f"{at}.num_kv_heads: {model.num_kv_heads} does not divide num_heads {model.num_heads}"
    if model.head_dim % 2:
        yield f"{at}.head_dim: {model.head_dim} is odd; rotary embeddings turn pairs"


def _data(at: str, data: DataConfig) -> Problems:
    yield from _at_least(f"{at}.rows", data.rows, 0)
    yield from _at_least(f"{at}.batch_size", data.batch_size, 1)
    yield from _at_least(f"{at}.row_length", data.row_length, 2)
    for length in data.row_lengths:
        yield from _at_least(f"{at}.row_lengths", length, 2)
    yield from _at_least(f"{at}.rows_per_micro_batch", data.rows_per_micro_batch, 1)
    if 0 < data.rows < data.batch_size:
        yield f"{at}.rows: {data.rows} rows do not fill one batch of {data.batch_size}; lower batch_size"


def _optimizer(at: str, optimizer: OptimizerConfig) -> Problems:
    for name in ("learning_rate", "weight_decay", "clip_norm"):
        yield from _at_least(f"{at}.{name}", getattr(optimizer, name), 0)
    yield from _above(f"{at}.epsilon", optimizer.epsilon, 0)
    if not 0 <= optimizer.warmup_fraction <= 1:
        yield f"{at}.warmup_fraction: {optimizer.warmup_fraction} is not between 0 and 1"
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(optimizer, name) < 1:
            yield f"{at}.{name}: {getattr(optimizer, name)} is not in [0, 1)"


def _parallelism(at: str, parallelism: ParallelismConfig) -> Problems:
    sizes = vars(parallelism)
    for name, size in sizes.items():
        if size < 1 and size != -1:
            yield f"{at}.{name}: {size} is neither a number of devices nor -1"
    if list(sizes.values()).count(-1) > 1:
        yield f"{at}: only one axis can be -1 and take the devices that are left"


def _benchmark(benchmark: BenchmarkConfig, evaluation: EvaluationConfig) -> Problems:
    at = f"benchmarks.{benchmark.name}"
    yield from _folder_name("benchmarks.name", benchmark.name)
    yield from _at_least(f"{at}.limit", benchmark.limit, 0)
    yield from _at_least(f"{at}.samples", benchmark.samples, 1)
    yield from _at_least(f"{at}.max_new_tokens", benchmark.max_new_tokens, 1)
    yield from sampling_problems(f"{at}.sampling", benchmark.sampling)
    for name in _PENALTIES:
        if getattr(benchmark.sampling, name) and not evaluation.penalties:
            yield f"{at}.sampling.{name}: needs evaluation.penalties; set it to True"
    if benchmark.samples > 1 and benchmark.sampling.temperature == 0:
        yield f"{at}.samples: {benchmark.samples} greedy completions are all the same; raise temperature"
    if benchmark.max_new_tokens >= evaluation.context:
        yield (
            f"{at}.max_new_tokens: {benchmark.max_new_tokens} leaves no room for a prompt "
            f"in evaluation.context {evaluation.context}"
        )


def sampling_problems(at: str, sampling: Sampling) -> Problems:
    """What cannot be in the settings of sampling, each line opened by `at`."""
    yield from _at_least(f"{at}.temperature", sampling.temperature, 0)
    yield from _at_least(f"{at}.top_k", sampling.top_k, 0)
    if not 0 < sampling.top_p <= 1:
        yield f"{at}.top_p: {sampling.top_p} is not in (0, 1]"
    if not 0 <= sampling.min_p < 1:
        yield f"{at}.min_p: {sampling.min_p} is not in [0, 1)"
    for name in _PENALTIES:
        if not -2 <= getattr(sampling, name) <= 2:
            yield f"{at}.{name}: {getattr(sampling, name)} is not in [-2, 2]"
    yield from _stop_texts(f"{at}.stop", sampling.stop)


def _stop_texts(at: str, stop: object) -> Problems:
    if isinstance(stop, str):
        yield f"{at}: is one text; write a tuple of texts, ({stop!r},)"
    elif not isinstance(stop, tuple) or not all(isinstance(text, str) and text for text in stop):
        yield f"{at}: {stop!r} is no tuple of texts of at least one character"


def _evaluation(evaluation: EvaluationConfig) -> Problems:
    for name in ("slots", "context", "chunk", "prefill_rows", "score_tokens", "tensor", "workers"):
        yield from _at_least(f"evaluation.{name}", getattr(evaluation, name), 1)
    for name in ("pages", "page_size", "prefill_chunk"):
        yield from _at_least(f"evaluation.{name}", getattr(evaluation, name), 0)
    if evaluation.page_size & (evaluation.page_size - 1):
        yield f"evaluation.page_size: {evaluation.page_size} is not a power of two"
    if evaluation.loop_tokens != 0 and evaluation.loop_tokens < LEAST_LOOP_TOKENS:
        yield (
            f"evaluation.loop_tokens: {evaluation.loop_tokens} would cut tables and lists; "
            f"use 0 for none or at least {LEAST_LOOP_TOKENS}"
        )
    for name in ("scorer_seconds", "scorer_memory"):
        yield from _above(f"evaluation.{name}", getattr(evaluation, name), 0)


def _folder_name(at: str, name: str) -> Problems:
    if not _FOLDER_NAME.fullmatch(name):
        yield f"{at}: {name!r} cannot name a folder; use letters, digits and `.`, `_`, `-` after the first"


def _unique(at: str, names: Iterable[str]) -> Problems:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{at}: {count} are named {name!r}; names must differ"


def _at_least(at: str, value: float, least: float) -> Problems:
    if not least <= value < float("inf"):
        yield f"{at}: {value} is not a number of at least {least}"


def _above(at: str, value: float, bound: float) -> Problems:
    if not bound < value < float("inf"):
        yield f"{at}: {value} is not a number above {bound}"
