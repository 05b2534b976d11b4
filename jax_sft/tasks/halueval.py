"""HaluEval: whether a model sees what in a text is made up (Li et al. 2023, arXiv 2305.11747)."""

import hashlib
from typing import ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.responses.thinking import visible
from jax_sft.responses.words import word
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.protocols import asked
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import Task, exact, register, user

ANSWERS = ("Yes", "No")
_PARTS = {
    "qa": (("Knowledge", "knowledge"), ("Question", "question"), ("Answer", "{}_answer")),
    "dialogue": (("Knowledge", "knowledge"), ("Dialogue", "dialogue_history"), ("Response", "{}_response")),
    "summarization": (("Document", "document"), ("Summary", "{}_summary")),
}
"""Of each kind, the titles of a question's parts and the columns that hold them; the last is judged."""


@register("halueval")
class HaluEval(Task):
    """Asks whether an answer holds made-up information: Yes or No. Options: `kind` (`qa`, `dialogue` or
    `summarization`), and `seed`, by which and by its number each row shows its right or its made-up text.
    """

    group: ClassVar[Group] = "general"
    public_items: ClassVar[int] = 10_000
    defaults: ClassVar = {"kind": "qa", "seed": 0}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows of KIND_data.json, with columns right_… and hallucinated_…; as many made up as not."""
        options = self.options(config)
        kind, seed = options["kind"], options["seed"]
        if kind not in _PARTS:
            raise UsageError(f"benchmark {config.name}: kind {kind!r} is not one of {', '.join(_PARTS)}")
        remedy = f"copy data/{kind}_data.json there from github.com/RUCAIBox/HaluEval"
        items = []
        rows = table(config, data_root, f"benchmarks/halueval/{kind}_data.json", remedy)
        for number, (where, row) in enumerate(rows, start=1):
            made_up = bool(hashlib.sha256(f"{kind} {number} {seed}".encode()).digest()[0] % 2)
            shown = "hallucinated" if made_up else "right"
            values = [text(row, column.format(shown), where).strip() for _, column in _PARTS[kind]]
            parts = [f"{title}: {value}" for (title, _), value in zip(_PARTS[kind], values, strict=True)]
            judged = _PARTS[kind][-1][0].lower()
            question = (
                f"Does the {judged} hold information that is made up, or that the rest does not support? "
                "Please reason step by step, and put your answer, Yes or No, within \\boxed{}."
            )
            names = [column for _, column in _PARTS[kind][:-1]] + ["judged"]
            prompt = asked(
                config, "\n\n".join([*parts, question]), kind, **dict(zip(names, values, strict=True))
            )
            reference = {"answer": ANSWERS[0] if made_up else ANSWERS[1]}
            items.append(Item(f"halueval-{kind}-{number}", user(prompt), reference))
        return items

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the answer after the thinking, Yes or No, is right."""
        found = word(visible(completion) or "", ANSWERS)
        return exact(found, found is not None and found.text == item.reference["answer"])
