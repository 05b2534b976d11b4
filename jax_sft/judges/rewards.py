"""Reward models: one number for a conversation, read at its last token; more is better, in no unit."""

import math
from collections.abc import Sequence
from typing import ClassVar

from jax_sft.judges.page import Conversation, Judge, Question, Reading, exchange


class _RewardModel(Judge):
    kind = "score"
    metrics: ClassVar = {"reward": True}
    headline = "reward"
    meaning = "mean reward of the responses; its scale is the model's own, so only differences mean something"

    def conversations(self, question: Question) -> tuple[Conversation, ...]:
        """The exchange itself, written by the model's own chat template."""
        return (exchange(question),)

    def read(self, outputs: Sequence[str]) -> Reading | None:
        """The number."""
        reward = float(outputs[0])
        return Reading({"reward": reward}, f"{reward:.2f}") if math.isfinite(reward) else None


class RewardBench2(_RewardModel):
    """The reward model of the paper's AlpacaEval column: a Llama 3.1 of 8B trained for RewardBench 2."""

    name = "rm_rb2"
    weights = "allenai/Llama-3.1-8B-Instruct-RM-RB2"
    size = "llama3.1-8b"
    official_for = ("alpaca_eval",)
    source = "huggingface.co/allenai/Llama-3.1-8B-Instruct-RM-RB2; arXiv 2506.01937"
    licence = "Llama 3.1 Community License; may be published as pickles only, then convert it once"


class Skywork(_RewardModel):
    """Skywork-Reward-V2, on Qwen3 (0.6B to 8B) or Llama 3 (1B to 8B)."""

    name = "skywork"
    weights = "Skywork/Skywork-Reward-V2-Qwen3-8B"
    size = "qwen3-8b"
    source = "huggingface.co/collections/Skywork/skywork-reward-v2; arXiv 2507.01352"
    licence = "Apache-2.0 on Qwen3; those on Llama have its community licence"
