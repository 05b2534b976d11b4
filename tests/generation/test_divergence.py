"""Divergence of two models on given text: exact, and nothing from itself."""

from functools import cache

import jax
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, ParallelismConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Given
from jax_sft.generation.divergence import Divergences
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows, logits
from jax_sft.packed import Rows
from jax_sft.sharding import make_mesh
from tests.generation.tiny import MODEL, params, placed


@cache
def comparer(devices: int = 1, tensor: int = 1, dtype: str = "float32") -> Divergences:
    mesh = make_mesh(ParallelismConfig(tensor=tensor), jax.devices()[:devices])
    compute = "float32" if dtype == "float32" else "bfloat16"
    return Divergences(MODEL, EvaluationConfig(score_tokens=128, compute_dtype=compute), mesh)


def questions() -> list[Given]:
    rng = np.random.default_rng(5)
    sizes = ((1, 3), (20, 1), (60, 40), (9, 120), (30, 30))
    drawn = [[tuple(rng.integers(0, MODEL.vocab_size, n).tolist()) for n in pair] for pair in sizes]
    return [Given(str(number), prompt, (after,)) for number, (prompt, after) in enumerate(drawn)]


def logprobs(weights: Params, given: Given) -> np.ndarray:
    """All log-probabilities in the places of the continuation, in float64."""
    tokens_1T = np.asarray((*given.prompt, *given.continuations[0][:-1]), np.int32)[None]
    where_1T = np.arange(tokens_1T.shape[1])[None]
    rows = Rows.to_read(tokens_1T, where_1T, np.ones_like(where_1T))
    all_TV = np.asarray(logits(weights, MODEL, forward_rows(weights, MODEL, rows))[0], np.float64)
    all_TV = all_TV[len(given.prompt) - 1 :]
    return all_TV - np.logaddexp.reduce(all_TV, axis=-1, keepdims=True)


@pytest.mark.parametrize(("devices", "tensor"), [(1, 1), (8, 2)])
def test_divergences_equal_those_of_whole_distributions(devices: int, tensor: int) -> None:
    found, asked = comparer(devices, tensor), questions()
    base = found.remember(placed(found, 0), asked)
    scored = dict(found.score(placed(found, 1), base, asked[::-1]))
    assert scored.keys() == set(asked)
    for given in asked:
        p, q = (logprobs(jax.tree.map(jax.numpy.asarray, params(seed)), given) for seed in (0, 1))
        assert scored[given].forward == pytest.approx((np.exp(p) * (p - q)).sum(), rel=1e-4)
        assert scored[given].reverse == pytest.approx((np.exp(q) * (q - p)).sum(), rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_not_apart_from_itself(dtype: str) -> None:
    found = comparer(8, 2, dtype)
    base = found.remember(placed(found), questions())
    assert all(apart == (0.0, 0.0) for _, apart in found.score(placed(found), base, questions()))


def test_models_are_compared_on_one_continuation() -> None:
    found = comparer()
    with pytest.raises(UsageError, match="item two: models are compared on one continuation"):
        found.remember(placed(found), [Given("two", (1,), ((2,), (3,)))])
