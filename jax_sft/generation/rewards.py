"""Reward models and judges: one number for each conversation, from a decoder whose head is `score`.

Conversations are packed like training rows (`generation.texts`) and read by one compiled program for each
length of row. The weights are an argument, so that one judge after another of a shape is read the same way.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.texts import Call, Text, plan_calls
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows
from jax_sft.models.params import abstract_params
from jax_sft.packed import Rows
from jax_sft.sharding import BATCH_AXES, GENERATION_RULES, batch_sharding, shardings_of


class Rewards:
    """The compiled reader of a model with a `score` head, on any mesh of data axes and `tensor`."""

    def __init__(self, model: ModelConfig, evaluation: EvaluationConfig, mesh: Mesh) -> None:
        """Nothing is compiled yet. UsageError for a model whose head gives words and not a score."""
        if model.head != "score":
            raise UsageError("a reward model has a head of one output (ForSequenceClassification), not words")
        self.model, self.mesh = model, mesh
        self.compilations = 0
        """Programs compiled: one for each length of row that came up."""
        self._tokens = evaluation.score_tokens
        self._dtype = jnp.dtype(evaluation.compute_dtype)
        self._params: Params | None = None
        self._rows = batch_sharding(mesh)
        in_params = shardings_of(self.abstract_params())
        self._program = jax.jit(self._score, in_shardings=(in_params, self._rows), out_shardings=self._rows)

    def abstract_params(self) -> Params:
        """Shapes, types (the compute type) and shardings in which it takes weights."""
        return abstract_params(self.model, self._dtype, self.mesh, GENERATION_RULES)

    def load(self, params: Params) -> None:
        """Score with these weights from now on; they lie as `abstract_params` says."""
        self._params = params

    def score(self, texts: Iterable[Sequence[int]]) -> Iterator[tuple[int, float]]:
        """The score of each text (token ids) beside its number from 0, in the order in which they are read.

        It is read at the text's last token, as transformers' `ForSequenceClassification` does, and does not
        depend on which texts share its row. UsageError, before any is read, for one that is empty or holds
        tokens that the model does not know, and when no weights were loaded.
        """
        if self._params is None:
            raise UsageError("the reward model has no weights: load some first")
        asked = [Text.plain(tokens) for tokens in texts]
        for number, text in enumerate(asked):
            _check(text, number, self.model.vocab_size)
        return self._read(self._params, asked)

    def _read(self, params: Params, texts: list[Text]) -> Iterator[tuple[int, float]]:
        ways = self.mesh.shape[BATCH_AXES[0]] * self.mesh.shape[BATCH_AXES[1]]
        ahead: tuple[Call, jax.Array] | None = None
        for call in plan_calls([len(text.tokens) for text in texts], self._tokens, ways):
            laid, segments_RT = call.fill(texts)
            rows = Rows.to_read(laid.tokens, laid.positions, segments_RT)
            with jax.set_mesh(self.mesh):
                scores_RT = self._program(params, jax.device_put(rows, self._rows))
            if ahead is not None:  # read while the device works on the next
                yield from _scores(*ahead, texts)
            ahead = call, scores_RT
        if ahead is not None:
            yield from _scores(*ahead, texts)

    def _score(self, params: Params, rows: Rows) -> jax.Array:
        self.compilations += 1
        return score_tokens(params, self.model, rows, self._dtype)


def score_tokens(params: Params, config: ModelConfig, rows: Rows, dtype: Any = jnp.float32) -> jax.Array:
    """What the head makes of every token of packed rows, float32 [R, T]; a text is scored by its last."""
    hidden_RTD = forward_rows(params, config, rows, dtype)
    kernel_D1 = params["score"]["kernel"].astype(dtype)
    return jnp.matmul(hidden_RTD, kernel_D1, preferred_element_type=jnp.float32)[:, :, 0]


def _scores(call: Call, scores_RT: jax.Array, texts: Sequence[Text]) -> Iterator[tuple[int, float]]:
    """The scores of a call's texts; waits for the device."""
    scores = jax.device_get(scores_RT)
    for number, row, start in call.places:
        yield number, float(scores[row, start + len(texts[number].tokens) - 1])


def _check(text: Text, number: int, vocab_size: int) -> None:
    if not len(text.tokens):
        raise UsageError(f"text {number} to score is empty")
    if (highest := int(text.tokens.max())) >= vocab_size:
        raise UsageError(
            f"text {number} to score holds token {highest}, the model knows those below {vocab_size}: the "
            "tokenizer is not the model's"
        )
