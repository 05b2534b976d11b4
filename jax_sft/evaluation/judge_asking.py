"""Asking a judge: its weights take the chips, and are let go of with the last answer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig
from jax_sft.evaluation.judge_models import JudgeModel
from jax_sft.evaluation.judge_served import Answer, ServedJudge
from jax_sft.generation.backend import Backend, MakeBackend, Request
from jax_sft.generation.rewards import Rewards
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Question
from jax_sft.models import Params
from jax_sft.models.weights.read import load_pretrained

AnyJudge = JudgeModel | ServedJudge
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Chips:
    """Where judges run: the same mesh and the same kind of backend as the completions."""

    mesh: Mesh
    make_backend: MakeBackend
    free: Callable[[], Any] = tuple
    """Lets go of what is on them, before a judge's weights are read."""


def prepare(judge: Chosen, evaluation: EvaluationConfig) -> AnyJudge:
    """The judge, ready to be asked; errors for all that can be known to fail."""
    return ServedJudge(judge) if judge.config.endpoint else JudgeModel(judge, evaluation)


def ask(model: AnyJudge, asked: Mapping[str, Question], chips: Chips, advance: Advance) -> Iterator[Answer]:
    """The judge's answer to each question, by its checksum, in the order in which they come.

    `advance` is called with the tokens of each. JaxSftError when the weights or the server cannot be had.
    """
    if isinstance(model, ServedJudge):
        yield from model.answers(asked, advance)
        return
    chips.free()
    settings = replace(
        model.evaluation, slots=model.config.slots or model.evaluation.slots, context=model.context
    )
    if model.page.kind == "score":
        yield from _scores(model, asked, chips, settings, advance)
    else:
        yield from _words(model, asked, chips, settings, advance)


def _scores(
    model: JudgeModel,
    asked: Mapping[str, Question],
    chips: Chips,
    settings: EvaluationConfig,
    advance: Advance,
) -> Iterator[Answer]:
    rewards = Rewards(model.model, settings, chips.mesh)
    rewards.load(_read(model, rewards))
    names = list(asked)
    shown = [model.show(asked[of]) for of in names]
    for number, score in rewards.score([one.prompts[0] for one in shown]):
        advance(len(shown[number].prompts[0]))
        yield names[number], (repr(score),), shown[number].cut


def _words(
    model: JudgeModel,
    asked: Mapping[str, Question],
    chips: Chips,
    settings: EvaluationConfig,
    advance: Advance,
) -> Iterator[Answer]:
    backend = chips.make_backend(model.model, settings, model.stops, chips.mesh)
    backend.load(jax.device_get(_read(model, backend)))  # by the host: the devices have room for one copy
    shown = {of: model.show(question) for of, question in asked.items()}
    requests = (
        Request(of, place, prompt, model.max_new_tokens)
        for of, one in shown.items()
        for place, prompt in enumerate(one.prompts)
    )
    waiting: dict[str, dict[int, str]] = {}
    for request, completion in backend.generate(requests):
        said = waiting.setdefault(request.id, {})
        said[request.sample] = model.tokenizer.decode(list(completion.tokens))
        if len(said) == len(shown[request.id].prompts):
            advance(completion.token_count)
            yield request.id, tuple(said[place] for place in sorted(said)), shown[request.id].cut
            del waiting[request.id]


def _read(model: JudgeModel, backend: Backend | Rewards) -> Params:
    return load_pretrained(model.spec, backend.abstract_params(), model.config.init_ignore)[1]
