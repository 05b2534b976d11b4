"""Questions of likelihood that the oracle and its golden numbers are about."""

import numpy as np

from jax_sft.generation.backend import Given

MODELS = (0, 1, 2, 3)
"""Numbers of `random_models.random_config`: a Llama, a Qwen2, a Qwen3 and an InternLM2."""


def questions() -> list[Given]:
    """Prompts of 1 to 20 tokens, each with three continuations of 1 to 9."""
    rng = np.random.default_rng(11)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, 61, length).tolist())

    return [
        Given(str(number), draw(length), tuple(draw(int(n)) for n in rng.integers(1, 10, 3)))
        for number, length in enumerate((1, 2, 5, 20))
    ]
