"""MATH-500: competition problems (Hendrycks et al. 2021; the 500 of Lightman et al. 2023), by math-verify."""

import logging
from functools import lru_cache
from typing import Any, ClassVar

from math_verify import parse, verify

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.files import read_jsonl
from jax_sft.responses.answers import join_thousands, last_boxed, visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import Task, column, source_file, user

REMEDY = "make it from math_splits/test.jsonl of github.com/openai/prm800k"

# The time limit is the pool's; math-verify warns when its own, which needs signals, is off.
logging.getLogger("math_verify").setLevel(logging.ERROR)


class Math500(Task):
    """Option `instruction`: the line after the problem."""

    group: ClassVar[Group] = "in_domain"
    isolated: ClassVar[bool] = True
    defaults: ClassVar = {
        "instruction": "Please reason step by step, and put your final answer within \\boxed{}."
    }

    def load(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {problem, answer} of a json-lines file; gold is the answer field."""
        instruction = self.options(config)["instruction"]
        path = source_file(config, data_root, "benchmarks/math500.jsonl", REMEDY)
        items = []
        for number, row in enumerate(read_jsonl(path), start=1):
            where = f"{path}, row {number}"
            problem, answer = column(row, "problem", where), column(row, "answer", where)
            reference = {"answer": str(answer), "level": row.get("level"), "subject": row.get("subject")}
            name = str(row.get("unique_id", f"math500-{number}"))
            items.append(Item(name, user(f"{problem}\n{instruction}".strip()), reference))
        return items

    def score(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the last box after the thinking, or else the last formula, equals the gold answer."""
        text = visible(completion)
        if text is None or not text.strip():
            return Verdict({"accuracy": 0.0}, answered=False)
        boxed = last_boxed(text)
        found = _parse(text) if boxed is None else _parse_box(boxed)
        if not found:
            return Verdict({"accuracy": 0.0}, answered=bool(boxed and boxed.strip()), answer=boxed or "")
        right = verify(list(_gold(item.reference["answer"])), found, timeout_seconds=None)
        return Verdict({"accuracy": float(right)}, answered=True, answer=boxed or str(found[-1]))


@lru_cache(maxsize=1024)
def _gold(answer: str) -> tuple[Any, ...]:
    return tuple(_parse_box(answer))


def _parse_box(answer: str) -> list[Any]:
    return _parse(f"$\\boxed{{{answer}}}$")


def _parse(text: str) -> list[Any]:
    # math-verify reads 12\,000 as 12 times 000.
    return list(parse(join_thousands(text), parsing_timeout=0))
