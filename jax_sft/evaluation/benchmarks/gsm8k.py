"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168); the final number counts."""

from typing import ClassVar

from jax_sft.config import BenchmarkConfig
from jax_sft.data.sources import GSM8K_INSTRUCTION
from jax_sft.errors import UsageError
from jax_sft.evaluation.benchmarks.base import Benchmark, Item, Verdict, column, source_file, user
from jax_sft.evaluation.scoring.answers import final_number, to_decimal, visible
from jax_sft.files import read_jsonl

REMEDY = "copy grade_school_math/data/test.jsonl there from github.com/openai/grade-school-math"


class GSM8K(Benchmark):
    """Option `instruction`: the line after the question; the default is that of the training rows."""

    defaults: ClassVar = {"instruction": GSM8K_INSTRUCTION}

    def load(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {question, answer} of a json-lines file; `answer` ends in #### and the number."""
        instruction = self.options(config)["instruction"]
        path = source_file(config, data_root, "benchmarks/gsm8k_test.jsonl", REMEDY)
        items = []
        for number, row in enumerate(read_jsonl(path), start=1):
            where = f"{path}, row {number}"
            question, answer = column(row, "question", where), column(row, "answer", where)
            gold = str(answer).rpartition("####")[2].strip()
            if to_decimal(gold) is None:
                raise UsageError(f"{where}: answer must end in #### and a number, found {gold[:40]!r}")
            items.append(
                Item(f"gsm8k-{number}", user(f"{question}\n{instruction}".strip()), {"answer": gold})
            )
        return items

    def score(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the final number after the thinking (####, else a box, else the last) is the gold one."""
        text = visible(completion)
        answer = final_number(text) if text is not None else None
        if answer is None:
            return Verdict({"accuracy": 0.0}, answered=False)
        right = to_decimal(answer) == to_decimal(item.reference["answer"])
        return Verdict({"accuracy": float(right)}, answered=True, answer=answer)
