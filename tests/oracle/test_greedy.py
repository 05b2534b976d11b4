"""Greedy completions of a real model by the engine, token by token beside transformers."""

import jax
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, TokensConfig
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.models.weights.read import load_pretrained
from jax_sft.sharding import make_generation_mesh
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from tests.oracle.test_logits import their_logits, their_smollm2

pytestmark = pytest.mark.oracle
QUESTIONS = (
    "What is {}?",
    "Explain {} to a child in two sentences.",
    "Write a short poem about {}.",
    "List three facts about {}.",
    "Why does {} matter?",
)
TOPICS = (
    "photosynthesis",
    "the square root of 144",
    "a lighthouse",
    "compound interest",
    "the Moon",
    "bread",
    "a prime number",
    "the Roman Empire",
    "recursion",
    "rain",
)
NEW_TOKENS = 64
TIE = 1e-3
"""Logits of float32 sums in another order differ by up to 1.4e-4 here; nearer than this is a tie."""


def test_smollm2_decodes_as_transformers_would() -> None:
    """Each token is the one of transformers' largest logit after the same tokens, up to ties."""
    config, params = load_pretrained("smollm2")
    tokenizer = load_tokenizer(TokensConfig(tokenizer="smollm2"))
    template = load_template(TokensConfig(tokenizer="smollm2"), tokenizer)
    asked = [question.format(topic) for question in QUESTIONS for topic in TOPICS]
    prompts = [
        tuple(render_prompt(tokenizer, template, [{"role": "user", "content": text}]).tolist())
        for text in asked
    ]
    evaluation = EvaluationConfig(slots=16, context=128, compute_dtype="float32", loop_tokens=0)
    stops = stop_ids(tokenizer, template)
    engine = Engine(config, evaluation, stops, make_generation_mesh(1, jax.devices()[:1]))
    engine.load(
        jax.tree.map(lambda x, leaf: jax.device_put(x, leaf.sharding), params, engine.abstract_params())
    )
    requests = [Request(str(n), 0, prompt, NEW_TOKENS) for n, prompt in enumerate(prompts)]
    model, ties, compared = their_smollm2(), 0, 0
    for request, completion in engine.generate(requests):
        tokens = np.array([*request.prompt, *completion.tokens])
        logits_TV = their_logits(model, tokens[None])[0, len(request.prompt) - 1 :]
        ended = completion.finish == "stop"
        chosen = [*completion.tokens, *([int(logits_TV[-1].argmax())] if ended else [])]
        assert not ended or chosen[-1] in stops, "it ended where transformers goes on"
        for step, (token, logits_V) in enumerate(zip(chosen, logits_TV, strict=False)):
            compared += 1
            gap = float(logits_V.max() - logits_V[token])
            if gap:
                ties += 1
                print(f"{asked[int(request.id)]!r}, token {step}: {gap:.1e} below the largest logit")
            assert gap <= TIE
    print(f"{compared} tokens, {ties} of them at a tie")
    assert compared > 40 * len(requests)
