"""A snapshot that answers turn after turn."""

from collections.abc import Callable

from etils import epath

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import EvaluationConfig, replace
from jax_sft.errors import UsageError
from jax_sft.evaluation.prompts import check_template
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.engine import Engine
from jax_sft.models.params import on_host
from jax_sft.responses.thinking import reopened
from jax_sft.sharding import make_generation_mesh
from jax_sft.study.folder import run_file
from jax_sft.study.load import load_study
from jax_sft.study.records import RunRecord
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.streaming import TextStream
from jax_sft.tokens.templates import Message, load_template

CHUNK = 8
"""Tokens between two looks: what comes at a time."""


class Speaker:
    """A snapshot that answers, with its own memory of the conversation."""

    def __init__(self, folder: epath.PathLike, step: int, context: int) -> None:
        """Reads the weights. UsageError or JaxSftError when run or snapshot cannot be had."""
        study = load_study(run_file(folder))
        run, record = study.runs[-1], RunRecord.read(folder)
        self.name, self.context = f"{run.name} @ {step}", context
        self._tokenizer = load_tokenizer(run.tokens)
        self._template = load_template(run.tokens, self._tokenizer)
        check_template(study, run, record, self._template.hash)
        self._opened = record is not None and record.opens_thinking
        shape = EvaluationConfig(slots=1, context=context, chunk=CHUNK, prefill_rows=1)
        evaluation = replace(shape, penalties=True, compute_dtype=run.compute_dtype)
        stops = stop_ids(self._tokenizer, self._template)
        self._engine = Engine(run.model, evaluation, stops, make_generation_mesh(1))
        self._engine.load(load_snapshot(folder, step, on_host(self._engine.abstract_params())))
        self.turns: list[Message] = []

    def answer(self, request: Request, seed: int, write: Callable[[str], None]) -> Completion:
        """Answer the turns so far, with the sampling, length and sample of `request`; `write` gets the text.

        UsageError when the conversation leaves no room in the context.
        """
        prompt = render_prompt(self._tokenizer, self._template, self.turns)
        room = self.context - len(prompt)
        if room < 1:
            raise UsageError(
                f"the conversation has {len(prompt)} tokens and fills the context of {self.context}; "
                "/reset it, or start with a larger --context"
            )
        stream = TextStream(self._tokenizer.decode)
        asked = replace(
            request,
            prompt=tuple(prompt.tolist()),
            max_new_tokens=min(request.max_new_tokens, room),
            loop_tokens=EvaluationConfig().loop_tokens,
            listen=lambda tokens: write(stream.add(tokens)),
        )
        [(_, completion)] = self._engine.generate([asked], seed)
        write(stream.close())
        text = self._tokenizer.decode(list(completion.tokens))
        text = reopened(text, completion.finish) if self._opened else text
        self.turns.append({"role": "assistant", "content": text})
        return completion
