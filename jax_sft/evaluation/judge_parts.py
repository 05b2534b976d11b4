"""What a judge is asked about a completion: the answer, the reasoning before it, or all of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from jax_sft.judge_config import Part
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Question, digest
from jax_sft.responses.thinking import thought, visible, without_tags
from jax_sft.study.records import Item
from jax_sft.tasks.task import Task


@dataclass(frozen=True)
class Asked:
    """A question to a judge about a part of a completion."""

    part: Part
    question: Question
    of: str
    """Checksum of what the judge is shown, before it is cut to fit."""


def questions(task: Task, judge: Chosen, item: Item, completion: str) -> Iterator[Asked]:
    """What a judge is asked about a completion; of one without reasoning that part is not asked.

    An answer that never came, because the thinking did not end, is judged as what a reader sees: nothing.
    """
    for part in judge.config.parts:
        text = part_of(completion, part)
        if text or part != "reasoning":
            question = task.question(item, text)
            yield Asked(part, question, digest(judge.page.conversations(question)))


def part_of(completion: str, part: Part) -> str:
    """The answer after the thinking, the reasoning before it without its tags, or all."""
    match part:
        case "answer":
            return visible(completion) or ""
        case "reasoning":
            return without_tags(thought(completion)).strip()
        case "all":
            return completion
