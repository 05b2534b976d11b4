"""Every rule of a valid study: one change breaks it, and the error names the field."""

import dataclasses
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig, JudgeConfig, Run, Study, replace
from jax_sft.errors import UsageError
from jax_sft.study.check import validate

pytestmark = pytest.mark.short

BENCHMARK = BenchmarkConfig(name="game", task="countdown", group="in_domain", max_new_tokens=64)
STUDY = Study(
    name="small", runs=(Run(name="base"), Run(name="cot", init="run:base")), benchmarks=(BENCHMARK,)
)


def changed(value: Any, path: str, new: Any) -> Any:
    """`value` with the field at a dotted path replaced."""
    first, _, rest = path.partition(".")
    return replace(value, **{first: changed(getattr(value, first), rest, new) if rest else new})


def test_a_good_study_is_returned_as_it_is() -> None:
    assert validate(STUDY) is STUDY


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "../up"),
        ("name", ".hidden"),
        ("name", ""),
        ("name", "report"),
        ("epochs", 0.0),
        ("epochs", float("nan")),
        ("init", ""),
        ("init", "run:nobody"),
        ("init", "run:cot"),
        ("init", "run:cot@x"),
        ("model.num_layers", 0),
        ("model.num_kv_heads", 3),
        ("model.num_kv_heads", 0),
        ("model.head_dim", 7),
        ("model.norm_eps", 0.0),
        ("data.rows", -1),
        ("data.rows", 31),
        ("data.batch_size", 0),
        ("data.row_length", 1),
        ("model.rope_scaling.factor", 0.5),
        ("data.row_lengths", (512, 1)),
        ("data.rows_per_micro_batch", 0),
        ("optimizer.learning_rate", -1.0),
        ("optimizer.learning_rate", float("inf")),
        ("optimizer.beta2", 1.0),
        ("optimizer.warmup_fraction", 1.5),
        ("optimizer.epsilon", 0.0),
        ("snapshots.schedule", " "),
        ("snapshots.state_every", 0),
        ("parallelism.tensor", 0),
        ("parallelism.tensor", -1),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_its_field(path: str, value: Any) -> None:
    run = changed(STUDY.runs[0], path, value)
    with pytest.raises(UsageError) as error:
        validate(replace(STUDY, runs=(run,)), where="mine.py")
    assert str(error.value).startswith("mine.py: runs.")
    assert path.split(".")[0] in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "a b"),
        ("limit", -1),
        ("samples", 0),
        ("samples", 2),
        ("sampling.temperature", -0.1),
        ("sampling.top_p", 0.0),
        ("sampling.top_k", -1),
        ("sampling.min_p", 1.0),
        ("sampling.presence_penalty", 2.1),
        ("sampling.frequency_penalty", -2.1),
        ("sampling.stop", ("END", "")),
        ("sampling.stop", ("END", 7)),
        ("sampling.stop", "END"),
        ("max_new_tokens", 0),
        ("max_new_tokens", 512),
    ],
)
def test_a_benchmark_that_cannot_be_is_refused_with_its_field(path: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"benchmarks\..*{path}|benchmarks\.name"):
        validate(replace(STUDY, benchmarks=(changed(BENCHMARK, path, value),)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", "Judge-1", "judges.name: 'Judge-1' begins no metric"),
        ("page", "nobody", "judges.guard.page: unknown judge 'nobody'; known: qwen3guard, "),
        ("parts", (), "judges.guard.parts: are some of answer, reasoning, all, each once"),
        ("parts", ("all", "all"), "judges.guard.parts: are some of"),
        ("context", -1, "judges.guard.context: -1 is not a number of at least 0"),
        ("slots", -1, "judges.guard.slots"),
        ("max_new_tokens", -1, "judges.guard.max_new_tokens"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_with_its_field(path: str, value: Any, message: str) -> None:
    judge = JudgeConfig("guard", page="qwen3guard")
    assert validate(replace(STUDY, judges=(judge,))).judges == (judge,)
    with pytest.raises(UsageError, match=message):
        validate(replace(STUDY, judges=(changed(judge, path, value),)))


def test_benchmarks_name_judges_of_the_study_or_pages() -> None:
    judge = JudgeConfig("guard", page="qwen3guard")
    named = replace(BENCHMARK, judges=("guard", "harmbench"))
    assert validate(replace(STUDY, judges=(judge,), benchmarks=(named,)))
    with pytest.raises(UsageError, match=r"benchmarks\.game\.judges: no judge 'guard'; known: harmbench, "):
        validate(replace(STUDY, benchmarks=(named,)))
    with pytest.raises(UsageError, match="judges: 2 are named 'guard'"):
        validate(replace(STUDY, judges=(judge, judge)))
    with pytest.raises(UsageError, match=r"benchmarks\.game\.judges: 2 are named 'harmbench'"):
        validate(replace(STUDY, benchmarks=(replace(BENCHMARK, judges=("harmbench", "harmbench")),)))


def test_names_differ_and_runs_come_after_the_runs_they_start_from() -> None:
    base, cot = STUDY.runs
    with pytest.raises(UsageError, match="runs: 2 are named 'base'"):
        validate(replace(STUDY, runs=(base, base)))
    with pytest.raises(UsageError, match="benchmarks: 2 are named 'game'"):
        validate(replace(STUDY, benchmarks=(BENCHMARK, BENCHMARK)))
    with pytest.raises(UsageError, match="run 'base' must come earlier"):
        validate(replace(STUDY, runs=(cot, base)))
    with pytest.raises(UsageError, match="at least one"):
        validate(replace(STUDY, runs=()))


def test_every_size_of_the_evaluation_is_positive_and_further_problems_are_counted() -> None:
    for field in ("slots", "context", "chunk", "prefill_rows", "score_tokens", "tensor", "workers"):
        with pytest.raises(UsageError, match=rf"evaluation\.{field}"):
            validate(replace(STUDY, benchmarks=(), evaluation=replace(STUDY.evaluation, **{field: 0})))
    broken = dataclasses.replace(STUDY.runs[0], epochs=0.0, init="")
    with pytest.raises(UsageError, match=r"runs\.base\.epochs: 0.0 is not a number above 0 \(and 1 more\)"):
        validate(replace(STUDY, runs=(broken,)))


def test_penalties_need_their_counts_and_a_loop_is_not_short() -> None:
    penalised = replace(BENCHMARK, sampling=replace(BENCHMARK.sampling, presence_penalty=0.5))
    with pytest.raises(UsageError, match=r"presence_penalty: needs evaluation.penalties; set it to True"):
        validate(replace(STUDY, benchmarks=(penalised,)))
    counting = replace(STUDY.evaluation, penalties=True)
    assert validate(replace(STUDY, benchmarks=(penalised,), evaluation=counting))
    for span in (127, 1, -1):
        with pytest.raises(
            UsageError, match=rf"loop_tokens: {span} would cut tables and lists; use 0 for none"
        ):
            validate(replace(STUDY, evaluation=replace(STUDY.evaluation, loop_tokens=span)))
    assert validate(replace(STUDY, evaluation=replace(STUDY.evaluation, loop_tokens=0)))
