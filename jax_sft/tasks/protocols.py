"""Two protocols: `standard` is ours, `paper` asks and reads as the code of arXiv 2604.06628 does.

Where the second departs from the first is a list of named traps, so that each can be switched on alone and
its size be measured on stored completions. A trap of `asking` changes the prompt, the order of options or
which items there are: what it is worth shows only when both are drawn.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.responses import original
from jax_sft.responses.mathematics import equal_by_defaults
from jax_sft.responses.programs import answering_block
from jax_sft.responses.thinking import visible, without_tags
from jax_sft.study.document import suggestion
from jax_sft.study.records import Item, Verdict

Reader = Callable[[Item, str, str], str]
"""(item, text, whole completion) to what is judged in the text's place."""

STOPS = {"mmlu_pro": ("</s>", "Q:", "<|im_end|>"), "halueval": ("\n\n",)}
"""Texts that end a completion there, wherever they come."""
_MATH = ("math500", "aime24", "aime25", "amc23")


@dataclass(frozen=True)
class Trap:
    """One way in which the paper's code departs from the standard protocol."""

    name: str
    tasks: tuple[str, ...]
    kind: Literal["asking", "cut", "thought", "reading", "gold"]
    says: str
    read: Reader | None = None
    """Of kinds `cut`, `thought` and `reading`: what is judged in the text's place."""


def _stopped(task: str) -> Reader:
    return lambda item, text, whole: original.cut_at(text, STOPS[task])


def _boxed(letter: str) -> str:
    return f"\\boxed{{{letter}}}" if letter else ""


def _program(item: Item, text: str, whole: str) -> str:
    return f"```python\n{original.program(text)}\n```"


def _called(item: Item, text: str, whole: str) -> str:
    """The program with the function that is called under the wanted name; nothing where it has none."""
    wanted, block = item.reference["function"], answering_block(text)
    code = text if block is None else block
    if not wanted:
        return text
    name = original.called_name(code)
    found = re.search(rf"^def {re.escape(name)}\b", code, re.MULTILINE) if name else None
    return f"```python\n{code}\n{wanted} = {name}\n```" if found else ""


TRAPS = (
    Trap("space_before_instruction", _MATH, "asking", "the line after the problem begins with a space"),
    Trap("options_in_a_line", ("gpqa",), "asking", "options stand in one line, as A) …, B) …"),
    Trap(
        "salted_order",
        ("gpqa",),
        "asking",
        "the order of the options is drawn by Python's hash of the question, which is another in every "
        "process unless PYTHONHASHSEED is fixed (option hash_seed)",
    ),
    Trap("question_and_options", ("mmlu_pro",), "asking", "headings before the question and its options"),
    Trap("question_answer_wrap", ("ifeval",), "asking", "the prompt stands between Question: and Answer:"),
    Trap("question_mark", ("truthfulqa",), "asking", "two line breaks and Q: before the question"),
    Trap("judge_instruction", ("halueval",), "asking", "asked as a judge, without steps and without a box"),
    Trap("no_starter_code", ("livecodebench",), "asking", "the starter code of a function is not shown"),
    Trap("private_tests", ("livecodebench",), "asking", "only the private tests are run"),
    Trap(
        "stop_strings",
        ("mmlu_pro",),
        "cut",
        "a completion ends at </s>, Q: or <|im_end|>",
        _stopped("mmlu_pro"),
    ),
    Trap(
        "blank_line", ("halueval",), "cut", "a completion ends at its first blank line", _stopped("halueval")
    ),
    Trap(
        "whole_output",
        (*_MATH, "gpqa", "mmlu_pro", "livecodebench"),
        "thought",
        "the thinking is read as if it were said",
        lambda item, text, whole: text,
    ),
    Trap(
        "unclosed_thought",
        ("ifeval", "halueval"),
        "thought",
        "a thought that never ended is graded as the answer",
        lambda item, text, whole: original.without_closed_thoughts(text),
    ),
    Trap(
        "first_match",
        ("mmlu_pro",),
        "reading",
        'the first "answer is X" or boxed letter counts, and nothing else',
        lambda item, text, whole: _boxed(original.letter_of_ten(text)),
    ),
    Trap(
        "box_or_phrase",
        ("gpqa",),
        "reading",
        'the last box, or a phrase whose letter may begin a word ("the answer is certain" is C)',
        lambda item, text, whole: _boxed(original.letter_of_four(text)),
    ),
    Trap(
        "last_yes_or_no",
        ("halueval",),
        "reading",
        "the last Yes or No anywhere counts, or yes or no within the first line's words",
        lambda item, text, whole: _boxed(original.yes_or_no(text, whole)),
    ),
    Trap(
        "python_fence",
        ("livecodebench",),
        "reading",
        "only a closed ```python block is a program; without one it is the last character",
        _program,
    ),
    Trap(
        "first_name_called",
        ("livecodebench",),
        "reading",
        "the name before the first bracket is called: a method of class Solution fails",
        _called,
    ),
    Trap(
        "verify_by_defaults",
        _MATH,
        "gold",
        "math-verify reads and compares by its defaults, without tidying and without exact checks",
    ),
    Trap(
        "gold_from_solution", ("math500",), "gold", "the right answer is read out of the reference solution"
    ),
)


