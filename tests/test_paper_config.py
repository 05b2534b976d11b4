"""configs/paper.py against the table of the paper's scripts: 33 runs by their names, and what differs."""

from collections import Counter

import pytest

from jax_sft.config import Study
from jax_sft.study.load import load_study
from jax_sft.study.patterns import matching
from tests.conftest import REPOSITORY

SCRIPTS = """
Qwen3-14B: Math-CoT-20k lr5e-5_ep8_bs256 lr5e-5_ep1_bs256 lr1e-5_ep1_bs256 lr1e-5_ep2_bs256 lr5e-5_ep1_bs32
 lr5e-5_ep16_bs256 lr5e-5_ep16_bs256_ConstLR lr1e-4_ep16_bs256_ConstLR
Qwen3-14B: Math-CoT-2.5k lr5e-5_ep8_bs32
Qwen3-14B Qwen3-8B InternLM2.5-20B: Math-NoCoT-20k Numina-Math-20k Countdown-CoT-20k DeepSeek-R1-20k
Qwen3-8B InternLM2.5-20B: Math-CoT-20k
Qwen3-4B Qwen3-1.7B: Math-CoT-20k Math-NoCoT-20k Countdown-CoT-20k
Qwen2.5-1.5B Qwen2.5-3B Qwen2.5-7B Qwen2.5-14B: Math-CoT-20k
"""
"""Models, then data sets and schedules; lr5e-5_ep8_bs256 where none is named."""


def script_names() -> list[str]:
    names = []
    for line in SCRIPTS.strip().replace("\n ", " ").splitlines():
        models, _, rest = line.partition(": ")
        schedules = [word for word in rest.split() if word.startswith("lr")] or ["lr5e-5_ep8_bs256"]
        for model in models.split():
            for data in rest.split():
                if not data.startswith("lr"):
                    names += [f"{model}_{data}_{schedule}" for schedule in schedules]
    return names


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study(REPOSITORY / "configs" / "paper.py")


def test_the_runs_are_those_of_the_33_scripts(paper: Study) -> None:
    assert len(paper.runs) == 33
    assert Counter(run.name for run in paper.runs) == Counter(script_names())


def test_what_a_name_says_is_what_is_trained(paper: Study) -> None:
    for run in paper.runs:
        model, data, schedule = run.name.split("_", 2)
        rate, epochs, batch, *rest = schedule.split("_")
        assert run.optimizer.learning_rate == float(rate.removeprefix("lr"))
        assert (run.epochs, run.data.batch_size) == (int(epochs[2:]), int(batch[2:]))
        assert run.optimizer.schedule == ("constant" if rest else "cosine")
        assert (
            run.init.lower().replace("_", ".").partition("/")[2].startswith(model.lower().partition("-")[0])
        )
        assert run.data.rows == (2_560 if "2.5k" in data else 20_480)
        steps = run.data.rows * run.epochs // run.data.batch_size
        kept = [int(step) for step in run.snapshots.schedule.split(", ")]
        assert kept[:5] == [0, 10, 20, 40, 80]
        assert kept[-1] == steps
        assert (run.param_dtype, run.data.weighting, run.tokens.end) == (
            "bfloat16",
            "original",
            "end_of_text",
        )
        assert run.data.original_micro_batch == (2 if model.startswith("Intern") else 4)
    long = {run.name: run.data.row_length for run in paper.runs if run.data.row_length != 20_480}
    assert long == {"InternLM2.5-20B_Numina-Math-20k_lr5e-5_ep8_bs256": 10_240}


def test_every_run_is_in_a_table(paper: Study) -> None:
    names = [run.name for run in paper.runs]
    shown = {name for runs in paper.tables.values() for name in matching(runs, names, "tables")}
    assert shown == set(names)
    counts = {
        table.partition(" (")[0]: len(matching(runs, names, table)) for table, runs in paper.tables.items()
    }
    assert counts == {
        "Table 1": 3,
        "Table 2": 12,
        "Figure 3": 3,
        "Figure 4": 4,
        "Figure 5": 4,
        "Figure 6": 6,
        "Table 4": 3,
        "Figure 7": 3,
        "Figures 8, 14, 15": 4,
        "Tables 6-11": 6,
    }


def test_benchmarks_are_by_the_papers_protocol(paper: Study) -> None:
    assert {benchmark.protocol for benchmark in paper.benchmarks} == {"paper"}
    samples = {benchmark.name: benchmark.samples for benchmark in paper.benchmarks}
    assert samples == {
        **dict.fromkeys(("math500", "livecodebench", "gpqa"), 3),
        "aime24": 10,
        **dict.fromkeys(("mmlu_pro", "ifeval", "hexphi", "truthfulqa", "alpaca_eval"), 1),
        **{f"halueval_{kind}": 1 for kind in ("qa", "dialogue", "summarization")},
    }


def test_completions_end_where_the_papers_code_ends_them(paper: Study) -> None:
    """What comes after is read by nobody: HaluEval's 30,000 need not go on to 32,768 tokens."""
    stops = {benchmark.name: benchmark.sampling.stop for benchmark in paper.benchmarks}
    assert {name: stop for name, stop in stops.items() if stop} == {
        "mmlu_pro": ("</s>", "Q:", "<|im_end|>"),
        **{f"halueval_{kind}": ("\n\n",) for kind in ("qa", "dialogue", "summarization")},
    }


def test_smollm2_over_the_suite_quick() -> None:
    study = load_study(REPOSITORY / "configs" / "smollm2_quick.py")
    assert [run.init for run in study.runs] == ["smollm2"]
    assert [benchmark.name for benchmark in study.benchmarks] == [
        "gsm8k",
        "commonsenseqa",
        "ifeval",
        "xstest",
    ]
