"""Questions whose answers no rule can judge: AlpacaEval's instructions, TruthfulQA answered freely."""

from typing import ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.judges.page import Question
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.protocols import asked
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import Task, register, user


class OpenEnded(Task):
    """Answers that models judge; rules tell only whether there is one."""

    group: ClassVar[Group] = "general"
    headline: ClassVar[str] = "answered"
    judged_by_model: ClassVar[bool] = True

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Whether anything is said after the thinking."""
        said = bool((visible(completion) or "").strip())
        return Verdict({"answered": float(said)}, answered=said)


@register("alpaca_eval")
class AlpacaEval(OpenEnded):
    """AlpacaEval's instructions, judged by a reward model or against the outputs in the file.

    Li et al. 2023; length-controlled win rates, arXiv 2404.04475. Its data is CC-BY-NC-4.0: brought by you.
    """

    public_items: ClassVar[int] = 805

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {instruction} of a file in AlpacaEval's form; an `output` is what to compare with."""
        self.options(config)
        remedy = "copy alpaca_eval.json there from huggingface.co/datasets/tatsu-lab/alpaca_eval"
        items = []
        rows = table(config, data_root, "benchmarks/alpaca_eval.json", remedy)
        for number, (where, row) in enumerate(rows, start=1):
            reference = {name: str(row[name]) for name in ("output", "generator", "dataset") if row.get(name)}
            instruction = text(row, "instruction", where)
            prompt = asked(config, instruction, question=instruction)
            items.append(Item(f"alpaca-{number}", user(prompt), reference))
        return items

    def question(self, item: Item, response: str) -> Question:
        """With the output that it is compared with, where the file has one."""
        return Question(item.messages[-1]["content"], response, other=item.reference.get("output", ""))


@register("truthfulqa")
class TruthfulQA(OpenEnded):
    """TruthfulQA answered freely (Lin et al. 2022, arXiv 2109.07958), judged for truth and information."""

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {Question, Category, Best Answer} of TruthfulQA.csv; the question alone is asked."""
        self.options(config)
        remedy = "copy TruthfulQA.csv there from github.com/sylinrl/TruthfulQA"
        items = []
        rows = table(config, data_root, "benchmarks/TruthfulQA.csv", remedy)
        for number, (where, row) in enumerate(rows, start=1):
            question = text(row, "Question", where).strip()
            reference = {
                "question": question,
                "best": text(row, "Best Answer", where).strip(),
                "category": str(row.get("Category", "")),
            }
            prompt = asked(config, question, question=question)
            items.append(Item(f"truthfulqa-{number}", user(prompt), reference))
        return items

    def question(self, item: Item, response: str) -> Question:
        """The bare question, however it was asked."""
        return Question(item.reference["question"], response)
