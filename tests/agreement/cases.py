"""Completions on which our verdicts are compared with those of other scorers, the same wherever they run.

    python -m tests.agreement.cases DATA_ROOT cases.json                      # in this project's environment
    python tests/agreement/others.py cases.json tests/golden/agreement.json   # in that of others.py

Right and wrong answers to items of each task in the wordings of `FORMS`; {g} is the right answer, {w} a wrong
one, {t} the words of the right option, {s} the reference solution.
"""

import csv
import io
import json
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jax_sft.config import BenchmarkConfig
from jax_sft.files import read_jsonl
from jax_sft.study.records import Item
from jax_sft.tasks.tables import read_rows
from jax_sft.tasks.task import load_items

NUMBER = {
    "solution": "{s}",
    "marked": "#### {g}",
    "stated": "The answer is {g}.",
    "boxed": "So \\boxed{{{g}}}",
    "bold": "So it is **{g}**.",
    "money": "It costs ${g}.",
    "in a sentence": "She has {g} apples left.",
    "wrong": "#### {w}",
    "wrong, stated": "The answer is {w}.",
    "a number after it": "The answer is {g}. I checked it in 99 steps.",
    "after a thought": "<think>Perhaps #### {w}</think>\n#### {g}",
    "thought only": "<think>#### {g}",
}
LETTER = {
    "brackets": "The answer is ({g}).",
    "bare": "The answer is {g}.",
    "boxed": "So \\boxed{{{g}}}.",
    "bold": "**{g}**",
    "letter only": "{g}",
    "words": "The answer is {t}.",
    "with words": "({g}) {t}",
    "small": "The answer is ({l}).",
    "wrong": "The answer is ({w}).",
    "wrong, boxed": "So \\boxed{{{w}}}.",
    "taken back": "The answer is ({w}). No, the answer is ({g}).",
    "after a thought": "<think>The answer is ({w}).</think>\nThe answer is ({g}).",
    "thought only": "<think>The answer is ({g}).",
}
WORD = {
    "stated": "The answer is {g}.",
    "alone": "{g}",
    "boxed": "So \\boxed{{{g}}}.",
    "bold": "So the answer is **{g}**.",
    "wrong": "The answer is {w}.",
    "taken back": "The answer is {w}. No, the answer is {g}.",
    "after a thought": "<think>The answer is {w}.</think>\nThe answer is {g}.",
    "thought only": "<think>The answer is {g}.",
}
MATH = {
    "solution": "{s}",
    "boxed": "So \\boxed{{{g}}}.",
    "stated": "Final Answer: The final answer is ${g}$. I hope it is correct.",
    "formula": "It is ${g}$",
    "with a full stop": "\\boxed{{{g}.}}",
    "wrong": "So \\boxed{{{w}}}.",
    "wrong, stated": "Final Answer: The final answer is ${w}$. I hope it is correct.",
    "after a thought": "<think>\\boxed{{{w}}}</think>\n\\boxed{{{g}}}",
    "thought only": "<think>\\boxed{{{g}}}",
}
CODE = {"solution": "{s}", "returns nothing": "    return None\n", "no python": "    return (\n", "empty": ""}
FORMS = {
    "gsm8k": NUMBER,
    "mmlu": LETTER,
    "mmlu_pro": LETTER,
    "math500": MATH,
    "humaneval": CODE,
    "mbpp": CODE,
}
BBH = {
    "navigate": WORD,
    "boolean_expressions": WORD,
    "date_understanding": LETTER,
    "object_counting": WORD,
    "word_sorting": WORD,
}
COUNTS = {"gsm8k": 40, "mmlu": 30, "mmlu_pro": 30, "math500": 60, "humaneval": 20, "mbpp": 20, "bbh": 12}
SHOWN = 500
"""Characters of an option's words that a wording quotes."""


class Case(NamedTuple):
    """A completion, and what each side needs to judge it."""

    task: str
    form: str
    item: Item
    completion: str
    other: dict[str, Any]
    """The row as the other scorer knows it."""


def all_cases(data_root: str) -> list[Case]:
    """Every case, in a fixed order."""
    return [
        *_numbers(data_root),
        *_letters(data_root),
        *_bbh(data_root),
        *_math(data_root),
        *_code(data_root),
    ]


def _cases(
    task: str, forms: dict[str, str], item: Item, other: dict[str, Any], **values: str
) -> Iterator[Case]:
    for form, text in forms.items():
        yield Case(task, form, item, text.format(**values), other)


