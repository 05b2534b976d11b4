"""Scores of imported reward models against transformers' ForSequenceClassification."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from jax_sft.config import EvaluationConfig, JudgeConfig, ParallelismConfig
from jax_sft.evaluation.judge_models import JudgeModel
from jax_sft.generation.rewards import Rewards
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Question
from jax_sft.judges.pages import get_page
from jax_sft.models.weights.read import load_pretrained
from jax_sft.sharding import make_mesh
from tests.evaluation.judges import REQUEST, RESPONSE, llama_scorer
from tests.oracle.test_logits import their_model
from tests.random_models import TOKENS_BT, random_tensors, scoring_config, write_model

pytestmark = pytest.mark.oracle
LENGTHS_B = (17, 24)


@pytest.mark.parametrize("number", [0, 2, 6, 8])
def test_scores_agree(number: int, tmp_path: Path, golden: Path, renew_golden: bool) -> None:
    raw = scoring_config(number)
    model = their_model(raw, random_tensors(raw))
    assert isinstance(model, getattr(transformers, raw["architectures"][0]))
    # Row by row, unpadded: dynamic rope scaling and padding in transformers depend on the other rows.
    wanted_B = []
    for row_T, length in zip(TOKENS_BT, LENGTHS_B, strict=True):
        model.config.pad_token_id = None
        with torch.no_grad():
            wanted_B.append(
                model(torch.from_numpy(row_T[None, :length].astype(np.int64))).logits[0, 0].item()
            )
    config, params = load_pretrained(str(write_model(tmp_path, raw)))
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    rewards = Rewards(config, EvaluationConfig(score_tokens=64, compute_dtype="float32"), mesh)
    rewards.load(params)
    texts = [row_T[:length].tolist() for row_T, length in zip(TOKENS_BT, LENGTHS_B, strict=True)]
    found_B = [score for _, score in sorted(rewards.score(texts))]
    np.testing.assert_allclose(found_B, wanted_B, atol=1e-4)
    path = golden / "scores.npz"
    stored = dict(np.load(path)) if path.exists() else {}
    if renew_golden:
        np.savez_compressed(path, **(stored | {str(number): np.asarray(wanted_B)}))
    np.testing.assert_allclose(np.load(path)[str(number)], wanted_B, atol=2e-5)


def test_a_judged_conversation_agrees(tmp_path: Path, golden: Path, renew_golden: bool) -> None:
    """Chat template, tokenizer and head as transformers has them, against the judge's page and prompt."""
    folder = llama_scorer(tmp_path / "judge")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=torch.float32)
    turns = [{"role": "user", "content": REQUEST}, {"role": "assistant", "content": RESPONSE}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    model.config.pad_token_id = None
    with torch.no_grad():
        wanted = model(ids).logits[0, 0].item()
    page = get_page("rm_rb2")
    judge = JudgeModel(Chosen(JudgeConfig("rm_rb2", model=str(folder)), page), EvaluationConfig())
    [prompt] = judge.show(Question(REQUEST, RESPONSE)).prompts
    assert list(prompt) == ids[0].tolist()
    if renew_golden:
        (golden / "judge_score.json").write_text(json.dumps({"score": wanted}) + "\n")
    np.testing.assert_allclose(
        json.loads((golden / "judge_score.json").read_text())["score"], wanted, atol=2e-5
    )
