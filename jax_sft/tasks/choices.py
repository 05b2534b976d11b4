"""CommonsenseQA: five-way multiple choice (Talmor et al. 2019, arXiv 1811.00937); the letter counts."""

from collections.abc import Mapping
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl
from jax_sft.responses.letters import choice
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import Task, column, exact, register, source_file, user

REMEDY = "copy dev_rand_split.jsonl of CommonsenseQA 1.11 there"


@register("commonsenseqa")
class CommonsenseQA(Task):
    """Option `instruction`: the line after the choices."""

    group: ClassVar[Group] = "reasoning"
    defaults: ClassVar = {"instruction": "Answer with the letter of the right choice."}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {id, question, choices, answerKey} of a json-lines file, flat or with nested question."""
        instruction = self.options(config)["instruction"]
        path = source_file(config, data_root, "benchmarks/commonsenseqa_dev.jsonl", REMEDY)
        items = []
        for number, row in enumerate(read_jsonl(path), start=1):
            where = f"{path}, row {number}"
            question, key = column(row, "question", where), column(row, "answerKey", where)
            letters, texts = _choices(row, where)
            reference = {"answer": key, "letters": "".join(letters), "texts": texts}
            self.check(reference, where)
            lines = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
            prompt = "\n".join([str(question), *lines, instruction]).strip()
            name = str(row.get("id", f"commonsenseqa-{number}"))
            items.append(Item(name, user(prompt), reference))
        return items

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """The right letter is one of the letters."""
        key, letters = column(reference, "answer", where), column(reference, "letters", where)
        if not isinstance(key, str) or len(key) != 1 or key not in letters:
            raise UsageError(f"{where}: answer {key!r} is not among the choices {', '.join(letters)}")

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the letter chosen after the thinking is the gold one."""
        reference = item.reference
        found = choice(visible(completion) or "", reference["letters"], reference.get("texts", ()))
        return exact(found, bool(found and found.text == reference["answer"]))


def _choices(row: dict[str, object], where: str) -> tuple[list[str], list[str]]:
    choices = column(row, "choices", where)
    try:
        letters, texts = list(choices["label"]), list(choices["text"])
    except (TypeError, KeyError):
        raise UsageError(f"{where}: choices must hold label and text") from None
    if len(letters) != len(texts) or not letters:
        raise UsageError(f"{where}: choices have {len(letters)} labels and {len(texts)} texts")
    return letters, texts
