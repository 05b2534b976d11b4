"""Every real data set at hand loads whole: benchmarks as tasks, requests, rows to train on, fixtures."""

from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig, DataConfig
from jax_sft.data.sources import load_rows
from jax_sft.errors import UsageError
from jax_sft.evaluation.suites import suite
from jax_sft.tasks.tables import read_rows
from jax_sft.tasks.task import load_items

BENCHMARKS = [
    ("aime24", "", 30),
    ("amc23", "", 40),
    ("bbh", "", 6511),
    ("commonsenseqa", "", 1221),
    ("gsm8k", "", 1319),
    ("humaneval", "", 164),
    ("ifeval", "", 541),
    ("math500", "", 500),
    ("mbpp", "", 427),
    ("mmlu", "", 14042),
    ("mmlu_pro", "", 1400),
    ("truthfulqa", "", 817),
    ("truthfulqa_choice", "", 817),
    ("advbench", "", 520),
    ("harmbench", "", 159),
    ("harmbench", "safety/harmbench_behaviors_text_val.csv", 41),
    ("strongreject", "", 313),
    ("strongreject", "safety/strongreject_small_dataset.csv", 60),
    ("xstest", "", 450),
]
ROWS = [
    ("gsm8k_train.jsonl", {"format": "gsm8k"}, 7473),
    ("STAR-1_decontaminated.json", {"prompt": "question"}, 952),
    ("marco_o1_CoT_demo.json", {"prompt": "instruction", "response": "response"}, 125),
    ("rasbt_sample_ollama_outputs.json", {"prompt": "problem", "response": "message_content"}, 5),
    ("rasbt_sample_openrouter_outputs.json", {"prompt": "problem", "response": "message_content"}, 5),
]
FIXTURES = [
    ("answers.jsonl", 438),
    ("ifeval_gpt4_responses.jsonl", 541),
    ("xstest_completions_gpt4_human_labels.csv", 450),
    ("xstest_v2_completions_llama2orig.csv", 450),
    ("xstest_v2_completions_mistralguard.csv", 450),
]


@pytest.mark.parametrize(("task", "path", "count"), BENCHMARKS)
def test_benchmarks(task: str, path: str, count: int, shared_data: Path) -> None:
    items = load_items(BenchmarkConfig(task, path=path), str(shared_data))
    assert len(items) == count
    assert all(item.messages[-1]["content"].strip() for item in items)


@pytest.mark.parametrize(("name", "options", "count"), ROWS)
def test_rows_to_train_on(name: str, options: dict[str, str], count: int, shared_data: Path) -> None:
    config = DataConfig(source=f"reasoning_sft/{name}", options={**options})
    assert len(load_rows(config, 0, str(shared_data))) == count


def test_turns_in_parts_are_refused_by_name(shared_data: Path) -> None:
    """Some of its turns hold a thought as a part and in think tags: which is meant, its owner must say."""
    config = DataConfig(source="reasoning_sft/llamafactory_reason_tool_use_demo_50.jsonl")
    with pytest.raises(UsageError, match=r"demo_50.jsonl, row 1: messages\[0\]: content must be text"):
        load_rows(config, 0, str(shared_data))


@pytest.mark.parametrize(("name", "count"), FIXTURES)
def test_fixtures(name: str, count: int, shared_data: Path) -> None:
    from etils import epath

    assert len(list(read_rows(epath.Path(shared_data / "fixtures" / name)))) == count


def test_no_file_is_left_out(shared_data: Path) -> None:
    named = {Path(path).name for _, path, _ in BENCHMARKS} | {name for name, *_ in (*ROWS, *FIXTURES)}
    default = (
        "aime24.jsonl amc23.jsonl commonsenseqa_dev.jsonl gsm8k_test.jsonl HumanEval.jsonl.gz mmlu.zip "
        "ifeval_input_data.jsonl math500.jsonl mbpp_sanitized.json mmlu_pro_sample1400.jsonl TruthfulQA.csv "
        "advbench_harmful_behaviors.csv harmbench_behaviors_text_test.csv strongreject_dataset.csv "
        "xstest_prompts.csv llamafactory_reason_tool_use_demo_50.jsonl SOURCES.md "
        "stories260K.bin"  # weights without the tokenizer that they were made with
    )
    known = named | set(default.split())
    files = {path.name for path in shared_data.rglob("*") if path.is_file() and "bbh" not in str(path.parent)}
    assert files <= known


@pytest.mark.parametrize("name", ["paper", "safety"])
def test_what_is_absent_says_what_to_accept_or_copy_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    for benchmark in suite(name):
        with pytest.raises(UsageError) as raised:
            load_items(benchmark, str(tmp_path))
        said = str(raised.value)
        assert str(tmp_path) in said, said
        assert any(word in said for word in ("copy", "write", "put", "join", "make it")), said
        if benchmark.task in ("gpqa", "hexphi"):
            assert "accept" in said
