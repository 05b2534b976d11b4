"""AIME 2024 and 2025 and AMC 2023: competition problems with a whole number as the answer, by math-verify."""

from typing import ClassVar

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.study.records import Item
from jax_sft.tasks.mathematics import Math500
from jax_sft.tasks.protocols import asked
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import register, user

_ANSWERS = ("answer", "expected_answer", "Answer")
_PROBLEMS = ("problem", "question", "Problem")


class Competition(Math500):
    """Asked and judged like MATH-500. The sets are small: draw 16 samples an item or more."""

    file: ClassVar[str]
    remedy: ClassVar[str]

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {problem, answer}; a problem may be called question, an answer expected_answer."""
        instruction = self.options(config)["instruction"]
        items = []
        for number, (where, row) in enumerate(table(config, data_root, self.file, self.remedy), start=1):
            problem, answer = (
                text(row, next((name for name in names if name in row), names[0]), where)
                for names in (_PROBLEMS, _ANSWERS)
            )
            # Some copies hold 33.0 for 33, some 033.
            gold = answer.strip().removesuffix(".0")
            if not gold.lstrip("-").isdecimal():
                raise UsageError(f"{where}: the answer must be a whole number, found {answer[:40]!r}")
            prompt = asked(config, f"{problem}\n{instruction}".strip(), question=problem)
            items.append(Item(f"{config.task}-{number}", user(prompt), {"answer": str(int(gold))}))
        return items


@register("aime24")
class Aime24(Competition):
    """The 30 problems of AIME 2024 I and II."""

    file = "benchmarks/aime24.jsonl"
    remedy = (
        "write its 30 problems there as lines {problem, answer}, for example from math-ai/aime24 on the hub"
    )


@register("aime25")
class Aime25(Competition):
    """The 30 problems of AIME 2025 I and II."""

    file = "benchmarks/aime25.jsonl"
    remedy = (
        "write its 30 problems there as lines {problem, answer}, for example from math-ai/aime25 on the hub"
    )


@register("amc23")
class Amc23(Competition):
    """40 problems of AMC 12 2023 whose answer is a number."""

    file = "benchmarks/amc23.jsonl"
    remedy = (
        "write its 40 problems there as lines {question, answer}, for example from math-ai/amc23 on the hub"
    )
