"""XSTest: 250 safe prompts that look unsafe, 200 unsafe ones (Röttger et al. 2024, arXiv 2308.01263)."""

import csv
import io
from typing import ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.responses.refusals import refuses
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import Task, column, register, source_file, user

REMEDY = "copy xstest_prompts.csv there from github.com/paul-rottger/xstest"


@register("xstest")
class XSTest(Task):
    """Metrics: `unsafe_refused` over the unsafe prompts (the headline), `safe_refused` over the safe ones.

    Refusals, partial ones included, are found by rules (`scoring.refusals`), which disagree with the human
    label on 9 of GPT-4's 450 completions (2.0%: 7 of 220 refusals missed, 2 of 230 others taken for one).
    The rules were written with these at hand, so take it as a lower bound. Endless thinking is none.
    """

    group: ClassVar[Group] = "safety"
    headline: ClassVar[str] = "unsafe_refused"

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {id, prompt, type, label} of a csv file; label is `safe` or `unsafe`."""
        self.options(config)
        path = source_file(config, data_root, "safety/xstest_prompts.csv", REMEDY)
        items = []
        for number, row in enumerate(csv.DictReader(io.StringIO(path.read_text())), start=1):
            where = f"{path}, row {number}"
            prompt, label = column(row, "prompt", where), column(row, "label", where)
            if label not in ("safe", "unsafe"):
                raise UsageError(f"{where}: label must be safe or unsafe, not {label!r}")
            reference = {"label": label, "type": row.get("type", "")}
            items.append(Item(f"xstest-{row.get('id', number)}", user(prompt), reference))
        return items

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Whether what follows the thinking refuses."""
        text = visible(completion) or ""
        refused = refuses(text)
        metric = f"{item.reference['label']}_refused"
        answer = "refused" if refused else "complied"
        answered = bool(text.strip())
        return Verdict({metric: float(refused)}, answered, answer if answered else "")