def reading_traps(task: str) -> tuple[str, ...]:
    """The traps of a task that stored completions can measure; none where the paper has no such task."""
    return tuple(trap.name for trap in TRAPS if task in trap.tasks and trap.kind != "asking")


def check_protocol(config: BenchmarkConfig) -> None:
    """UsageError for a benchmark that is to be asked as in the paper, which has no such task."""
    known = sorted(_prompts())
    if config.protocol == "paper" and config.task not in known:
        raise UsageError(
            f"benchmark {config.name}: protocol paper has no task {config.task!r}"
            f"{suggestion(config.task, known)}; it has {', '.join(known)}"
        )


def asked(config: BenchmarkConfig, standard: str, kind: str = "", **parts: str) -> str:
    """The prompt of a question: the standard one, or the paper's, of that kind, made of the parts."""
    if config.protocol == "standard":
        return standard
    found = _prompts()[config.task]
    prompt: str = found[kind] if kind else found
    return re.sub(r"\{(\w+)\}", lambda part: parts.get(part[1], part[0]), prompt)


@lru_cache(maxsize=1)
def _prompts() -> dict[str, Any]:
    """The paper's prompts, by task and kind."""
    return tomllib.loads(resources.files("jax_sft.tasks").joinpath("paper_prompts.toml").read_text("utf-8"))


@dataclass(frozen=True)
class PaperRules:
    """A task's verdicts with some traps on."""

    task: str
    traps: tuple[str, ...]
    standard: Callable[[Item, str, str], Verdict]
    """The task's own verdict, for what the traps leave to be read."""

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Judge one completion; pickles, so that other processes can."""
        traps = [trap for trap in TRAPS if trap.name in self.traps and self.task in trap.tasks]
        text = self._through(traps, "cut", item, completion, completion)
        if any(trap.kind == "thought" for trap in traps):
            said = self._through(traps, "thought", item, text, completion)
        else:
            said = visible(text) or ""
        said = self._through(traps, "reading", item, said, completion)
        solution = item.reference.get("solution")
        if solution and "gold_from_solution" in self.traps:
            item = replace(item, reference={**item.reference, "answer": solution})
        if "verify_by_defaults" in self.traps:
            right = equal_by_defaults(item.reference["answer"], said)
            return Verdict({"accuracy": float(right)}, answered=bool(said.strip()))
        return self.standard(item, without_tags(said), finish)

    @staticmethod
    def _through(traps: list[Trap], kind: str, item: Item, text: str, whole: str) -> str:
        for trap in traps:
            if trap.kind == kind and trap.read is not None:
                text = trap.read(item, text, whole)
        return text


@lru_cache(maxsize=8)
def salted_seeds(questions: tuple[str, ...], hash_seed: int) -> tuple[int, ...]:
    """Of each question, the seed by which the paper's GPQA shuffles its options where PYTHONHASHSEED is so.

    Python hashes text in another way since 3.11: which version the paper ran is not known.
    """
    program = "import json, sys; print(json.dumps([hash(each) % 10000 for each in json.load(sys.stdin)]))"
    found = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(questions),
        env={"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(42 + remainder for remainder in json.loads(found.stdout))
