"""Harmful requests, for how often a model refuses: HarmBench, StrongREJECT, AdvBench and HEx-PHI."""

import csv
import io
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from etils import epath

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.files import named_like, under
from jax_sft.judges.page import Question
from jax_sft.responses.refusals import refuses
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import Task, register, user

KINDS = ("standard", "contextual", "copyright")


class HarmfulRequests(Task):
    """Requests that a safe model refuses. Metric: `unsafe_refused`, by the rules of `responses.refusals`.

    What refuses may still help, and what does not may be useless: how harmful an answer is, a judge says.
    """

    group: ClassVar[Group] = "safety"
    headline: ClassVar[str] = "unsafe_refused"

    @abstractmethod
    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The requests, bare."""

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Whether what follows the thinking refuses; endless thinking does not."""
        said = visible(completion) or ""
        refused, answered = refuses(said), bool(said.strip())
        word = "refused" if refused else "complied"
        return Verdict({"unsafe_refused": float(refused)}, answered, word if answered else "")


@register("harmbench")
class HarmBench(HarmfulRequests):
    """HarmBench's behaviours (Mazeika et al. 2024, arXiv 2402.04249).

    Option `kind`: `standard`, `contextual` (the context stands before the request) or `copyright`.
    """

    defaults: ClassVar = {"kind": "standard"}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {Behavior, FunctionalCategory, SemanticCategory, ContextString, BehaviorID} of a kind."""
        kind = self.options(config)["kind"]
        if kind not in KINDS:
            raise UsageError(f"benchmark {config.name}: kind {kind!r} is not one of {', '.join(KINDS)}")
        remedy = (
            "copy data/behavior_datasets/harmbench_behaviors_text_test.csv there from "
            "github.com/centerforaisafety/HarmBench"
        )
        items = []
        for where, row in table(config, data_root, "safety/harmbench_behaviors_text_test.csv", remedy):
            if text(row, "FunctionalCategory", where) != kind:
                continue
            request, context = text(row, "Behavior", where).strip(), row.get("ContextString") or ""
            asked = f"{context.strip()}\n\n---\n\n{request}" if context.strip() else request
            reference = {"category": row.get("SemanticCategory", ""), "behavior": request}
            if context.strip():
                reference["context"] = context.strip()
            items.append(Item(text(row, "BehaviorID", where), user(asked), reference))
        return items

    def question(self, item: Item, response: str) -> Question:
        """Behaviour and context apart, as its classifier is asked."""
        reference = item.reference
        return Question(reference["behavior"], response, reference.get("context", ""))


@register("strongreject")
class StrongReject(HarmfulRequests):
    """StrongREJECT's forbidden prompts (Souly et al. 2024, arXiv 2402.10260)."""

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {category, source, forbidden_prompt}."""
        self.options(config)
        remedy = (
            "copy strongreject_dataset/strongreject_dataset.csv there from "
            "github.com/alexandrasouly/strongreject"
        )
        rows = table(config, data_root, "safety/strongreject_dataset.csv", remedy)
        return [
            Item(
                f"strongreject-{number}",
                user(text(row, "forbidden_prompt", where)),
                {"category": row.get("category", ""), "source": row.get("source", "")},
            )
            for number, (where, row) in enumerate(rows, start=1)
        ]


@register("advbench")
class AdvBench(HarmfulRequests):
    """AdvBench's harmful behaviours (Zou et al. 2023, arXiv 2307.15043)."""

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {goal, target}; the target, how a model that complies may begin, is kept."""
        self.options(config)
        remedy = "copy data/advbench/harmful_behaviors.csv there from github.com/llm-attacks/llm-attacks"
        rows = table(config, data_root, "safety/advbench_harmful_behaviors.csv", remedy)
        return [
            Item(f"advbench-{number}", user(text(row, "goal", where)), {"target": row.get("target", "")})
            for number, (where, row) in enumerate(rows, start=1)
        ]


@register("hexphi")
class HExPHI(HarmfulRequests):
    """HEx-PHI's prompts against a usage policy (Qi et al. 2023, arXiv 2310.03693), which the user brings."""

    public_items: ClassVar[int] = 300

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The prompts of category_1.csv, category_2.csv, … in a folder: one a line, no header."""
        self.options(config)
        name = config.path or "safety/hexphi"
        folder = under(data_root, name)
        files = sorted(named_like(folder, "category_*.csv"), key=_number)
        if not files:
            raise UsageError(
                f"benchmark {config.name}: no files category_N.csv in {folder} (path {name!r} under "
                f"data_root {data_root!r}); accept the licence at "
                "huggingface.co/datasets/LLM-Tuning-Safety/HEx-PHI and put its csv files there"
            )
        return [
            Item(
                f"hexphi-{path.stem.removeprefix('category_')}-{number}",
                user(prompt),
                {"category": path.stem},
            )
            for path in files
            for number, prompt in enumerate(_lines(path), start=1)
        ]


def _number(path: epath.Path) -> tuple[int, str]:
    digits = path.stem.removeprefix("category_")
    return int(digits) if digits.isdecimal() else 0, path.stem


def _lines(path: epath.Path) -> Iterator[str]:
    for row in csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")):
        if prompt := ",".join(row).strip():
            yield prompt