def _sample(kind: str, data_root: str, count: int, **options: Any) -> list[tuple[int, Item]]:
    """(place, item) of some items, by a fixed seed."""
    items = load_items(BenchmarkConfig(kind, options=options), data_root)
    places = sorted(random.Random(0).sample(range(len(items)), count))
    return [(place, items[place]) for place in places]


def _numbers(data_root: str) -> Iterator[Case]:
    rows = list(read_jsonl(Path(data_root, "benchmarks/gsm8k_test.jsonl")))
    for place, item in _sample("gsm8k", data_root, COUNTS["gsm8k"]):
        gold, solution = item.reference["answer"], rows[place]["answer"]
        wrong = str(int(gold.replace(",", "")) + 1)
        yield from _cases("gsm8k", NUMBER, item, {"target": solution}, g=gold, w=wrong, s=solution)


def _letters(data_root: str) -> Iterator[Case]:
    with zipfile.ZipFile(Path(data_root, "benchmarks/mmlu.zip")) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist()}
        for place, item in _sample("mmlu", data_root, COUNTS["mmlu"], subject="anatomy"):
            rows = list(csv.reader(io.StringIO(archive.read(names["anatomy_test.csv"]).decode(), newline="")))
            other = {"target": f"({item.reference['answer']})", "choices": rows[place][1:5]}
            yield from _cases("mmlu", LETTER, item, other, **_options(item))
    for _, item in _sample("mmlu_pro", data_root, COUNTS["mmlu_pro"]):
        yield from _cases("mmlu_pro", LETTER, item, {"target": item.reference["answer"]}, **_options(item))


def _options(item: Item) -> dict[str, str]:
    reference = item.reference
    gold, letters, texts = reference["answer"], reference["letters"], reference["texts"]
    wrong = letters[letters.index(gold) - 1]
    return {"g": gold, "l": gold.lower(), "w": wrong, "t": texts[letters.index(gold)][:SHOWN]}


def _bbh(data_root: str) -> Iterator[Case]:
    for task, forms in BBH.items():
        path = Path(data_root, f"benchmarks/bbh/{task}.json")
        rows = json.loads(path.read_text())["examples"]
        wrongs = {
            "navigate": {"Yes": "No", "No": "Yes"},
            "boolean_expressions": {"True": "False", "False": "True"},
        }
        for place, item in _sample("bbh", data_root, COUNTS["bbh"], task=task):
            other = {"input": rows[place]["input"], "target": rows[place]["target"]}
            if forms is LETTER:
                values = _options(item)
            else:
                gold = item.reference["answer"]
                wrong = wrongs.get(task, {}).get(gold) or (
                    str(int(gold) + 1) if gold.isdigit() else " ".join(reversed(gold.split()))
                )
                values = {"g": gold, "w": wrong}
            yield from _cases(f"bbh/{task}", forms, item, other, **values)


def _math(data_root: str) -> Iterator[Case]:
    rows = list(read_jsonl(Path(data_root, "benchmarks/math500.jsonl")))
    for place, item in _sample("math500", data_root, COUNTS["math500"]):
        gold, wrong = item.reference["answer"], rows[place - 1]["answer"]
        solution = rows[place]["solution"]
        yield from _cases("math500", MATH, item, {"solution": solution}, g=gold, w=wrong, s=solution)


def _code(data_root: str) -> Iterator[Case]:
    rows = {row["task_id"]: row for row in read_rows(Path(data_root, "benchmarks/HumanEval.jsonl.gz"))}
    for _, item in _sample("humaneval", data_root, COUNTS["humaneval"]):
        row = dict(rows[item.id])
        yield from _cases("humaneval", CODE, item, {"problem": row}, s=row["canonical_solution"])
    problems = {
        str(row["task_id"]): row for row in read_rows(Path(data_root, "benchmarks/mbpp_sanitized.json"))
    }
    for _, item in _sample("mbpp", data_root, COUNTS["mbpp"]):
        row = problems[item.id.removeprefix("mbpp-")]
        tests = "\n    ".join([*row["test_imports"], *row["test_list"]])
        problem = {
            "task_id": item.id,
            "prompt": "",
            "test": f"def check(_):\n    {tests}\n",
            "entry_point": "None",
        }
        yield from _cases("mbpp", CODE, item, {"problem": problem}, s=row["code"])


def main() -> None:
    """Write the cases for the other side."""
    cases = all_cases(sys.argv[1])
    rows = [
        {"task": case.task, "form": case.form, "completion": case.completion, "other": case.other}
        for case in cases
    ]
    Path(sys.argv[2]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
