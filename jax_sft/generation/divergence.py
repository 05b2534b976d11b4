"""How far a model is from another on given text: KL between their next-token distributions, exactly.

Two sets of weights are never held at once. Of the model that others are compared with, the final hidden
states of the tokens asked about are kept on the host (tokens x width, in the compute type), and its head on
the devices: its whole distribution follows from these, tile by tile of the vocabulary. The probabilities
themselves would be vocabulary / width times as many numbers, and the likeliest few of them not exact.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Given
from jax_sft.generation.likelihood import check_given
from jax_sft.generation.texts import Call, Text, plan_calls
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows, head_kernel
from jax_sft.models.likelihood import divergences
from jax_sft.models.params import abstract_params
from jax_sft.packed import Rows
from jax_sft.sharding import BATCH_AXES, GENERATION_RULES, batch_sharding, shardings_of


class Diverged(NamedTuple):
    """Sums over a continuation's tokens, in nats."""

    forward: float
    """KL(base || model)."""
    reverse: float
    """KL(model || base)."""


class Base(NamedTuple):
    """What is kept of the model that others are compared with."""

    hidden: dict[str, np.ndarray]
    """By id of the question, the final hidden states [tokens asked, D]."""
    kernel_DV: jax.Array


class Divergences:
    """Compiled comparison with a base for one model shape, on any mesh of data axes and `tensor`."""

    def __init__(self, model: ModelConfig, evaluation: EvaluationConfig, mesh: Mesh) -> None:
        """Nothing is compiled yet."""
        self.model, self.mesh = model, mesh
        self._tokens = evaluation.score_tokens
        self._dtype = jnp.dtype(evaluation.compute_dtype)
        self._rows = batch_sharding(mesh)
        in_params = shardings_of(self.abstract_params())
        self._hidden = jax.jit(
            lambda params, rows: forward_rows(params, model, rows, self._dtype),
            in_shardings=(in_params, self._rows),
            out_shardings=self._rows,
        )
        # A copy: the base's weights are let go.
        self._kernel = jax.jit(lambda params: jnp.copy(head_kernel(params, model).astype(self._dtype)))
        self._diverge = jax.jit(divergences)

    def abstract_params(self) -> Params:
        """Shapes, types (the compute type) and shardings in which it takes weights."""
        return abstract_params(self.model, self._dtype, self.mesh, GENERATION_RULES)

    def remember(self, params: Params, given: Iterable[Given]) -> Base:
        """What others are compared with on these questions, each of one continuation and an id of its own."""
        asked, texts = self._texts(given)
        hidden: dict[str, np.ndarray] = {}
        for call in self._calls(texts):
            with jax.set_mesh(self.mesh):
                hidden_RTD = self._hidden(params, self._put(call, texts)[0])
            host_RTD = jax.device_get(hidden_RTD)
            for number, row, start in call.places:
                places = start + np.flatnonzero(texts[number].targets >= 0)
                hidden[asked[number].id] = host_RTD[row, places]
        with jax.set_mesh(self.mesh):
            return Base(hidden, self._kernel(params))

    def score(self, params: Params, base: Base, given: Iterable[Given]) -> Iterator[tuple[Given, Diverged]]:
        """Each question, all of which the base was asked, with how far the model is from it there."""
        asked, texts = self._texts(given)
        with jax.set_mesh(self.mesh):
            kernel_DV = self._kernel(params)
        for call in self._calls(texts):
            base_RTD = np.zeros((*call.shape, self.model.hidden_size), self._dtype)
            for number, row, start in call.places:
                places = start + np.flatnonzero(texts[number].targets >= 0)
                base_RTD[row, places] = base.hidden[asked[number].id]
            rows, asked_RT = self._put(call, texts)
            with jax.set_mesh(self.mesh):
                hidden = jax.device_put(base_RTD, self._rows), self._hidden(params, rows)
                found = self._diverge(hidden, (base.kernel_DV, kernel_DV), asked_RT)
            forward_RT, reverse_RT = jax.device_get(found)
            for number, row, start in call.places:
                span = slice(start, start + len(texts[number].tokens))
                sums = (float(x_RT[row, span].sum(dtype=np.float64)) for x_RT in (forward_RT, reverse_RT))
                yield asked[number], Diverged(*sums)

    def _texts(self, given: Iterable[Given]) -> tuple[list[Given], list[Text]]:
        asked = list(given)
        for question in asked:
            check_given(question, self.model.vocab_size)
            if len(question.continuations) != 1:
                raise UsageError(f"item {question.id}: models are compared on one continuation at a time")
        return asked, [Text.followed(one.prompt, one.continuations[0]) for one in asked]

    def _calls(self, texts: Sequence[Text]) -> Iterator[Call]:
        ways = self.mesh.shape[BATCH_AXES[0]] * self.mesh.shape[BATCH_AXES[1]]
        return plan_calls([len(text.tokens) for text in texts], self._tokens, ways)

    def _put(self, call: Call, texts: Sequence[Text]) -> tuple[Rows, jax.Array]:
        """A call's rows on the devices, and where something is asked."""
        laid, segments_RT = call.fill(texts)
        rows = Rows.to_read(laid.tokens, laid.positions, segments_RT)
        return jax.device_put((rows, laid.targets >= 0), self._rows)
