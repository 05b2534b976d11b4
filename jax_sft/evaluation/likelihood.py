"""Units asked by likelihood: items to tokens, what is missing to a scorer, its answers to verdicts.

A unit has one line for each item, kept, resumed and vouched for as completions are; its `completion` is the
likeliest continuation and its `likelihoods` are those of all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.evaluation.completions import CompletionsFile
from jax_sft.generation.backend import Given, Scored, Scorer
from jax_sft.responses.thinking import CLOSE
from jax_sft.study.likelihoods import Likelihood
from jax_sft.study.records import CompletionLine, Item, Verdict
from jax_sft.tasks.given_rows import Drift
from jax_sft.tasks.likelihood import LikelihoodTask, argmax
from jax_sft.tasks.task import get_task
from jax_sft.tokens.rendering import render_row
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.thoughts import opens_thinking
from jax_sft.tokens.tokenizer import Offsets, Tokenizer

TOKENISED_AT_ONCE = 256
"""Items; tokens with their places in the text take memory."""
Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a prompt, and of what follows it."""


@dataclass(frozen=True)
class Reader:
    """What makes tokens of an item's text."""

    tokenizer: Tokenizer
    template: ChatTemplate
    end: Literal["end_of_text", "end_of_turn"]


@dataclass(frozen=True)
class Question:
    """An item as tokens: each continuation after its prompt, and its text."""

    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]

    def given(self, name: str) -> Iterator[tuple[Given, tuple[int, ...]]]:
        """What is asked of a scorer, with the places of its continuations: those of one prompt together.

        Prompts of an item differ only where a token spans the end of the prompt.
        """
        places: dict[tuple[int, ...], list[int]] = {}
        for place, (prompt, _) in enumerate(self.pairs):
            places.setdefault(prompt, []).append(place)
        for number, (prompt, of_prompt) in enumerate(places.items()):
            continuations = tuple(self.pairs[place][1] for place in of_prompt)
            yield Given(f"{name}/{number}", prompt, continuations), tuple(of_prompt)


Questions = Mapping[str, Question]
"""By item id."""


def likelihood_task(config: BenchmarkConfig) -> LikelihoodTask | None:
    """The benchmark's task if that is asked by likelihood; UsageError for settings that it cannot have."""
    task = get_task(config.task)
    if not isinstance(task, LikelihoodTask):
        return None
    if config.samples != 1:
        raise UsageError(
            f"benchmark {config.name}: samples {config.samples}, but likelihoods are not drawn: set it to 1"
        )
    return task


def questions(task: LikelihoodTask, items: Sequence[Item], reader: Reader) -> Questions:
    """The items as tokens; UsageError naming one whose continuation holds none."""
    made = {}
    plain = [item for item in items if task.plain(item)]
    plain_pairs = _plain_pairs(task, plain, reader.tokenizer)
    for item in items:
        continuations = task.continuations(item)
        pairs = plain_pairs.get(item.id) or tuple(_pair(task, item, each, reader) for each in continuations)
        if not all(prompt and continuation for prompt, continuation in pairs):
            raise UsageError(f"item {item.id}: has a prompt or a continuation without tokens")
        texts = tuple(text if isinstance(text, str) else "" for text in continuations)
        made[item.id] = Question(pairs, texts)
    return made


def _pair(task: LikelihoodTask, item: Item, continuation: Any, reader: Reader) -> Pair:
    closed, tokenizer, template = task.closed, reader.tokenizer, reader.template
    thinks = not closed and opens_thinking(template)
    answer = f"{CLOSE}\n\n{continuation}" if thinks else continuation
    row = render_row(tokenizer, template, reader.end, item.messages, answer, item.reference.get("tools", ()))
    ids = row.ids.tolist() if closed else row.ids[:-1].tolist()
    first = int(row.is_target.argmax()) if row.is_target.any() else len(ids)
    if thinks:
        first = _after_thought(ids, first, reader)
    return tuple(ids[:first]), tuple(ids[first:])


