"""Reward heads: scores equal those of transformers (renewed by `make oracle`); odd heads are refused."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, ModelConfig, ParallelismConfig, replace
from jax_sft.errors import UsageError
from jax_sft.generation.rewards import Rewards
from jax_sft.models import Params
from jax_sft.models.families import family_of, model_config_from_huggingface
from jax_sft.models.params import init_plain
from jax_sft.models.weights.read import load_pretrained
from jax_sft.sharding import make_mesh
from tests.generation.tiny import MODEL
from tests.random_models import TOKENS_BT, random_config, scoring_config, write_model

LENGTHS = (17, 24)
TEXTS = [tokens_T[:length].tolist() for tokens_T, length in zip(TOKENS_BT, LENGTHS, strict=True)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[ModelConfig, Params]]:
    """A Llama and a Qwen3 that give one score."""
    folder = tmp_path_factory.mktemp("models")
    return {
        number: load_pretrained(str(write_model(folder / str(number), scoring_config(number))))
        for number in (0, 2)
    }


def reader(model: tuple[ModelConfig, Params], devices: int = 1, tensor: int = 1) -> Rewards:
    """A reader of rows of at least 32 tokens, two on each device, with the model's weights in place."""
    config, params = model
    mesh = make_mesh(ParallelismConfig(tensor=tensor), jax.devices()[:devices])
    made = Rewards(config, EvaluationConfig(score_tokens=64, compute_dtype="float32"), mesh)
    made.load(jax.tree.map(lambda x, leaf: jax.device_put(x, leaf.sharding), params, made.abstract_params()))
    return made


@pytest.mark.parametrize("number", [0, 2])
def test_scores_equal_those_of_transformers(
    number: int, models: dict[int, tuple[ModelConfig, Params]], golden: Path
) -> None:
    """Each text many times, among others, in one order and in another."""
    wanted_B = np.load(golden / "scores.npz")[str(number)]
    scores, other = reader(models[number]), [[1] * length for length in (1, 5, 63, 30)]
    given = [TEXTS[0], *other, TEXTS[1], *other, *TEXTS * 5]
    for texts in (given, given[::-1]):
        found = dict(scores.score(texts))
        assert sorted(found) == list(range(len(texts)))
        for wanted, text in zip(wanted_B, TEXTS, strict=True):
            same = [found[place] for place, tokens in enumerate(texts) if tokens == text]
            assert len(same) == 6
            np.testing.assert_allclose(same, wanted, atol=1e-4)
    assert scores.compilations == 1


@pytest.mark.parametrize(("devices", "tensor"), [(8, 1), (8, 2)])
def test_scores_are_the_same_on_any_mesh(devices: int, tensor: int) -> None:
    """Texts longer than a call's tokens, too: they make longer rows."""
    config = replace(MODEL, head="score")
    model = config, init_plain(config, jax.random.key(0), "float32")
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, MODEL.vocab_size, length).tolist() for length in (1, 200, 64, 65, 7, 129, 30)]
    alone, many = (dict(reader(model, *mesh).score(texts)) for mesh in ((1, 1), (devices, tensor)))
    assert alone.keys() == many.keys() == set(range(len(texts)))
    np.testing.assert_allclose([many[n] for n in sorted(many)], [alone[n] for n in sorted(alone)], atol=1e-5)


def test_what_cannot_be_scored_is_named(models: dict[int, tuple[ModelConfig, Params]]) -> None:
    config, params = models[0]
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    empty = Rewards(config, EvaluationConfig(), mesh)
    with pytest.raises(UsageError, match="no weights"):
        empty.score([[1]])
    empty.load(params)
    with pytest.raises(UsageError, match="text 1 to score is empty"):
        empty.score([[1], []])
    with pytest.raises(UsageError, match=f"text 0 to score holds token 4000, .* below {config.vocab_size}"):
        empty.score([[4000]])
    with pytest.raises(UsageError, match="a head of one output"):
        Rewards(ModelConfig(), EvaluationConfig(), mesh)


def test_config_survives_a_round_trip() -> None:
    config = model_config_from_huggingface(scoring_config(2))
    assert config.head == "score"
    assert model_config_from_huggingface(family_of(config).write_config(config)) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id2label": None}, "num_labels is 2"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "num_labels is 3"),
        ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForTokenClassification"),
    ],
)
def test_other_heads_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        model_config_from_huggingface(scoring_config(0) | change)


def test_a_vocabulary_head_does_not_fit_a_score(tmp_path: Path) -> None:
    raw = scoring_config(0)
    tensors = write_model(tmp_path / "causal", random_config(0) | {"tie_word_embeddings": False})
    (tensors / "config.json").write_text((write_model(tmp_path / "score", raw) / "config.json").read_text())
    with pytest.raises(Exception, match=r"missing: score\.weight; unexpected: lm_head\.weight"):
        load_pretrained(str(tensors))
