"""All pages of judges, by name."""

from jax_sft.errors import UsageError
from jax_sft.judges.guards import LlamaGuard3, Qwen3Guard
from jax_sft.judges.harm import HarmBenchClassifier, HarmRubric, StrongReject
from jax_sft.judges.page import Judge
from jax_sft.judges.preference import Preference
from jax_sft.judges.rewards import RewardBench2, Skywork
from jax_sft.judges.truthful import TruthfulQAInfo, TruthfulQATruth

PAGES: dict[str, Judge] = {
    page.name: page
    for page in (
        Qwen3Guard(),
        LlamaGuard3(),
        HarmBenchClassifier(),
        HarmRubric(),
        StrongReject(),
        TruthfulQATruth(),
        TruthfulQAInfo(),
        RewardBench2(),
        Skywork(),
        Preference(),
    )
}


def get_page(name: str) -> Judge:
    """The page of that name; UsageError listing the names."""
    if name not in PAGES:
        raise UsageError(f"unknown judge {name!r}; known: {', '.join(PAGES)}")
    return PAGES[name]
