"""MATH-500: competition problems (Hendrycks et al. 2021; the 500 of Lightman et al. 2023), by math-verify."""

from collections.abc import Mapping
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl
from jax_sft.responses import mathematics
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.protocols import asked
from jax_sft.tasks.task import Task, column, register, source_file, user

REMEDY = "make it from math_splits/test.jsonl of github.com/openai/prm800k"


@register("math500")
class Math500(Task):
    """Option `instruction`: the line after the problem."""

    group: ClassVar[Group] = "in_domain"
    isolated: ClassVar[bool] = True
    defaults: ClassVar = {
        "instruction": "Please reason step by step, and put your final answer within \\boxed{}."
    }

    def warm(self) -> None:
        """Import math-verify."""
        mathematics.warm()

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {problem, answer} of a json-lines file; gold is the answer field."""
        instruction = self.options(config)["instruction"]
        path = source_file(config, data_root, "benchmarks/math500.jsonl", REMEDY)
        items = []
        for number, row in enumerate(read_jsonl(path), start=1):
            where = f"{path}, row {number}"
            problem, answer = column(row, "problem", where), column(row, "answer", where)
            reference = {"answer": str(answer), "level": row.get("level"), "subject": row.get("subject")}
            self.check(reference, where)
            if config.protocol == "paper" and row.get("solution"):
                reference["solution"] = str(row["solution"])
            prompt = asked(config, f"{problem}\n{instruction}".strip(), question=str(problem))
            items.append(Item(str(row.get("unique_id", f"math500-{number}")), user(prompt), reference))
        return items

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """The right answer can be read."""
        gold = column(reference, "answer", where)
        try:
            mathematics.gold_answer(gold)
        except (ValueError, AttributeError) as error:
            raise UsageError(f"{where}: answer: {error}") from None

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the answer given after the thinking equals the gold one."""
        found = mathematics.judge(visible(completion) or "", item.reference["answer"])
        return Verdict({"accuracy": float(bool(found.right))}, bool(found.form), found.answer, found.form)
