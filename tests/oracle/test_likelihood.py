"""Likelihoods of given continuations against transformers, which reads each after its prompt, alone."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from jax_sft.config import EvaluationConfig, ParallelismConfig
from jax_sft.generation.likelihood import Likelihoods
from jax_sft.models.weights.read import load_pretrained
from jax_sft.sharding import make_mesh
from tests.given import MODELS, questions
from tests.oracle.test_logits import their_model
from tests.random_models import random_config, random_tensors, write_model

pytestmark = pytest.mark.oracle


def their_logprobs(model: torch.nn.Module, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> list:
    """Log-probabilities of a continuation's tokens. What dynamic rope scaling remembers is undone first."""
    rope = model.model.rotary_emb
    rope.inv_freq, rope.max_seq_len_cached = rope.original_inv_freq, rope.original_max_seq_len
    ids = torch.tensor([[*prompt, *continuation[:-1]]])
    with torch.no_grad():
        logits_TV = model(ids).logits[0, len(prompt) - 1 :]
    found = torch.log_softmax(logits_TV, -1).gather(1, torch.tensor(continuation)[:, None])
    return found[:, 0].tolist()


@pytest.mark.parametrize("number", MODELS)
def test_likelihoods_agree(number: int, tmp_path: Path, golden: Path, renew_golden: bool) -> None:
    raw = random_config(number)
    model = their_model(raw, random_tensors(raw))
    wanted = [
        logprob
        for given in questions()
        for continuation in given.continuations
        for logprob in their_logprobs(model, given.prompt, continuation)
    ]
    config, params = load_pretrained(str(write_model(tmp_path, raw)))
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    scorer = Likelihoods(config, EvaluationConfig(score_tokens=128, compute_dtype="float32"), mesh)
    scorer.load(params)
    by_question = dict(scorer.score(questions()))
    found = [x for given in questions() for one in by_question[given] for x in one.logprobs]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    path = golden / "likelihoods.npz"
    stored = dict(np.load(path)) if path.exists() else {}
    if renew_golden:
        np.savez_compressed(path, **(stored | {str(number): np.asarray(wanted)}))
    np.testing.assert_allclose(np.load(path)[str(number)], wanted, atol=5e-6)
