"""Likelihoods of given text equal those of a plain forward pass over one text at a time."""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, ModelConfig, ParallelismConfig, RopeScaling, replace
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Given
from jax_sft.generation.likelihood import Likelihoods
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows, logits
from jax_sft.models.weights.read import load_pretrained
from jax_sft.packed import Rows
from jax_sft.sharding import make_mesh
from tests.generation.tiny import MODEL, params, placed
from tests.given import MODELS
from tests.given import questions as golden_questions
from tests.random_models import random_config, write_model

SCALED = replace(MODEL, max_positions=16, rope_scaling=RopeScaling("dynamic", 2.0))


@cache
def scorer(devices: int = 1, tensor: int = 1, model: ModelConfig = MODEL, tokens: int = 128) -> Likelihoods:
    """A scorer with the tiny weights in place, shared by the tests of a process."""
    mesh = make_mesh(ParallelismConfig(tensor=tensor), jax.devices()[:devices])
    made = Likelihoods(model, EvaluationConfig(score_tokens=tokens, compute_dtype="float32"), mesh)
    made.load(placed(made))
    return made


def questions() -> list[Given]:
    """Prompts of 1 to 200 tokens, each with 1 to 6 continuations of 1 to 20."""
    rng = np.random.default_rng(3)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, MODEL.vocab_size, length).tolist())

    made = []
    for number, length in enumerate((1, 2, 30, 31, 32, 33, 60, 9, 1, 100, 127, 128, 200, 15)):
        counts = rng.integers(1, 21, 1 + number % 6)
        made.append(Given(f"item {number}", draw(length), tuple(draw(int(count)) for count in counts)))
    return made


@partial(jax.jit, static_argnums=3)
def _all_logprobs(weights: Params, tokens_1T: jax.Array, length: int, model: ModelConfig) -> jax.Array:
    positions_1T = jnp.arange(tokens_1T.shape[1])[None]
    rows = Rows.to_read(tokens_1T, positions_1T, (positions_1T < length).astype(jnp.int32))
    logits_TV = logits(weights, model, forward_rows(weights, model, rows)[0])
    return jax.nn.log_softmax(logits_TV, axis=-1)


@cache
def plain_logprobs(prompt: tuple[int, ...], continuation: tuple[int, ...], model: ModelConfig) -> np.ndarray:
    """Log-probabilities of all tokens in the place of each of the continuation's, by a whole forward pass."""
    tokens = (*prompt, *continuation[:-1])
    tokens_1T = np.zeros((1, 256), np.int32)
    tokens_1T[0, : len(tokens)] = tokens
    return np.asarray(_all_logprobs(params(), tokens_1T, len(tokens), model))[len(prompt) - 1 : len(tokens)]


def check_against_plain(found: Likelihoods, model: ModelConfig = MODEL) -> None:
    asked = questions()
    scored = {given.id: values for given, values in found.score(asked)}
    assert scored.keys() == {given.id for given in asked}
    for given in asked:
        assert len(scored[given.id]) == len(given.continuations)
        for continuation, value in zip(given.continuations, scored[given.id], strict=True):
            logprobs_TV = plain_logprobs(given.prompt, continuation, model)
            wanted_T = logprobs_TV[np.arange(len(continuation)), list(continuation)]
            np.testing.assert_allclose(value.logprobs, wanted_T, atol=1e-5, rtol=2e-6)
            assert value.greedy == (logprobs_TV.argmax(-1) == np.asarray(continuation)).all()


@pytest.mark.parametrize(("devices", "tensor"), [(1, 1), (8, 2)])
def test_likelihoods_equal_those_of_a_whole_forward_pass(devices: int, tensor: int) -> None:
    check_against_plain(scorer(devices, tensor))


@pytest.mark.parametrize("number", MODELS)
def test_likelihoods_equal_those_of_transformers(number: int, tmp_path: Path, golden: Path) -> None:
    """Of small models of each family; renewed by `make oracle`."""
    config, weights = load_pretrained(str(write_model(tmp_path, random_config(number))))
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    found = Likelihoods(config, EvaluationConfig(score_tokens=128, compute_dtype="float32"), mesh)
    found.load(weights)
    scored = dict(found.score(golden_questions()))
    logprobs = [x for given in golden_questions() for one in scored[given] for x in one.logprobs]
    np.testing.assert_allclose(logprobs, np.load(golden / "likelihoods.npz")[str(number)], atol=1e-5)


def test_with_dynamic_rope_each_continuation_has_a_prompt_of_its_own() -> None:
    found = scorer(model=SCALED)
    assert not found.share_prompts
    check_against_plain(found, SCALED)


def test_shared_prompts_change_nothing_but_the_tokens_read(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = scorer()
    together = dict(shared.score(questions()))
    monkeypatch.setattr(shared, "share_prompts", False)
    apart = dict(shared.score(questions()))
    for given, values in together.items():
        for a, b in zip(values, apart[given], strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5, rtol=2e-6)
            assert a.greedy == b.greedy


def test_greedy_continuations_are_found_out() -> None:
    """Those that the model would write, and the same with one token changed."""
    prompt, written = (5, 9, 2), ()
    for _ in range(6):
        written += (int(plain_logprobs(prompt + written, (0,), MODEL)[0].argmax()),)
    others = [(*written[:at], (written[at] + 1) % MODEL.vocab_size, *written[at + 1 :]) for at in (0, 3, 5)]
    [(_, values)] = scorer().score([Given("greedy", prompt, (written, *others, written[:2]))])
    assert [value.greedy for value in values] == [True, False, False, False, True]


def test_neighbours_and_order_change_nothing_beyond_rounding() -> None:
    asked = questions()
    whole, reverse = dict(scorer().score(asked)), dict(scorer().score(asked[::-1]))
    for given in asked:
        [(_, alone)] = scorer().score([given])
        for values in (whole[given], reverse[given]):
            for a, b in zip(values, alone, strict=True):
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5, rtol=2e-6)


def test_one_program_for_each_length_of_row_whatever_the_weights() -> None:
    fresh = scorer.__wrapped__()
    for seed in range(3):
        fresh.load(placed(fresh, seed))
        assert len(list(fresh.score(questions()))) == len(questions())
    # Rows of 128 and 256 tokens, with branches and without.
    assert fresh.compilations == 4


def test_what_cannot_be_asked_is_named() -> None:
    found = scorer()
    with pytest.raises(UsageError, match="item a: its prompt is empty"):
        found.score([Given("a", (), ((1,),))])
    for continuations in ((), ((1,), ())):
        with pytest.raises(UsageError, match=r"item b: a continuation .* is empty"):
            found.score([Given("b", (1,), continuations)])
    with pytest.raises(UsageError, match="item c: holds token 96, the model knows those below 96"):
        found.score([Given("c", (1,), ((95, 96),))])
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    with pytest.raises(UsageError, match="no weights"):
        Likelihoods(MODEL, EvaluationConfig(), mesh).score([])
    with pytest.raises(UsageError, match="a model with a vocabulary"):
        Likelihoods(replace(MODEL, head="score"), EvaluationConfig(), mesh)
