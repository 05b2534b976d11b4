"""Two protocols on the same completions: what traps are worth, and that no curve holds both."""

from pathlib import Path

import pytest

from jax_sft.cli.main import main
from jax_sft.config import BenchmarkConfig, EvaluationConfig, Protocol, Run, SnapshotConfig, Study, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.items import store_items
from jax_sft.evaluation.score import score
from jax_sft.evaluation.settings import drawn_with
from jax_sft.evaluation.traps import ALL, measured_traps, trap_sizes
from jax_sft.evaluation.units import check_drawn
from jax_sft.files import write_json, write_jsonl
from jax_sft.responses.workers import Limits, Workers
from jax_sft.study.document import study_to_json
from jax_sft.study.folder import completions_file, study_file, study_folder, unit_folder
from jax_sft.study.records import Item, UnitRecord

REFERENCE = {"answer": "B", "letters": "ABCD", "texts": ["one", "two", "three", "four"]}
TEXTS = (
    "\\boxed{B}",
    "The answer is A? No, \\boxed{B}.",
    "<think>So \\boxed{B}</think>Hm.",
    "B. two",
    "See Q: 3. \\boxed{B}",
)


def swept(root: Path, protocol: str, benchmark: BenchmarkConfig) -> Study:
    """A study with one unit of completions, drawn by that protocol."""
    row = {"question_id": 0, "question": "?", "options": REFERENCE["texts"], "answer": "B", "category": "x"}
    write_jsonl(root / "p.jsonl", [row | {"question_id": place} for place in range(len(TEXTS))])
    run = Run(name="r", snapshots=SnapshotConfig(schedule="0"))
    study = Study(
        "s", (run,), (benchmark,), EvaluationConfig(context=512), root=str(root), data_root=str(root)
    )
    items = store_items(study, benchmark, print)
    folder = unit_folder(study, "r", 0, benchmark.name)
    lines = [
        {"item": item.id, "sample": 0, "completion": text, "tokens": 9, "finish": "stop"}
        for item, text in zip(items, TEXTS, strict=True)
    ]
    write_jsonl(completions_file(folder), lines)
    settings = drawn_with(replace(benchmark, protocol=protocol), study.evaluation)
    UnitRecord("r", 0, benchmark.name, "", "", "", settings, {}).write(folder)
    write_json(study_file(study_folder(study)), {"study": study_to_json(study)})
    return study


def test_the_size_of_each_trap_in_points() -> None:
    asked = [(Item(f"i{place}", (), REFERENCE), text, "stop") for place, text in enumerate(TEXTS)]
    with Workers(Limits()) as workers:
        sizes = {size.name: size for size in trap_sizes("mmlu_pro", asked, workers)}
        with pytest.raises(UsageError, match="task gsm8k: the paper's protocol reads it as the standard one"):
            trap_sizes("gsm8k", asked, workers)
    assert list(sizes) == [ALL, "stop_strings", "whole_output", "first_match"]
    found = [(size.gained, size.lost, round(size.points, 6)) for size in sizes.values()]
    assert found == [(1, 3, -40), (0, 1, -20), (1, 0, 20), (0, 2, -40)]
    assert all((size.compared, size.standard) == (5, 0.8) for size in sizes.values())


def test_stored_completions_are_measured_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = BenchmarkConfig("p", "mmlu_pro", path="p.jsonl")
    study = swept(tmp_path, "standard", benchmark)
    assert measured_traps(study).row_count == 4
    before = sorted(tmp_path.rglob("*"))
    assert main(["score", str(tmp_path / "s"), "--traps"]) == 0
    assert "first_match" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    other = replace(study, benchmarks=(replace(benchmark, name="q"),))
    with pytest.raises(UsageError, match=r"no completions under .* of a task with traps"):
        measured_traps(other)


@pytest.mark.parametrize(("drawn", "wanted"), [("standard", "paper"), ("paper", "standard")])
def test_one_curve_holds_one_protocol(tmp_path: Path, drawn: Protocol, wanted: Protocol) -> None:
    benchmark = BenchmarkConfig("p", "mmlu_pro", path="p.jsonl", protocol=wanted)
    study = swept(tmp_path, drawn, benchmark)
    words = f"was drawn with protocol {drawn}, now it is {wanted}; "
    with pytest.raises(UsageError, match=words):
        check_drawn(study, benchmark)
    with pytest.raises(JaxSftError, match=words):
        score(study)


def test_the_papers_scores_are_by_all_its_traps(tmp_path: Path) -> None:
    study = swept(tmp_path, "paper", BenchmarkConfig("p", "mmlu_pro", path="p.jsonl", protocol="paper"))
    (scores,) = score(study)
    assert scores.score == pytest.approx(0.4)
    assert scores.scorer.endswith(" paper")
