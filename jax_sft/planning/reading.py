"""What likelihoods and judges that are models take on a slice: reading text, and judges' words after it.

By arithmetic, nothing is compiled: products at the chip's peak, weights and a judge's keys and values from
memory once for each call or token. A judge reads its prompt, the request and all of a completion that fits
its context, which is more than the answer after the thinking is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp

from jax_sft.config import EvaluationConfig, ModelConfig, Study
from jax_sft.errors import JaxSftError
from jax_sft.evaluation.judge_models import CONTEXT
from jax_sft.files import home
from jax_sft.judges.chosen import Chosen, judges_of
from jax_sft.judges.page import Question, prompt_text
from jax_sft.models.families import PRESETS
from jax_sft.models.size import model_size
from jax_sft.models.weights.read import pretrained_config
from jax_sft.planning.expected import CHARACTERS, BenchmarkWork, SweepWorkload
from jax_sft.planning.topologies import Topology
from jax_sft.tasks.likelihood import LikelihoodTask
from jax_sft.tasks.task import get_task

PREFILL_CHUNK = 256
"""Of a prompt, where the evaluation says nothing."""


@dataclass(frozen=True)
class Reading:
    """Text that one model reads for a snapshot, and what it says to it."""

    model: ModelConfig | None
    """None for the snapshot's own; a judge's else."""
    texts: float
    text_tokens: float
    """Of one, on the mean."""
    targets: float
    """Tokens of all texts that the output head is asked about."""
    new_tokens: int = 0
    """Of the answer to one, at most."""
    slots: int = 0
    """Answers at once; 0 for the evaluation's."""

    def seconds(self, model: ModelConfig, evaluation: EvaluationConfig, on: Topology) -> tuple[float, float]:
        """On a slice, when products and memory overlap and when they do not."""
        size, tokens, chip = model_size(model), self.texts * self.text_tokens, on.chip
        shards = on.devices // evaluation.tensor
        attention = 4.0 * model.num_layers * model.num_heads * model.head_dim * self.text_tokens / 2
        said = self.texts * self.new_tokens
        flops = (2.0 * size.body + attention) * tokens + 2.0 * size.head * self.targets
        flops += (2.0 * (size.body + size.head) + 2 * attention) * said
        at_once = float(evaluation.score_tokens)
        if said:
            at_once = evaluation.prefill_rows * (evaluation.prefill_chunk or PREFILL_CHUNK) / shards
        bytes_each = jnp.dtype(evaluation.compute_dtype).itemsize
        kept = 2 * model.num_layers * model.num_kv_heads * model.head_dim * self.text_tokens
        # Bytes of all devices together: each shard reads the weights for every call of its own.
        weights = (size.body + size.head) * bytes_each
        moved = weights * tokens / at_once
        moved += said * (weights * shards / max(self.slots or evaluation.slots, shards) + kept * bytes_each)
        compute, memory = flops / (on.chips * chip.peak_flops), moved / (on.chips * chip.hbm_bandwidth)
        return max(compute, memory), compute + memory


@dataclass(frozen=True)
class ReadingWork:
    """All that is read for the sweep of a snapshot, by what it is called in the plan."""

    of: Mapping[str, Reading]
    unpriced: tuple[str, ...] = ()
    """Judges of which nothing says how large they are, or which answer from an endpoint."""

    def seconds(
        self, model: ModelConfig, evaluation: EvaluationConfig, on: Topology
    ) -> dict[str, tuple[float, float]]:
        """By name; `model` is the snapshot's."""
        return {name: each.seconds(each.model or model, evaluation, on) for name, each in self.of.items()}


def reading_work(study: Study, work: SweepWorkload) -> ReadingWork:
    """What the study's likelihood benchmarks and judges read."""
    found: dict[str, Reading] = {}
    unpriced: list[str] = []
    for each in work.works:
        benchmark = each.benchmark
        if isinstance(get_task(benchmark.task), LikelihoodTask):
            targets = each.items * each.given_tokens
            found[benchmark.name] = Reading(None, each.items, each.prompt_tokens + each.given_tokens, targets)
            continue
        for judge in judges_of(study, benchmark):
            model = judge_model(judge)
            if model is None:
                unpriced.append(f"{judge.config.name} of {benchmark.name}")
            else:
                found[f"{benchmark.name} by {judge.config.name}"] = _judging(judge, model, each)
    return ReadingWork(found, tuple(unpriced))


def judge_model(judge: Chosen) -> ModelConfig | None:
    """The shape of a judge's model; None for one that answers elsewhere, or whose weights are not at hand."""
    config, page = judge.config, judge.page
    if config.endpoint:
        return None
    if not config.model:
        return PRESETS.get(page.size)
    try:
        at_hand = config.model == "smollm2" or home(config.model).exists()
        return pretrained_config(config.model, config.init_ignore) if at_hand else None
    except JaxSftError:
        return None


def _judging(judge: Chosen, model: ModelConfig, work: BenchmarkWork) -> Reading:
    config, page = judge.config, judge.page
    shown = page.conversations(Question("", ""))
    written = 0 if page.template in ("auto", "raw") else len(prompt_text(page.template))
    framing = written + sum(len(turn["content"]) for turns in shown for turn in turns) / len(shown)
    new_tokens = 0 if page.kind == "score" else config.max_new_tokens or page.max_new_tokens
    context = config.context or min(CONTEXT, model.max_positions)
    response = min(work.new_tokens, page.response_tokens or work.new_tokens)
    text = framing / CHARACTERS + work.prompt_tokens + (1 + page.compares) * response
    texts = work.completions * len(config.parts) * len(shown)
    return Reading(model, texts, min(text, context - new_tokens), 0.0, new_tokens, config.slots)
