"""Penalties and log-probabilities through the engine, against a whole forward pass for every token."""

import numpy as np
import pytest
import scipy.special

from jax_sft.config import EvaluationConfig, Sampling
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.sharding import make_generation_mesh
from tests.generation.tiny import (
    CONTEXT,
    MODEL,
    STOPS,
    engine,
    generate,
    mixed_requests,
    next_logits,
    params,
    placed,
    prompts,
)

GREEDY = [
    Sampling(),
    Sampling(presence_penalty=2.0),
    Sampling(frequency_penalty=1.5),
    Sampling(presence_penalty=-1.0, frequency_penalty=-0.5),
    Sampling(presence_penalty=0.5, frequency_penalty=0.25),
]


def naive(request: Request) -> tuple[list[int], list[float]]:
    """Its greedy tokens, the stop token among them, and their log-probabilities; all in numpy but logits."""
    tokens, logprobs, counts_V = list(request.prompt), list[float](), np.zeros(MODEL.vocab_size)
    while len(logprobs) < request.max_new_tokens:
        row = np.zeros((1, CONTEXT + 1), np.int32)
        row[0, : len(tokens)] = tokens
        logits_V = np.asarray(next_logits(params(), row, np.array([len(tokens)]), CONTEXT + 1))[0]
        less_V = request.sampling.presence_penalty * (counts_V > 0)
        less_V += request.sampling.frequency_penalty * counts_V
        token = int(np.argmax(logits_V - less_V))
        tokens.append(token)
        logprobs.append(float(scipy.special.log_softmax(logits_V.astype(np.float64))[token]))
        counts_V[token] += 1
        if token in STOPS:
            break
    return tokens[len(request.prompt) :], logprobs


def test_penalised_completions_and_their_log_probabilities() -> None:
    """More requests than slots, so that counts of a sequence that ended must not reach the next."""
    requests = [
        Request(f"{number}", 0, prompts()[1 + number % 4], 25, setting, logprobs=number % 3 != 1)
        for number, setting in enumerate(GREEDY * 2)
    ]
    got = generate(engine(), requests)
    for request in requests:
        tokens, logprobs = naive(request)
        found = got[request.id, 0]
        assert found.tokens == tuple(tokens[:-1] if tokens[-1] in STOPS else tokens)
        assert found.logprobs == pytest.approx(logprobs if request.logprobs else [], abs=1e-5)
    assert len({one.tokens for one in got.values()}) > 5, "penalties change completions"


def test_neighbours_with_penalties_or_log_probabilities_change_nothing() -> None:
    plain = mixed_requests()
    want = generate(engine(), plain)
    asked = [Request(f"{n}", 0, prompts()[2], 30, setting, True) for n, setting in enumerate(GREEDY)]
    got = generate(engine(), [*asked, *plain])
    assert {key: one for key, one in got.items() if key in want} == want


def test_penalties_without_their_counts_are_refused() -> None:
    fresh = Engine(MODEL, EvaluationConfig(slots=2, context=CONTEXT), STOPS, make_generation_mesh(1))
    fresh.load(placed(fresh))
    with pytest.raises(UsageError, match=r"item a: penalties need evaluation.penalties; set it to True"):
        fresh.generate([Request("a", 0, (1, 2), 4, Sampling(presence_penalty=0.5))])
