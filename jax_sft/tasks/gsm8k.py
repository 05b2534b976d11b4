"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168); the final number counts."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl, under
from jax_sft.responses.numbers import final_number, to_fraction
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.rows import TrainingFormat
from jax_sft.tasks.task import Task, column, exact, register, source_file, user

GSM8K_INSTRUCTION = "Solve the problem step by step. End with the answer as a number after ####."
_CALCULATOR = re.compile(r"<<[^<>]*>>")
TRAINING_FORMAT = TrainingFormat(
    prompt="question",
    response="answer",
    instruction=GSM8K_INSTRUCTION,
    # The calculator notes (`<<48/2=24>>`) belong to a tool that the models here do not have.
    clean=lambda answer: _CALCULATOR.sub("", answer),
)
MOST_SHOTS = 8
REMEDY = "copy grade_school_math/data/test.jsonl there from github.com/openai/grade-school-math"


@register("gsm8k")
class GSM8K(Task):
    """Options: `instruction`, the line after the question, by default that of the training rows; `shots`, 0
    to 8 solved examples before it, the first rows of the file `examples`, and then without the instruction.
    """

    group: ClassVar[Group] = "in_domain"
    defaults: ClassVar = {
        "instruction": GSM8K_INSTRUCTION,
        "shots": 0,
        "examples": "reasoning_sft/gsm8k_train.jsonl",
    }

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {question, answer} of a json-lines file; `answer` ends in #### and the number."""
        options = self.options(config)
        head, instruction = _solved(config, data_root, options), options["instruction"]
        path = source_file(config, data_root, "benchmarks/gsm8k_test.jsonl", REMEDY)
        items = []
        for number, row in enumerate(read_jsonl(path), start=1):
            where = f"{path}, row {number}"
            question, answer = column(row, "question", where), column(row, "answer", where)
            reference = {"answer": str(answer).rpartition("####")[2].strip()}
            self.check(reference, where)
            prompt = f"{head}Question: {question}\nAnswer:" if head else f"{question}\n{instruction}".strip()
            items.append(Item(f"gsm8k-{number}", user(prompt), reference))
        return items

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """The right answer is a number."""
        gold = column(reference, "answer", where)
        if not isinstance(gold, str) or to_fraction(gold) is None:
            raise UsageError(f"{where}: answer must end in #### and a number, found {str(gold)[:40]!r}")

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the number given as the answer after the thinking is the gold one."""
        found = final_number(visible(completion) or "")
        gold = to_fraction(item.reference["answer"])
        return exact(found, bool(found and to_fraction(found.text) == gold))


def _solved(config: BenchmarkConfig, data_root: str, options: Mapping[str, Any]) -> str:
    """The solved examples, without the notes for a calculator; nothing for none."""
    shots = options["shots"]
    if not 0 <= shots <= MOST_SHOTS:
        raise UsageError(f"benchmark {config.name}: shots {shots} is not between 0 and {MOST_SHOTS}")
    if not shots:
        return ""
    path = under(data_root, options["examples"])
    if not path.exists():
        raise UsageError(
            f"benchmark {config.name}: no file {path} of examples; copy "
            "grade_school_math/data/train.jsonl there from github.com/openai/grade-school-math"
        )
    rows = list(islice(read_jsonl(path), shots))
    if len(rows) < shots:
        raise UsageError(f"{path}: holds {len(rows)} examples, asked for {shots}")
    shown = []
    for number, row in enumerate(rows, start=1):
        question, answer = (column(row, name, f"{path}, row {number}") for name in ("question", "answer"))
        shown.append(f"Question: {question}\nAnswer: {TRAINING_FORMAT.clean(str(answer))}\n\n")
    return "".join(shown)
