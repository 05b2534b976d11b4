"""Tasks asked by likelihood: what makes one, and multiple choice whose options are weighed, not written."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group, replace
from jax_sft.errors import UsageError
from jax_sft.study.likelihoods import Likelihood
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import Task, get_task, register, user

LETTER_INSTRUCTION = "Answer with the letter of the right choice."
FORM = "likeliest"


class LikelihoodTask(Task):
    """Asks how likely given continuations of an item's prompt are; nothing is drawn."""

    ask: ClassVar = "likelihood"
    closed: ClassVar[bool] = False
    """Whether the token that closes a turn belongs to a continuation."""

    def continuations(self, item: Item) -> tuple[Any, ...]:
        """What may follow the prompt: texts, or assistant's turns with fields of their own."""
        return tuple(item.reference["choices"])

    def plain(self, item: Item) -> bool:
        """Whether the item is bare text that a space and a continuation follow, and no conversation."""
        return bool(item.reference.get("plain"))

    @abstractmethod
    def weigh(self, item: Item, found: Sequence[Likelihood]) -> Verdict:
        """Judge an item by the likelihoods of its continuations, in their order."""

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """UsageError: there is no completion to judge."""
        raise UsageError(f"item {item.id}: is judged by likelihoods, not by a completion")


def shares(logprobs: Sequence[float]) -> list[float]:
    """Probabilities of options that are all there are: exp(logprob) over their sum."""
    highest = max(logprobs)
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def argmax(values: Sequence[float]) -> int:
    """Place of the highest value, the first of equal ones."""
    return max(range(len(values)), key=values.__getitem__)


class ChoiceByLikelihood(LikelihoodTask):
    """The questions of another task, whose options are weighed by their likelihood.

    `accuracy` is the share of questions whose right option is the likeliest, `accuracy_per_byte` when each
    log-probability is divided by the length of its text, `right_probability` what the right option has of the
    probability of all options: a curve that moves before accuracy does.

    Options: those of the other task; `choices`, weighed by `letter` or by `text`; `plain`, asked as bare text
    without a chat template, as base models and most published numbers are.
    """

    source: ClassVar[str]
    """The task whose questions these are."""
    group: ClassVar[Group] = "reasoning"
    defaults: ClassVar = {"instruction": LETTER_INSTRUCTION, "choices": "letter", "plain": False}
    free_options: ClassVar = True

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The items of the other task, with their options as continuations."""
        options = self.options(config)
        kind, plain = options.pop("choices"), options.pop("plain")
        if kind not in ("letter", "text"):
            raise UsageError(f"benchmark {config.name}: choices {kind!r} is neither letter nor text")
        items = get_task(self.source).items(replace(config, options=options), data_root)
        made = []
        for item in items:
            letters, texts = list(item.reference["letters"]), list(item.reference["texts"])
            choices = letters if kind == "letter" else texts
            right = letters.index(item.reference["answer"])
            messages = user(_asking(item.messages[0]["content"])) if plain else item.messages
            made.append(Item(item.id, messages, {"choices": choices, "right": right, "plain": plain}))
        return made

    def weigh(self, item: Item, found: Sequence[Likelihood]) -> Verdict:
        """1 when the right option is the likeliest."""
        choices, right = item.reference["choices"], item.reference["right"]
        logprobs = [one.logprob for one in found]
        per_byte = [one.logprob / len(text.encode()) for one, text in zip(found, choices, strict=True)]
        chosen = argmax(logprobs)
        metrics = {
            "accuracy": float(chosen == right),
            "accuracy_per_byte": float(argmax(per_byte) == right),
            "right_probability": shares(logprobs)[right],
        }
        return Verdict(metrics, answered=True, answer=choices[chosen], form=FORM)


def _asking(prompt: str) -> str:
    """A question that an answer follows."""
    return prompt if prompt.endswith("Answer:") else f"{prompt}\nAnswer:"


@register("mmlu_likelihood")
class MmluByLikelihood(ChoiceByLikelihood):
    """MMLU by the likelihood of its letters; `shots 5 plain yes` asks as its authors did."""

    source: ClassVar = "mmlu"


@register("mmlu_pro_likelihood")
class MmluProByLikelihood(ChoiceByLikelihood):
    """MMLU-Pro by the likelihood of its letters."""

    source: ClassVar = "mmlu_pro"


@register("gpqa_likelihood")
class GpqaByLikelihood(ChoiceByLikelihood):
    """GPQA-Diamond by the likelihood of its letters."""

    source: ClassVar = "gpqa"


@register("commonsenseqa_likelihood")
class CommonsenseQAByLikelihood(ChoiceByLikelihood):
    """CommonsenseQA by the likelihood of its letters."""

    source: ClassVar = "commonsenseqa"
