"""What a run is asked: every benchmark's prompts, rendered once for all runs that read and write alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from jax_sft.config import BenchmarkConfig, Run, Study, TokensConfig
from jax_sft.errors import UsageError
from jax_sft.evaluation.likelihood import Questions, Reader, likelihood_task, questions
from jax_sft.study.folder import run_file, run_folder
from jax_sft.study.records import Item, RunRecord
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import Tokenizer

Prompts = dict[str, tuple[int, ...]]
"""Tokens of each item's prompt, by item id."""
Asked = Sequence[tuple[BenchmarkConfig, Sequence[Item]]]
"""The benchmarks of a sweep with their items."""


@dataclass(frozen=True)
class Voice:
    """How a run reads and writes: its tokenizer, and every benchmark's prompts in its template."""

    tokenizer: Tokenizer
    template_hash: str
    stops: tuple[int, ...]
    prompts: dict[str, Prompts]
    """By benchmark, of those that ask for completions."""
    questions: dict[str, Questions]
    """By benchmark, of those that ask for likelihoods."""


class Voices:
    """The voices of a sweep; runs with the same tokenizer and template share one."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._voices: dict[str, Voice] = {}

    def of(self, tokens: TokensConfig) -> Voice:
        """The voice of a run, by its tokens."""
        key = repr(tokens)
        if key not in self._voices:
            tokenizer = load_tokenizer(tokens)
            template = load_template(tokens, tokenizer)
            prompts: dict[str, Prompts] = {}
            asked: dict[str, Questions] = {}
            for b, items in self._asked:
                if task := likelihood_task(b):
                    asked[b.name] = questions(task, items, Reader(tokenizer, template, tokens.end))
                else:
                    prompts[b.name] = {
                        item.id: tuple(render_prompt(tokenizer, template, item.messages).tolist())
                        for item in items
                    }
            stops = stop_ids(tokenizer, template)
            self._voices[key] = Voice(tokenizer, template.hash, stops, prompts, asked)
        return self._voices[key]


def check_context(benchmark: BenchmarkConfig, prompts: Prompts, context: int) -> None:
    """UsageError unless the benchmark's longest prompt leaves room for its completion in `context` tokens."""
    if not prompts:
        return
    item, prompt = max(prompts.items(), key=lambda pair: len(pair[1]))
    need = len(prompt) + benchmark.max_new_tokens
    if need > context:
        raise UsageError(
            f"benchmark {benchmark.name}: item {item!r} has a prompt of {len(prompt)} tokens, "
            f"which with max_new_tokens {benchmark.max_new_tokens} does not fit "
            f"evaluation.context {context}; raise it to {need} or lower max_new_tokens"
        )


def check_voice(study: Study, run: Run, record: RunRecord | None, voice: Voice) -> None:
    """UsageError unless the run can read what it is asked: by the template it learnt, in tokens it knows."""
    check_template(study, run, record, voice.template_hash)
    voice.tokenizer.check_fits(run.model.vocab_size, f"run {run.name}")


def check_template(study: Study, run: Run, record: RunRecord | None, template_hash: str) -> None:
    """UsageError unless the run was trained with the chat template of that hash."""
    if record is None or record.template_hash != template_hash:
        raise UsageError(
            f"run {run.name}: its chat template is not the one that it was trained with, by "
            f"{run_file(run_folder(study, run.name))}; restore tokens.template and its options, or "
            "train the run again under another name"
        )
