"""Which completions the page shows, and how much of them."""

from dataclasses import replace

import pytest

from jax_sft.analysis.report.browser import CompletionSample, choose_items, shorten
from jax_sft.analysis.study import completions_of, load_study
from jax_sft.config import Study


def test_changing_items_are_those_whose_verdict_changes_most(kept_study: Study) -> None:
    record = load_study(kept_study)
    chosen = choose_items(record, "sort")
    assert [why for _, why in chosen] == ["picked at random"] * 5 + [
        "picked because its verdict changes most"
    ] * 3

    def changes(item: str) -> int:
        total = 0
        for run in record.swept:
            seen = [run.units[step, "sort"].item_scores[item] for step in run.steps]
            total += sum(seen[i] != seen[i + 1] for i in range(len(seen) - 1))
        return total

    left_out = set(record.items["sort"]) - {item for item, _ in chosen}
    assert min(changes(item) for item, _ in chosen[5:]) >= max(changes(item) for item in left_out)


def test_scores_are_turned_round_where_lower_is_better(kept_study: Study) -> None:
    record = load_study(kept_study)
    unit = record.swept[0].units[320, "refusals"]
    turned = replace(unit, higher_is_better=False)
    marks = []
    for each in (unit, turned):
        sample = CompletionSample(record)
        sample.add(each, completions_of(kept_study, unit))
        marks.append([entry["score"] for entry in sample.as_json()["units"]["cot"]["refusals"][320]])
    assert set(marks[0]) == {0.0, 1.0}
    assert marks[1] == [1 - score for score in marks[0]]


@pytest.mark.parametrize("length", [0, 99, 100])
def test_short_text_stays_whole(length: int) -> None:
    assert shorten("x" * length, 100) == "x" * length


def test_long_text_keeps_its_ends() -> None:
    text = shorten("start" + "x" * 5000 + "end", 100)
    assert text.startswith("start")
    assert text.endswith("end")
    assert "[… 4,908 characters left out …]" in text
