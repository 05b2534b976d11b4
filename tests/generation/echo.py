"""The skeleton of a backend: it answers with its prompt, and then with what it read from the weights."""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.schedule import check
from jax_sft.models import Params
from jax_sft.models.params import abstract_params
from jax_sft.sharding import GENERATION_RULES


class Echo:
    """Answers each request at once."""

    def __init__(
        self, model: ModelConfig, evaluation: EvaluationConfig, stop_ids: tuple[int, ...], mesh: Mesh
    ) -> None:
        self.model, self.evaluation, self.mesh = model, evaluation, mesh

    def abstract_params(self) -> Params:
        return abstract_params(self.model, jnp.bfloat16, self.mesh, GENERATION_RULES)

    def load(self, params: Params) -> None:
        weight = jax.device_get(params["final_norm"]["scale"])[0]
        self.mark = int(abs(weight) * 1000) % self.model.vocab_size

    def unload(self) -> None:
        self.mark = -1

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        asked = list(requests)
        for request in asked:
            check(request, self.evaluation.context, self.model.vocab_size)
        return ((request, self._answer(request)) for request in asked)

    def _answer(self, request: Request) -> Completion:
        tokens = (*request.prompt, self.mark)[-request.max_new_tokens :]
        return Completion(tokens, len(tokens) + 1, "stop")
