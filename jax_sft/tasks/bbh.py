"""BIG-Bench Hard: 27 tasks that need steps (Suzgun et al. 2022, arXiv 2210.09261)."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from etils import epath

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.files import named_like, read_json, under
from jax_sft.responses.answers import Answer
from jax_sft.responses.letters import choice
from jax_sft.responses.numbers import final_number, to_fraction
from jax_sft.responses.thinking import visible
from jax_sft.responses.words import brackets, normal, ordered, word
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.tables import text
from jax_sft.tasks.task import Task, column, exact, register, user

_WORDS = {
    "boolean_expressions": ("True", "False"),
    "causal_judgement": ("Yes", "No"),
    "formal_fallacies": ("valid", "invalid"),
    "navigate": ("Yes", "No"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}
_SAME = {"sports_understanding": {"plausible": "yes", "implausible": "no"}}
_NUMBERS = ("multistep_arithmetic_two", "object_counting")
_BOXED = "within \\boxed{}."
_FORMS = {
    "letter": f"the letter of your choice {_BOXED}",
    "number": f"the number {_BOXED}",
    "order": f"the words in order, with spaces between them, {_BOXED}",
    "text": f"your answer {_BOXED}",
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "letter": ("letters", "texts"),
    "word": ("task",),
    "number": (),
    "order": (),
    "text": (),
    "brackets": ("opening",),
}
"""Kinds of answer, and what of the reference reading one needs."""
_OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)
_CANARY = re.compile(r"^.*canary GUID.*\n(?:-+\n)?", re.MULTILINE)
MOST_SHOTS = 3


@register("bbh")
class BigBenchHard(Task):
    """Accuracy over all examples. Options: `task`, one of the 27 (empty: all); `shots`, 0 to 3 examples with
    their reasoning before the question, in the form of its authors, from the folder `prompts`.

    Three of the 6,511 public answers are no letter although their questions have options: their words count.
    """

    group: ClassVar[Group] = "reasoning"
    defaults: ClassVar = {"task": "", "shots": 0, "prompts": "benchmarks/bbh_cot_prompts"}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The examples {input, target} of TASK.json in a folder, task by task."""
        options = self.options(config)
        if not 0 <= options["shots"] <= MOST_SHOTS:
            raise UsageError(
                f"benchmark {config.name}: shots {options['shots']} is not between 0 and {MOST_SHOTS}"
            )
        items = []
        for path in _files(config, data_root, options["task"]):
            head = _examples(under(data_root, options["prompts"]), path.stem, options["shots"])
            examples = read_json(path)
            for number, example in enumerate(examples.get("examples", ()), start=1):
                where = f"{path}, example {number}"
                question, target = text(example, "input", where), text(example, "target", where)
                reference = _reference(path.stem, question, target.strip())
                self.check(reference, where)
                items.append(
                    Item(f"{path.stem}-{number}", user(_prompt(head, question, reference)), reference)
                )
        return items

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """The kind of answer is known, and what reading it needs is there."""
        kind = column(reference, "kind", where)
        if kind not in _NEEDS:
            raise UsageError(f"{where}: kind {kind!r} is not one of {', '.join(_NEEDS)}")
        for name in ("answer", *_NEEDS[kind]):
            column(reference, name, where)
        if kind == "word" and reference["answer"] not in _WORDS.get(reference["task"], ()):
            words = " or ".join(_WORDS.get(reference["task"], ())) or "a word that the task has"
            raise UsageError(f"{where}: target {reference['answer']!r} is not {words}")

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the answer after the thinking is the target: a letter, word, number, order or brackets."""
        reference = item.reference
        found = _read(visible(completion) or "", reference)
        return exact(found, found is not None and _equals(found.text, reference))


def _files(config: BenchmarkConfig, data_root: str, task: str) -> list[epath.Path]:
    name = config.path or "benchmarks/bbh"
    folder = under(data_root, name)
    files = named_like(folder, "*.json")
    if not files:
        raise UsageError(
            f"benchmark {config.name}: no files TASK.json in {folder} (path {name!r} under data_root "
            f"{data_root!r}); copy bbh/*.json there from github.com/suzgunmirac/BIG-Bench-Hard"
        )
    chosen = [path for path in files if task in ("", path.stem)]
    if not chosen:
        raise UsageError(
            f"benchmark {config.name}: no task {task!r}; there are {', '.join(path.stem for path in files)}"
        )
    return chosen


def _examples(folder: epath.Path, task: str, shots: int) -> str:
    """The first examples of a task with their reasoning, without the canary line; empty for none."""
    if not shots:
        return ""
    path = folder / f"{task}.txt"
    if not path.exists():
        raise UsageError(
            f"{path}: no such file; copy cot-prompts/*.txt there from github.com/suzgunmirac/BIG-Bench-Hard"
        )
    head, *shown = re.split(r"\n\s*\n(?=Q: )", _CANARY.sub("", path.read_text()).strip())
    if len(shown) < shots:
        raise UsageError(f"{path}: holds {len(shown)} examples, asked for {shots}")
    return "\n\n".join([head.strip(), *shown[:shots], ""])


def _reference(task: str, question: str, target: str) -> dict[str, Any]:
    """What judges the answer: its kind, and of the question what reading it needs."""
    found: dict[str, Any] = {"task": task, "answer": target}
    options = dict(_OPTION.findall(question.rpartition("Options:")[2]))
    if task in _WORDS:
        return found | {"kind": "word"}
    if task in _NUMBERS:
        return found | {"kind": "number"}
    if task == "word_sorting":
        return found | {"kind": "order"}
    if task == "dyck_languages":
        return found | {"kind": "brackets", "opening": question.rpartition("Input:")[2]}
    if target.strip("()") in options:
        letters, texts = "".join(options), list(options.values())
        return found | {"kind": "letter", "answer": target.strip("()"), "letters": letters, "texts": texts}
    return found | {"kind": "text"}


def _prompt(head: str, question: str, reference: dict[str, Any]) -> str:
    if head:
        return f"{head}Q: {question}\nA: Let's think step by step."
    if reference["kind"] == "brackets":  # a box cannot hold braces that do not balance
        wanted = "end with the line: The answer is, and then only the brackets that are missing."
    else:
        words = f"your answer, {' or '.join(_WORDS.get(reference['task'], ()))}, {_BOXED}"
        wanted = f"put {_FORMS.get(reference['kind'], words)}"
    return f"{question}\nPlease reason step by step, and {wanted}"


def _read(said: str, reference: dict[str, Any]) -> Answer | None:
    match reference["kind"]:
        case "letter":
            return choice(said, reference["letters"], reference["texts"])
        case "word":
            return word(said, _WORDS[reference["task"]], _SAME.get(reference["task"]))
        case "number":
            return final_number(said)
        case "brackets":
            return brackets(said)
    return ordered(said, normal(reference["answer"]).split())


def _equals(answer: str, reference: dict[str, Any]) -> bool:
    target = reference["answer"]
    match reference["kind"]:
        case "number":
            value = to_fraction(answer)
            return value is not None and value == to_fraction(target)
        case "brackets":
            missing = "".join(target.split())
            return answer in (missing, "".join(reference["opening"].split()) + missing)
        case "order" | "text":
            return answer == normal(target)
    return answer == target
