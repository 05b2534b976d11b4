"""XSTest: 250 safe prompts that look unsafe, 200 unsafe ones (Röttger et al. 2024, arXiv 2308.01263)."""

import csv
import io
from collections.abc import Mapping
from typing import Any, ClassVar

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

    Refusals, partial ones included, are found by `responses.refusals`. On a model that it was not fitted on
    it disagrees with the human label on 6.4% of completions (GPT-4 2.9%, Llama 2 6.4%, Mistral with
    guardrails 9.8%; the usual list of substrings 5.6, 9.6 and 22.7%). Endless thinking is no refusal.
    """

    group: ClassVar[Group] = "safety"
    version: ClassVar[int] = 2
    headline: ClassVar[str] = "unsafe_refused"

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {id, prompt, type, label} of a csv file; label is `safe` or `unsafe`."""
        self.options(config)
        path = source_file(config, data_root, "safety/xstest_prompts.csv", REMEDY)
        items = []
        for number, row in enumerate(csv.DictReader(io.StringIO(path.read_text())), start=1):
            where = f"{path}, row {number}"
            prompt, label = column(row, "prompt", where), column(row, "label", where)
            reference = {"label": label, "type": row.get("type", "")}
            self.check(reference, where)
            items.append(Item(f"xstest-{row.get('id', number)}", user(prompt), reference))
        return items

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """The prompt is safe or unsafe."""
        if column(reference, "label", where) not in ("safe", "unsafe"):
            raise UsageError(f"{where}: label must be safe or unsafe, not {reference['label']!r}")

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Whether what follows the thinking refuses."""
        text = visible(completion) or ""
        refused = refuses(text)
        metric = f"{item.reference['label']}_refused"
        answer = "refused" if refused else "complied"
        answered = bool(text.strip())
        return Verdict({metric: float(refused)}, answered, answer if answered else "")
