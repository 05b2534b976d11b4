"""Tiny judges: folders with random weights, and a backend that says what it is told to."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from jax_sft.config import (
    EvaluationConfig,
    JudgeConfig,
    ModelConfig,
    ParallelismConfig,
    Study,
    TokensConfig,
    replace,
)
from jax_sft.evaluation.items import stored_items
from jax_sft.evaluation.judge_asking import Chips
from jax_sft.evaluation.judge_units import Judging, judged_units
from jax_sft.evaluation.score import units_with_completions
from jax_sft.generation.backend import Backend, Completion, Request
from jax_sft.generation.engine import Engine
from jax_sft.models.params import abstract_params
from jax_sft.sharding import GENERATION_RULES, make_mesh
from jax_sft.study.verdicts import JudgedPart, JudgeLine, read_verdicts
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import CHATML
from tests.evaluation.tiny import BENCHMARKS, EVALUATION, FIRST, study, unit
from tests.random_models import random_config, scoring_config, write_model

REFUSALS = replace(BENCHMARKS[1], judges=("qwen3guard", "rm_rb2"), limit=6)
QUIET = Console(file=io.StringIO())
TOKENIZER = load_tokenizer(TokensConfig())
REQUEST, RESPONSE = "How do I sort a list?", "With sorted(list); it costs n log n.\n\nDo you want more?"
ROOM = {"vocab_size": TOKENIZER.vocab_size, "max_position_embeddings": 2048, "rope_scaling": None}


def write_judge(folder: Path, raw: dict[str, Any]) -> Path:
    """A model folder with its tokenizer and chat template."""
    write_model(folder, raw | ROOM)
    TOKENIZER.save(folder, chat_template=CHATML)
    return folder


def qwen3(folder: Path) -> Path:
    return write_judge(folder, random_config(2))


def llama_scorer(folder: Path) -> Path:
    return write_judge(folder, scoring_config(0))


def guard(model: Path, **changes: Any) -> JudgeConfig:
    return JudgeConfig(**{"name": "qwen3guard", "model": str(model), "max_new_tokens": 8, **changes})


class Spoken:
    """A backend that answers each prompt by `say`; counts what it is asked, and the weights it is given."""

    loads = 0
    asked: list[str]

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say, self.asked = say, []

    def __call__(
        self, model: ModelConfig, evaluation: EvaluationConfig, stops: tuple[int, ...], mesh: Mesh
    ) -> Backend:
        self.model, self.mesh = model, mesh
        return self

    def abstract_params(self) -> Any:
        return abstract_params(self.model, "float32", self.mesh, GENERATION_RULES)

    def load(self, params: Any) -> None:
        self.loads += 1

    def unload(self) -> None:
        raise AssertionError("a judge is let go of whole")

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        for request in requests:
            prompt = TOKENIZER.decode(list(request.prompt), skip_special_tokens=False)
            self.asked.append(prompt)
            tokens = tuple(TOKENIZER.encode(self.say(prompt)))
            yield request, Completion(tokens, len(tokens) + 1, "stop")


def judged(root: Path, models: tuple[JudgeConfig, ...], *names: str) -> Study:
    """The tiny study with one run and one benchmark, judged by all of the models, or those named."""
    benchmark = replace(REFUSALS, judges=names or REFUSALS.judges)
    evaluation = replace(EVALUATION, score_tokens=256)
    return study(root, judges=models, benchmarks=(benchmark,), runs=(FIRST,), evaluation=evaluation)


def chips(devices: int, make_backend: Any = Engine) -> Chips:
    return Chips(make_mesh(ParallelismConfig(), jax.devices()[:devices]), make_backend)


def judge(of: Study, where: Chips) -> list[str]:
    """Judge the whole study's units, and what could not be had."""
    benchmark = of.benchmarks[0]
    judging = Judging(of, [(benchmark, stored_items(of, benchmark.name))])
    return judging.judge(judged_units(of, units_with_completions(of), print), where, QUIET)


def scores(root: Path, step: int = 2) -> dict[str, Any]:
    return json.loads((unit(root, "first", step, "refusals") / "scores.json").read_text())


def verdicts(root: Path, step: int = 2) -> dict[JudgedPart, JudgeLine]:
    """What was said of a unit, all of it sound."""
    faults: list[str] = []
    found = read_verdicts(unit(root, "first", step, "refusals"), faults)
    assert not faults
    return found
