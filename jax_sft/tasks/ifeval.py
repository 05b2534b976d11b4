"""IFEval: 541 prompts with instructions that a program can check (Zhou et al. 2023, arXiv 2311.07911)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.responses.instructions.check import fault, follows, follows_loosely
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.protocols import asked
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import Task, column, register, user

REMEDY = (
    "copy instruction_following_eval/data/input_data.jsonl there from "
    "github.com/google-research/google-research"
)


@register("ifeval")
class IFEval(Task):
    """Metrics: `prompt_strict`, the share of prompts all of whose instructions are followed (the headline);
    `instruction_strict`, the share of instructions; and the same `_loose`, without first or last line or
    asterisks. Sentences are counted by Punkt, languages told by langdetect with a fixed seed.
    """

    group: ClassVar[Group] = "general"
    headline: ClassVar[str] = "prompt_strict"
    isolated: ClassVar[bool] = True

    def warm(self) -> None:
        """Load the models of sentences and languages."""
        follows(
            "A word.", "length_constraints:number_sentences", {"num_sentences": 1, "relation": "at least"}
        )
        follows("A word.", "language:response_language", {"language": "en"})

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {key, prompt, instruction_id_list, kwargs}; arguments that are null are left out."""
        self.options(config)
        items = []
        for where, row in table(config, data_root, "benchmarks/ifeval_input_data.jsonl", REMEDY):
            reference = {"instructions": _instructions(row, where)}
            self.check(reference, where)
            name, prompt = f"ifeval-{text(row, 'key', where)}", text(row, "prompt", where)
            items.append(Item(name, user(asked(config, prompt, question=prompt)), reference))
        return items

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """Every instruction is known and has its arguments."""
        for instruction in column(reference, "instructions", where):
            name, arguments = column(instruction, "name", where), column(instruction, "arguments", where)
            if problem := fault(name, arguments):
                raise UsageError(f"{where}: {problem}")

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """What follows the thinking, judged by each instruction; an empty one follows none."""
        said = visible(completion) or ""
        metrics: dict[str, float] = {}
        for manner, check in (("strict", follows), ("loose", follows_loosely)):
            followed = [check(said, **instruction) for instruction in item.reference["instructions"]]
            metrics[f"prompt_{manner}"] = float(all(followed))
            metrics[f"instruction_{manner}"] = sum(followed) / len(followed)
        return Verdict(metrics, answered=bool(said.strip()))

    def weight(self, item: Item, metric: str) -> float:
        """A prompt counts once, or as often as it has instructions."""
        return len(item.reference["instructions"]) if metric.startswith("instruction") else 1.0


def _instructions(row: Any, where: str) -> list[dict[str, Any]]:
    names, arguments = column(row, "instruction_id_list", where), column(row, "kwargs", where)
    if not names or len(names) != len(arguments):
        raise UsageError(f"{where}: has {len(names)} instructions and {len(arguments)} kwargs")
    return [
        {"name": name, "arguments": {key: value for key, value in given.items() if value is not None}}
        for name, given in zip(names, arguments, strict=True)
    ]
