"""Reward heads: scores equal those of transformers (renewed by `make oracle`); odd heads are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jax_sft.errors import UsageError
from jax_sft.generation.rewards import score_rows
from jax_sft.models.families import family_of, model_config_from_huggingface
from jax_sft.models.weights.read import load_pretrained
from tests.random_models import TOKENS_BT, random_config, scoring_config, write_model

LENGTHS_B = np.asarray([17, 24])


@pytest.mark.parametrize("number", [0, 2])
def test_scores_equal_those_of_transformers(number: int, tmp_path: Path, golden: Path) -> None:
    config, params = load_pretrained(str(write_model(tmp_path, scoring_config(number))))
    wanted_B = np.load(golden / "scores.npz")[str(number)]
    np.testing.assert_allclose(score_rows(params, config, TOKENS_BT, LENGTHS_B), wanted_B, atol=1e-4)
    other_BT = np.where(np.arange(24)[None] < LENGTHS_B[:, None], TOKENS_BT, 0)
    np.testing.assert_allclose(score_rows(params, config, other_BT, LENGTHS_B), wanted_B, atol=1e-4)


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
