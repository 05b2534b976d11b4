"""Suites: the ready ones hold what they say, one's own is read, and what is wrong in one is named."""

from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig, EvaluationConfig, Run, Sampling, Study
from jax_sft.errors import UsageError
from jax_sft.evaluation.suites import suite
from jax_sft.judges.chosen import directions, headline_of, judges_of
from jax_sft.study.check import validate
from jax_sft.tasks.task import get_task, group_of

OWN = """
[mine]
limit = 10
sampling = { temperature = 0.5 }
[[mine.benchmarks]]
name = "gsm8k"
[[mine.benchmarks]]
name = "hard"
task = "gsm8k"
limit = 20
[other]
"""


def test_the_quick_suite_looks_at_every_group_in_a_short_context() -> None:
    found = suite("quick")
    assert {group_of(config) for config in found} == {"in_domain", "reasoning", "general", "safety"}
    assert all(0 < config.limit <= 100 and config.max_new_tokens <= 512 for config in found)
    validate(Study("s", (Run(),), benchmarks=found, evaluation=EvaluationConfig(context=1024)))


def test_the_papers_suite_has_its_samples_and_decoding() -> None:
    found = {config.name: config for config in suite("paper")}
    assert [found[name].samples for name in ("math500", "aime24", "gpqa", "mmlu_pro", "ifeval")] == [
        3,
        10,
        3,
        1,
        1,
    ]
    assert found["math500"].sampling == Sampling(temperature=0.6, top_p=0.95)
    assert found["mmlu_pro"].sampling == Sampling(temperature=0.0)
    assert (found["mmlu_pro"].limit, found["aime24"].max_new_tokens) == (1000, 32768)
    assert {config.name: group_of(config) for config in found.values()} == {
        "math500": "in_domain",
        "aime24": "in_domain",
        "livecodebench": "reasoning",
        "gpqa": "reasoning",
        "mmlu_pro": "reasoning",
        "ifeval": "general",
        "halueval_qa": "general",
        "halueval_dialogue": "general",
        "halueval_summarization": "general",
        "hexphi": "safety",
    }
    assert {group_of(config) for config in suite("safety")} == {"safety"}


@pytest.mark.parametrize("name", ["paper_judged", "safety_judged"])
def test_judged_suites_name_judges_that_there_are(name: str) -> None:
    study = Study("s", (Run(),), suite(name), EvaluationConfig(context=40_000, penalties=True))
    assert validate(study) is study
    for benchmark in study.benchmarks:
        judges = judges_of(study, benchmark)
        assert judges
        assert all(judge.page.weights for judge in judges)
        kind = get_task(benchmark.task)
        headline, _ = headline_of(benchmark, judges, kind.headline, kind.judged_by_model)
        assert headline in (kind.headline, *directions(judges))


def test_a_suite_may_be_by_the_papers_protocol(tmp_path: Path) -> None:
    for name in ("paper", "paper_judged"):
        assert {config.protocol for config in suite(name, protocol="paper")} == {"paper"}
        assert {config.protocol for config in suite(name)} == {"standard"}
    with pytest.raises(UsageError, match="suite quick: benchmark gsm8k: protocol paper has no task 'gsm8k'"):
        suite("quick", protocol="paper")


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "suites.toml"
    path.write_text(OWN)
    warm = Sampling(temperature=0.5)
    assert suite("mine", path) == (
        BenchmarkConfig("gsm8k", limit=10, sampling=warm),
        BenchmarkConfig("hard", "gsm8k", limit=20, sampling=warm),
    )


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mime", ("", ""), "no suite 'mime'; did you mean mine.; it has mine, other"),
        ("other", ("", ""), r"suite other: holds no \[\[other.benchmarks\]\]"),
        ("mine", ('"gsm8k"', '"gsm8"'), "unknown task 'gsm8'; did you mean gsm8k.; known: advbench, aime24"),
        ("mine", ("limit = 10", "limits = 10"), "suite mine: .*limits"),
        ("mine", ("limit = 10", 'limit = "10"'), "suite mine: .*limit"),
        ("mine", ('"hard"', '"gsm8k"'), "benchmark 'gsm8k' is there twice"),
        ("mine", ("[other]", "[other"), "not TOML: "),
        ("mine", ("[mine]", "mined = 3\n[mine]"), r"mined is not a suite, which is a table \[mined\]"),
    ],
)
def test_what_is_wrong_in_a_suite_is_named(
    tmp_path: Path, name: str, change: tuple[str, str], words: str
) -> None:
    path = tmp_path / "suites.toml"
    path.write_text(OWN.replace(*change, 1) if change[0] else OWN)
    with pytest.raises(UsageError, match=words):
        suite(name, path)


def test_unknown_suites_and_files(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no suite 'papers'; did you mean paper\?; it has quick, paper, safety"
    ):
        suite("papers")
    with pytest.raises(UsageError, match=r"none.toml: no such file"):
        suite("mine", tmp_path / "none.toml")
