"""The paper's printed numbers: as they stand in its tables, matched by run, step and benchmark, and shown."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jax_sft.analysis import published
from jax_sft.analysis.published import Published, all_published, beside, published_of
from jax_sft.analysis.report.report import write_report
from jax_sft.analysis.study import load_study as load_results
from jax_sft.config import BenchmarkConfig, Study
from jax_sft.study.load import load_study
from jax_sft.study.patterns import matching
from tests.conftest import REPOSITORY

USUAL = "Qwen3-{}_Math-CoT-20k_lr5e-5_ep8_bs256"


@pytest.mark.parametrize(
    ("run", "benchmark", "step", "score", "certainty"),
    [
        (USUAL.format("14B"), "math500", 640, 0.951, "A"),
        (USUAL.format("14B"), "gpqa", 0, 0.441, "C"),
        (USUAL.format("4B"), "ifeval", 20, 0.330, "B"),
        (USUAL.format("1.7B"), "livecodebench", 20, 0.115, "B"),
        ("Qwen3-14B_Math-CoT-20k_lr5e-5_ep1_bs32", "mmlu_pro", 640, 0.705, "C"),
        ("Qwen3-14B_Math-NoCoT-20k_lr5e-5_ep8_bs256", "alpaca_eval", 640, 2.11, "A"),
        ("InternLM2.5-20B_Countdown-CoT-20k_lr5e-5_ep8_bs256", "aime24", 640, 0.023, "B"),
        ("Qwen2.5-7B_Math-CoT-20k_lr5e-5_ep8_bs256", "math500", 0, 0.667, "B"),
    ],
)
def test_numbers_are_those_of_the_tables(
    run: str, benchmark: str, step: int, score: float, certainty: str
) -> None:
    found = {each.step: each for each in published_of(run, BenchmarkConfig(benchmark))}
    assert found[step].score == pytest.approx(score)
    assert found[step].certainty == certainty


def test_curves_have_the_papers_steps_and_every_run_is_one_of_the_study() -> None:
    for size in ("1.7B", "4B"):
        curve = published_of(USUAL.format(size), BenchmarkConfig("math500"))
        assert [each.step for each in curve] == [0, 10, 20, 40, 80, 160, 320, 480, 640]
    names = [run.name for run in load_study(REPOSITORY / "configs" / "paper.py").runs]
    for run in {each.run for each in all_published()}:
        assert matching(run, names, "published.toml")
    assert len(all_published()) == 387
    assert set(Counter(each.certainty for each in all_published())) == {"A", "B", "C"}
    assert all(each.note for each in all_published() if each.certainty == "C")


def test_the_report_lays_them_beside_its_own(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in() -> tuple[Published, ...]:
        return (
            Published("Table 9", "c*", 320, "countdown", 0.5, "B", ""),
            Published("Table 9", "c*", 7, "countdown", 0.2, "C", "two copies"),
            Published("Table 9", "other", 0, "sort", 0.2, "A", ""),
        )

    monkeypatch.setattr(published, "all_published", stand_in)
    study = make_study()
    late, early = sorted(beside(load_results(study)), key=lambda row: -row.published.step)
    assert (late.run, early.ours, early.difference) == ("cot", None, None)
    assert late.ours == pytest.approx(0.66, abs=0.05)
    assert late.difference == pytest.approx(late.ours - 0.5)
    page = Path(str(write_report(study))).read_text()
    for words in ("Beside the paper", "Diamonds: what arXiv", "two copies", "certainty B"):
        assert words in page


def test_a_study_of_other_runs_shows_nothing_of_it(kept_study: Study) -> None:
    assert beside(load_results(kept_study)) == []