def _plain_pairs(
    task: LikelihoodTask, items: Sequence[Item], tokenizer: Tokenizer
) -> dict[str, tuple[Pair, ...]]:
    """Bare text, after the token that begins one where the tokenizer adds such; cut where the prompt ends."""
    begin = tokenizer.named_tokens.get("bos_token")
    head = (tokenizer.token_id(begin),) if begin and tokenizer.settings.get("add_bos_token") else ()
    made: dict[str, tuple[Pair, ...]] = {}
    for at in range(0, len(items), TOKENISED_AT_ONCE):
        some = items[at : at + TOKENISED_AT_ONCE]
        prompts = [item.messages[0]["content"] for item in some]
        counts = [len(task.continuations(item)) for item in some]
        texts = [
            f"{prompt} {text}"
            for prompt, item in zip(prompts, some, strict=True)
            for text in task.continuations(item)
        ]
        encoded = iter(tokenizer.encode_plain_texts(texts))
        for item, prompt, count in zip(some, prompts, counts, strict=True):
            made[item.id] = tuple(_cut(*next(encoded), len(prompt), head) for _ in range(count))
    return made


def _cut(ids: Sequence[int], offsets: Offsets, length: int, head: tuple[int, ...]) -> Pair:
    """Tokens of a prompt of so many characters, and those after it; one that spans its end is after it."""
    first = sum(end <= length for _, end in offsets)
    return (*head, *ids[:first]), tuple(ids[first:])


def _after_thought(ids: Sequence[int], first: int, reader: Reader) -> int:
    """Place after the empty thought that the answer closes, where the template opens one."""
    tokenizer = reader.tokenizer
    closing = tokenizer.encode(CLOSE)
    if len(closing) != 1 or closing[0] not in ids[first:]:
        raise UsageError(
            f"chat template {reader.template.name} opens a thought, and its end is not one token: answers "
            "cannot be told from it; use a template without"
        )
    place = ids.index(closing[0], first) + 1
    while place < len(ids) and not tokenizer.decode([ids[place]]).strip():
        place += 1
    return place


def score_missing(
    scorer: Scorer, units: Sequence[tuple[str, CompletionsFile, Questions]], advance: Callable[[int], None]
) -> None:
    """Score what units (name, file, questions) miss, with the weights that are loaded.

    `advance` is told the tokens of each line; however it ends, what was scored is on disk.
    """
    asked: dict[str, tuple[CompletionsFile, str, tuple[int, ...]]] = {}
    given: list[Given] = []
    for name, file, by_item in units:
        for item, _ in file.missing():
            for one, places in by_item[item].given(f"{name}/{item}"):
                asked[one.id] = file, item, places
                given.append(one)
    owners = {id(file): by_item for _, file, by_item in units}
    found: dict[tuple[int, str], dict[int, Scored]] = {}
    try:
        for one, scored in scorer.score(given):
            file, item, places = asked[one.id]
            of_item = found.setdefault((id(file), item), {})
            of_item.update(zip(places, scored, strict=True))
            question = owners[id(file)][item]
            if len(of_item) == len(question.pairs):
                del found[id(file), item]
                line = _line(item, question, [of_item[place] for place in range(len(of_item))])
                file.add(line)
                advance(line.tokens)
    finally:
        for _, file, _ in units:
            file.flush()


def _line(item: str, question: Question, scored: Sequence[Scored]) -> CompletionLine:
    found = tuple(Likelihood(sum(one.logprobs), len(one.logprobs), one.greedy) for one in scored)
    likeliest = question.texts[argmax([one.logprob for one in found])]
    tokens = sum(one.tokens for one in found)
    return CompletionLine(item, 0, likeliest, tokens, "stop", found)


def weigh(
    task: LikelihoodTask, items: Sequence[Item], lines: Sequence[CompletionLine]
) -> tuple[list[Verdict | None], list[Item]]:
    """The verdict on each item's line, None where it lacks some, and the items with the `tokens` scored."""
    verdicts: list[Verdict | None] = []
    weighed = []
    for item, line in zip(items, lines, strict=True):
        weighed.append(replace(item, reference={**item.reference, "tokens": line.tokens}))
        if isinstance(task, Drift):
            verdicts.append(task.compared(line.divergence, line.tokens) if line.divergence else None)
            continue
        whole = len(line.likelihoods) == len(task.continuations(item))
        verdicts.append(task.weigh(item, line.likelihoods) if whole else None)
    return verdicts, weighed
